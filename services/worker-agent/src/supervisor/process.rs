//! A replica that is a process of the machine, and all that it starts: begun, asked to stop,
//! killed, and waited for. It decides nothing of when.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process};
use rustix::process::{kill_process_group, pidfd_open, wait};

use super::launch::Failure;
use super::output::{SharedLog, pump};
use super::run::pause;
use crate::attempt_dir::Spec;
use crate::cgroup::Group;
use crate::domain::end::ExitCause;
use crate::log::Stream;
use crate::machine;

/// The replica's first process, and by it the rest.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    launch: UnixStream,
    output: Vec<JoinHandle<()>>,
    status: Option<WaitStatus>,
}

impl Process {
    /// Starts the launcher, which becomes the replica.
    pub(super) fn start(folder: &Path, spec: &Spec, log: &SharedLog) -> io::Result<Self> {
        let (launch, theirs) = UnixStream::pair()?;
        let (out, out_end) = io::pipe()?;
        let (err, err_end) = io::pipe()?;
        // Ourselves, also after the file was replaced by a newer version.
        let child = Command::new("/proc/self/exe")
            .args(&spec.launcher_args)
            .arg("launch")
            .arg(folder)
            .arg(getpid().as_raw_pid().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(out_end)
            .stderr(err_end)
            .spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            launch,
            output: vec![
                pump(out, Stream::Out, log.clone())?,
                pump(err, Stream::Err, log.clone())?,
            ],
            status: None,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable once the first process has ended.
    pub(super) fn ended_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable once the launcher has become the replica, or has failed.
    pub(super) fn launch_fd(&self) -> BorrowedFd<'_> {
        self.launch.as_fd()
    }

    /// What came of the launch, when [`Process::launch_fd`] is readable.
    pub(super) fn launched(&mut self) -> Result<(), Failure> {
        let mut text = Vec::new();
        let read = self.launch.read_to_end(&mut text);
        match (read, text.is_empty()) {
            (Ok(_), true) => Ok(()),
            (Ok(_), false) => Err(serde_json::from_slice(&text).unwrap_or(Failure {
                cause: ExitCause::NotStarted,
                message: "the launcher failed".to_owned(),
            })),
            (Err(error), _) => Err(Failure {
                cause: ExitCause::NotStarted,
                message: format!("the launcher was cut off: {error}"),
            }),
        }
    }

    /// Takes the exit statuses of all that has ended; true while anything is left.
    pub(super) fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => self.status = Some(status),
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// How the first process ended; nothing before it has been reaped.
    pub(super) fn status(&self) -> Option<WaitStatus> {
        self.status
    }

    /// Whether the first process ended by a signal that asks to.
    pub(super) fn was_asked_to_end(&self) -> bool {
        let asking = [Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
        let signal = self.status.and_then(|status| status.terminating_signal());
        signal.is_some_and(|signal| asking.contains(&signal))
    }

    /// Asks the replica to stop; once its first process has ended, those that this did not reach.
    pub(super) fn terminate(&self) {
        if self.status.is_some() {
            for child in machine::children_outside(self.pid) {
                let _ = kill_process(child, Signal::TERM);
            }
        } else if kill_process_group(self.pid, Signal::TERM).is_err() {
            // There is no group before the launcher has begun one.
            let _ = kill_process(self.pid, Signal::TERM);
        }
    }

    /// Kills everything. What a killed process leaves behind becomes our child and is killed at
    /// the next call.
    pub(super) fn kill(&self, group: Option<&Group>) {
        if let Some(group) = group {
            group.kill();
        }
        // Once its status is taken the number may be a stranger's.
        if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        for child in machine::children() {
            let _ = kill_process(child, Signal::KILL);
        }
    }

    /// Waits until all output is in the log, at most for `time`.
    pub(super) fn finish_output(&mut self, time: Duration) {
        let until = machine::since_boot() + time;
        while machine::since_boot() < until && !self.output.iter().all(JoinHandle::is_finished) {
            pause(Duration::from_millis(1));
        }
    }
}
