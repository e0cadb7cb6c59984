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

impl HistoryLimits {
    /// For a component that never watches its store: only the latest revision.
    pub const NONE: Self = Self {
        revisions: 1,
        age: Duration::ZERO,
        bytes: 0,
    };
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
    /// In order of their revisions, all of them after `oldest`. Several stores may share the count, so there
    /// may be gaps.
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
        let newest = self.entries.back();
        let newest = newest.map_or(self.oldest, |entry| entry.batch.revision);
        if revision < self.oldest || revision > newest {
            return None;
        }
        let skip = self
            .entries
            .partition_point(|entry| entry.batch.revision <= revision);
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
    let size =
        |record: &Option<Arc<Record>>| record.as_ref().map_or(0, |record| record.value.len());
    batch
        .changes
        .iter()
        .map(|change| size(&change.before) + size(&change.after))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Change;

    const MINUTE: Duration = Duration::from_mins(1);

    /// A history of 20 revisions after the third, one a minute, of 10 bytes each.
    fn history(limits: HistoryLimits) -> History {
        let mut history = History::new(Revision(3), limits);
        for (revision, minutes) in (4..24).zip(0..) {
            history.push(batch(revision), MINUTE * minutes);
        }
        history
    }

    fn batch(revision: u64) -> Batch {
        let record = Record {
            key: "k".into(),
            value: vec![0; 10].into(),
            created: Revision(1),
            modified: Revision(revision),
        };
        let change = Change {
            key: "k".into(),
            before: None,
            after: Some(Arc::new(record)),
        };
        Batch {
            revision: Revision(revision),
            changes: vec![change],
        }
    }

    fn unlimited() -> HistoryLimits {
        HistoryLimits {
            revisions: usize::MAX,
            age: Duration::MAX,
            bytes: usize::MAX,
        }
    }

    #[test]
    fn each_limit_forgets_what_exceeds_it() {
        let revisions = HistoryLimits {
            revisions: 5,
            ..unlimited()
        };
        let age = HistoryLimits {
            age: MINUTE * 7,
            ..unlimited()
        };
        let bytes = HistoryLimits {
            bytes: 49,
            ..unlimited()
        };
        let cases = [(unlimited(), 3), (revisions, 18), (age, 15), (bytes, 19)];
        for (limits, oldest) in cases {
            assert_eq!(history(limits).oldest(), Revision(oldest), "{limits:?}");
        }
    }

    #[test]
    fn what_is_kept_is_read_from_anywhere_and_nothing_else_is() {
        let history = history(HistoryLimits {
            revisions: 5,
            ..unlimited()
        });
        let read = |after, count| {
            let batches = history.after(Revision(after), count)?;
            Some(
                batches
                    .iter()
                    .map(|batch| batch.revision.0)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(read(18, 9), Some(vec![19, 20, 21, 22, 23]));
        assert_eq!(read(20, 2), Some(vec![21, 22]));
        assert_eq!(read(23, 9), Some(vec![]));
        for refused in [0, 17, 24, u64::MAX] {
            assert_eq!(read(refused, 9), None, "{refused}");
        }
    }

    #[test]
    fn after_a_quiet_time_the_past_is_forgotten_little_by_little() {
        let mut history = history(HistoryLimits {
            age: MINUTE * 30,
            ..unlimited()
        });
        let mut oldest = Vec::new();
        for revision in 24..28 {
            history.push(batch(revision), MINUTE * 100);
            oldest.push(history.oldest().0);
        }
        assert_eq!(oldest, [11, 19, 23, 23]);
    }
}
