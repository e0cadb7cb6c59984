//! Judging: which transactions of a queue are committed, and what they change.
//!
//! Pure: a group is judged on the published records and on what its own earlier transactions left;
//! making it durable and publishing it is for others.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::{Batch, Change, Record, Revision};
use crate::transaction::{Outcome, Transaction};

/// All records by key. A map has room for nearly twice what is in it, so they are apart from it; and they are
/// shared rather than cloned, since each value that is cloned keeps a count of its own.
pub(crate) type Records = BTreeMap<Arc<str>, Arc<Record>>;

/// Transactions that were judged one after the other and become durable together.
#[derive(Debug)]
pub(crate) struct Group {
    overlay: BTreeMap<Arc<str>, Option<Arc<Record>>>,
    batches: Vec<Batch>,
    revision: Revision,
}

impl Group {
    /// An empty group on a state of this revision.
    pub(crate) fn new(revision: Revision) -> Self {
        Self {
            overlay: BTreeMap::new(),
            batches: Vec::new(),
            revision,
        }
    }

    /// Judges one more transaction on `base` with what the group changed so far.
    pub(crate) fn judge(&mut self, base: &Records, transaction: Transaction) -> Outcome {
        for (key, condition) in &transaction.conditions {
            let actual = self.record(base, key).map(|record| record.modified);
            if !condition.holds(actual) {
                return Outcome::Conflict {
                    key: Arc::clone(key),
                    actual,
                };
            }
        }
        self.apply(base, transaction.writes);
        Outcome::Committed(self.revision)
    }

    /// The state of the changed keys after the whole group; `None` is a deleted key.
    pub(crate) fn overlay(&self) -> impl Iterator<Item = (&str, Option<&Record>)> {
        self.overlay
            .iter()
            .map(|(key, record)| (&**key, record.as_deref()))
    }

    /// The revision after the whole group.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Brings `records` to the state after the group; returns what each revision changed, in order.
    pub(crate) fn publish(self, records: &mut Records) -> Vec<Batch> {
        for (key, record) in self.overlay {
            match record {
                Some(record) => drop(records.insert(key, record)),
                None => drop(records.remove(&key)),
            }
        }
        self.batches
    }

    fn record<'a>(&'a self, base: &'a Records, key: &str) -> Option<&'a Arc<Record>> {
        match self.overlay.get(key) {
            Some(changed) => changed.as_ref(),
            None => base.get(key),
        }
    }

    fn apply(&mut self, base: &Records, writes: Vec<(Arc<str>, Option<Bytes>)>) {
        let revision = self.revision.next();
        let changes: Vec<_> = last_words(writes)
            .filter_map(|(key, value)| self.change(base, key, value, revision))
            .collect();
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            self.overlay
                .insert(Arc::clone(&change.key), change.after.clone());
        }
        self.batches.push(Batch { revision, changes });
        self.revision = revision;
    }

    fn change(
        &self,
        base: &Records,
        key: Arc<str>,
        value: Option<Bytes>,
        revision: Revision,
    ) -> Option<Change> {
        let before = self.record(base, &key).cloned();
        if before.is_none() && value.is_none() {
            return None;
        }
        // The stored key is shared on, so that a record never keeps two copies of it alive.
        let key = before
            .as_ref()
            .map_or(key, |record| Arc::clone(&record.key));
        let after = value.map(|value| {
            Arc::new(Record {
                key: Arc::clone(&key),
                value,
                created: before.as_ref().map_or(revision, |record| record.created),
                modified: revision,
            })
        });
        Some(Change { key, before, after })
    }
}

/// The writes without those that a later write of the same key replaces.
pub(crate) fn last_words(
    writes: Vec<(Arc<str>, Option<Bytes>)>,
) -> impl Iterator<Item = (Arc<str>, Option<Bytes>)> {
    // At most `MAX_RECORDS` writes come here twice compared, which is cheaper than a set.
    let keep: Vec<bool> = writes
        .iter()
        .enumerate()
        .map(|(index, (key, _))| !writes[index + 1..].iter().any(|(later, _)| later == key))
        .collect();
    writes
        .into_iter()
        .zip(keep)
        .filter_map(|(write, keep)| keep.then_some(write))
}
