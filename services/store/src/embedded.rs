//! The backend of one file: a writer thread that judges what is queued, makes it durable in groups,
//! and only then shows it.
//!
//! Reads never come here: they are served from [`Shared`], which holds all records.

mod disk;
mod file;
mod load;
mod schema;
mod writer;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use redb::StorageBackend;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::leadership::Term;
use crate::open_error::OpenError;
use crate::options::Options;
use crate::shared::Shared;
use crate::transaction::{Outcome, Transaction};

use disk::{Disk, Pace};
pub(crate) use file::{create, parent, sync};
pub(crate) use load::Contents;
use writer::{Request, Writer, Writing};

/// Callers that are queued while a group is written; more of them wait for room. Twice what one group
/// takes, so that the next group is always ready and the memory is bounded.
const QUEUE: usize = 2 * writer::GROUP;

/// A handle on the writer thread; dropping it closes the file in the background.
#[derive(Debug)]
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    finished: watch::Receiver<bool>,
    writing: Writing,
}

/// Opens the file, creating it if there is none, and puts the record of this start.
pub(crate) fn open(
    path: &Path,
    options: &Options,
) -> Result<(Embedded, Arc<Shared>, Term), OpenError> {
    guard(path, || {
        let backend = file::open_or_create(path, options)?;
        let started = start(path, backend, options, Pace::default())?;
        file::remove_drafts(path);
        Ok(started)
    })
}

/// Opens a store on any storage. What redb finds wrong it may say by a panic, so callers `guard` it.
fn start(
    path: &Path,
    backend: impl StorageBackend,
    options: &Options,
    pace: Pace,
) -> Result<(Embedded, Arc<Shared>, Term), OpenError> {
    let database = file::database(path, backend, options)?;
    let (disk, contents) = Disk::open(path, database, schema::CURRENT, pace)?;
    let (writer, term) = Writer::begin(path, disk, contents, options.history)?;
    let (shared, writing) = (writer.shared(), writer.writing());
    let (queue, requests) = mpsc::channel(QUEUE);
    let (finish, finished) = watch::channel(false);
    thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run(requests, &finish))
        .map_err(|source| file::io_error(path, source))?;
    let embedded = Embedded {
        shared: Arc::clone(&shared),
        queue,
        finished,
        writing,
    };
    Ok((embedded, shared, term))
}

/// Turns a panic while opening into the error it stands for: redb asserts what a damaged file breaks.
fn guard<T>(path: &Path, open: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        Err(OpenError::Damaged {
            path: path.to_owned(),
            detail: panic_message(&*panic),
        })
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned())
}

impl Embedded {
    /// Queues a transaction and waits until it is durable. Dropping the future does not take it back.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Commit {
            transaction,
            at: self.shared.now(),
            reply,
        };
        if self.queue.send(request).await.is_err() {
            return Err(self.shared.ended().await);
        }
        match answer.await {
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(self.shared.ended().await),
        }
    }

    /// For how long the disk has been at the write that is under way; nothing where there is none.
    pub(crate) fn writing(&self) -> Duration {
        self.writing.elapsed()
    }

    /// Writes what is queued, then closes the file. Every caller waits for the same end.
    pub(crate) async fn close(&self) {
        // An error means that the writer has ended already or is about to.
        let _ = self.queue.send(Request::Close).await;
        let _ = self.finished.clone().wait_for(|finished| *finished).await;
    }
}
