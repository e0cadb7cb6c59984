//! A watch: a position in the history that moves on. It holds nothing that the writer waits for.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::record::{Batch, Revision};
use crate::shared::Shared;

/// How many batches are taken at once under the lock, and so how far behind the history's end a
/// watch may keep batches alive.
const FETCH: usize = 256;

/// The changes under a prefix: complete, in order, each revision once.
///
/// A watch that stays behind for longer than the history lasts gets [`Error::Compacted`] and must
/// list again; it never slows the writer.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    progress: watch::Receiver<()>,
    prefix: Arc<str>,
    position: Revision,
    fetched: VecDeque<Arc<Batch>>,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<Self, Error> {
        shared.check_resumable(after)?;
        Ok(Self {
            progress: shared.on_progress(),
            shared,
            prefix: Arc::from(prefix),
            position: after,
            fetched: VecDeque::new(),
        })
    }

    /// The next revision that changed something under the prefix; waits until there is one.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Compacted` when the watch fell behind the history; `Closed` or `Failed` when the store has
    /// ended and everything before was returned. Further calls answer the same.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        loop {
            if let Some(batch) = self.next_fetched() {
                return Ok(batch);
            }
            // Marked as seen before looking, so that what comes meanwhile wakes the wait below.
            self.progress.mark_unchanged();
            self.fetched = self.shared.batches_after(self.position, FETCH)?.into();
            if self.fetched.is_empty() && self.progress.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Everything under the prefix up to this revision was returned. It passes revisions that
    /// changed nothing under the prefix only while `next` runs.
    #[must_use]
    pub fn position(&self) -> Revision {
        self.position
    }

    fn next_fetched(&mut self) -> Option<Batch> {
        while let Some(batch) = self.fetched.pop_front() {
            self.position = batch.revision;
            if let Some(batch) = batch.under(&self.prefix) {
                return Some(batch);
            }
        }
        None
    }
}
