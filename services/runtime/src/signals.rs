//! The signals that end a process: the first SIGTERM or SIGINT begins the shutdown of each
//! component in it, a second one ends them now. It does nothing else with signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shutdown::Shutdown;

/// The ending signals, which from now on do not end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Listens from now on. Needs a tokio runtime around it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next signal that comes.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.term.recv() => "SIGTERM",
            Some(()) = self.int.recv() => "SIGINT",
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
