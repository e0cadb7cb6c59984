//! Reads any bytes as a catalogue in SkyPilot's layout: as they are, and as rows below the usual
//! column names. No row may be counted twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offers_gateway::domain::skypilot;

const COLUMNS: &[u8] =
    b"InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region\n";

fuzz_target!(|bytes: &[u8]| {
    for text in [bytes.to_vec(), [COLUMNS, bytes].concat()] {
        if let Ok(snapshot) = skypilot::read("cloud", "vms.csv", &text) {
            let intake = snapshot.intake();
            assert!(intake.skipped_rows() + intake.repeated <= intake.rows);
        }
    }
});
