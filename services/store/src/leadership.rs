//! Who may act for the component: the one process of an embedded store, or the elected one of several.

use crate::epoch::Epoch;
use crate::record::Revision;
use crate::transaction::{Condition, Transaction};

/// The key of the record that is put when a store is opened; its revision is the term.
pub const TERM_KEY: &str = "store/term";

/// A fencing token: later terms are greater, across restores too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// The store's epoch.
    pub epoch: Epoch,
    /// The revision of the record put at this start.
    pub revision: Revision,
}

/// The right to act, as long as the term's record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    term: Term,
}

impl Leadership {
    pub(crate) fn new(term: Term) -> Self {
        Self { term }
    }

    /// The term to show to others.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The transaction with one more condition: it conflicts, on [`TERM_KEY`], once someone else leads.
    #[must_use]
    pub fn fence(&self, transaction: Transaction) -> Transaction {
        transaction.when(TERM_KEY, Condition::ModifiedAt(self.term.revision))
    }
}
