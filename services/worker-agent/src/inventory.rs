//! What this machine has: processors, memory, disk and accelerators. It decides nothing; where
//! something cannot be read it is left out, and said.

use std::fs;
use std::path::Path;

use muster_model::gpu;
use muster_model::requirements::GpuRequest;
use muster_proto::types::v1::{CpuArchitecture, Gpu, GpuVendor, MachineCapacity};

use crate::config::Config;

/// What the identifiers of accelerators begin with that are not there.
pub const SIMULATED: &str = "GPU-simulated-";

/// Reads what the machine has beside `gpus`; its data folder is on the disk that replicas use.
pub(crate) fn read(config: &Config, gpus: Vec<Gpu>) -> MachineCapacity {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    MachineCapacity {
        gpus: match &config.simulated_gpus {
            Some(declared) => simulated(&config.name, declared),
            None => gpus,
        },
        cpu_milli: i32::try_from(cpus.saturating_mul(1000)).unwrap_or(i32::MAX),
        memory_mib: memory_mib(),
        disk_mib: disk_mib(&config.data),
        architecture: architecture().into(),
    }
}

fn architecture() -> CpuArchitecture {
    match std::env::consts::ARCH {
        "x86_64" => CpuArchitecture::X8664,
        "aarch64" => CpuArchitecture::Arm64,
        _ => CpuArchitecture::Unspecified,
    }
}

/// Main memory in MiB; 0 where it cannot be read.
fn memory_mib() -> i32 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo_kib(&text, "MemTotal").unwrap_or(0);
    i32::try_from(kib / 1024).unwrap_or(i32::MAX)
}

/// A figure of `/proc/meminfo`, in KiB.
fn meminfo_kib(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Memory in use in MiB, as far as it could not be had back; absent where it cannot be read.
pub fn memory_used_mib() -> Option<i32> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let used = meminfo_kib(&text, "MemTotal")?.checked_sub(meminfo_kib(&text, "MemAvailable")?)?;
    i32::try_from(used / 1024).ok()
}

/// The size of the disk that holds `path`, in MiB; 0 where it cannot be read.
fn disk_mib(path: &Path) -> i32 {
    let bytes =
        rustix::fs::statvfs(path).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
    i32::try_from(bytes >> 20).unwrap_or(i32::MAX)
}

/// Accelerators that are declared and not there, for the worker `name`.
fn simulated(name: &str, declared: &GpuRequest) -> Vec<Gpu> {
    let count = declared.count.min.unwrap_or(1);
    let Some(canonical) = declared.names.first() else {
        return Vec::new();
    };
    let (canonical, memory) = gpu::identify(canonical.as_str(), declared.memory_mib.min);
    (0..count)
        .map(|index| Gpu {
            uuid: format!("{SIMULATED}{name}-{index}"),
            name: canonical.as_str().to_owned(),
            vendor: canonical
                .vendor()
                .map_or(GpuVendor::Unspecified, vendor)
                .into(),
            memory_mib: memory.and_then(|mib| i32::try_from(mib).ok()).unwrap_or(0),
            product_name: format!("{canonical} (simulated)"),
            compute_capability: canonical
                .compute_capability()
                .map(|capability| capability.to_string())
                .unwrap_or_default(),
            simulated: true,
        })
        .collect()
}

fn vendor(vendor: gpu::Vendor) -> GpuVendor {
    match vendor {
        gpu::Vendor::Nvidia => GpuVendor::Nvidia,
        gpu::Vendor::Amd => GpuVendor::Amd,
        gpu::Vendor::Intel => GpuVendor::Intel,
        gpu::Vendor::Google => GpuVendor::Google,
        gpu::Vendor::Aws => GpuVendor::Aws,
        gpu::Vendor::Tenstorrent => GpuVendor::Tenstorrent,
        gpu::Vendor::Other => GpuVendor::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_gpus;

    #[test]
    fn this_machine_has_something_of_everything() {
        assert!(memory_mib() > 100);
        assert!(memory_used_mib().unwrap() > 0);
        assert!(disk_mib(Path::new("/")) > 100);
        assert_ne!(architecture(), CpuArchitecture::Unspecified);
    }

    #[test]
    fn simulated_gpus_are_marked_and_differ() {
        let gpus = simulated("w1", &parse_gpus("h100:2").unwrap());
        assert_eq!(gpus.len(), 2);
        assert_ne!(gpus[0].uuid, gpus[1].uuid);
        for gpu in gpus {
            assert!(gpu.simulated);
            assert_eq!((gpu.name.as_str(), gpu.memory_mib), ("H100", 81_920));
            assert_eq!(gpu.compute_capability, "9.0");
            assert_eq!(gpu.vendor(), GpuVendor::Nvidia);
        }
        assert_eq!(simulated("w1", &GpuRequest::default()), [], "declared none");
    }

    #[test]
    fn meminfo_is_read_by_name() {
        let text = "MemTotal:       24 kB\nMemAvailable:  8 kB\nHugePages_Total:  0\n";
        assert_eq!(meminfo_kib(text, "MemTotal"), Some(24));
        assert_eq!(meminfo_kib(text, "Mem"), None);
        assert_eq!(meminfo_kib(text, "HugePages_Total"), None);
    }
}
