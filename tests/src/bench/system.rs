//! What the kernel says of a process: memory.

use std::fs;

use anyhow::Context as _;

/// Resident memory, in MB (1,000,000 bytes).
pub(super) fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.context("the kernel tells no VmRSS")?;
    let kib: f64 = words.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let pid = std::process::id();
        assert!(resident_mb(pid).unwrap() > 0.5);
    }
}
