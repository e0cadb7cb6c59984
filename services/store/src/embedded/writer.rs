//! The writer thread: drain, judge, write, fsync, show, answer. It decides when the store has failed,
//! and never tries again what failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::disk::Disk;
use super::load::Contents;
use super::{file, panic_message};
use crate::group::Group;
use crate::history::HistoryLimits;
use crate::leadership::{TERM_KEY, Term};
use crate::open_error::OpenError;
use crate::shared::{End, Shared};
use crate::transaction::{Outcome, Transaction};

/// The most transactions under one fsync. Beyond some hundred, the fsync is no longer what a
/// transaction costs, and the first of the group only waits longer.
pub(super) const GROUP: usize = 512;

#[derive(Debug)]
pub(super) enum Request {
    Commit {
        transaction: Transaction,
        /// When it was queued, since the store was opened.
        at: Duration,
        reply: oneshot::Sender<Outcome>,
    },
    /// Finish what is queued and end.
    Close,
}

/// A judged transaction that waits for the fsync: a conflict too is only true once those before it are.
type Judged = (oneshot::Sender<Outcome>, Outcome);

/// Since when the disk is at the write that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Writing(Arc<Mutex<Option<Instant>>>);

impl Writing {
    /// For how long it has been; nothing where there is none.
    pub(super) fn elapsed(&self) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    disk: Disk,
    shared: Arc<Shared>,
    writing: Writing,
}

impl Writer {
    /// Puts the record of this start, so the file is proved writable, and everything that a killed
    /// process had left in the page cache is on disk before anyone is shown it.
    pub(super) fn begin(
        path: &Path,
        mut disk: Disk,
        contents: Contents,
        limits: HistoryLimits,
    ) -> Result<(Self, Term), OpenError> {
        let starts = contents.starts().saturating_add(1).to_string();
        let mut group = Group::new(contents.revision);
        let put = Transaction::new().put(TERM_KEY, starts);
        let term = Term {
            epoch: contents.epoch,
            revision: contents.revision.next(),
        };
        let _committed = group.judge(&contents.records, put);
        let blocks = disk.encode(&group, &contents.records);
        disk.write(blocks)
            .map_err(|error| file::open_error(path, error))?;
        let shared = Arc::new(Shared::new(contents.records, contents.revision, limits));
        shared.publish(group, Duration::ZERO);
        let writer = Self {
            path: path.to_owned(),
            disk,
            shared,
            writing: Writing::default(),
        };
        Ok((writer, term))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn writing(&self) -> Writing {
        self.writing.clone()
    }

    /// Serves until the queue is closed or a write fails, says so whatever happened, and closes the file.
    pub(super) fn run(mut self, requests: mpsc::Receiver<Request>, finish: &watch::Sender<bool>) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve(requests)));
        let end = match served {
            Ok(Ok(())) => End::Closed,
            Ok(Err(error)) => End::Failed(format!("cannot write {}: {error}", self.path.display())),
            Err(panic) => End::Failed(format!("the writer panicked: {}", panic_message(&*panic))),
        };
        if let End::Failed(reason) = &end {
            tracing::error!(path = %self.path.display(), %reason, "the store failed");
        }
        self.shared.end(end);
        drop(self);
        finish.send_replace(true);
    }

    fn serve(&mut self, mut requests: mpsc::Receiver<Request>) -> Result<(), redb::Error> {
        let mut drained = Vec::with_capacity(GROUP);
        while requests.blocking_recv_many(&mut drained, GROUP) > 0 {
            self.commit_group(&mut requests, &mut drained)?;
        }
        Ok(())
    }

    fn commit_group(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        drained: &mut Vec<Request>,
    ) -> Result<(), redb::Error> {
        let (group, judged, at) = self.judge(requests, drained);
        if !group.is_empty() {
            let blocks = self.disk.encode(&group, &self.shared.read().records);
            self.writing.set(Some(Instant::now()));
            let written = self.disk.write(blocks);
            self.writing.set(None);
            written?;
            self.shared.publish(group, at);
        }
        for (reply, outcome) in judged {
            // A caller that is gone needs no answer.
            let _ = reply.send(outcome);
        }
        Ok(())
    }

    fn judge(
        &self,
        requests: &mut mpsc::Receiver<Request>,
        drained: &mut Vec<Request>,
    ) -> (Group, Vec<Judged>, Duration) {
        let published = self.shared.read();
        let mut group = Group::new(published.revision);
        let mut judged = Vec::with_capacity(drained.len());
        let mut latest = Duration::ZERO;
        for request in drained.drain(..) {
            match request {
                Request::Commit {
                    transaction,
                    at,
                    reply,
                } => {
                    let outcome = group.judge(&published.records, transaction);
                    judged.push((reply, outcome));
                    latest = latest.max(at);
                }
                Request::Close => requests.close(),
            }
        }
        (group, judged, latest)
    }
}
