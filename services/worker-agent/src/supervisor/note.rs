//! Says on disk what runs, from a thread of its own: a disk that stands still then must not hold up whoever
//! keeps the fence.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use super::launch::Failure;
use super::orders::Shared;
use super::output::STACK;
use super::run::close_stdout;
use crate::attempt_dir::{AttemptDir, Running};
use crate::domain::end::ExitCause;

/// How long the disk is waited for once the replica has ended: its exit status says more.
const TIME: Duration = Duration::from_secs(1);

/// What comes of saying what runs.
#[derive(Debug)]
pub(super) struct Note(Receiver<io::Result<()>>);

impl Note {
    /// Begins to say it. When it is said, or cannot be, the agent is told to look, and whoever waits for
    /// orders is woken.
    pub(super) fn begin(dir: &AttemptDir, running: &Running, orders: &Shared) -> Self {
        let (done, outcome) = mpsc::channel();
        let say = {
            let (dir, running) = (dir.clone(), running.clone());
            let (done, orders) = (done.clone(), orders.clone());
            move || {
                let written = dir.set_running(&running);
                tell(&done, written, &orders);
            }
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(say) {
            tell(&done, Err(error), orders);
        }
        Self(outcome)
    }

    /// Why it cannot be said, if that is known: asked once.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.0.try_recv() {
            Ok(Err(error)) => Some(unsaid(&error)),
            Ok(Ok(())) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// The same, of something that has ended: not before it is said, if that does not take long.
    pub(super) fn last_failure(&self) -> Option<Failure> {
        match self.0.recv_timeout(TIME) {
            Ok(Err(error)) => Some(unsaid(&error)),
            Ok(Ok(())) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

fn tell(done: &Sender<io::Result<()>>, written: io::Result<()>, orders: &Shared) {
    close_stdout();
    // It may have ended, and be waited for no longer.
    let _ = done.send(written);
    orders.wake();
}

/// Nobody can be told that it runs: the agent would wait for its start until the time for that is over.
fn unsaid(error: &io::Error) -> Failure {
    Failure {
        cause: ExitCause::NotStarted,
        message: format!("cannot write down that it runs: {error}"),
    }
}
