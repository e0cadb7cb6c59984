//! What a caller asks for: conditions, and the writes to make if all of them hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;
use crate::record::Revision;

/// The most records (distinct keys, under a condition or written) that one transaction may name,
/// on every store, so that what one store accepts no other refuses. etcd takes 128 conditions and as many writes
/// by default.
pub const MAX_RECORDS: usize = 80;

/// The most bytes of keys and values in one transaction: etcd's default limit for a request is
/// 1.5 MiB, encoding included.
pub const MAX_BYTES: usize = 1024 * 1024;

/// What must hold of a key for a transaction to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no record.
    Absent,
    /// There is a record.
    Exists,
    /// There is a record, and it was last put by this revision.
    ModifiedAt(Revision),
}

impl Condition {
    /// Whether the condition holds of a key whose record was last put at `modified`.
    pub(crate) fn holds(self, modified: Option<Revision>) -> bool {
        match self {
            Self::Absent => modified.is_none(),
            Self::Exists => modified.is_some(),
            Self::ModifiedAt(revision) => modified == Some(revision),
        }
    }
}

/// Conditions and writes that are committed together or not at all.
///
/// Where a key is written twice, the last word counts and the earlier one is never seen.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub(crate) conditions: Vec<(Arc<str>, Condition)>,
    pub(crate) writes: Vec<(Arc<str>, Option<Bytes>)>,
}

impl Transaction {
    /// A transaction without conditions or writes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition; all of them must hold.
    #[must_use]
    pub fn when(mut self, key: impl Into<Arc<str>>, condition: Condition) -> Self {
        self.conditions.push((key.into(), condition));
        self
    }

    /// Puts a value, whether the key is there or not.
    #[must_use]
    pub fn put(mut self, key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.writes.push((key.into(), Some(value.into())));
        self
    }

    /// Deletes a key; if it is absent, nothing happens.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Arc<str>>) -> Self {
        self.writes.push((key.into(), None));
        self
    }

    /// Whether the transaction writes nothing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many records (distinct keys) the transaction names: at most [`MAX_RECORDS`] are committed.
    #[must_use]
    pub fn records(&self) -> usize {
        let conditions = self.conditions.iter().map(|(key, _)| key);
        let writes = self.writes.iter().map(|(key, _)| key);
        conditions.chain(writes).collect::<BTreeSet<_>>().len()
    }

    fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(|(key, _)| key.len());
        let writes = self
            .writes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len));
        conditions.chain(writes).sum()
    }

    /// Whether a store would take it by its size, which [`Store::commit`](crate::Store::commit) looks at as well.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn check_size(&self) -> Result<(), Error> {
        let bytes = self.bytes();
        // Counting distinct keys costs a set, which the usual small transaction need not pay.
        let named = self.conditions.len() + self.writes.len();
        let records = if named > MAX_RECORDS {
            self.records()
        } else {
            named
        };
        if records > MAX_RECORDS || bytes > MAX_BYTES {
            return Err(Error::TooLarge { records, bytes });
        }
        Ok(())
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a conflict is an outcome, not an error"]
pub enum Outcome {
    /// All conditions held and the writes are durable. The revision is the transaction's own, or,
    /// when it changed nothing, the one it was judged at.
    Committed(Revision),
    /// Nothing was written.
    Conflict {
        /// The first key, in the order of the conditions, whose condition did not hold.
        key: Arc<str>,
        /// When that key was last put; `None` if it is absent.
        actual: Option<Revision>,
    },
}
