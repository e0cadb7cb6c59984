//! What a store holds and says: records, and the changes that made them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::leadership::TERM_KEY;

/// A position in the history of one store: each transaction that changed something has the next number.
///
/// Revisions of different epochs are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One key with its value. Cloning is cheap: key and value are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Arc<str>,
    /// The value, opaque to the store.
    pub value: Bytes,
    /// The revision that put the key when it was absent; a key deleted and put again has a new one.
    pub created: Revision,
    /// The revision that put this value.
    pub modified: Revision,
}

/// What one transaction did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Arc<str>,
    /// The record as it was; `None` if the key was absent.
    pub before: Option<Arc<Record>>,
    /// The record as it is; `None` if the key was deleted.
    pub after: Option<Arc<Record>>,
}

/// All that one revision changed, in the order in which its transaction named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// Its changes, never empty, each key once.
    pub changes: Vec<Change>,
}

impl Batch {
    /// This batch without the keys that do not begin with `prefix`; `None` if nothing is left.
    pub(crate) fn under(&self, prefix: &str) -> Option<Self> {
        let changes: Vec<_> = self
            .changes
            .iter()
            .filter(|change| change.key.starts_with(prefix))
            .cloned()
            .collect();
        (!changes.is_empty()).then_some(Self {
            revision: self.revision,
            changes,
        })
    }
}

/// The records under a prefix, as they stood at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The records in the order of their keys.
    pub records: Vec<Arc<Record>>,
    /// The revision; a watch from here misses nothing and repeats nothing.
    pub revision: Revision,
}

impl Listing {
    /// The oldest revision after which nothing came but the record of a start or an election, as far as a
    /// listing of everything tells: whoever knew all of it then knows all that is listed.
    #[must_use]
    pub fn unchanged_since(&self) -> Revision {
        let is_term = |record: &Arc<Record>| &*record.key == TERM_KEY;
        match self.records.iter().rfind(|record| is_term(record)) {
            Some(term) if term.modified == self.revision => {
                Revision(self.revision.0.saturating_sub(1))
            }
            Some(_) | None => self.revision,
        }
    }
}
