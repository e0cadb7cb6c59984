//! What processes use, from one look at all of them: so that any number of replicas costs one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

/// Processor time and memory of some processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since they began, of those that are there and of their children that have ended.
    pub cpu: Duration,
    /// Main memory in use, in bytes.
    pub memory: u64,
}

/// All processes of the machine, at one instant.
#[derive(Debug, Clone, Default)]
pub struct Table {
    processes: BTreeMap<i32, Process>,
    children: BTreeMap<i32, Vec<i32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// Its own, in clock ticks.
    cpu: u64,
    /// That of its children that have ended, and of theirs, in clock ticks.
    reaped: u64,
    /// In pages.
    memory: u64,
}

impl Table {
    /// Looks at every process.
    pub fn read() -> Self {
        let mut table = Self::default();
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if let Some(process) = parse(&stat) {
                table.add(pid, process);
            }
        }
        table
    }

    fn add(&mut self, pid: i32, process: Process) {
        self.processes.insert(pid, process);
        self.children.entry(process.parent).or_default().push(pid);
    }

    /// What a process and all its descendants use.
    pub fn of(&self, pid: i32) -> Usage {
        self.sum(pid, |first| first)
    }

    /// What all descendants of a process use, without the process itself.
    pub fn below(&self, pid: i32) -> Usage {
        self.sum(pid, |first| Process {
            cpu: 0,
            memory: 0,
            ..first
        })
    }

    fn sum(&self, pid: i32, first: impl Fn(Process) -> Process) -> Usage {
        let Some(process) = self.processes.get(&pid) else {
            return Usage::default();
        };
        let first = first(*process);
        let (mut cpu, mut memory) = (first.cpu_in_all(), first.memory);
        let mut seen = BTreeSet::from([pid]);
        let mut left = vec![pid];
        while let Some(parent) = left.pop() {
            for child in self.children.get(&parent).into_iter().flatten() {
                // A table that was read while processes came and went may hold a ring.
                if seen.insert(*child)
                    && let Some(process) = self.processes.get(child)
                {
                    cpu = cpu.saturating_add(process.cpu_in_all());
                    memory = memory.saturating_add(process.memory);
                    left.push(*child);
                }
            }
        }
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        Usage {
            cpu: Duration::from_millis(cpu.saturating_mul(1000) / ticks),
            memory: memory.saturating_mul(page),
        }
    }
}

impl Process {
    fn cpu_in_all(self) -> u64 {
        self.cpu.saturating_add(self.reaped)
    }
}

/// Reads a line of `/proc/PID/stat`. The name, the second field, may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (_, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        cpu: number(11)?.saturating_add(number(12)?),
        reaped: number(13)?.saturating_add(number(14)?),
        memory: number(21)?,
    })
}

/// Processor time that the whole machine has spent working since its boot; absent where it cannot
/// be read.
pub fn busy() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; the rest is counted in these.
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(
        all.saturating_sub(idle).saturating_mul(1000) / per_second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(parent: i32, memory: u64) -> Process {
        Process {
            parent,
            cpu: 100,
            reaped: 10,
            memory,
        }
    }

    #[test]
    fn a_line_is_read_past_any_name() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 11 22 4 5 20 0 1 0 5 1000 33 0";
        assert_eq!(
            parse(stat),
            Some(Process {
                parent: 3,
                cpu: 33,
                reaped: 9,
                memory: 33
            })
        );
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse("7 (a) S 3"), None);
    }

    #[test]
    fn descendants_are_added_up() {
        let mut table = Table::default();
        for (pid, parent, pages) in [(1, 0, 1), (2, 1, 2), (3, 2, 4), (4, 1, 8), (9, 7, 16)] {
            table.add(pid, process(parent, pages));
        }
        // A ring must not hold us up.
        table.add(20, process(21, 1));
        table.add(21, process(20, 1));
        let page = rustix::param::page_size() as u64;
        assert_eq!(table.below(1).memory, 14 * page);
        assert_eq!(table.of(2).memory, 6 * page);
        let ticks = |ticks: u64| {
            Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
        };
        // With what has ended; a process is not below itself, but its ended children are.
        assert_eq!(table.of(2).cpu, ticks(220));
        assert_eq!(table.below(1).cpu, ticks(340));
        assert_eq!(table.below(3).cpu, ticks(10));
        assert_eq!(table.below(3).memory, 0);
        assert_eq!(table.of(77), Usage::default());
        assert_eq!(table.below(20).memory, page);
    }

    #[test]
    fn what_an_ended_child_used_is_not_lost() {
        let own = i32::try_from(std::process::id()).unwrap();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let before = Table::read().below(own).cpu;
        let ended = std::process::Command::new("sh").args(["-c", spin]).status();
        assert!(ended.unwrap().success());
        assert!(Table::read().below(own).cpu > before);
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let parent = rustix::process::getppid().unwrap().as_raw_pid();
        assert!(Table::read().below(parent).memory > 0);
        assert!(busy().unwrap() > Duration::ZERO);
    }
}
