//! What a clock that was set back does to times that are still to come: what counts from then counts from
//! now, so that no wait gets longer and no limit is stretched. It decides nothing.

use super::Header;
use crate::domain::failure::episode::Episode;
use crate::domain::replica::{Replica, State};
use crate::domain::rollout::{Rollout, Stage};
use crate::domain::scaling::Autoscaler;
use crate::domain::time::Time;

impl Header {
    /// The latest time that anything of the service itself counts from.
    #[must_use]
    pub fn counts_from(&self) -> Time {
        let rollout = self.rollout.as_ref().map(Rollout::counts_from);
        let scaler = &self.autoscaler;
        let measure = scaler.measure.map(|measure| measure.at);
        let pending = scaler.pending.map(|pending| pending.since);
        let all = [rollout, measure, pending, self.tried_anew, self.waits_anew];
        all.into_iter().flatten().max().unwrap_or_default()
    }

    pub(super) fn set_back(&mut self, now: Time) {
        self.autoscaler.set_back(now);
        if let Some(rollout) = &mut self.rollout {
            rollout.set_back(now);
        }
        for time in [&mut self.tried_anew, &mut self.waits_anew] {
            *time = time.map(|at| at.min(now));
        }
    }
}

impl Autoscaler {
    fn set_back(&mut self, now: Time) {
        if let Some(measure) = &mut self.measure {
            measure.at = measure.at.min(now);
        }
        if let Some(pending) = &mut self.pending {
            pending.since = pending.since.min(now);
        }
    }
}

impl Rollout {
    fn counts_from(&self) -> Time {
        match self.stage {
            Stage::Paused { since } => since.max(self.progress),
            Stage::Running | Stage::Complete | Stage::RollingBack | Stage::RolledBack => {
                self.progress
            }
        }
    }

    fn set_back(&mut self, now: Time) {
        if let Stage::Paused { since } = &mut self.stage {
            *since = (*since).min(now);
        }
        self.began = self.began.min(now);
        self.progress = self.progress.min(now);
    }
}

impl Replica {
    /// The latest time that anything of the replica counts from.
    #[must_use]
    pub fn counts_from(&self) -> Time {
        let attempt = self.attempt.as_ref();
        let room = attempt.and_then(|attempt| attempt.allocation.as_ref());
        let episode = self.episode.as_ref().map(Episode::counts_from);
        let others = [self.placeless, room.map(|room| room.at), episode];
        others.into_iter().flatten().fold(self.since, Time::max)
    }

    pub(super) fn set_back(&mut self, now: Time) {
        let since = self.since;
        let sooner = |due: Time| {
            if since > now {
                now + due.since(since)
            } else {
                due
            }
        };
        match &mut self.state {
            State::Backoff(wait) => wait.due = sooner(wait.due),
            State::Placing(asked) | State::Refused(asked) => {
                asked.ahead_of = asked.ahead_of.map(sooner);
            }
            State::Pending { .. }
            | State::Running(_)
            | State::Ended
            | State::Stopped
            | State::Failed { .. } => {}
        }
        self.since = since.min(now);
        self.placeless = self.placeless.map(|since| since.min(now));
        let attempt = self.attempt.as_mut();
        if let Some(room) = attempt.and_then(|attempt| attempt.allocation.as_mut()) {
            room.at = room.at.min(now);
        }
        if let Some(episode) = &mut self.episode {
            episode.set_back(now);
        }
    }
}

impl Episode {
    fn counts_from(&self) -> Time {
        let classes = self.classes.values().map(|tally| tally.began);
        let all = classes.chain(self.waiting);
        all.fold(self.began, Time::max)
    }

    fn set_back(&mut self, now: Time) {
        self.began = self.began.min(now);
        self.waiting = self.waiting.map(|since| since.min(now));
        for tally in self.classes.values_mut() {
            tally.began = tally.began.min(now);
        }
    }
}
