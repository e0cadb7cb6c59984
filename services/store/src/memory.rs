//! The backend that keeps nothing: a transaction is durable as soon as it is judged, as far as
//! durability goes in memory. It has no thread, so simulated time stays in the simulation's hands.

use std::sync::Arc;

use crate::error::Error;
use crate::group::Group;
use crate::shared::{End, Shared};
use crate::transaction::{Outcome, Transaction};

#[derive(Debug)]
pub(crate) struct Memory {
    shared: Arc<Shared>,
}

impl Memory {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        let now = self.shared.now();
        let mut published = self.shared.write();
        self.shared.open()?;
        let mut group = Group::new(published.revision);
        let outcome = group.judge(&published.records, transaction);
        if !group.is_empty() {
            published.publish(group, now);
            drop(published);
            self.shared.ring();
        }
        Ok(outcome)
    }

    pub(crate) fn close(&self) {
        self.shared.end(End::Closed);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.close();
    }
}
