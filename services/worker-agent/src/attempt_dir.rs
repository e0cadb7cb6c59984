//! The folder of one attempt: what the agent and the attempt's supervisor tell each other, so that
//! either may be killed and the other finds everything. Files are the facts; the fifo only wakes.
//! It decides who may speak for the attempt (whoever holds the lock), and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, mkfifoat};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup::Group;
use crate::domain::end::{Exit, StopCause};
use crate::files::{self, Durability};
use crate::machine;

/// What a supervisor has to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The attempt's id.
    pub attempt_id: String,
    /// The boot of the machine that it is to run in; empty is not known.
    #[serde(default)]
    pub boot_id: String,
    /// What stands on the supervisor's command line before its own arguments, program excluded.
    pub launcher_args: Vec<String>,
    /// The program and its arguments; for a container, empty runs the image's own.
    pub command: Vec<String>,
    /// The whole environment of a process; for a container, what is added to the image's.
    pub env: Vec<(String, String)>,
    /// The folder it starts in; for a container, empty is the image's own.
    pub working_dir: PathBuf,
    /// The accelerators that it alone may run on, as far as they are real.
    #[serde(default)]
    pub accelerators: Vec<String>,
    /// The control group made for it; absent is none.
    pub cgroup: Option<Group>,
    /// How much of its output is kept.
    pub log: LogLimits,
    /// What it is given to stop when its supervisor is told to end.
    #[serde(default)]
    pub stop_grace: Duration,
    /// When it has to end by itself; absent is never.
    pub fence: Option<Fence>,
    /// The container to run it in; absent runs it as a process of the machine.
    pub container: Option<Container>,
}

impl Spec {
    /// Whether it was to run in a boot of the machine that is over.
    pub fn is_of_another_boot(&self) -> bool {
        !self.boot_id.is_empty() && self.boot_id != machine::boot_id()
    }
}

/// How much of an attempt's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file is closed once it has this many bytes.
    pub segment_bytes: u64,
    /// How many files are kept, the open one included.
    pub segments: u32,
}

/// That an attempt ends when its machine is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The file that the agent renews.
    pub lease: PathBuf,
    /// How long the attempt is given to stop, before the lease's end.
    pub grace: Duration,
}

/// A container of the engine on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's socket.
    pub socket: PathBuf,
    /// The container's name.
    pub name: String,
    /// The image.
    pub image: String,
    /// Published ports: in the container, on the host, and "tcp" or "udp".
    pub ports: Vec<(u16, u16, String)>,
    /// What of the host it sees.
    pub mounts: Vec<Mount>,
    /// Accelerators, by the vendor's identifiers.
    pub gpu_uuids: Vec<String>,
    /// Processors in thousandths; 0 is no limit.
    pub cpu_milli: i64,
    /// Main memory in bytes; 0 is no limit.
    pub memory_bytes: i64,
}

/// A part of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub source: String,
    /// In the container.
    pub target: String,
    /// It may only be read.
    pub read_only: bool,
}

/// What runs. Written by the supervisor at its own start, and again once the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The boot of the machine in which it was written.
    pub boot_id: String,
    /// The supervisor's process id.
    pub supervisor: i32,
    /// The process id of what it runs; absent before it runs.
    pub process: Option<i32>,
    /// When that process began, in ticks since boot; absent if it is not known to be one of this
    /// machine's that we see.
    #[serde(default)]
    pub process_start: Option<u64>,
    /// When it began to run.
    pub start_time: Option<SystemTime>,
    /// The same, since the machine's boot: the wall clock may be set.
    #[serde(default)]
    pub started: Option<Duration>,
}

impl Running {
    /// Whether its first process was seen in this boot, and runs no more.
    pub fn has_gone(&self) -> bool {
        self.first()
            .is_some_and(|(pid, start)| !machine::runs(pid, start))
    }

    /// Its first process and when that began, if it was seen.
    pub fn first(&self) -> Option<(Pid, u64)> {
        self.process.and_then(Pid::from_raw).zip(self.process_start)
    }
}

/// That the attempt is to be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// When it is killed, counted from the machine's boot.
    pub kill_at: Duration,
    /// Why.
    pub cause: StopCause,
}

impl Stop {
    /// The same, with the attempt killed no later than `kill_at`.
    #[must_use]
    pub fn by(self, kill_at: Duration) -> Self {
        Self {
            kill_at: self.kill_at.min(kill_at),
            ..self
        }
    }
}

/// Before the time of a stop, where the fifo brings one.
const CALL: &str = "stop ";

/// The soonest stop that the fifo has brought, rather than the disk: when the attempt is killed.
pub fn called_stop(bytes: &[u8]) -> Option<Duration> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        // A time that was cut would be a sooner one.
        .filter_map(|line| std::str::from_utf8(line.strip_suffix(b"\n")?).ok())
        .filter_map(|line| line.trim_start_matches('\u{1}').strip_prefix(CALL))
        .filter_map(|millis| millis.parse().ok())
        .map(Duration::from_millis)
        .min()
}

/// How an attempt ended, if a supervisor has told it by the fifo.
pub fn told_exit(bytes: &[u8]) -> Option<Exit> {
    bytes
        .split(|byte| *byte == b'\n')
        .find_map(|line| serde_json::from_slice(line).ok())
}

/// Whoever holds it speaks for the attempt. Given back when dropped, and by any death.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The folder of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDir(PathBuf);

impl AttemptDir {
    /// The folder at `path`, there or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the folder, if it is not there.
    pub fn make(&self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.work_path())?;
        for path in [self.wake_path(), self.alive_path()] {
            match mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says what is to be run: from now on a supervisor may. It and the folder are on disk when
    /// this returns.
    pub fn set_spec(&self, spec: &Spec) -> io::Result<()> {
        files::replace_json(&self.spec_path(), spec, Durability::Disk)?;
        files::sync_folder(&self.0)
    }

    /// Takes back what is to be run: what was never begun is not begun by a later agent either.
    pub fn remove_spec(&self) -> io::Result<()> {
        fs::remove_file(self.spec_path())
    }

    /// Removes the folder with all that is in it, unless something is mounted there: that is not
    /// ours, and would be emptied. The spec goes first: what is left by an error is never run.
    pub fn remove(&self) -> io::Result<()> {
        if let Some(mounted) = machine::mounts_below(&self.0)?.first() {
            let why = format!("something is mounted at {}", mounted.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        match self.remove_spec() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => fs::remove_dir_all(&self.0),
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the replica starts, unless its spec says otherwise.
    pub fn work_path(&self) -> PathBuf {
        self.0.join("work")
    }

    /// What the supervisor says of itself when something is wrong.
    pub fn complaints_path(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    fn spec_path(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    fn wake_path(&self) -> PathBuf {
        self.0.join("wake")
    }

    /// What is to be run.
    pub fn spec(&self) -> io::Result<Spec> {
        files::read_json(&self.spec_path())?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no spec.json"))
    }

    /// Whether a supervisor may ever have spoken for it, also if that was lost or makes no sense.
    pub fn has_begun(&self) -> io::Result<bool> {
        if self.running_path().try_exists()? || self.exit_path().try_exists()? {
            return Ok(true);
        }
        match self.spec() {
            Ok(spec) => Ok(spec.is_of_another_boot()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if files::is_garbled(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn running_path(&self) -> PathBuf {
        self.0.join("running.json")
    }

    fn exit_path(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// What runs; nothing before its supervisor has come.
    pub fn running(&self) -> io::Result<Option<Running>> {
        files::read_json(&self.running_path())
    }

    /// Says what runs.
    pub fn set_running(&self, running: &Running) -> io::Result<()> {
        files::replace_json(&self.running_path(), running, Durability::Kernel)
    }

    /// How it ended; nothing before it has.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        files::read_json(&self.exit_path())
    }

    /// Says how it ended; on disk when it returns. Only for the holder of the lock.
    pub fn set_exit(&self, _lock: &Lock, exit: &Exit) -> io::Result<()> {
        files::replace_json(&self.exit_path(), exit, Durability::Disk)
    }

    /// Whether it is to be stopped.
    pub fn stop(&self) -> io::Result<Option<Stop>> {
        files::read_json(&self.0.join("stop.json"))
    }

    /// What it is given to stop by itself, if that has changed since its spec was written.
    pub fn grace(&self) -> io::Result<Option<Duration>> {
        files::read_json(&self.0.join("grace.json"))
    }

    /// Gives it another time to stop by itself, when its lease ends or its supervisor is told to end.
    pub fn set_grace(&self, grace: Duration) -> io::Result<()> {
        files::replace_json(&self.0.join("grace.json"), &grace, Durability::Kernel)?;
        self.wake(&[1]);
        Ok(())
    }

    /// Asks its supervisor, if there is one, to stop it. Again: to stop it sooner, for the reason
    /// that it was first asked for. On an error only a supervisor that is there now may know of it.
    pub fn set_stop(&self, stop: &Stop) -> io::Result<()> {
        let sooner = match self.stop() {
            Ok(Some(asked)) => asked.by(stop.kill_at),
            Ok(None) | Err(_) => stop.clone(),
        };
        let written = files::replace_json(&self.0.join("stop.json"), &sooner, Durability::Kernel);
        match &written {
            Ok(()) => self.wake(&[1]),
            // The fifo needs no room on the disk.
            Err(_) => self.wake(format!("{CALL}{}\n", sooner.kill_at.as_millis()).as_bytes()),
        }
        written
    }

    /// Has the supervisor look at the files. No supervisor, no harm: the next one looks by itself.
    fn wake(&self, by: &[u8]) {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.wake_path());
        if let Ok(mut fifo) = opened {
            // Full is as good: there is something to wake by.
            let _ = fifo.write(by);
        }
    }

    /// The end of the fifo by which a supervisor is woken. Never at its end, since it also writes.
    pub fn wake_end(&self) -> io::Result<File> {
        open_fifo(&self.wake_path())
    }

    /// What a supervisor holds open while it lives, so that others learn of its death at once.
    pub fn alive_end(&self) -> io::Result<File> {
        open_fifo(&self.alive_path())
    }

    /// Tells by what [`AttemptDir::alive_end`] gave how it ended, without the disk. Told again as
    /// often as it may have been missed.
    pub fn tell_exit(mut alive: &File, exit: &Exit) {
        if let Ok(json) = serde_json::to_string(exit) {
            // The first line end may be read as a sign of life. Full is as good: it is there.
            let _ = alive.write(format!("\n{json}\n").as_bytes());
        }
    }

    /// A pipe that comes to its end when the supervisor dies, and may bring [`told_exit`] before;
    /// nothing if none lives.
    pub fn life(&self) -> io::Result<Option<File>> {
        let mut fifo = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.alive_path())?;
        // Without a writer there is an end to read, but none to wait for: the kernel tells waiters
        // of an end only if there was a writer first.
        match fifo.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(fifo)),
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(fifo)),
            Err(error) => Err(error),
        }
    }

    fn alive_path(&self) -> PathBuf {
        self.0.join("alive")
    }

    /// Takes the lock, unless another process holds it, or the folder was removed meanwhile.
    pub fn try_lock(&self) -> io::Result<Option<Lock>> {
        let path = self.0.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let (ours, there) = (file.metadata()?, fs::metadata(&path));
                let same =
                    |there: fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
                Ok(there.is_ok_and(same).then_some(Lock { _file: file }))
            }
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn open_fifo(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_had_once_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(folder.path());
        let lock = dir.try_lock().unwrap();
        assert!(lock.is_some());
        assert!(dir.try_lock().unwrap().is_none());
        drop(lock);
        assert!(dir.try_lock().unwrap().is_some());
    }

    #[test]
    fn life_is_there_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(folder.path().join("a"));
        dir.make().unwrap();
        assert!(dir.life().unwrap().is_none());
        let held = dir.alive_end().unwrap();
        let mut life = dir.life().unwrap().unwrap();
        drop(held);
        assert_eq!(life.read(&mut [0]).unwrap(), 0);
        assert!(dir.life().unwrap().is_none());
    }

    #[test]
    fn an_exit_is_told_without_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(folder.path().join("a"));
        dir.make().unwrap();
        let exit = Exit {
            cause: crate::domain::end::ExitCause::Exited,
            code: Some(7),
            signal: None,
            out_of_memory: false,
            time: SystemTime::UNIX_EPOCH,
            message: "two\nlines".into(),
        };
        let alive = dir.alive_end().unwrap();
        AttemptDir::tell_exit(&alive, &exit);
        for _ in 0..2 {
            let mut life = dir.life().unwrap().unwrap();
            let mut bytes = [0; 1024];
            let read = life.read(&mut bytes).unwrap();
            assert_eq!(told_exit(&bytes[..read]), Some(exit.clone()));
            assert_eq!(told_exit(&bytes[..read - 2]), None);
            AttemptDir::tell_exit(&alive, &exit);
        }
    }

    #[test]
    fn a_stop_is_never_put_off_and_wakes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(folder.path().join("a"));
        dir.make().unwrap();
        dir.make().unwrap();
        let at = |secs| Stop {
            kill_at: Duration::from_secs(secs),
            cause: StopCause::Released,
        };
        dir.set_stop(&at(9)).unwrap();
        let mut wake = dir.wake_end().unwrap();
        dir.set_stop(&at(5)).unwrap();
        dir.set_stop(&at(7)).unwrap();
        assert_eq!(dir.stop().unwrap(), Some(at(5)));
        assert_eq!(wake.read(&mut [0; 8]).unwrap(), 2);
    }

    #[test]
    fn a_stop_that_the_disk_does_not_take_goes_by_the_fifo() {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::new(folder.path().join("a"));
        dir.make().unwrap();
        fs::create_dir(dir.path().join("stop.new")).unwrap();
        let mut wake = dir.wake_end().unwrap();
        dir.wake(&[1]);
        for secs in [9, 5, 7] {
            let kill_at = Duration::from_secs(secs);
            let cause = StopCause::Released;
            assert!(dir.set_stop(&Stop { kill_at, cause }).is_err());
        }
        let mut bytes = [0; 64];
        let read = wake.read(&mut bytes).unwrap();
        assert_eq!(called_stop(&bytes[..read]), Some(Duration::from_secs(5)));
        for nothing in [&b""[..], &[1, 1], b"stop x\n", b"stop 50"] {
            assert_eq!(called_stop(nothing), None);
        }
    }
}
