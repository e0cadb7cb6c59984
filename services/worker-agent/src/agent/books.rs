//! What has to be in the ledger, on a disk that may be full: what it does not take waits here, and is
//! tried again. It decides what must not be said or started meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::ids::AllocationId;
use crate::ledger::{Entry, Ledger};

/// Between tries.
const PAUSE: Duration = Duration::from_secs(1);

/// The ledger, and what it does not have yet.
#[derive(Debug)]
pub(super) struct Books {
    ledger: Ledger,
    /// In order, as they came: at most a few for each attempt that was here meanwhile.
    waiting: Vec<Entry>,
    /// Allocations whose end waits.
    unsaid: BTreeSet<AllocationId>,
    trouble: String,
    next_try: Instant,
    caught_up: u64,
}

impl Books {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            waiting: Vec::new(),
            unsaid: BTreeSet::new(),
            trouble: String::new(),
            next_try: Instant::now(),
            caught_up: 0,
        }
    }

    /// Keeps entries after those that wait.
    pub(super) fn keep(&mut self, entries: &[Entry]) {
        self.waiting.extend_from_slice(entries);
        match self.ledger.add(&self.waiting) {
            Ok(()) if self.trouble.is_empty() => self.waiting.clear(),
            Ok(()) => {
                tracing::info!("the ledger takes entries again");
                self.waiting.clear();
                self.unsaid.clear();
                self.trouble.clear();
                self.caught_up += 1;
            }
            Err(error) => {
                if self.trouble.is_empty() {
                    tracing::error!(%error, "cannot write the ledger: nothing is started, and ends are kept back, until it can be");
                }
                self.trouble = format!("cannot write the ledger: {error}");
                self.next_try = Instant::now() + PAUSE;
                self.unsaid.extend(entries.iter().filter_map(end_of));
            }
        }
    }

    /// Whether anything waits.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When what waits is tried again, at the latest.
    pub(super) fn next_try(&self) -> Instant {
        self.next_try
    }

    /// Says why nothing may be started, if nothing may.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.is_behind() {
            return Err(self.trouble.clone());
        }
        Ok(())
    }

    /// Whether the end of an allocation waits: nobody may hear of it.
    pub(super) fn lack(&self, id: &AllocationId) -> bool {
        self.unsaid.contains(id)
    }

    /// How often all that waited could be kept.
    pub(super) fn caught_up(&self) -> u64 {
        self.caught_up
    }
}

fn end_of(entry: &Entry) -> Option<AllocationId> {
    match entry {
        Entry::Ended(id) => Some(id.clone()),
        Entry::Told(_) | Entry::Token(..) => None,
    }
}
