//! The signals that end a process: the first SIGTERM, SIGINT, or SIGHUP where nothing is read again at
//! it, begins the shutdown of each component in it, a second one ends them now. It does nothing else
//! with signals.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shutdown::Shutdown;

/// The ending signals, which from now on do not end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Option<Signal>,
}

/// What SIGHUP is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// It ends the process, as when its terminal is closed.
    Ends,
    /// Its settings are read again, which another part does that listens for itself.
    Reloads,
}

impl Signals {
    /// Listens from now on. Needs a tokio runtime around it.
    pub fn listen(hangup: Hangup) -> io::Result<Self> {
        // Also where another part is to hear it: until that part listens, it would end the process.
        let hup = self::hangup()?;
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: hup.filter(|_| hangup == Hangup::Ends),
        })
    }

    /// The name of the next signal that comes.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.term.recv() => "SIGTERM",
            Some(()) = self.int.recv() => "SIGINT",
            Some(()) = hung_up(&mut self.hup) => "SIGHUP",
            else => std::future::pending().await,
        }
    }

    /// Tells every signal to `shutdowns`, for ever.
    pub async fn forward(mut self, shutdowns: &[Shutdown]) {
        loop {
            let name = self.next().await;
            for shutdown in shutdowns {
                shutdown.signalled(name);
            }
        }
    }
}

/// SIGHUP from now on; none where whoever started the process has it ignored, as `nohup` does.
pub fn hangup() -> io::Result<Option<Signal>> {
    let is_ignored =
        fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, 1));
    match is_ignored {
        true => Ok(None),
        false => signal(SignalKind::hangup()).map(Some),
    }
}

/// The next SIGHUP; never, if it is not listened for.
pub async fn hung_up(signal: &mut Option<Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether a process with this status in /proc ignores a signal.
fn ignores(status: &str, number: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_has_ignored_is_ignored() {
        let status = |mask: &str| format!("Name:\ta\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores(&status("0000000000001001"), 1));
        assert!(!ignores(&status("0000000000001000"), 1));
        assert!(!ignores("", 1));
    }
}
