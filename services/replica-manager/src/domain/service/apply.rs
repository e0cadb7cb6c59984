//! What a plan may do to a service, and what each act changes in its records. Nothing here asks whether
//! it is wise.

use std::sync::Arc;

use crate::domain::failure::Class;
use crate::domain::failure::episode::{Episode, Exceeded};
use crate::domain::replica::attempt::{Attempt, End};
use crate::domain::replica::{
    Backoff, Choice, Phase, Placing, Replica, Role, State, Stop, StopWhy,
};
use crate::domain::rollout::{Edition, Rollout};
use crate::domain::scaling::Autoscaler;
use crate::domain::status::{ServicePhase, Status};
use crate::domain::time::Time;

use super::{Failure, Intent, Reached, Service};

/// One act of a plan: an intent to be recorded, or a fact to be noted.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A new replica, with the next ordinal.
    Create {
        /// Why it exists.
        role: Role,
        /// What it runs.
        edition: Edition,
    },
    /// Ask for room, under the current attempt's id if that never had any, else under the next.
    Place {
        /// The replica.
        ordinal: u32,
        /// Where, the first choice first.
        choices: Vec<Choice>,
    },
    /// An attempt is given up without its agent's word.
    GiveUp {
        /// The replica.
        ordinal: u32,
        /// Why, in words.
        message: String,
    },
    /// Its worker is lost, and it may still run there.
    Unreachable {
        /// The replica.
        ordinal: u32,
    },
    /// The same, and its room was taken by force.
    Revoked {
        /// The replica.
        ordinal: u32,
    },
    /// It waits for its next attempt.
    Wait {
        /// The replica.
        ordinal: u32,
        /// Why it waits.
        class: Class,
        /// Until when.
        due: Time,
        /// Whether this counts as one more failure of its episode.
        counts: bool,
        /// Whether its room is kept for the next attempt.
        hold: bool,
        /// Why, in words.
        message: String,
    },
    /// It keeps no room for its next attempt.
    Free {
        /// The replica.
        ordinal: u32,
    },
    /// It waits for its next attempt until another time.
    Retime {
        /// The replica.
        ordinal: u32,
        /// That time.
        due: Time,
    },
    /// It takes the version of a change in place.
    Renumber {
        /// The replica.
        ordinal: u32,
        /// That version.
        version: u64,
    },
    /// It wants another attempt at once, as if nothing had happened.
    Revive {
        /// The replica.
        ordinal: u32,
        /// What it runs from now on.
        edition: Edition,
    },
    /// The clock was set back: what the replica waits for counts from now.
    SetBack {
        /// The replica.
        ordinal: u32,
    },
    /// The same, of what the service itself waits for.
    SetBackService,
    /// Its retries are used up.
    Exhaust {
        /// The replica.
        ordinal: u32,
        /// The class of the last failure.
        class: Class,
        /// The limit.
        exceeded: Exceeded,
    },
    /// It has been ready for long enough: its episode is over.
    Settle {
        /// The replica.
        ordinal: u32,
    },
    /// Stop it: at once, or after it has left the endpoints.
    Stop {
        /// The replica.
        ordinal: u32,
        /// Why.
        why: StopWhy,
        /// When its agent is told.
        at: Time,
    },
    /// Tell its agent to stop it.
    Tell {
        /// The replica.
        ordinal: u32,
    },
    /// It takes the place of another, or one of the wanted number.
    Promote {
        /// The replica.
        ordinal: u32,
        /// What it is from now on.
        role: Role,
    },
    /// Nothing of it is left: forget it.
    Remove {
        /// The replica.
        ordinal: u32,
    },
    /// A replica of the edition was ready for `min_ready`.
    Prove {
        /// The edition.
        edition: Edition,
    },
    /// The rollout is another one.
    Roll(Rollout),
    /// The autoscaler remembers something else.
    Scale(Autoscaler),
    /// The service fails.
    Fail(Failure),
    /// The status is another one.
    Show {
        /// It.
        status: Status,
        /// What was reached.
        reached: Reached,
    },
    /// Nothing of the service is left: forget it.
    Delete,
}

impl Action {
    /// The replica that it is about; `None` for the service, and for one that is made by it.
    #[must_use]
    pub fn ordinal(&self) -> Option<u32> {
        match self {
            Self::Place { ordinal, .. }
            | Self::GiveUp { ordinal, .. }
            | Self::Unreachable { ordinal }
            | Self::Revoked { ordinal }
            | Self::Wait { ordinal, .. }
            | Self::Free { ordinal }
            | Self::SetBack { ordinal }
            | Self::Retime { ordinal, .. }
            | Self::Renumber { ordinal, .. }
            | Self::Revive { ordinal, .. }
            | Self::Exhaust { ordinal, .. }
            | Self::Settle { ordinal }
            | Self::Stop { ordinal, .. }
            | Self::Tell { ordinal }
            | Self::Promote { ordinal, .. }
            | Self::Remove { ordinal } => Some(*ordinal),
            Self::Create { .. }
            | Self::SetBackService
            | Self::Prove { .. }
            | Self::Roll(_)
            | Self::Scale(_)
            | Self::Fail(_)
            | Self::Show { .. }
            | Self::Delete => None,
        }
    }
}

impl Service {
    /// Does one act to the records. An act on a replica that is gone does nothing.
    pub fn apply(&mut self, action: &Action, room: u64, now: Time) {
        match action {
            Action::Create { role, edition } => self.add(*role, *edition, now),
            Action::SetBackService => self.header.set_back(now),
            Action::Prove { edition } => self.header.proven = Some(*edition),
            Action::Roll(rollout) => self.header.rollout = Some(rollout.clone()),
            Action::Scale(autoscaler) => self.header.autoscaler = autoscaler.clone(),
            Action::Fail(failure) => {
                self.header.intent = Intent::Failed;
                self.header.intent_reason.clone_from(&failure.message);
                self.header.failure = Some(failure.clone());
                self.header.updated = now;
            }
            Action::Show { status, reached } => self.show(status, *reached, now),
            Action::Remove { ordinal } => {
                self.replicas.remove(ordinal);
            }
            Action::Place { ordinal, choices } => self.place(*ordinal, choices, room, now),
            // The shell deletes the records.
            Action::Delete => {}
            Action::GiveUp { ordinal, .. }
            | Action::Unreachable { ordinal }
            | Action::Revoked { ordinal }
            | Action::Wait { ordinal, .. }
            | Action::Free { ordinal }
            | Action::SetBack { ordinal }
            | Action::Retime { ordinal, .. }
            | Action::Renumber { ordinal, .. }
            | Action::Revive { ordinal, .. }
            | Action::Exhaust { ordinal, .. }
            | Action::Settle { ordinal }
            | Action::Stop { ordinal, .. }
            | Action::Tell { ordinal }
            | Action::Promote { ordinal, .. } => {
                if let Some(replica) = self.replica_mut(*ordinal) {
                    replica.act(action, room, now);
                }
            }
        }
    }

    /// A replica to be changed.
    pub fn replica_mut(&mut self, ordinal: u32) -> Option<&mut Replica> {
        self.replicas.get_mut(&ordinal).map(Arc::make_mut)
    }

    fn add(&mut self, role: Role, edition: Edition, now: Time) {
        let ordinal = self.header.next_ordinal;
        self.header.next_ordinal += 1;
        let replica = Replica::new(ordinal, role, edition, now);
        self.replicas.insert(ordinal, Arc::new(replica));
    }

    fn place(&mut self, ordinal: u32, choices: &[Choice], room: u64, now: Time) {
        let from = self.header.attempts_from;
        let Some(replica) = self.replica_mut(ordinal) else {
            return;
        };
        if replica.place(choices, room, from, now) {
            self.header.totals.restarts += 1;
        }
    }

    fn show(&mut self, status: &Status, reached: Reached, now: Time) {
        use ServicePhase::{Degraded, Down, Healthy};
        let header = &mut self.header;
        let (old, new) = (header.status.phase, status.phase);
        if old != new {
            let lasted = now.since(header.status.since);
            if old == Down || (old == Degraded && new == Healthy) {
                header.totals.last_recovery = Some(lasted);
            }
            header.totals.outages += u64::from(new == Down);
            header.totals.degradations += u64::from(new == Degraded && old != Down);
        }
        header.status = status.clone();
        header.reached = reached;
    }
}

impl Replica {
    fn act(&mut self, action: &Action, room: u64, now: Time) {
        match action {
            Action::GiveUp { message, .. } => self.ended(
                End {
                    at: now,
                    exit: None,
                    class: Some(Class::Interruption),
                    message: message.clone(),
                    last_log_lines: Vec::new(),
                },
                now,
            ),
            Action::Unreachable { .. } => self.change(State::Running(Phase::Unreachable), now),
            Action::Revoked { .. } => self.change(State::Running(Phase::Revoked), now),
            Action::Wait { .. } => self.wait(action, room, now),
            Action::Free { .. } => self.release_hold(),
            Action::SetBack { .. } => self.set_back(now),
            Action::Retime { due, .. } => self.retime(*due),
            Action::Renumber { version, .. } => self.renumber(*version),
            Action::Revive { edition, .. } => self.revive(*edition, now),
            Action::Exhaust {
                class, exceeded, ..
            } => self.exhaust(*class, *exceeded, now),
            Action::Settle { .. } => self.episode = None,
            Action::Stop { why, at, .. } => self.stop(*why, *at, now),
            Action::Tell { .. } => self.tell(now),
            Action::Promote { role, .. } => self.role = *role,
            Action::Create { .. }
            | Action::SetBackService
            | Action::Place { .. }
            | Action::Remove { .. }
            | Action::Prove { .. }
            | Action::Roll(_)
            | Action::Scale(_)
            | Action::Fail(_)
            | Action::Show { .. }
            | Action::Delete => {}
        }
    }

    /// True if the attempt is another one than the replica's first.
    fn place(&mut self, choices: &[Choice], room_seen: u64, from: u32, now: Time) -> bool {
        let asked = self.question(choices, room_seen, now);
        let unused = self.attempt.as_ref().is_some_and(Attempt::is_unused);
        if unused {
            if let Some(attempt) = &mut self.attempt {
                attempt.version = self.edition.version;
            }
        } else {
            self.attempts = (self.attempts + 1).max(from);
            let attempt = Attempt::new(self.attempts, self.edition.version);
            self.previous = self.attempt.replace(attempt);
            self.restarts += u32::from(self.previous.is_some());
        }
        self.change(State::Placing(asked), now);
        !unused && self.previous.is_some()
    }

    /// The question for room, with what the state before it keeps for it.
    fn question(&mut self, choices: &[Choice], room_seen: u64, now: Time) -> Placing {
        let mut asked = Placing {
            choices: choices.to_vec(),
            hold: None,
            ahead_of: None,
            refusal: String::new(),
            room_seen,
        };
        if let State::Pending { hold } = &mut self.state {
            asked.hold = hold.take();
        }
        if let State::Backoff(backoff) = &mut self.state {
            asked.hold = backoff.hold.take();
            if backoff.class == Class::NoCapacity {
                asked.ahead_of = Some(backoff.due).filter(|due| now < *due);
                asked.refusal.clone_from(&backoff.message);
            }
        }
        asked
    }

    fn wait(&mut self, action: &Action, room_seen: u64, now: Time) {
        let Action::Wait {
            class,
            due,
            counts,
            hold,
            message,
            ..
        } = action
        else {
            return;
        };
        if *counts {
            match &mut self.episode {
                Some(episode) => episode.add(*class, now),
                None => self.episode = Some(Episode::begin(*class, now)),
            }
            self.remember_place(*class);
        }
        let hold = if *hold { self.take_room_back() } else { None };
        // What came free since it was asked for may be what was missing.
        let room_seen = self
            .state
            .refused()
            .map_or(room_seen, |asked| asked.room_seen);
        self.state = State::Backoff(Backoff {
            due: *due,
            class: *class,
            hold,
            message: message.clone(),
            room_seen,
        });
        self.since = now;
    }

    fn retime(&mut self, due: Time) {
        if let State::Backoff(wait) = &mut self.state {
            wait.due = due;
        }
    }

    fn renumber(&mut self, version: u64) {
        self.edition.version = version;
        if let Some(attempt) = self.attempt.as_mut().filter(|a| a.end.is_none()) {
            attempt.version = version;
        }
    }

    /// Notes where the attempt failed, for stages that avoid it.
    fn remember_place(&mut self, class: Class) {
        let room = self.attempt.as_ref().and_then(|a| a.allocation.clone());
        if let (Some(episode), Some(room)) = (&mut self.episode, room)
            && class != Class::NoCapacity
        {
            episode.workers.insert(room.worker);
            episode.regions.insert(room.region);
        }
    }

    /// Wants another attempt at once, as if nothing had happened.
    pub(super) fn revive(&mut self, edition: Edition, now: Time) {
        self.release_hold();
        self.edition = edition;
        self.stop = None;
        self.episode = None;
        self.placeless = None;
        self.first_start = true;
        self.change(State::Pending { hold: None }, now);
    }

    fn exhaust(&mut self, class: Class, exceeded: Exceeded, now: Time) {
        self.release_hold();
        self.first_start = false;
        self.change(State::Failed { class, exceeded }, now);
    }

    /// Records the intent to stop it; what does not run is stopped by that.
    pub(super) fn stop(&mut self, why: StopWhy, at: Time, now: Time) {
        let running = self.live();
        self.stop = Some(Stop {
            why,
            at,
            told: running && at <= now,
        });
        if !running {
            self.release_hold();
            match (why, &self.state) {
                (StopWhy::Restart, _) => {
                    self.stop = None;
                    self.change(State::Pending { hold: None }, now);
                }
                (_, State::Stopped | State::Failed { .. }) if !why.removes() => {}
                (_, State::Stopped) => {}
                _ => self.change(State::Stopped, now),
            }
        }
    }

    fn tell(&mut self, now: Time) {
        if let Some(stop) = &mut self.stop {
            stop.told = true;
            stop.at = now;
        }
    }

    /// Gives back the room that is held for an attempt that will not be made.
    fn release_hold(&mut self) {
        let hold = match &mut self.state {
            State::Pending { hold } => hold.take(),
            State::Backoff(backoff) => backoff.hold.take(),
            State::Placing(_)
            | State::Refused(_)
            | State::Running(_)
            | State::Ended
            | State::Stopped
            | State::Failed { .. } => None,
        };
        self.releases.extend(hold);
    }
}
