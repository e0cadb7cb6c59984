//! What watches read: the latest revisions, in memory, within bounds.
//!
//! Pure: `now` is the time since the store was opened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Batch, Record, Revision};

/// How much history is kept for watches. Whatever exceeds one of the limits may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The most revisions.
    pub revisions: usize,
    /// The greatest age.
    pub age: Duration,
    /// The most bytes of values before and after.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    /// 100,000 revisions, 10 minutes, 128 MiB.
    fn default() -> Self {
        Self {
            revisions: 100_000,
            age: Duration::from_mins(10),
            bytes: 128 * 1024 * 1024,
        }
    }
}

/// How many entries one new entry may push out: enough to shrink, too few for a long pause after a
/// quiet time in which everything aged.
const FORGET_PER_PUSH: usize = 8;

#[derive(Debug)]
pub(crate) struct History {
    /// Consecutive revisions, the first one being `oldest` + 1.
    entries: VecDeque<Entry>,
    oldest: Revision,
    bytes: usize,
    limits: HistoryLimits,
}

#[derive(Debug)]
struct Entry {
    batch: Arc<Batch>,
    at: Duration,
    bytes: usize,
}

impl History {
    /// No history: only a watch after `revision` can begin.
    pub(crate) fn new(revision: Revision, limits: HistoryLimits) -> Self {
        Self {
            entries: VecDeque::new(),
            oldest: revision,
            bytes: 0,
            limits,
        }
    }

    /// The oldest revision that a watch may begin after.
    pub(crate) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// Adds the next revision and forgets some of what exceeds the limits.
    pub(crate) fn push(&mut self, batch: Batch, now: Duration) {
        let bytes = batch_bytes(&batch);
        self.bytes += bytes;
        self.entries.push_back(Entry {
            batch: Arc::new(batch),
            at: now,
            bytes,
        });
        for _ in 0..FORGET_PER_PUSH {
            if !self.forget(now) {
                break;
            }
        }
    }

    /// At most `count` batches after `revision`; `None` if they are not kept, or do not exist.
    pub(crate) fn after(&self, revision: Revision, count: usize) -> Option<Vec<Arc<Batch>>> {
        let skip = usize::try_from(revision.0.checked_sub(self.oldest.0)?).ok()?;
        if skip > self.entries.len() {
            return None;
        }
        let batches = self.entries.range(skip..).take(count);
        Some(batches.map(|entry| Arc::clone(&entry.batch)).collect())
    }

    fn forget(&mut self, now: Duration) -> bool {
        let Some(first) = self.entries.front() else {
            return false;
        };
        let within = self.entries.len() <= self.limits.revisions
            && self.bytes <= self.limits.bytes
            && now.saturating_sub(first.at) <= self.limits.age;
        if within {
            return false;
        }
        self.bytes -= first.bytes;
        self.oldest = first.batch.revision;
        self.entries.pop_front();
        true
    }
}

fn batch_bytes(batch: &Batch) -> usize {
    let size = |record: &Option<Record>| record.as_ref().map_or(0, |record| record.value.len());
    batch
        .changes
        .iter()
        .map(|change| size(&change.before) + size(&change.after))
        .sum()
}
