//! A plan in the making: the service as it will be after the acts so far.

use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use super::{Plan, Reason};
use crate::domain::replica::{Replica, StopWhy};
use crate::domain::service::Service;
use crate::domain::service::apply::Action;
use crate::domain::time::Time;
use crate::domain::world::World;

pub(super) struct Draft<'a> {
    pub(super) now: Time,
    pub(super) world: &'a World<'a>,
    pub(super) service: Service,
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
        self.service.apply(&action, self.world.room, self.now);
        self.actions.push(action);
        true
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
        !replica.ready() || self.service.ready() > self.service.floor()
    }

    pub(super) fn finish(self) -> Plan {
        Plan {
            actions: self.actions,
            wake_at: self.wake_at,
            reasons: self.reasons,
        }
    }
}
