//! Reads any bytes as a catalogue in gpuhunt's layout: as they are, and as rows below the usual
//! column names. Every row is an offer, repeated or skipped.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offers_gateway::domain::gpuhunt;

const COLUMNS: &[u8] = b"instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,provider_data\n";

fuzz_target!(|bytes: &[u8]| {
    for text in [bytes.to_vec(), [COLUMNS, bytes].concat()] {
        if let Ok(snapshot) = gpuhunt::read("cloud", "cloud.csv", &text) {
            let intake = snapshot.intake();
            let left = intake.rows - intake.skipped_rows() - intake.repeated;
            assert_eq!(snapshot.len(), left as usize);
        }
    }
});
