//! The last steps before a replica: a process that prepares itself and then becomes the replica's
//! command. Doing them here, in a program of our own, needs no code between fork and exec.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::io::Errno;
use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal,
};
use rustix::process::{setrlimit, setsid};
use serde::{Deserialize, Serialize};

use crate::attempt_dir::{AttemptDir, Spec};
use crate::domain::end::ExitCause;

/// Why there is no replica.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) cause: ExitCause,
    pub(super) message: String,
}

/// Becomes the replica. Standard input is a socket to the supervisor `parent`: it is closed by the
/// replica's beginning, or says why there is none.
pub(super) fn main(folder: &Path, parent: &str) -> ExitCode {
    let Ok(report) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let failure = prepare(parent)
        .and_then(|()| AttemptDir::new(folder).spec())
        .map_err(|error| Failure {
            cause: ExitCause::NotStarted,
            message: format!("cannot prepare the start: {error}"),
        })
        .map_or_else(
            |failure| failure,
            |spec| {
                enter_group(folder, &spec);
                execute(&spec)
            },
        );
    if let Ok(json) = serde_json::to_vec(&failure) {
        let _ = UnixStream::from(report).write_all(&json);
    }
    ExitCode::FAILURE
}

/// A session of its own, which dies with the supervisor `parent`.
fn prepare(parent: &str) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that took effect.
    if getppid().map(|pid| pid.as_raw_pid().to_string()).as_deref() != Some(parent) {
        return Err(io::Error::other("the supervisor has died"));
    }
    setsid()?;
    raise_open_files();
    let no_cores = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    let _ = setrlimit(Resource::Core, no_cores);
    // The supervisor is spared by the kernel when memory is short; its replica is not.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    Ok(())
}

/// Lets the replica open as many files as we are allowed to.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// Goes to where its limits are. They are kept where they can be: no group, no limit.
fn enter_group(folder: &Path, spec: &Spec) {
    if let Some(group) = &spec.cgroup
        && let Err(error) = group.enter_as_replica()
    {
        // What we say ourselves is the replica's output.
        let complaints = AttemptDir::new(folder).complaints_path();
        if let Ok(mut complaints) = OpenOptions::new().append(true).open(complaints) {
            let text = format!("launcher: cannot enter the control group: {error}\n");
            let _ = complaints.write_all(text.as_bytes());
        }
    }
}

/// Becomes the command; returns only if it cannot.
fn execute(spec: &Spec) -> Failure {
    let not_executable = |message| Failure {
        cause: ExitCause::NotExecutable,
        message,
    };
    let Some((program, args)) = spec.command.split_first() else {
        return not_executable("the command is empty".to_owned());
    };
    if !spec.working_dir.is_dir() {
        let folder = spec.working_dir.display();
        return not_executable(format!("the working directory {folder} does not exist"));
    }
    let error = Command::new(program)
        .args(args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.working_dir)
        .stdin(Stdio::null())
        .exec();
    let machine = [
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::IO,
    ];
    let ours = machine
        .iter()
        .any(|one| error.raw_os_error() == Some(one.raw_os_error()));
    Failure {
        cause: if ours {
            ExitCause::NotStarted
        } else {
            ExitCause::NotExecutable
        },
        message: format!("cannot execute {program:?}: {error}"),
    }
}
