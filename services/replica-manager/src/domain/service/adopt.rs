//! Taking a replica back that the records do not know: it ran on while its records were lost, or the
//! store was restored from before it.

use std::sync::Arc;

use crate::domain::replica::attempt::{Allocation, Attempt};
use crate::domain::replica::observe::{Observation, Report};
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::spec::check::MAX_REPLICAS;
use crate::domain::time::Time;

use super::command::Refused;
use super::{Service, count};

/// An attempt that runs and that no record knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// Its replica's number.
    pub ordinal: u32,
    /// Its own number.
    pub number: u32,
    /// The version that it was started as.
    pub version: u64,
    /// The room that it has.
    pub room: Allocation,
    /// What its agent says of it.
    pub report: Report,
}

impl Service {
    /// Makes the orphan the current attempt of its replica. It is kept: a service that would have one too
    /// many by it is scaled to have it, unless its load says how many there are.
    ///
    /// # Errors
    /// `Deleting`, `NotRunning`; `Attended` if the replica has another attempt that runs, or is about to.
    pub fn adopt(&mut self, orphan: Orphan, now: Time) -> Result<(), Refused> {
        self.refuse_if_deleting()?;
        self.refuse_unless_running()?;
        let mut edition = self.aim();
        let known = self.earlier.contains_key(&orphan.version);
        if known && orphan.version != self.header.version {
            // Not what is aimed at: the next update replaces it.
            edition.version = orphan.version;
            edition.template = orphan.version;
        }
        let ordinal = orphan.ordinal;
        let fresh = || Arc::new(Replica::new(ordinal, Role::Member, edition, now));
        let replica = Arc::make_mut(self.replicas.entry(ordinal).or_insert_with(fresh));
        if replica.live() || replica.leaving() {
            return Err(Refused::Attended);
        }
        replica.take_over(orphan, now);
        // Nothing comes after the last number there is.
        let next = ordinal.checked_add(1).unwrap_or_default();
        self.header.next_ordinal = self.header.next_ordinal.max(next);
        let members = count(self.members());
        let most = self.most_by_scaling().unwrap_or(MAX_REPLICAS);
        if self.spec().scaling.is_none() && members > self.wanted() && members <= most {
            self.scale(members, now)?;
        }
        Ok(())
    }
}

impl Replica {
    fn take_over(&mut self, orphan: Orphan, now: Time) {
        let mut attempt = Attempt::new(orphan.number, orphan.version);
        self.releases.remove(&orphan.room.id);
        attempt.allocation = Some(orphan.room);
        self.attempts = self.attempts.max(orphan.number);
        self.previous = self.attempt.take();
        self.attempt = Some(attempt);
        self.episode = None;
        self.stop = None;
        self.placeless = None;
        self.change(State::Running(Phase::Allocated), now);
        let report = Observation::Reported(orphan.report);
        // It is the current attempt now, so what its agent says of it counts.
        let _ = self.observe(orphan.number, report, now);
    }
}

#[cfg(test)]
mod tests;
