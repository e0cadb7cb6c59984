//! What follows from everything together, after each input: what has to give way, what may start
//! now, and what can be forgotten.

use super::{Action, Event, Held, Holdings, Now, Phase, REMEMBERED, StopCause};
use crate::domain::ids::{AllocationId, AttemptId};

/// What stands between a waiting attempt and its start.
enum Way {
    Free,
    /// Something has to end first; these are told to.
    Blocked(Vec<AttemptId>),
    Closed(String),
}

impl Holdings {
    pub(super) fn settle(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Some(cause) = self.closed() {
            for id in self.ids(|held| !held.attempt.is_ended() && !is_stopping(held)) {
                self.stop(&id, cause.clone(), None, now, actions);
            }
        }
        for (id, gpu) in self.without_accelerator() {
            self.stop(&id, StopCause::AcceleratorGone(gpu), None, now, actions);
        }
        // What one of them does may close another's way, or show that it is in it. Each round but the
        // last starts, refuses or stops an attempt, so there is a last.
        loop {
            let settled = actions.len();
            for id in self.ids(|held| *held.attempt.phase() == Phase::Waiting) {
                self.find_way(&id, now, actions);
            }
            if actions.len() == settled {
                break;
            }
        }
        self.forget(actions);
    }

    fn find_way(&mut self, id: &AttemptId, now: Now, actions: &mut Vec<Action>) {
        match self.way(id) {
            Way::Free => self.start(id, now, actions),
            Way::Blocked(others) => {
                for other in others {
                    self.stop(&other, StopCause::Outranked, None, now, actions);
                }
            }
            Way::Closed(why) => self.event(id, Event::Refuse(why), now, actions),
        }
    }

    /// Why nothing may run here, if nothing may.
    fn closed(&self) -> Option<StopCause> {
        let forced = || self.forced.then_some(StopCause::ForcedDrain);
        self.closed.clone().or_else(forced)
    }

    /// What is to run, or does, on accelerators of which one is gone, with that one.
    fn without_accelerator(&self) -> Vec<(AttemptId, String)> {
        let Some(there) = &self.accelerators else {
            return Vec::new();
        };
        let is_gone = |gpu: &&String| !there.contains(*gpu);
        let live = self.attempts.iter();
        let live = live.filter(|(_, held)| !held.attempt.is_ended() && !is_stopping(held));
        live.filter_map(|(id, held)| {
            let gone = held.attempt.assignment().gpus.iter().find(is_gone)?;
            Some((id.clone(), gone.clone()))
        })
        .collect()
    }

    fn ids(&self, wanted: impl Fn(&Held) -> bool) -> Vec<AttemptId> {
        self.attempts
            .iter()
            .filter(|(_, held)| wanted(held))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn way(&self, id: &AttemptId) -> Way {
        let Some(held) = self.attempts.get(id) else {
            return Way::Blocked(Vec::new());
        };
        let mine = held.attempt.assignment();
        let ended_before = |other: &Held| {
            other.attempt.is_ended() && other.attempt.assignment().allocation == mine.allocation
        };
        if self.ended.contains_key(&mine.allocation) || self.attempts.values().any(ended_before) {
            return Way::Closed("its allocation has ended here before".to_owned());
        }
        let newer = |gpu: &&String| self.tokens.get(*gpu).is_some_and(|seen| *seen > mine.token);
        if let Some(gpu) = mine.gpus.iter().find(newer) {
            return Way::Closed(format!("{gpu} was given to a later attempt"));
        }
        let others = || {
            self.attempts
                .values()
                .map(Held::attempt)
                .filter(|other| !other.is_ended() && other.assignment().attempt != *id)
        };
        // A waiting one runs nothing: it will find its own way closed.
        let on_mine: Vec<AttemptId> = others()
            .filter(|other| *other.phase() != Phase::Waiting)
            .map(|other| other.assignment())
            .filter(|other| other.gpus.iter().any(|gpu| mine.gpus.contains(gpu)))
            .map(|other| other.attempt.clone())
            .collect();
        let has_room = |allocation: &AllocationId| {
            others().any(|other| other.assignment().allocation == *allocation)
        };
        let waits = mine.replaces.as_ref().is_some_and(has_room) || has_room(&mine.allocation);
        if on_mine.is_empty() && !waits {
            return Way::Free;
        }
        // What it replaces is stopped by who replaces it; a stranger on its accelerators by us.
        let replaced = |other: &AttemptId| {
            let other = self
                .attempts
                .get(other)
                .map(|held| held.attempt.assignment());
            other.is_some_and(|other| mine.replaces.as_ref() == Some(&other.allocation))
        };
        Way::Blocked(
            on_mine
                .into_iter()
                .filter(|other| !replaced(other))
                .collect(),
        )
    }

    fn start(&mut self, id: &AttemptId, now: Now, actions: &mut Vec<Action>) {
        let Some(held) = self.attempts.get(id) else {
            return;
        };
        let mine = held.attempt.assignment().clone();
        if let Some(replaced) = &mine.replaces
            && !self
                .attempts
                .values()
                .any(|held| held.attempt.assignment().allocation == *replaced)
        {
            // Unknown here: it must not turn up and start beside what replaced it.
            self.remember_ended(replaced, actions);
        }
        for gpu in &mine.gpus {
            if self.tokens.get(gpu) != Some(&mine.token) {
                self.tokens.insert(gpu.clone(), mine.token.clone());
                actions.push(Action::RememberToken(gpu.clone(), mine.token.clone()));
            }
        }
        self.event(id, Event::Start, now, actions);
    }

    /// Drops what both the registry and the manager have heard the end of.
    fn forget(&mut self, actions: &mut Vec<Action>) {
        for id in self.ids(|held| held.heard.by_registry && held.heard.by_manager) {
            if let Some(held) = self.attempts.remove(&id) {
                let allocation = held.attempt.assignment().allocation.clone();
                self.ended.insert(allocation, true);
                actions.push(Action::Forget(id));
            }
        }
        while self.ended.len() > REMEMBERED {
            let oldest = self.ended.iter().find(|(_, told)| **told);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.ended.remove(&oldest);
        }
    }
}

fn is_stopping(held: &Held) -> bool {
    matches!(held.attempt.phase(), Phase::Stopping(_))
}
