//! What the planner knows of everything but its service: the workers, and the terms that it works by.
//! A view of facts; it decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::replica::attempt::Allocation;
use super::scaling::Measure;
use super::time::Time;

/// The world at one instant, as one service's plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The workers by name; `None` until the registry has told them all once.
    pub workers: Option<&'a BTreeMap<String, Worker>>,
    /// How far the registry's history is known with them.
    pub position: &'a Position,
    /// Grows with each change that may have made room. Never 0.
    pub room: u64,
    /// Moves of other services that are not finished, by the worker they move off.
    pub moves_elsewhere: &'a BTreeMap<String, u32>,
    /// What was measured of this service for scaling.
    pub measure: Option<Measure>,
    /// Since when somebody plans: what nobody could do before is held against nobody.
    pub since: Time,
    /// The planner's terms.
    pub terms: &'a Terms,
}

/// A place in the history of the registry's store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The epoch of that store; empty is nowhere.
    pub epoch: String,
    /// The revision.
    pub revision: u64,
}

impl Position {
    /// Whether what has this fencing token, `EPOCH-REVISION`, was made in this epoch, and not after this.
    #[must_use]
    pub fn covers(&self, fencing_token: &str) -> bool {
        let made = Self::of(fencing_token);
        made.is_some_and(|(epoch, revision)| epoch == self.epoch && revision <= self.revision)
    }

    /// Whether what has this fencing token was made after this: what is known here is then older. Of nowhere, and
    /// of what is no such token, that is not known.
    #[must_use]
    pub fn precedes(&self, fencing_token: &str) -> bool {
        // Later epochs are greater as text.
        let made = Self::of(fencing_token);
        !self.epoch.is_empty()
            && made.is_some_and(|made| made > (self.epoch.as_str(), self.revision))
    }

    /// Whether this is that place in the same history, or a later one. Everything reaches nowhere.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        let later = self.epoch == other.epoch && self.revision >= other.revision;
        later || other.epoch.is_empty()
    }

    /// The epoch and the revision of a fencing token.
    fn of(fencing_token: &str) -> Option<(&str, u64)> {
        let (epoch, revision) = fencing_token.rsplit_once('-')?;
        Some((epoch, revision.parse().ok()?))
    }
}

/// What the planner works by, but for what a spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Without retry: how long a service that was never ready waits for a place.
    pub place_within: Duration,
    /// A retry due within this keeps its room.
    pub hold_within: Duration,
    /// From leaving the endpoints until the stop, so that load balancers see it first.
    pub leave_first: Duration,
    /// How often room is asked for again, should its coming free be missed.
    pub ask_again: Duration,
    /// A delay from which on a spare stands in.
    pub spare_after: Duration,
    /// How many replicas one plan touches: what fits a transaction.
    pub batch: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            place_within: Duration::from_secs(60),
            hold_within: Duration::from_secs(60),
            leave_first: Duration::from_secs(1),
            ask_again: Duration::from_secs(15),
            spare_after: Duration::from_secs(10),
            batch: 40,
        }
    }
}

/// What is known of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// What may happen on it.
    pub state: WorkerState,
    /// Whether it is there.
    pub liveness: Liveness,
    /// What has to stop on a lost worker has certainly stopped.
    pub fenced: bool,
    /// Its agent has not said yet that what was revoked on it has ended.
    pub unconfirmed: bool,
    /// Allocations made at or below this generation are revoked.
    pub revoked_through: u64,
    /// Its drain; `None` unless it is draining.
    pub drain: Option<Drain>,
    /// Its incarnation.
    pub generation: u64,
    /// Its region; empty is none.
    pub region: String,
    /// Its zone; empty is none.
    pub zone: String,
    /// Where its agent serves; empty is nowhere.
    pub agent_address: String,
}

/// What may happen on a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Not yet proved fit.
    Provisioning,
    /// Takes work.
    Active,
    /// Is being emptied.
    Draining,
    /// Holds nothing.
    Disabled,
}

/// Whether a worker is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Trusted, and not heard yet.
    Unknown,
    /// Heard in time.
    Alive,
    /// Silent for a while.
    Suspect,
    /// Given up.
    Lost,
    /// Gone of its own will, running nothing.
    Left,
}

/// The terms of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How many moves off the worker may be unfinished at a time.
    pub max_parallel: u32,
    /// When it began.
    pub began: Time,
    /// How many allocations had been moved when it was first heard of.
    pub moved: u32,
}

impl Worker {
    /// One of generation 1 that is heard, of which nothing else is known.
    #[cfg(test)]
    pub(crate) fn in_state(state: WorkerState) -> Self {
        Self {
            state,
            liveness: Liveness::Alive,
            fenced: false,
            unconfirmed: false,
            revoked_through: 0,
            drain: None,
            generation: 1,
            region: String::new(),
            zone: String::new(),
            agent_address: String::new(),
        }
    }

    /// Whether something new may be placed on it.
    #[must_use]
    pub fn placeable(&self) -> bool {
        self.state == WorkerState::Active
            && matches!(self.liveness, Liveness::Alive | Liveness::Unknown)
    }

    /// Whether something on it may have ended that its agent does not speak of.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.state == WorkerState::Disabled
            || self.revoked_through > 0
            || matches!(self.liveness, Liveness::Lost | Liveness::Left)
    }

    /// Whether what was revoked on it, or what it ran when it was lost, may run on there: neither its fence
    /// nor its agent has said that it ended.
    #[must_use]
    pub fn may_run_on(&self) -> bool {
        match self.liveness {
            Liveness::Lost => !self.fenced,
            Liveness::Unknown | Liveness::Alive | Liveness::Suspect => self.unconfirmed,
            Liveness::Left => false,
        }
    }
}

impl<'a> World<'a> {
    /// A worker, if it is known.
    #[must_use]
    pub fn worker(&self, name: &str) -> Option<&'a Worker> {
        self.workers.and_then(|workers| workers.get(name))
    }

    /// Whether the worker that this was on is deleted. One that is unknown says nothing by itself: the registry
    /// may be restored from a backup, or tell of the worker later than of the room on it.
    #[must_use]
    pub fn deleted(&self, room: &Allocation) -> bool {
        let absent = self
            .workers
            .is_some_and(|workers| !workers.contains_key(&room.worker));
        absent && self.position.covers(&room.fencing_token)
    }

    /// Whether a worker is being emptied.
    #[must_use]
    pub fn draining(&self, name: &str) -> Option<Drain> {
        let worker = self.worker(name)?;
        let terms = worker.drain.unwrap_or(Drain {
            max_parallel: 1,
            began: Time::default(),
            moved: 0,
        });
        (worker.state == WorkerState::Draining).then_some(terms)
    }

    /// Whether a worker is known to take nothing new.
    #[must_use]
    pub fn closed(&self, name: &str) -> bool {
        self.workers
            .is_some_and(|workers| !workers.get(name).is_some_and(Worker::placeable))
    }
}
