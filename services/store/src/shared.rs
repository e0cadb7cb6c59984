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
    end: Option<End>,
}

/// The published state, and the bell that wakes those who wait for more of it.
#[derive(Debug)]
pub(crate) struct Shared {
    published: RwLock<Published>,
    progress: watch::Sender<()>,
    failed: watch::Sender<Option<String>>,
    opened: Instant,
}

impl Shared {
    pub(crate) fn new(records: Records, revision: Revision, limits: HistoryLimits) -> Self {
        Self {
            published: RwLock::new(Published {
                records,
                revision,
                history: History::new(revision, limits),
                end: None,
            }),
            progress: watch::Sender::new(()),
            failed: watch::Sender::new(None),
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
        let mut published = self.write();
        if published.end.is_some() {
            return;
        }
        if let End::Failed(reason) = &end {
            self.failed.send_replace(Some(reason.clone()));
        }
        published.end = Some(end);
        drop(published);
        self.ring();
    }

    /// Why a transaction was not answered.
    pub(crate) fn ended(&self) -> Error {
        let end = self.read().end.clone();
        end.map_or(Error::Closed, Error::from)
    }

    pub(crate) fn on_failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    pub(crate) fn on_progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    pub(crate) fn revision(&self) -> Result<Revision, Error> {
        let published = self.read();
        published.readable()?;
        Ok(published.revision)
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        let published = self.read();
        published.readable()?;
        Ok(published.records.get(key).cloned())
    }

    pub(crate) fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let published = self.read();
        published.readable()?;
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let records = published
            .records
            .range::<str, _>(from)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, record)| record.clone())
            .collect();
        Ok(Listing {
            records,
            revision: published.revision,
        })
    }

    /// Whether a watch may begin after `revision`.
    pub(crate) fn check_resumable(&self, revision: Revision) -> Result<(), Error> {
        let published = self.read();
        published.readable()?;
        published.batches_after(revision, 0).map(drop)
    }

    /// The next batches of a watch, at most `count`. None left and the store ended: why it ended.
    pub(crate) fn batches_after(
        &self,
        revision: Revision,
        count: usize,
    ) -> Result<Vec<Arc<Batch>>, Error> {
        let published = self.read();
        let batches = published.batches_after(revision, count)?;
        match &published.end {
            Some(end) if batches.is_empty() => Err(end.clone().into()),
            _ => Ok(batches),
        }
    }
}

impl Published {
    pub(crate) fn publish(&mut self, group: Group, now: Duration) {
        self.revision = group.revision();
        for batch in group.publish(&mut self.records) {
            self.history.push(batch, now);
        }
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        self.end.clone().map_or(Ok(()), |end| Err(end.into()))
    }

    /// A failed store still reads: what was published is on disk.
    fn readable(&self) -> Result<(), Error> {
        match &self.end {
            Some(End::Closed) => Err(Error::Closed),
            Some(End::Failed(_)) | None => Ok(()),
        }
    }

    fn batches_after(&self, revision: Revision, count: usize) -> Result<Vec<Arc<Batch>>, Error> {
        let oldest = self.history.oldest();
        self.history
            .after(revision, count)
            .ok_or(Error::Compacted { oldest })
    }
}
