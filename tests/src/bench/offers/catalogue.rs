//! Synthetic catalogues in SkyPilot's CSV layout: the same rows in every run.

use std::fs;
use std::path::Path;

/// The clouds, each a backend.
pub(super) const BACKENDS: [&str; 9] = [
    "alder", "beech", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak",
];
/// The places of each cloud at most: three zones in each of 24 regions.
const PLACES: usize = 72;
const ZONES: usize = 3;
/// The machine types that each place has at least, so that it has every accelerator.
const MACHINES: usize = 150;
/// Name, MiB of each, and about what one costs an hour in cents.
const GPUS: [(&str, u32, u32); 12] = [
    ("T4", 16_384, 35),
    ("L4", 24_576, 70),
    ("A10", 24_576, 90),
    ("V100", 16_384, 120),
    ("A100", 40_960, 180),
    ("A100-80GB", 81_920, 240),
    ("L40S", 49_152, 150),
    ("H100", 81_920, 420),
    ("H200", 144_384, 520),
    ("RTX4090", 24_576, 55),
    ("MI300X", 196_608, 400),
    ("B200", 184_320, 700),
];
const COUNTS: [u32; 4] = [1, 2, 4, 8];
/// What of a price the least, in thousandths, and by how much it differs from place to place.
const CHEAPEST: u32 = 800;
const SPREAD: u32 = 400;

const COLUMNS: [&str; 10] = [
    "InstanceType",
    "AcceleratorName",
    "AcceleratorCount",
    "vCPUs",
    "MemoryGiB",
    "GpuInfo",
    "Price",
    "SpotPrice",
    "Region",
    "AvailabilityZone",
];

/// How many offers the rows make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) offers: usize,
    /// With 8 H100.
    pub(super) selective: usize,
    /// With any accelerator.
    pub(super) broad: usize,
}

/// Writes `rows` rows in all, as `vms.csv` in a folder for each backend.
pub(super) fn write(folder: &Path, rows: usize) -> anyhow::Result<Expected> {
    let mut expected = Expected::default();
    for (number, backend) in BACKENDS.iter().enumerate() {
        let own = folder.join(backend);
        fs::create_dir_all(&own)?;
        let share = rows / BACKENDS.len() + usize::from(number < rows % BACKENDS.len());
        let mut file = csv::Writer::from_path(own.join("vms.csv"))?;
        file.write_record(COLUMNS)?;
        let places = (share / MACHINES).clamp(1, PLACES);
        for row in (0..share).map(|n| Row::new(number, n, places)) {
            file.write_record(row.cells())?;
            row.count(&mut expected);
        }
        file.flush()?;
    }
    Ok(expected)
}

/// A machine type in a zone.
struct Row {
    backend: usize,
    zone: usize,
    region: usize,
    machine: usize,
    /// In thousandths of the usual price.
    factor: u32,
    has_spot: bool,
}

impl Row {
    fn new(backend: usize, number: usize, places: usize) -> Self {
        let place = number % places;
        let mixed = mix(backend, number);
        Self {
            backend,
            region: place / ZONES,
            zone: place % ZONES,
            machine: number / places,
            factor: CHEAPEST + mixed % SPREAD,
            has_spot: !mixed.is_multiple_of(3),
        }
    }

    /// The accelerator and how many; the machines without are one in four, and all beyond the table.
    fn gpu(&self) -> Option<(usize, u32)> {
        let number = self.machine - self.machine / 4;
        let with = self.machine % 4 != 3 && number < GPUS.len() * COUNTS.len();
        with.then(|| (number / COUNTS.len(), COUNTS[number % COUNTS.len()]))
    }

    fn count(&self, expected: &mut Expected) {
        let offers = 1 + usize::from(self.has_spot);
        expected.offers += offers;
        let Some((gpu, count)) = self.gpu() else {
            return;
        };
        expected.broad += offers;
        if GPUS[gpu].0 == "H100" && count == 8 {
            expected.selective += offers;
        }
    }

    fn cells(&self) -> [String; 10] {
        let size = self.machine % 97;
        let (cpus, mut cents) = (4 + size, 10.0 + 3.0 * size as f64);
        let (mut name, mut count, mut info) = (String::new(), String::new(), String::new());
        if let Some((gpu, number)) = self.gpu() {
            let (gpu, mib, each) = GPUS[gpu];
            cents += f64::from(each * number);
            (name, count) = (gpu.to_owned(), number.to_string());
            info = gpu_info(gpu, number, mib);
        }
        let price = cents * f64::from(self.factor) / 1e5;
        let spot = self.has_spot.then(|| format!("{:.4}", price * 0.4));
        let region = format!("region-{:02}", self.region);
        [
            format!("{}-m{}", BACKENDS[self.backend], self.machine),
            name,
            count,
            cpus.to_string(),
            (cpus * 4).to_string(),
            info,
            format!("{price:.4}"),
            spot.unwrap_or_default(),
            region.clone(),
            format!("{region}{}", ["a", "b", "c"][self.zone]),
        ]
    }
}

fn gpu_info(name: &str, count: u32, mib: u32) -> String {
    let total = count * mib;
    format!(
        "{{'Gpus': [{{'Name': '{name}', 'Manufacturer': '', 'Count': {count}.0, \
         'MemoryInfo': {{'SizeInMiB': {mib}}}}}], 'TotalGpuMemoryInMiB': {total}}}"
    )
}

/// The same numbers for the same row, in no order.
fn mix(backend: usize, number: usize) -> u32 {
    let mut state = (backend as u64) << 32 | number as u64;
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from(state >> 40).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_many_as_asked_for_and_all_different() {
        let folder = tempfile::tempdir().unwrap();
        let expected = write(folder.path(), 10_000).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        let mut offers = 0;
        for backend in BACKENDS {
            let mut file =
                csv::Reader::from_path(folder.path().join(backend).join("vms.csv")).unwrap();
            for row in file.records() {
                let row = row.unwrap();
                offers += 1 + usize::from(!row[7].is_empty());
                assert!(
                    ids.insert((row[0].to_owned(), row[9].to_owned())),
                    "{row:?}"
                );
            }
        }
        assert_eq!((ids.len(), offers), (10_000, expected.offers));
    }

    #[test]
    fn every_size_has_what_is_asked_for() {
        for (rows, selective) in [(5_000, 40), (100_000, 1_000)] {
            let folder = tempfile::tempdir().unwrap();
            let expected = write(folder.path(), rows).unwrap();
            assert!(expected.selective > selective, "{expected:?}");
            assert!(expected.broad > rows / 3, "{expected:?}");
            assert!(expected.offers > rows, "{expected:?}");
        }
    }
}
