//! The small process between the agent and a replica: it is the replica's parent, keeps its output
//! and its exit status, and ends it when told to or when its lease ends. It needs no agent: the
//! agent may be killed, hang, or be replaced. It never restarts anything, and talks to no network.
//!
//! The agent starts it as `PROGRAM SUBCOMMAND run FOLDER`; it starts the replica through
//! `PROGRAM SUBCOMMAND launch FOLDER PID`, which prepares itself and becomes the replica. Behind the same
//! subcommand is also what the agent has looked at by a process of its own: the kernel (`check`), the
//! accelerators (`look`).

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::machine::nvidia;

mod container;
mod launch;
mod note;
mod orders;
mod output;
mod process;
mod run;

/// The hidden subcommand of `worker-agent` and `muster` behind which this program is.
pub const SUBCOMMAND: &str = "supervise";

/// The whole program: `args` are what follows the subcommand.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let word = |index: usize| {
        args.get(index)
            .and_then(|arg| arg.to_str())
            .unwrap_or_default()
    };
    match (word(0), args.get(1)) {
        ("run", Some(folder)) => run::main(Path::new(folder)),
        ("launch", Some(folder)) => launch::main(Path::new(folder), word(2)),
        ("check", None) => check(),
        ("look", Some(library)) => nvidia::tell(library),
        _ => {
            complain("usage: run FOLDER | launch FOLDER PID | check | look LIBRARY");
            ExitCode::from(2)
        }
    }
}

/// Whether this machine lets a supervisor work: the agent's start-up check runs it.
fn check() -> ExitCode {
    let able = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|_| rustix::process::set_child_subreaper(Some(getpid())));
    match able {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("this kernel is too old (5.3 is needed): {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong on standard error, which the agent points at a file. A full disk takes no
/// complaints, and must not end what complains of it.
fn complain(text: &str) {
    let _ = io::stderr().write_all(format!("supervisor: {text}\n").as_bytes());
}
