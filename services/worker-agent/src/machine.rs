//! What the kernel says of the machine: time since boot, which boot it is, which processes and mounts
//! there are. It decides nothing; everything here is read anew at each call.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Pid;
use rustix::time::{ClockId, Timespec, clock_gettime};

pub(crate) mod claim;
pub(crate) mod nvidia;
pub mod usage;

/// Time since the machine was started, asleep or not. It never goes backwards, and all processes
/// of one boot read the same one: leases are counted on it.
pub fn since_boot() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

/// The wall time, for a supervisor, which has no other clock.
pub fn wall_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + duration(clock_gettime(ClockId::Realtime))
}

/// A random name that the kernel gives each boot; empty where it cannot be read.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The processes whose environment holds exactly `variable` (`NAME=value`), as far as we may look.
pub fn processes_with(variable: &str) -> Vec<Pid> {
    processes()
        .filter(|pid| environment_has(*pid, variable))
        .collect()
}

/// The processes whose environment has the variable `name`, each with its value, as far as we may look.
pub fn processes_marked(name: &str) -> Vec<(Pid, String)> {
    let value = |pid: Pid| {
        let all = fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).ok()?;
        all.split(|byte| *byte == 0)
            .filter_map(|one| std::str::from_utf8(one).ok()?.split_once('='))
            .find_map(|(found, value)| (found == name).then(|| value.to_owned()))
    };
    processes()
        .filter_map(|pid| Some((pid, value(pid)?)))
        .collect()
}

/// The children of this process, those of its descendants that it adopted included.
pub fn children() -> Vec<Pid> {
    children_where(|_| true)
}

/// Those of the children that are not in a group.
pub(crate) fn children_outside(group: Pid) -> Vec<Pid> {
    children_where(|stat| stat.group != group.as_raw_pid())
}

fn children_where(wanted: impl Fn(Stat) -> bool) -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_pid();
    let is_wanted = |stat: Stat| stat.parent == me && wanted(stat);
    processes()
        .filter(|pid| stat(*pid).is_some_and(is_wanted))
        .collect()
}

/// Where something is mounted at or below a folder, which is given without links.
pub(crate) fn mounts_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(mount_points(&fs::read("/proc/self/mountinfo")?)
        .filter(|mounted| mounted.starts_with(folder))
        .collect())
}

/// Each line of the kernel's table has the point as its fifth field.
fn mount_points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
}

/// Bytes that would end a field stand there as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field);
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| std::str::from_utf8(after.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() {
            &after[3..]
        } else {
            after
        };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn processes() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
}

/// Whether the environment of a process holds exactly `variable`, as far as we may look.
pub(crate) fn environment_has(pid: Pid, variable: &str) -> bool {
    let path = format!("/proc/{}/environ", pid.as_raw_pid());
    fs::read(Path::new(&path)).is_ok_and(|all| {
        all.split(|byte| *byte == 0)
            .any(|one| one == variable.as_bytes())
    })
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// It has ended, and its parent has not yet taken its status.
    ended: bool,
    parent: i32,
    group: i32,
    session: i32,
    start: u64,
}

/// The name stands in brackets and may hold anything; fields are counted after it.
fn stat(pid: Pid) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    Some(Stat {
        ended: ["Z", "X"].contains(fields.first()?),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// What runs in the session of a process that began at `start`, whether that itself runs or not.
pub(crate) fn processes_of_session(leader: Pid, start: u64) -> Vec<Pid> {
    // The kernel gives a number away only once the session of that number is empty.
    if stat(leader).is_some_and(|stat| stat.start != start) {
        return Vec::new();
    }
    let session = leader.as_raw_pid();
    let is_of_it = |stat: Stat| stat.session == session && stat.start >= start && !stat.ended;
    processes()
        .filter(|pid| stat(*pid).is_some_and(is_of_it))
        .collect()
}

/// When a process began, in the kernel's ticks since boot: a later one of its number has another.
pub(crate) fn start_of(pid: Pid) -> Option<u64> {
    stat(pid).map(|stat| stat.start)
}

/// Whether the process runs that began at `start`.
pub(crate) fn runs(pid: Pid, start: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.start == start && !stat.ended)
}

fn duration(time: Timespec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_machine_goes_forwards() {
        let before = since_boot();
        assert!(before > Duration::ZERO);
        assert!(since_boot() >= before);
        assert!(!boot_id().is_empty());
    }

    #[test]
    fn a_mount_is_found_whatever_its_name() {
        let table = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            90 22 8:1 /data /a/with\\040space\\134 rw - ext4 /dev/sda1 rw\n\nodd\n";
        let found: Vec<PathBuf> = mount_points(table).collect();
        assert_eq!(found, [Path::new("/"), Path::new("/a/with space\\")]);
        assert!(
            mounts_below(Path::new("/"))
                .unwrap()
                .contains(&"/proc".into())
        );
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            mounts_below(folder.path()).unwrap(),
            [""; 0].map(PathBuf::from)
        );
    }

    /// The session is the child's own: that of the tests may have no number here (in a container).
    #[test]
    fn a_child_is_found_by_its_parent_its_session_and_its_environment() {
        let mut child = std::process::Command::new("setsid")
            .args(["sleep", "30"])
            .env("MUSTER_TEST_MARK", "a b=c")
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        assert!(children().contains(&pid));
        let start = start_of(pid).unwrap();
        assert!(runs(pid, start) && !runs(pid, start + 1));
        // The kernel lets the parent go on shortly before the child's environment can be read.
        while processes_of_session(pid, start).is_empty()
            || processes_with("MUSTER_TEST_MARK=a b=c").is_empty()
        {}
        assert_eq!(processes_of_session(pid, start), [pid]);
        assert_eq!(processes_of_session(pid, start + 1), []);
        let another = rustix::process::getpid();
        assert!(!children_outside(pid).contains(&pid) && children_outside(another).contains(&pid));
        assert_eq!(processes_with("MUSTER_TEST_MARK=a b=c"), [pid]);
        assert_eq!(processes_with("MUSTER_TEST_MARK=a b"), []);
        assert_eq!(
            processes_marked("MUSTER_TEST_MARK"),
            [(pid, "a b=c".into())]
        );
        assert_eq!(processes_marked("MUSTER_TEST"), []);
        child.kill().unwrap();
        while runs(pid, start) {}
        child.wait().unwrap();
        assert_eq!(start_of(pid), None);
    }
}
