//! What readers see: the records as of the latest durable revision, the recent history, and how the
//! store ended. Backends publish here, and only what is durable.

use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::group::{Group, Records};
use crate::history::{History, HistoryLimits};
use crate::record::{Batch, Listing, Record, Revision};

/// Why nothing more will be published.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Closed,
    Failed(String),
}

impl From<End> for Error {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Failed(reason) => Self::Failed(reason),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) records: Records,
    pub(crate) revision: Revision,
    history: History,
}

/// The published state, the bell that wakes those who wait for more of it, and its end.
#[derive(Debug)]
pub(crate) struct Shared {
    published: RwLock<Published>,
    progress: watch::Sender<()>,
    end: watch::Sender<Option<End>>,
    opened: Instant,
}

impl Shared {
    pub(crate) fn new(records: Records, revision: Revision, limits: HistoryLimits) -> Self {
        Self {
            published: RwLock::new(Published {
                records,
                revision,
                history: History::new(revision, limits),
            }),
            progress: watch::Sender::new(()),
            end: watch::Sender::new(None),
            opened: Instant::now(),
        }
    }

    /// The time since the store was opened, by the caller's clock (which tests may pause).
    pub(crate) fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The published state. A backend judges on it; no one else publishes meanwhile.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Published> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a durable group to readers and watches.
    pub(crate) fn publish(&self, group: Group, now: Duration) {
        self.write().publish(group, now);
        self.ring();
    }

    pub(crate) fn ring(&self) {
        self.progress.send_replace(());
    }

    /// Ends the store. The first end stands.
    pub(crate) fn end(&self, end: End) {
        // Under the lock, so that nothing is published after the end.
        let published = self.write();
        self.end.send_if_modified(|stands| {
            let first = stands.is_none();
            if first {
                *stands = Some(end);
            }
            first
        });
        drop(published);
        self.ring();
    }

    /// Why a transaction was not answered; waits until that is known.
    pub(crate) async fn ended(&self) -> Error {
        let mut ends = self.end.subscribe();
        let end = ends.wait_for(Option::is_some).await;
        let end = end.ok().and_then(|end| end.clone());
        end.map_or(Error::Closed, Error::from)
    }

    /// Whether the store takes transactions.
    pub(crate) fn open(&self) -> Result<(), Error> {
        let end = self.end.borrow().clone();
        end.map_or(Ok(()), |end| Err(end.into()))
    }

    /// Whether the store answers readers. A failed one does: what was published is on disk.
    fn readable(&self) -> Result<(), Error> {
        match self.open() {
            Err(Error::Failed(_)) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn on_end(&self) -> watch::Receiver<Option<End>> {
        self.end.subscribe()
    }

    pub(crate) fn on_progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    pub(crate) fn revision(&self) -> Result<Revision, Error> {
        self.readable()?;
        Ok(self.read().revision)
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.readable()?;
        Ok(self
            .read()
            .records
            .get(key)
            .map(|found| Record::clone(found)))
    }

    pub(crate) fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.readable()?;
        let published = self.read();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let records = published
            .records
            .range::<str, _>(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, record)| Arc::clone(record))
            .collect();
        Ok(Listing {
            records,
            revision: published.revision,
        })
    }

    /// Whether a watch may begin after `revision`.
    pub(crate) fn check_resumable(&self, revision: Revision) -> Result<(), Error> {
        self.readable()?;
        self.read().batches_after(revision, 0).map(drop)
    }

    /// The next batches of a watch, at most `count`. None left and the store ended: why it ended.
    pub(crate) fn batches_after(
        &self,
        revision: Revision,
        count: usize,
    ) -> Result<Vec<Arc<Batch>>, Error> {
        // Looked at first: what is published is published before the end.
        let open = self.open();
        let batches = self.read().batches_after(revision, count)?;
        if batches.is_empty() {
            open?;
        }
        Ok(batches)
    }
}

impl Published {
    pub(crate) fn publish(&mut self, group: Group, now: Duration) {
        self.revision = group.revision();
        for batch in group.publish(&mut self.records) {
            self.history.push(batch, now);
        }
    }

    /// Takes in what one revision of someone else's did.
    pub(crate) fn follow(&mut self, batch: Batch, now: Duration) {
        for change in &batch.changes {
            match &change.after {
                Some(after) => {
                    let key = Arc::clone(&change.key);
                    drop(self.records.insert(key, after.clone()));
                }
                None => drop(self.records.remove(&change.key)),
            }
        }
        self.revision = batch.revision;
        self.history.push(batch, now);
    }

    fn batches_after(&self, revision: Revision, count: usize) -> Result<Vec<Arc<Batch>>, Error> {
        let oldest = self.history.oldest();
        self.history
            .after(revision, count)
            .ok_or(Error::Compacted { oldest })
    }
}
