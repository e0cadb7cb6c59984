//! The other instances of the registry, to which workers beat as well: nobody is lost before each of them has
//! said that it did not hear the worker.
//!
//! It decides whether all have spoken, who has been silent for too long, and whether somebody has gone who may
//! have heard workers until just now. It never asks anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Moment;
use crate::domain::text::Text;

/// How long an instance is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silent for this long while it holds its seat, it loses the seat.
    pub silent_after: Duration,
    /// An instance that has lost its seat knows after this long at the latest, and answers no heartbeat then.
    pub lease: Duration,
}

/// What is known of the other instances by one leader.
#[derive(Clone, Debug)]
pub struct Witnesses {
    patience: Patience,
    /// Those that held seats at the last round.
    seated: BTreeSet<Text>,
    /// Those that did not answer, and since when.
    silent: BTreeMap<Text, Moment>,
    /// Those whose seats were taken, and until when they may still answer heartbeats.
    evicted: BTreeMap<Text, Moment>,
}

/// What one round of questions leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Every instance that may answer heartbeats has said whom it heard.
    pub complete: bool,
    /// An instance has gone that may have heard workers until now: all of them count as heard now.
    pub trust: bool,
    /// These lose their seats.
    pub evict: Vec<Text>,
}

impl Witnesses {
    /// Nobody is known yet.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            seated: BTreeSet::new(),
            silent: BTreeMap::new(),
            evicted: BTreeMap::new(),
        }
    }

    /// A round has ended: `seats` are the others that hold seats, `answered` those who answered.
    pub fn round(
        &mut self,
        seats: &BTreeSet<Text>,
        answered: &BTreeSet<Text>,
        now: Moment,
    ) -> Heard {
        let mut heard = Heard::default();
        for gone in self.seated.difference(seats) {
            // One that was evicted is waited for below.
            heard.trust |= !self.evicted.contains_key(gone);
        }
        self.seated = seats.clone();
        self.silent.retain(|id, _| seats.contains(id));
        self.evicted.retain(|id, until| {
            let is_back = seats.contains(id) && answered.contains(id);
            let is_over = now >= *until;
            heard.trust |= is_over && !is_back;
            !is_back && !is_over
        });
        for id in seats {
            if answered.contains(id) {
                self.silent.remove(id);
                continue;
            }
            let since = *self.silent.entry(id.clone()).or_insert(now);
            if now.saturating_sub(since) >= self.patience.silent_after {
                self.silent.remove(id);
                self.evicted.insert(id.clone(), now + self.patience.lease);
                heard.evict.push(id.clone());
            }
        }
        heard.complete = self.evicted.is_empty() && seats.is_subset(answered);
        heard
    }
}

#[cfg(test)]
mod tests;
