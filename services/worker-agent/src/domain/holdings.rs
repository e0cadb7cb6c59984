//! Everything that this machine holds, and what is to be done about what is heard: assignments of
//! the replica-manager, notices of the registry, and what becomes of attempts. It decides who runs
//! when: never two on one accelerator, none on one that is gone, never an allocation that has been named ended,
//! and nothing before what it replaces has ended. Absence never means stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Now;
use super::assignment::{Assignment, Intent};
use super::attempt::{Attempt, Event, Past, Phase};
use super::end::{Exit, StopCause};
use super::ids::{AllocationId, AttemptId, FencingToken};
use super::probe::{Kind, Outcome};

mod pass;

#[cfg(test)]
mod tests;

/// Ended allocations beyond this many are forgotten, oldest id first, once they have been told.
pub(crate) const REMEMBERED: usize = 4096;

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The manager wants an attempt to run, or to end. With words, it cannot be run: why.
    Assigned(Assignment, Option<String>),
    /// The manager needs no more to be told that an attempt has ended.
    Settled(AttemptId),
    /// The registry wants an allocation to end, within a time if it says so.
    Ending(AllocationId, Option<Duration>),
    /// The registry needs no more to be told that an allocation has ended.
    Forgotten(AllocationId),
    /// A drain's deadline has passed with force, or that is over.
    Forced(bool),
    /// These are all the accelerators of the machine: any other is gone.
    Accelerators(BTreeSet<String>),
    /// This worker has a later generation: it has registered elsewhere, or was disabled by force while it was lost.
    Superseded,
    /// The agent ends, and nothing runs on without it.
    Closing,
    /// An attempt has begun to run.
    Runs(AttemptId, std::time::SystemTime),
    /// A probe has found something.
    Probed(AttemptId, Kind, Outcome),
    /// Nothing of an attempt runs any more.
    Exited(AttemptId, Exit),
    /// An attempt turned out not to be runnable, before anything of it ran.
    Misfit(AttemptId, String),
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put on disk, before anyone is told, that nothing of an allocation ever starts here.
    RememberEnded(AllocationId),
    /// Put on disk, before anything is started, which token an accelerator is served at.
    RememberToken(String, FencingToken),
    /// Start an attempt.
    Start(AttemptId),
    /// Stop an attempt: it is killed when the time has passed. May come again, with another time.
    Stop(AttemptId, StopCause, Duration),
    /// An attempt's readiness has changed: put it on disk.
    RememberReadiness(AttemptId),
    /// Nobody needs to hear of an attempt any more: only its output is kept.
    Forget(AttemptId),
}

/// How far an allocation has come, in the registry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldPhase {
    /// Known, and not started.
    Waiting,
    /// Something of it runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// Nothing of it runs, and nothing of it will be started.
    Ended,
}

/// Who still has to hear of an attempt's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Heard {
    by_registry: bool,
    by_manager: bool,
}

/// One attempt, and what others know of it.
#[derive(Debug, Clone)]
pub struct Held {
    attempt: Attempt,
    heard: Heard,
    revision: u64,
}

impl Held {
    /// The attempt.
    pub fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// Grows with each change that the manager has to hear of.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether the manager needs no more to hear of it.
    pub fn is_settled(&self) -> bool {
        self.heard.by_manager
    }
}

/// Everything that this machine holds.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    attempts: BTreeMap<AttemptId, Held>,
    /// Allocations of which nothing ever starts here, besides those of `attempts`; true once the
    /// registry needs no more to be told.
    ended: BTreeMap<AllocationId, bool>,
    tokens: BTreeMap<String, FencingToken>,
    /// All of the machine's accelerators; none while that is not certain.
    accelerators: Option<BTreeSet<String>>,
    forced: bool,
    /// Nothing runs here any more, for good.
    closed: Option<StopCause>,
    revision: u64,
    held_revision: u64,
}

impl Holdings {
    /// What an earlier process of the agent has put on disk: allocations that have ended, those
    /// with true need not be told, and the tokens of accelerators.
    pub fn recalled(
        ended: BTreeMap<AllocationId, bool>,
        tokens: BTreeMap<String, FencingToken>,
    ) -> Self {
        Self {
            ended,
            tokens,
            ..Self::default()
        }
    }

    /// Adds an attempt that an earlier process of the agent started, and that has not ended.
    pub fn adopt(&mut self, assignment: Assignment, past: Past, now: Now) {
        self.insert(Attempt::known(assignment, past, now));
    }

    /// Adds an attempt that has ended, perhaps while no agent was there.
    pub fn adopt_ended(&mut self, assignment: Assignment, past: Past, exit: Exit, now: Now) {
        let mut attempt = Attempt::known(assignment, past, now);
        // An attempt that is known and has not ended takes every exit.
        let _ = attempt.apply(Event::Exited(exit), now);
        self.insert(attempt);
    }

    /// Every attempt.
    pub fn attempts(&self) -> &BTreeMap<AttemptId, Held> {
        &self.attempts
    }

    /// One attempt.
    pub fn get(&self, id: &AttemptId) -> Option<&Attempt> {
        self.attempts.get(id).map(Held::attempt)
    }

    /// What the registry has to be told, in order of id. An allocation whose end it has stored is
    /// left out.
    pub fn held(&self) -> BTreeMap<&AllocationId, HeldPhase> {
        let ended = self.ended.iter().filter(|(_, told)| !**told);
        let ended = ended.map(|(id, _)| (id, HeldPhase::Ended));
        let attempts = self
            .attempts
            .values()
            .filter(|held| !held.heard.by_registry);
        ended
            .chain(attempts.map(|held| {
                let attempt = &held.attempt;
                (
                    &attempt.assignment().allocation,
                    held_phase(attempt.phase()),
                )
            }))
            .collect()
    }

    /// Grows with each change of [`Holdings::held`].
    pub fn held_revision(&self) -> u64 {
        self.held_revision
    }

    /// Whether anything runs, or may yet.
    pub fn is_running(&self) -> bool {
        self.attempts.values().any(|held| !held.attempt.is_ended())
    }

    /// Whether nothing is started any more, for good.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// When time alone will change something, on the boot's clock.
    pub fn wake_at(&self) -> Option<Duration> {
        self.attempts
            .values()
            .filter_map(|held| held.attempt.wake_at())
            .min()
    }

    /// Takes what was heard; what is to be done about it comes back.
    pub fn apply(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Assigned(assignment, misfit) => {
                self.assigned(assignment, misfit, now, &mut actions);
            }
            Input::Settled(id) => self.note_heard(&id, |heard| heard.by_manager = true),
            Input::Ending(id, grace) => self.ending(id, grace, now, &mut actions),
            Input::Forgotten(id) => self.forgotten(&id),
            Input::Forced(forced) => self.forced = forced,
            Input::Accelerators(all) => self.accelerators = Some(all),
            Input::Superseded => self.closed = Some(StopCause::Superseded),
            Input::Closing if self.closed.is_none() => self.closed = Some(StopCause::AgentEnds),
            Input::Closing => {}
            Input::Runs(id, time) => self.event(&id, Event::Runs(time), now, &mut actions),
            Input::Probed(id, kind, outcome) => {
                self.event(&id, Event::Probed(kind, outcome), now, &mut actions);
            }
            Input::Exited(id, exit) => self.event(&id, Event::Exited(exit), now, &mut actions),
            Input::Misfit(id, why) => self.event(&id, Event::Misfit(why), now, &mut actions),
            Input::Tick => self.tick(now, &mut actions),
        }
        self.settle(now, &mut actions);
        actions
    }

    fn assigned(
        &mut self,
        assignment: Assignment,
        misfit: Option<String>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let id = assignment.attempt.clone();
        let stop = (assignment.intent == Intent::Stop)
            .then(|| Event::Stop(StopCause::Assigned(assignment.reason.clone())));
        if let Some(held) = self.attempts.get_mut(&id) {
            held.attempt.set_terms(&assignment);
        } else if stop.is_some() || misfit.is_some() {
            // Nothing of it will ever be started, and no folder says so.
            self.remember_ended(&assignment.allocation, actions);
            self.insert(Attempt::new(assignment, now));
        } else {
            self.insert(Attempt::new(assignment, now));
        }
        if let Some(stop) = stop {
            self.event(&id, stop, now, actions);
        } else if let Some(why) = misfit {
            self.event(&id, Event::Misfit(why), now, actions);
        }
    }

    fn ending(
        &mut self,
        allocation: AllocationId,
        grace: Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let of_it = |held: &&Held| held.attempt.assignment().allocation == allocation;
        let Some(held) = self.attempts.values().find(of_it) else {
            if self.ended.insert(allocation.clone(), false) != Some(false) {
                self.held_revision += 1;
                actions.push(Action::RememberEnded(allocation));
            }
            return;
        };
        let (id, stopping) = (
            held.attempt.assignment().attempt.clone(),
            matches!(held.attempt.phase(), Phase::Stopping(_)),
        );
        let own = held.attempt.assignment().terms.stop_grace;
        // Notices repeat until the end is told: only a first one, or a shorter time, is acted on.
        if stopping && let Some(grace) = grace.filter(|grace| *grace < own) {
            actions.push(Action::Stop(id, StopCause::Released, grace));
            return;
        }
        self.stop(&id, StopCause::Released, grace, now, actions);
    }

    fn forgotten(&mut self, allocation: &AllocationId) {
        if let Some(told) = self.ended.get_mut(allocation) {
            self.held_revision += u64::from(!*told);
            *told = true;
        }
        let of_it = |held: &&Held| held.attempt.assignment().allocation == *allocation;
        if let Some(held) = self.attempts.values().find(of_it) {
            let id = held.attempt.assignment().attempt.clone();
            self.note_heard(&id, |heard| heard.by_registry = true);
        }
    }

    /// Only the end of what has ended can have been heard.
    fn note_heard(&mut self, id: &AttemptId, note: impl FnOnce(&mut Heard)) {
        if let Some(held) = self.attempts.get_mut(id)
            && held.attempt.is_ended()
        {
            let before = held.heard;
            note(&mut held.heard);
            self.held_revision += u64::from(held.heard.by_registry != before.by_registry);
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let due = |held: &&Held| held.attempt.wake_at().is_some_and(|at| at <= now.boot);
        let due: Vec<AttemptId> = self
            .attempts
            .values()
            .filter(due)
            .map(|held| held.attempt.assignment().attempt.clone())
            .collect();
        for id in due {
            self.event(&id, Event::Tick, now, actions);
        }
    }

    fn stop(
        &mut self,
        id: &AttemptId,
        cause: StopCause,
        grace: Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let first = actions.len();
        self.event(id, Event::Stop(cause), now, actions);
        for action in &mut actions[first..] {
            if let (Action::Stop(_, _, time), Some(grace)) = (action, grace) {
                *time = grace;
            }
        }
    }

    /// Takes an event, and does what the new phase asks for. What is rejected came late.
    fn event(&mut self, id: &AttemptId, event: Event, now: Now, actions: &mut Vec<Action>) {
        let Some(held) = self.attempts.get_mut(id) else {
            return;
        };
        let (before, said) = (
            held_phase(held.attempt.phase()),
            held.attempt.said().to_owned(),
        );
        // No folder will say how it ended.
        let unrecorded = *held.attempt.phase() == Phase::Waiting
            || matches!(&event, Event::Misfit(_))
            || matches!(&event, Event::Exited(exit) if exit.cause.is_unrecorded());
        let Ok(changed) = held.attempt.apply(event, now) else {
            return;
        };
        if !changed && held.attempt.said() == said {
            return;
        }
        self.revision += 1;
        held.revision = self.revision;
        if !changed {
            return;
        }
        self.held_revision += u64::from(held_phase(held.attempt.phase()) != before);
        let assignment = held.attempt.assignment();
        match held.attempt.phase() {
            Phase::Starting => actions.push(Action::Start(id.clone())),
            Phase::Stopping(cause) => {
                let grace = assignment.terms.stop_grace;
                actions.push(Action::Stop(id.clone(), cause.clone(), grace));
            }
            Phase::Ready | Phase::Unready => actions.push(Action::RememberReadiness(id.clone())),
            Phase::Ended(_) if unrecorded => {
                let allocation = assignment.allocation.clone();
                self.remember_ended(&allocation, actions);
            }
            Phase::Waiting | Phase::Running(_) | Phase::Ended(_) => {}
        }
    }

    fn insert(&mut self, attempt: Attempt) {
        self.revision += 1;
        self.held_revision += 1;
        let held = Held {
            heard: Heard::default(),
            revision: self.revision,
            attempt,
        };
        self.attempts
            .insert(held.attempt.assignment().attempt.clone(), held);
    }

    /// Nothing of it starts here, now or later.
    fn remember_ended(&mut self, allocation: &AllocationId, actions: &mut Vec<Action>) {
        if !self.ended.contains_key(allocation) {
            self.ended.insert(allocation.clone(), false);
            self.held_revision += 1;
            actions.push(Action::RememberEnded(allocation.clone()));
        }
    }
}

fn held_phase(phase: &Phase) -> HeldPhase {
    match phase {
        Phase::Waiting => HeldPhase::Waiting,
        Phase::Starting | Phase::Running(_) | Phase::Ready | Phase::Unready => HeldPhase::Running,
        Phase::Stopping(_) => HeldPhase::Stopping,
        Phase::Ended(_) => HeldPhase::Ended,
    }
}
