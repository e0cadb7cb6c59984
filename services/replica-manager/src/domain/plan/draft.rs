//! A plan in the making: the service as it will be after the acts so far.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::tally::Tally;
use super::{Plan, Reason};
use crate::domain::replica::{Replica, Role, StopWhy};
use crate::domain::service::Service;
use crate::domain::service::apply::Action;
use crate::domain::time::Time;
use crate::domain::world::World;

pub(super) struct Draft<'a> {
    pub(super) now: Time,
    pub(super) world: &'a World<'a>,
    pub(super) service: Service,
    tally: Tally,
    actions: Vec<Action>,
    reasons: Vec<Reason>,
    explained: FxHashSet<Reason>,
    wake_at: Option<Time>,
    touched: BTreeSet<u32>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(now: Time, service: &Service, world: &'a World<'a>) -> Self {
        Self {
            now,
            world,
            service: service.clone(),
            tally: Tally::of(service),
            actions: Vec::new(),
            reasons: Vec::new(),
            explained: FxHashSet::default(),
            wake_at: None,
            touched: BTreeSet::new(),
        }
    }

    /// Does an act, unless it would touch more replicas than one transaction takes: then the rest is
    /// planned right after. False if it was put off.
    pub(super) fn act(&mut self, action: Action) -> bool {
        let ordinal = if matches!(action, Action::Create { .. }) {
            Some(self.service.header.next_ordinal)
        } else {
            action.ordinal()
        };
        if let Some(ordinal) = ordinal {
            let full = self.touched.len() >= self.world.terms.batch;
            if full && !self.touched.contains(&ordinal) {
                self.wake(self.now);
                return false;
            }
            self.touched.insert(ordinal);
        }
        self.recount(ordinal, Tally::remove);
        self.service.apply(&action, self.world.room, self.now);
        self.recount(ordinal, Tally::add);
        self.actions.push(action);
        true
    }

    fn recount(&mut self, ordinal: Option<u32>, count: impl Fn(&mut Tally, &Replica)) {
        let replica = ordinal.and_then(|ordinal| self.service.replicas.get(&ordinal));
        if let Some(replica) = replica {
            count(&mut self.tally, replica);
        }
    }

    /// Stops a replica: if it is ready and the service goes on, after it has left the endpoints.
    pub(super) fn stop(&mut self, ordinal: u32, why: StopWhy) -> bool {
        let ready = self.replica(ordinal).is_some_and(Replica::ready);
        let at = if ready {
            self.now + self.world.terms.leave_first
        } else {
            self.now
        };
        self.act(Action::Stop { ordinal, why, at })
    }

    /// Gives a reason, once.
    pub(super) fn explain(&mut self, reason: Reason) {
        if self.explained.insert(reason.clone()) {
            self.reasons.push(reason);
        }
    }

    /// Plans again at that time, at the latest.
    pub(super) fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn replica(&self, ordinal: u32) -> Option<&Replica> {
        self.service.replicas.get(&ordinal).map(AsRef::as_ref)
    }

    /// Whether a replica is not there any more, or will not be.
    pub(super) fn gone(&self, ordinal: u32) -> bool {
        self.replica(ordinal).is_none_or(Replica::leaving)
    }

    /// How many acts there are so far.
    pub(super) fn acts(&self) -> usize {
        self.actions.len()
    }

    /// Ordinals of the replicas that a test holds of, in order.
    pub(super) fn which(&self, test: impl Fn(&Replica) -> bool) -> Vec<u32> {
        let replicas = self.service.replicas.values();
        let chosen = replicas.filter(|replica| test(replica));
        chosen.map(|replica| replica.ordinal).collect()
    }

    /// Whether stopping this replica keeps the service at its floor, or does not lower it.
    pub(super) fn spares(&self, replica: &Replica) -> bool {
        !replica.ready() || self.ready() > self.service.floor()
    }

    /// How many replicas are ready and meant to stay.
    pub(super) fn ready(&self) -> u32 {
        self.tally.ready
    }

    /// How many replicas hold one of the wanted places.
    pub(super) fn members(&self) -> u32 {
        self.tally.members
    }

    /// Everything that runs, may run, or will.
    pub(super) fn copies(&self) -> u32 {
        self.tally.copies
    }

    /// Whether a copy that is meant to stay stands for another in this way.
    pub(super) fn has(&self, role: Role) -> bool {
        self.tally.has(role)
    }

    pub(super) fn finish(self) -> Plan {
        debug_assert_eq!(self.tally, Tally::of(&self.service), "counted act by act");
        Plan {
            actions: self.actions,
            wake_at: self.wake_at,
            reasons: self.reasons,
        }
    }
}
