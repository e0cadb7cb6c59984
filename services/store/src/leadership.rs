//! Who may act for the component: the one process of an embedded store, or the elected one of several.

use crate::clustered::Hold;
use crate::epoch::Epoch;
use crate::record::Revision;
use crate::transaction::{Condition, Transaction};

/// The key of the record that is put when a store of one process is opened, or when one of several
/// instances is elected; its revision is the term.
pub const TERM_KEY: &str = "store/term";

/// A fencing token: later terms are greater, across restores too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// The store's epoch.
    pub epoch: Epoch,
    /// The revision of the record put at this start, or at this election.
    pub revision: Revision,
}

/// The right to act, as long as the term's record stands. The last clone dropped gives it back.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: Term,
    hold: Hold,
}

impl Leadership {
    pub(crate) fn new(term: Term, hold: Hold) -> Self {
        Self { term, hold }
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

    /// Whether the right has not ended, by this instance's own count of time.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.hold.holds()
    }

    /// Resolves when the right has ended: someone else may lead from now on. With a store of one
    /// process that is when it is closed or has failed. Waiting does not keep the right.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        self.hold.lost()
    }
}
