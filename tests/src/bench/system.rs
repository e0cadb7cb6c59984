//! What the kernel says of a process: memory and processor time.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Resident memory, in MB (1,000,000 bytes).
pub(super) fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.context("the kernel tells no VmRSS")?;
    let kib: f64 = words.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// Linux tells processor time in hundredths of a second on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time used so far by all threads.
pub(super) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th after it.
    let (_, numbers) = stat.rsplit_once(')').context("no process name")?;
    let mut ticks = numbers.split_whitespace().skip(11);
    let mut next = || -> anyhow::Result<u64> { Ok(ticks.next().context("too short")?.parse()?) };
    let ticks = next()? + next()?;
    Ok(Duration::from_millis(1_000 / TICKS_PER_SECOND * ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(resident_mb(pid).unwrap() > 0.5);
        let before = cpu_time(pid).unwrap();
        let mut sum = 0_u64;
        while cpu_time(pid).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
