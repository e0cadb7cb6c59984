//! The record of a worker: its state, its incarnation, what it has and how it came here.
//!
//! It decides how a record looks after a change of state. Which changes are allowed stands in
//! [`state`](super::state); what is allocated on a worker is not part of its record.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_model::constraints::{CapacityType, Labels, Place};
use muster_model::quantity::MicroUsd;

use super::common::Common;
use super::drain::{Cause, Drain};
use super::machine::{Machine, common_labels};
use super::state::{Event, Facts, Next, Rejected, State};
use super::text::Text;

/// How many changes of state a worker remembers.
pub const HISTORY: usize = 100;

/// Who did something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct By {
    /// A user, an agent, or "system".
    pub actor: Text,
    /// In words.
    pub reason: Text,
}

impl By {
    /// An actor with a reason.
    pub fn new(actor: impl Into<Text>, reason: impl Into<Text>) -> Arc<Self> {
        static COMMON: Common<By> = Common::new();
        COMMON.share(Self {
            actor: actor.into(),
            reason: reason.into(),
        })
    }

    /// Nobody but the registry itself.
    pub fn system(reason: impl Into<Text>) -> Arc<Self> {
        Self::new(super::text::SYSTEM, reason)
    }
}

/// What came of a start-up check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// Under way.
    Running,
    /// Passed.
    Passed,
    /// Failed; it is tried again.
    Failed,
}

/// A start-up check of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: Text,
    /// What came of it.
    pub status: CheckStatus,
    /// What was found.
    pub message: Text,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub ended: Option<SystemTime>,
}

/// A change of state, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: SystemTime,
    /// The state before; none at creation.
    pub from: Option<State>,
    /// The state after.
    pub to: State,
    /// The generation after.
    pub generation: u64,
    /// Who and why.
    pub by: Arc<By>,
}

/// What is durable of a worker's liveness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is expected to be heard; whether it is, is known in memory.
    Expected,
    /// It never registered: a join token made its record ahead.
    Awaited,
    /// It was silent for too long.
    Lost {
        /// Since when.
        at: SystemTime,
        /// Everything with `on_disconnect: stop` on it has certainly ended.
        fenced: bool,
    },
    /// It said that it leaves, and ran nothing.
    Left {
        /// When.
        at: SystemTime,
    },
}

/// A machine that runs replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its id.
    pub name: Text,
    /// Never used again, unlike the name.
    pub uid: Text,
    /// Its incarnation; 0 before the first registration.
    pub generation: u64,
    /// The agent process that registered this generation.
    pub boot_id: Text,
    /// What may happen on it.
    pub state: State,
    /// Since when it is in this state.
    pub state_since: SystemTime,
    /// Who brought it there, and why.
    pub state_by: Arc<By>,
    /// It was disabled without the agent's word that what it ran has ended, and still has not said so.
    pub unconfirmed: bool,
    /// The generation whose start-up checks passed last; 0 is none.
    pub proved_generation: u64,
    /// Every allocation made at or below this generation is revoked; 0 is none.
    pub revoked_through: u64,
    /// What is durable of its liveness.
    pub presence: Presence,
    /// The operator's labels, which win over the agent's.
    pub labels: Arc<Labels>,
    /// Both kinds of label, as placement sees them.
    pub effective_labels: Arc<Labels>,
    /// The operator's price, which wins over the agent's.
    pub price: Option<MicroUsd>,
    /// The operator's capacity type, which wins over the agent's.
    pub capacity_type: Option<CapacityType>,
    /// What its agent said of the machine.
    pub machine: Arc<Machine>,
    /// The agent's start-up checks.
    pub checks: Arc<[Check]>,
    /// The drain under way, or the last one.
    pub drain: Option<Arc<Drain>>,
    /// Changes of state, oldest first, at most [`HISTORY`].
    pub history: Arc<[Transition]>,
    /// When it was created.
    pub created: SystemTime,
    /// When its record changed last.
    pub updated: SystemTime,
    /// The epoch of the store in which it registered last.
    pub epoch: Text,
    /// The join token it came by; empty if none.
    pub join_token: Text,
    /// The name in the certificate that it is bound to; empty if none.
    pub san: Text,
    /// Counts what its etag covers: changes of labels, price, capacity type and state.
    pub writes: u64,
}

impl Worker {
    /// A record made ahead, before any machine has come.
    pub fn ahead(name: Text, uid: Text, by: Arc<By>, now: SystemTime) -> Self {
        let mut worker = Self {
            name,
            uid,
            generation: 0,
            boot_id: Text::default(),
            state: State::Provisioning,
            state_since: now,
            state_by: by.clone(),
            unconfirmed: false,
            proved_generation: 0,
            revoked_through: 0,
            presence: Presence::Awaited,
            labels: common_labels(Labels::new()),
            effective_labels: common_labels(Labels::new()),
            price: None,
            capacity_type: None,
            machine: Arc::default(),
            checks: Arc::default(),
            drain: None,
            history: Arc::default(),
            created: now,
            updated: now,
            epoch: Text::default(),
            join_token: Text::default(),
            san: Text::default(),
            writes: 0,
        };
        worker.remember(None, State::Provisioning, by, now);
        worker
    }

    /// Whether it is LOST.
    pub fn is_lost(&self) -> bool {
        matches!(self.presence, Presence::Lost { .. })
    }

    /// Whether its agent has said that it leaves, which it may only with all ended that is allocated here.
    pub fn has_left(&self) -> bool {
        matches!(self.presence, Presence::Left { .. })
    }

    /// Whether its agent is gone: whatever is asked of it is answered by nobody.
    pub fn is_gone(&self) -> bool {
        self.is_lost() || self.has_left()
    }

    /// Whether nothing says that its agent is gone.
    pub fn is_expected(&self) -> bool {
        matches!(self.presence, Presence::Expected)
    }

    /// Whether this generation has passed its start-up checks.
    pub fn is_proved(&self) -> bool {
        self.generation > 0 && self.proved_generation == self.generation
    }

    /// The running drain.
    pub fn running_drain(&self) -> Option<&Drain> {
        self.drain.as_deref().filter(|drain| drain.is_running())
    }

    /// What the table of states looks at.
    pub fn facts(&self, empty: bool) -> Facts {
        Facts {
            empty,
            gone: self.is_gone(),
            proved: self.is_proved(),
            shutdown: self
                .drain
                .as_ref()
                .is_some_and(|drain| self.is_led_by_shutdown(drain)),
            unended: self.is_unended(),
        }
    }

    /// Whether nothing says yet that what it ran has ended: its fence if it is LOST, else its agent.
    fn is_unended(&self) -> bool {
        match self.presence {
            Presence::Lost { fenced, .. } => !fenced,
            Presence::Expected | Presence::Awaited | Presence::Left { .. } => self.unconfirmed,
        }
    }

    /// Whether the drain is the agent's own shutdown, and under way or what led to this state.
    fn is_led_by_shutdown(&self, drain: &Drain) -> bool {
        let led_here = drain.is_running() || drain.ended == Some(self.state_since);
        drain.terms.cause == Cause::Shutdown && led_here
    }

    /// Where `event` leads.
    ///
    /// # Errors
    /// It is not allowed in this state.
    pub fn next(&self, event: Event, empty: bool) -> Result<Next, Rejected> {
        self.state.on(event, self.facts(empty))
    }

    /// Goes to `state` and remembers it; in the same state nothing changes.
    pub fn go(&mut self, state: State, by: Arc<By>, now: SystemTime) {
        if self.state != state {
            self.enter(state, by, now);
        }
    }

    /// Goes to `state` and remembers it, also if it is the same: a new registration, or new terms.
    pub fn enter(&mut self, state: State, by: Arc<By>, now: SystemTime) {
        let from = self.state;
        if from != state {
            self.state_since = now;
            self.writes += 1;
        }
        self.state = state;
        self.state_by = Arc::clone(&by);
        if state != State::Draining {
            self.end_drain(0, now);
        }
        self.remember(Some(from), state, by, now);
    }

    /// Takes the operator's labels.
    pub fn set_labels(&mut self, labels: Labels) {
        self.labels = common_labels(labels);
        self.merge_labels();
    }

    /// Takes what the agent says of its machine.
    pub fn set_machine(&mut self, machine: Arc<Machine>) {
        self.machine = machine;
        self.merge_labels();
    }

    /// The price that counts.
    pub fn effective_price(&self) -> Option<MicroUsd> {
        self.price.or(self.machine.price)
    }

    /// The capacity type that counts.
    pub fn effective_capacity_type(&self) -> Option<CapacityType> {
        self.capacity_type.or(self.machine.capacity_type)
    }

    /// Where it is and what it costs, as constraints see it.
    pub fn place(&self) -> Place<'_> {
        let known = |text: &'_ Text| -> bool { !text.is_empty() };
        let machine = &self.machine;
        Place {
            backend: Some(&machine.backend)
                .filter(|text| known(text))
                .map(|text| &**text),
            region: Some(&machine.region)
                .filter(|text| known(text))
                .map(|text| &**text),
            zone: Some(&machine.zone)
                .filter(|text| known(text))
                .map(|text| &**text),
            labels: &self.effective_labels,
            capacity_type: self.effective_capacity_type(),
            price: self.effective_price(),
        }
    }

    fn merge_labels(&mut self) {
        self.effective_labels = if self.labels.is_empty() {
            Arc::clone(&self.machine.labels)
        } else if self.machine.labels.is_empty() {
            Arc::clone(&self.labels)
        } else {
            let mut merged = Labels::clone(&self.machine.labels);
            merged.extend(Labels::clone(&self.labels));
            common_labels(merged)
        };
    }

    /// Ends the drain, if one runs, with so many allocations left.
    pub fn end_drain(&mut self, left: u32, now: SystemTime) {
        if let Some(drain) = self.drain.as_ref().filter(|drain| drain.is_running()) {
            let mut ended = Drain::clone(drain);
            ended.ended = Some(now);
            ended.left = left;
            self.drain = Some(Arc::new(ended));
        }
    }

    fn remember(&mut self, from: Option<State>, to: State, by: Arc<By>, now: SystemTime) {
        let new = Transition {
            at: now,
            from,
            to,
            generation: self.generation,
            by,
        };
        let oldest = (self.history.len() + 1).saturating_sub(HISTORY);
        let kept = self.history[oldest..].iter().cloned();
        self.history = kept.chain(std::iter::once(new)).collect();
    }
}
