//! What is learnt of a replica from outside, and what it changes. Learning never acts: an attempt that
//! ended is `Ended`, one that found no place is `Refused`, until the planner has decided.

use super::attempt::{Address, Allocation, Attempt, End};
use super::{Phase, Placing, Replica, State, StopWhy};
use crate::domain::failure::Class;
use crate::domain::time::Time;

/// What was learnt of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// The registry gave it room.
    Allocated(Allocation),
    /// The registry has no room at the place that was asked for.
    Refused {
        /// Why, in words.
        message: String,
    },
    /// The registry gave it room once, and took it back: it cannot start any more.
    Void,
    /// The registry knows its id from another question, and holds no room under it.
    UsedUp,
    /// Its agent spoke of it.
    Reported(Report),
}

/// What an agent said of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How far it has come.
    pub phase: ReportedPhase,
    /// When its process started.
    pub started: Option<Time>,
    /// When it was ready first.
    pub ready: Option<Time>,
    /// Where its ports are reached.
    pub addresses: Vec<Address>,
}

/// How far an attempt has come, by its agent's word.
#[derive(Clone, Debug, PartialEq)]
pub enum ReportedPhase {
    /// It waits for what it replaces.
    Waiting,
    /// Being started, or not yet ready.
    Starting,
    /// Ready.
    Ready,
    /// It was ready, and is not.
    Unready,
    /// Being stopped.
    Stopping,
    /// Nothing of it runs, nor will.
    Ended(End),
}

/// Whether something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Changed {
    /// The record is another one.
    Yes,
    /// It was known already.
    No,
}

/// The observation is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is about an attempt that is not the current one.
    #[error("it is about another attempt")]
    OtherAttempt,
    /// The attempt has come further already.
    #[error("the attempt is past that")]
    Past,
}

impl Replica {
    /// Takes in what was learnt of attempt `number`.
    ///
    /// # Errors
    /// `Rejected`; nothing changed.
    pub fn observe(
        &mut self,
        number: u32,
        observation: Observation,
        now: Time,
    ) -> Result<Changed, Rejected> {
        let current = self.attempt.as_ref().map(|attempt| attempt.number);
        if current != Some(number) {
            return Err(Rejected::OtherAttempt);
        }
        match observation {
            Observation::Allocated(room) => self.allocated(room, now),
            Observation::Refused { message } => self.refused(message, now),
            Observation::Void => self.void(now),
            Observation::UsedUp => self.used_up(now),
            Observation::Reported(report) => self.reported(report, now),
        }
    }

    /// The registry has taken an allocation back.
    pub fn released(&mut self, allocation: &str) -> Changed {
        if self.releases.remove(allocation) {
            Changed::Yes
        } else {
            Changed::No
        }
    }

    fn allocated(&mut self, room: Allocation, now: Time) -> Result<Changed, Rejected> {
        let State::Placing(placing) = &self.state else {
            return Err(Rejected::Past);
        };
        let placing = placing.clone();
        self.settle_hold(&placing, &room);
        self.placeless = None;
        if let Some(episode) = &mut self.episode {
            episode.placed(now);
            let stage = placing.choices.first().and_then(|choice| choice.stage);
            if let Some(stage) = stage.filter(|_| episode.failures > 0) {
                episode.placed_by(stage);
            }
        }
        let id = room.id.clone();
        if let Some(attempt) = &mut self.attempt {
            attempt.allocation = Some(room);
        }
        if self.stop.is_some() {
            // No agent was ever told to start it.
            self.releases.insert(id);
            self.end_attempt(stopped_before_start(now), now);
        } else {
            self.change(State::Running(Phase::Allocated), now);
        }
        Ok(Changed::Yes)
    }

    /// Room that was held for this attempt is given back, unless it was taken over.
    fn settle_hold(&mut self, placing: &Placing, room: &Allocation) {
        if let Some(hold) = &placing.hold
            && room.replaces != *hold
        {
            self.releases.insert(hold.clone());
        }
    }

    fn refused(&mut self, message: String, now: Time) -> Result<Changed, Rejected> {
        let State::Placing(placing) = &mut self.state else {
            return Err(Rejected::Past);
        };
        if let Some(hold) = placing.hold.take() {
            self.releases.insert(hold);
        }
        placing.refusal = message;
        if self.stop.is_none() && placing.choices.len() > 1 {
            placing.choices.remove(0);
            return Ok(Changed::Yes);
        }
        if self.stop.is_some() {
            self.end_attempt(stopped_before_start(now), now);
        } else {
            self.placeless.get_or_insert(now);
            let placing = placing.clone();
            self.change(State::Refused(placing), now);
        }
        Ok(Changed::Yes)
    }

    /// Asks on under the next number: that nothing came of this one is nobody's failure.
    fn used_up(&mut self, now: Time) -> Result<Changed, Rejected> {
        let State::Placing(_) = &self.state else {
            return Err(Rejected::Past);
        };
        if self.stop.is_some() {
            self.end_attempt(stopped_before_start(now), now);
            return Ok(Changed::Yes);
        }
        self.attempts += 1;
        if let Some(attempt) = &mut self.attempt {
            attempt.number = self.attempts;
        }
        Ok(Changed::Yes)
    }

    fn void(&mut self, now: Time) -> Result<Changed, Rejected> {
        let State::Placing(placing) = &mut self.state else {
            return Err(Rejected::Past);
        };
        if let Some(hold) = placing.hold.take() {
            self.releases.insert(hold);
        }
        let end = End {
            at: now,
            exit: None,
            class: Some(Class::Interruption),
            message: "its room was taken back before it started".to_owned(),
            last_log_lines: Vec::new(),
        };
        self.end_attempt(end, now);
        Ok(Changed::Yes)
    }

    fn reported(&mut self, report: Report, now: Time) -> Result<Changed, Rejected> {
        let State::Running(known) = self.state else {
            return Err(Rejected::Past);
        };
        let Some(attempt) = &mut self.attempt else {
            return Err(Rejected::Past);
        };
        let mut changed = note(attempt, &report);
        let phase = match report.phase {
            ReportedPhase::Ended(end) => {
                self.ended(end, now);
                return Ok(Changed::Yes);
            }
            ReportedPhase::Waiting => Phase::Allocated,
            ReportedPhase::Starting => Phase::Starting,
            ReportedPhase::Ready => Phase::Ready,
            ReportedPhase::Unready => Phase::Unready,
            // It goes on to be what it was until it has ended, or was told to stop.
            ReportedPhase::Stopping if known == Phase::Ready => Phase::Unready,
            ReportedPhase::Stopping => known,
        };
        if phase == Phase::Ready {
            changed |= std::mem::take(&mut self.first_start);
        }
        if phase != known {
            self.change(State::Running(phase), now);
            changed = true;
        }
        Ok(if changed { Changed::Yes } else { Changed::No })
    }

    /// The current attempt has ended, by its agent's word or because it is given up.
    pub fn ended(&mut self, end: End, now: Time) {
        let room = self.attempt.as_ref().and_then(|a| a.allocation.as_ref());
        if let Some(id) = room.map(|room| room.id.clone()) {
            self.releases.insert(id);
        }
        self.end_attempt(end, now);
    }

    fn end_attempt(&mut self, mut end: End, now: Time) {
        if self.stop.is_some() {
            // What we did ourselves is no failure.
            end.class = None;
        }
        self.first_start &= end.class.is_none();
        // A record keeps the output of one attempt: as many as a plan touches have to fit a transaction.
        if let Some(before) = self.previous.as_mut().and_then(|p| p.end.as_mut())
            && !end.last_log_lines.is_empty()
        {
            before.last_log_lines.clear();
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.end = Some(end);
            attempt.addresses.clear();
        }
        match self.stop.map(|stop| stop.why) {
            Some(StopWhy::Restart) => {
                self.stop = None;
                let hold = self.take_room_back();
                self.change(State::Pending { hold }, now);
            }
            Some(_) => self.change(State::Stopped, now),
            None => self.change(State::Ended, now),
        }
    }

    /// Keeps the room of the attempt that ended for the next one.
    pub fn take_room_back(&mut self) -> Option<String> {
        let room = self.attempt.as_ref()?.allocation.as_ref()?;
        self.releases.take(&room.id)
    }

    /// Puts another state in place of the current one.
    pub fn change(&mut self, state: State, now: Time) {
        self.state = state;
        self.since = now;
    }
}

/// Takes in the facts that do not decide the phase; true if any is new.
fn note(attempt: &mut Attempt, report: &Report) -> bool {
    let before = (attempt.started, attempt.ready, attempt.addresses.len());
    let begun = !matches!(
        report.phase,
        ReportedPhase::Waiting | ReportedPhase::Ended(_)
    );
    let confirmed = begun && std::mem::take(&mut attempt.unconfirmed);
    attempt.started = attempt.started.or(report.started);
    attempt.ready = attempt.ready.or(report.ready);
    let moved = !report.addresses.is_empty() && attempt.addresses != report.addresses;
    if moved {
        attempt.addresses.clone_from(&report.addresses);
    }
    moved || confirmed || before != (attempt.started, attempt.ready, attempt.addresses.len())
}

fn stopped_before_start(now: Time) -> End {
    End {
        at: now,
        exit: None,
        class: None,
        message: "stopped before it started".to_owned(),
        last_log_lines: Vec::new(),
    }
}
