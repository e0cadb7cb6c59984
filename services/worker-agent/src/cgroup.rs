//! The control group (v2) of one attempt: by it the kernel keeps a replica's limits, kills all of it at
//! once, whatever it hides behind, and says whether anything of it is left and whether it used up its
//! memory. The supervisor has a leaf of its own, which the limits do not reach. It decides nothing of
//! who gets a group, nor of when one ends.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

mod groups;

pub(crate) use groups::{Groups, Limits};

/// The group of one attempt, there or not. Processes are in its leaves: those of a group that gives
/// controllers to others cannot be in itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group(PathBuf);

impl Group {
    /// The group whose folder is `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn supervisor(&self) -> PathBuf {
        self.0.join("supervisor")
    }

    fn replica(&self) -> PathBuf {
        self.0.join("replica")
    }

    /// Moves this process to where its replica's limits do not reach it, and the end of the agent's
    /// own group neither.
    pub(crate) fn enter_as_supervisor(&self) -> io::Result<()> {
        write(&self.supervisor().join("cgroup.procs"), "0")
    }

    /// Moves this process to where the limits are.
    pub(crate) fn enter_as_replica(&self) -> io::Result<()> {
        write(&self.replica().join("cgroup.procs"), "0")
    }

    /// Kills all of the replica. What is being started meanwhile may need it once more.
    pub(crate) fn kill(&self) {
        if write(&self.replica().join("cgroup.kill"), "1").is_err() {
            // Kernels before 5.14 have no such file.
            signal(&self.replica(), Signal::KILL);
        }
    }

    /// Asks the supervisor to end, if one is there, with its replica.
    fn interrupt(&self) {
        signal(&self.supervisor(), Signal::TERM);
    }

    /// Whether anything of the replica runs.
    pub(crate) fn has_replica(&self) -> bool {
        is_populated(&self.replica())
    }

    /// Whether anything runs, be it the supervisor alone.
    fn is_populated(&self) -> bool {
        is_populated(&self.0)
    }

    pub(crate) fn has_supervisor(&self) -> bool {
        is_populated(&self.supervisor())
    }

    /// Whether the kernel has killed anything of the replica for want of memory, as engines tell it of
    /// containers: however long ago, and whatever came of it.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        number(&self.replica().join("memory.events"), "oom_kill").is_some_and(|count| count > 0)
    }

    /// Processor time that the replica has used, that of all who have ended included; absent where
    /// nobody counts it.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        number(&self.replica().join("cpu.stat"), "usage_usec").map(Duration::from_micros)
    }

    /// Removes what was the replica's, which has ended.
    pub(crate) fn remove_replica(&self) -> io::Result<()> {
        remove(&self.replica())
    }

    /// Removes it all, unless anything runs there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove(&self.0)
    }
}

/// Writes to a file of the kernel's, and never makes one.
fn write(file: &Path, text: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .open(file)?
        .write_all(text.as_bytes())
}

/// The number behind a name, in a file with a name and a number in each line.
fn number(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(found, _)| *found == name)?;
    number.trim().parse().ok()
}

/// Whether anything runs in a group or below it. A group that is not there has nothing.
fn is_populated(folder: &Path) -> bool {
    number(&folder.join("cgroup.events"), "populated").is_some_and(|populated| populated > 0)
}

/// The groups in a group.
fn groups_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// Signals every process of a group and of those below.
fn signal(folder: &Path, signal: Signal) {
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let pids = processes.lines().filter_map(|line| line.parse().ok());
    // 0 is one that we cannot see.
    for pid in pids.filter(|pid| *pid > 0).filter_map(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
    for group in groups_in(folder).unwrap_or_default() {
        self::signal(&group, signal);
    }
}

/// Removes a group and those below, which a replica may have made. One with processes stays.
fn remove(folder: &Path) -> io::Result<()> {
    let gone = |error: &io::Error| {
        // The second: it went while we read it.
        [Errno::NOENT, Errno::NODEV]
            .map(|errno| Some(errno.raw_os_error()))
            .contains(&error.raw_os_error())
    };
    let groups = match groups_in(folder) {
        Err(error) if gone(&error) => return Ok(()),
        groups => groups?,
    };
    for group in groups {
        remove(&group)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if !gone(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group in a folder that plays the kernel's.
    fn group(folder: &Path) -> Group {
        let group = Group::new(folder.join("attempt-a.0.1"));
        for leaf in [group.supervisor(), group.replica()] {
            fs::create_dir_all(leaf).unwrap();
        }
        group
    }

    #[test]
    fn the_kernel_says_what_it_killed_for_memory() {
        let folder = tempfile::tempdir().unwrap();
        let group = group(folder.path());
        assert!(!group.was_out_of_memory());
        for (events, expected) in [
            ("low 0\noom 3\noom_kill 0\noom_group_kill 0\n", false),
            ("low 0\noom 3\noom_kill 2\noom_group_kill 0\n", true),
            ("", false),
            ("oom_kill", false),
            ("oom_kill many\n", false),
        ] {
            fs::write(group.replica().join("memory.events"), events).unwrap();
            assert_eq!(group.was_out_of_memory(), expected, "{events}");
        }
    }

    #[test]
    fn processor_time_is_that_of_the_replica() {
        let folder = tempfile::tempdir().unwrap();
        let group = group(folder.path());
        assert_eq!(group.cpu(), None);
        let stat = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
        fs::write(group.replica().join("cpu.stat"), stat).unwrap();
        assert_eq!(group.cpu(), Some(Duration::from_micros(1500)));
    }

    #[test]
    fn what_runs_is_told_by_leaf() {
        let folder = tempfile::tempdir().unwrap();
        let group = group(folder.path());
        assert!(!group.is_populated() && !group.has_replica() && !group.has_supervisor());
        for (path, populated) in [
            (group.path().to_owned(), 1),
            (group.supervisor(), 1),
            (group.replica(), 0),
        ] {
            let events = format!("populated {populated}\nfrozen 0\n");
            fs::write(path.join("cgroup.events"), events).unwrap();
        }
        assert!(group.is_populated() && !group.has_replica() && group.has_supervisor());
    }

    #[test]
    fn who_enters_writes_itself_to_a_leaf_and_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let group = group(folder.path());
        assert!(group.enter_as_replica().is_err() && group.enter_as_supervisor().is_err());
        let of = |leaf: PathBuf| leaf.join("cgroup.procs");
        for leaf in [group.supervisor(), group.replica()] {
            fs::write(of(leaf), "").unwrap();
        }
        group.enter_as_replica().unwrap();
        assert_eq!(fs::read(of(group.replica())).unwrap(), b"0");
        assert_eq!(fs::read(of(group.supervisor())).unwrap(), b"");
    }

    #[test]
    fn without_a_file_to_kill_by_each_process_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let group = group(folder.path());
        let below = group.replica().join("made/by/the/replica");
        fs::create_dir_all(&below).unwrap();
        let sleep = || std::process::Command::new("sleep").arg("1000").spawn();
        let mut children = [sleep().unwrap(), sleep().unwrap()];
        let line = |child: &std::process::Child| format!("0\n{}\nodd\n-1\n", child.id());
        fs::write(group.replica().join("cgroup.procs"), line(&children[0])).unwrap();
        fs::write(below.join("cgroup.procs"), line(&children[1])).unwrap();
        group.kill();
        for child in &mut children {
            let status = child.wait().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(9)
            );
        }
    }

    #[test]
    fn a_group_goes_with_all_that_is_below_and_what_is_no_group_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (one, precious) = (group(folder.path()), folder.path().join("precious"));
        fs::create_dir_all(one.replica().join("made/by/the/replica")).unwrap();
        fs::create_dir(&precious).unwrap();
        std::os::unix::fs::symlink(&precious, one.replica().join("link")).unwrap();
        // The kernel removes its files with a group; a stranger's keep it.
        assert!(one.remove().is_err());
        assert!(precious.exists() && one.replica().join("link").exists());
        fs::remove_file(one.replica().join("link")).unwrap();
        fs::create_dir_all(one.supervisor()).unwrap();
        one.remove_replica().unwrap();
        assert!(one.supervisor().exists() && !one.replica().exists());
        for _ in 0..2 {
            one.remove().unwrap();
            assert!(!one.path().exists() && precious.exists());
        }
    }
}
