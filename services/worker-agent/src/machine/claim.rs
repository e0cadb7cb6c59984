//! What one process of this machine has at a time, by name: an accelerator that an agent offers, or that a
//! replica runs on. The kernel keeps it, as the name of a socket that belongs to no file, and gives it back
//! at the process's death. Processes in another network namespace are not seen.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::Pid;
use tokio::net::UnixStream;
use tokio::runtime;

/// So many may ask who has a name: they connect, and nobody is ever let in. The kernel may take fewer.
const ASKED: i32 = 4096;
/// Of a command line, this many characters are told.
const TOLD: usize = 200;

/// Who has the name, and nobody else. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    _socket: OwnedFd,
}

impl Claim {
    /// Takes the name; nothing if a process has it, this one included.
    pub(crate) fn take(name: &str) -> io::Result<Option<Self>> {
        let socket = open()?;
        match bind(&socket, &address(name)?) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        listen(&socket, ASKED)?;
        Ok(Some(Self { _socket: socket }))
    }
}

/// The process that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Holder {
    /// Absent where that cannot be seen from here.
    pid: Option<Pid>,
    /// Its program and arguments, as far as we may look.
    command: Vec<String>,
}

impl Holder {
    /// Who has the name, if anyone does.
    pub(crate) fn of(name: &str) -> io::Result<Option<Self>> {
        let socket = open()?;
        match connect(&socket, &address(name)?) {
            Ok(()) => {}
            Err(Errno::CONNREFUSED) => return Ok(None),
            // Too many have asked.
            Err(Errno::AGAIN) => return Ok(Some(Self::default())),
            Err(error) => return Err(error.into()),
        }
        let pid = peer(socket).ok().flatten();
        let command = pid.map(command_of).unwrap_or_default();
        Ok(Some(Self { pid, command }))
    }
}

impl Display for Holder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else {
            return f.write_str("a process that is not seen from here");
        };
        write!(f, "process {}", pid.as_raw_pid())?;
        if self.command.is_empty() {
            return Ok(());
        }
        let command: String = self.command.join(" ").chars().take(TOLD).collect();
        write!(f, " ({command})")
    }
}

/// The process that listens at the other end; none if it is of another namespace, and has no number here.
fn peer(socket: OwnedFd) -> io::Result<Option<Pid>> {
    // Tokio's, which needs a runtime: rustix takes every number for one of a process.
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let stream = UnixStream::from_std(socket.into())?;
    Ok(stream.peer_cred()?.pid().and_then(Pid::from_raw))
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn address(name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(
        format!("muster/{name}").as_bytes(),
    )?)
}

fn command_of(pid: Pid) -> Vec<String> {
    let all = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    all.split(|byte| *byte == 0)
        .filter(|argument| !argument.is_empty())
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_had_once_and_given_back() {
        let name = format!("test/{}", std::process::id());
        assert_eq!(Holder::of(&name).unwrap(), None);
        let claim = Claim::take(&name).unwrap().unwrap();
        assert!(Claim::take(&name).unwrap().is_none());
        for _ in 0..100 {
            let holder = Holder::of(&name).unwrap().unwrap();
            assert_eq!(holder.pid, Some(rustix::process::getpid()));
        }
        drop(claim);
        assert_eq!(Holder::of(&name).unwrap(), None);
        assert!(Claim::take(&name).unwrap().is_some());
        let too_long = "x".repeat(200);
        assert!(Claim::take(&too_long).is_err());
    }

    #[test]
    fn a_holder_is_told_by_its_command() {
        let name = format!("test/told/{}", std::process::id());
        let _claim = Claim::take(&name).unwrap().unwrap();
        let holder = Holder::of(&name).unwrap().unwrap();
        let told = holder.to_string();
        let ours = format!("process {} (", std::process::id());
        assert!(told.starts_with(&ours), "{told}");
        assert_eq!(
            Holder::default().to_string(),
            "a process that is not seen from here"
        );
    }
}
