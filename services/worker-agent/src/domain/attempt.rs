//! The life of one attempt on this machine: waiting, starting, running, ready, unready, stopping,
//! ended. It decides what an event makes of a phase; what is then done about it is decided by
//! [`super::holdings`].

use std::time::{Duration, SystemTime};

use super::Now;
use super::assignment::Assignment;
use super::end::{End, Exit, StopCause};
use super::probe::{Counter, Kind, Outcome, Verdict};

/// Without a readiness probe, an attempt is ready once it has run this long.
pub const READY_AFTER: Duration = Duration::from_secs(1);

/// How far an attempt has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Known; what has to end before has not yet ended.
    Waiting,
    /// Its supervisor brings it up.
    Starting,
    /// It runs, and has not been ready; since when, on the boot's clock.
    Running(Duration),
    /// Its readiness probe succeeds.
    Ready,
    /// It was ready, and its readiness probe fails.
    Unready,
    /// It was asked to stop.
    Stopping(StopCause),
    /// Nothing of it runs, and nothing of it will be started.
    Ended(End),
}

/// What happens to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing stands in its way any more.
    Start,
    /// It has begun to run, at this time.
    Runs(SystemTime),
    /// A probe has found something.
    Probed(Kind, Outcome),
    /// It has to stop.
    Stop(StopCause),
    /// Nothing of it runs any more.
    Exited(Exit),
    /// It must not be started: its room is not its own. Why, in words.
    Refuse(String),
    /// It cannot be started: its assignment asks for what there is not. Why, in words.
    Misfit(String),
    /// Time has passed.
    Tick,
}

/// The event does not belong to the phase: it came late, or twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected;

/// One attempt on this machine.
#[derive(Debug, Clone)]
pub struct Attempt {
    assignment: Assignment,
    phase: Phase,
    phase_time: SystemTime,
    /// Since when its time to be ready runs, on the boot's clock; absent before its start, and once it was ready.
    awaited_since: Option<Duration>,
    start_time: Option<SystemTime>,
    ready_time: Option<SystemTime>,
    ready: Counter,
    alive: Counter,
    said: String,
}

impl Attempt {
    /// An attempt that waits for its turn.
    pub fn new(assignment: Assignment, now: Now) -> Self {
        Self {
            assignment,
            phase: Phase::Waiting,
            phase_time: now.wall,
            awaited_since: None,
            start_time: None,
            ready_time: None,
            ready: Counter::default(),
            alive: Counter::default(),
            said: String::new(),
        }
    }

    /// An attempt that an earlier process of the agent knew.
    pub fn known(assignment: Assignment, past: Past, now: Now) -> Self {
        let ago = |time: SystemTime| now.wall.duration_since(time).unwrap_or_default();
        let by_wall = |time| now.boot.saturating_sub(ago(time));
        let started = past.started.or_else(|| past.start_time.map(by_wall));
        let phase = match (past.stop, past.ready) {
            (Some(cause), _) => Phase::Stopping(cause),
            (None, Some(Readiness { unready: true, .. })) => Phase::Unready,
            (None, Some(_)) => Phase::Ready,
            (None, None) => started.map_or(Phase::Starting, Phase::Running),
        };
        Self {
            phase,
            phase_time: past
                .ready
                .map_or(past.start_time, |ready| Some(ready.phase_time))
                .unwrap_or(now.wall),
            awaited_since: past.ready.is_none().then_some(started.unwrap_or(now.boot)),
            start_time: past.start_time,
            ready_time: past.ready.map(|ready| ready.first_time),
            ..Self::new(assignment, now)
        }
    }

    /// What is wanted of it.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Takes new terms; what it runs and where does not change.
    pub(super) fn set_terms(&mut self, assignment: &Assignment) {
        self.assignment.terms = assignment.terms.clone();
    }

    /// How far it has come.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Since when it is in its phase.
    pub fn phase_time(&self) -> SystemTime {
        self.phase_time
    }

    /// When it began to run.
    pub fn start_time(&self) -> Option<SystemTime> {
        self.start_time
    }

    /// When it was ready first.
    pub fn ready_time(&self) -> Option<SystemTime> {
        self.ready_time
    }

    /// What a failing probe said last; empty while none fails.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Whether nothing of it runs, nor will.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Its end, once it has ended.
    pub fn end(&self) -> Option<&End> {
        match &self.phase {
            Phase::Ended(end) => Some(end),
            Phase::Waiting
            | Phase::Starting
            | Phase::Running(_)
            | Phase::Ready
            | Phase::Unready
            | Phase::Stopping(_) => None,
        }
    }

    /// What has to be remembered of its readiness.
    pub fn readiness(&self) -> Option<Readiness> {
        Some(Readiness {
            first_time: self.ready_time?,
            phase_time: self.phase_time,
            unready: self.phase == Phase::Unready,
        })
    }

    /// When time alone will change something, on the boot's clock.
    pub fn wake_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Starting => self.ready_by(),
            Phase::Running(since) if self.assignment.terms.ready.is_none() => {
                Some(since.saturating_add(READY_AFTER)).min(self.ready_by())
            }
            Phase::Running(_) => self.ready_by(),
            Phase::Waiting
            | Phase::Ready
            | Phase::Unready
            | Phase::Stopping(_)
            | Phase::Ended(_) => None,
        }
    }

    /// Takes an event; true if the phase is another one now.
    pub fn apply(&mut self, event: Event, now: Now) -> Result<bool, Rejected> {
        let next = match self.phase {
            Phase::Waiting => self.while_waiting(event, now)?,
            Phase::Starting => self.while_starting(event, now)?,
            Phase::Running(since) => self.while_running(event, since, now)?,
            Phase::Ready | Phase::Unready => self.while_serving(event)?,
            Phase::Stopping(_) => self.while_stopping(event)?,
            Phase::Ended(_) => return Err(Rejected),
        };
        match next {
            Some(phase) if phase != self.phase => {
                self.phase = phase;
                self.phase_time = now.wall;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    fn while_waiting(&mut self, event: Event, now: Now) -> Result<Option<Phase>, Rejected> {
        match event {
            Event::Start => {
                self.awaited_since = Some(now.boot);
                Ok(Some(Phase::Starting))
            }
            Event::Stop(cause) => Ok(Some(Phase::Ended(End::unstarted(&cause, now.wall)))),
            Event::Refuse(why) => Ok(Some(Phase::Ended(End::refused(why, now.wall)))),
            Event::Misfit(why) => Ok(Some(Phase::Ended(End::misfit(why, now.wall)))),
            Event::Tick => Ok(None),
            Event::Runs(_) | Event::Probed(..) | Event::Exited(_) => Err(Rejected),
        }
    }

    fn while_starting(&mut self, event: Event, now: Now) -> Result<Option<Phase>, Rejected> {
        match event {
            Event::Runs(time) => {
                self.start_time = Some(time);
                Ok(Some(Phase::Running(now.boot)))
            }
            Event::Stop(cause) => Ok(Some(Phase::Stopping(cause))),
            Event::Exited(exit) => Ok(Some(Phase::Ended(End::of(&exit, None)))),
            Event::Misfit(why) => Ok(Some(Phase::Ended(End::misfit(why, now.wall)))),
            Event::Tick => Ok(self.not_ready_in_time(now)),
            Event::Start | Event::Probed(..) | Event::Refuse(_) => Err(Rejected),
        }
    }

    fn while_running(
        &mut self,
        event: Event,
        since: Duration,
        now: Now,
    ) -> Result<Option<Phase>, Rejected> {
        match event {
            Event::Probed(Kind::Ready, outcome) => Ok(match self.count_ready(outcome) {
                Verdict::Well => self.become_ready(now),
                Verdict::Unwell | Verdict::Open => None,
            }),
            Event::Tick
                if self.assignment.terms.ready.is_none()
                    && now.boot >= since.saturating_add(READY_AFTER) =>
            {
                Ok(self.become_ready(now))
            }
            Event::Tick => Ok(self.not_ready_in_time(now)),
            Event::Stop(cause) => Ok(Some(Phase::Stopping(cause))),
            Event::Exited(exit) => Ok(Some(Phase::Ended(End::of(&exit, None)))),
            Event::Start
            | Event::Runs(_)
            | Event::Refuse(_)
            | Event::Misfit(_)
            | Event::Probed(Kind::Alive, _) => Err(Rejected),
        }
    }

    fn while_serving(&mut self, event: Event) -> Result<Option<Phase>, Rejected> {
        match event {
            Event::Probed(Kind::Ready, outcome) => Ok(match self.count_ready(outcome) {
                Verdict::Well => Some(Phase::Ready),
                Verdict::Unwell => Some(Phase::Unready),
                Verdict::Open => None,
            }),
            Event::Probed(Kind::Alive, outcome) => Ok(self.count_alive(outcome)),
            Event::Stop(cause) => Ok(Some(Phase::Stopping(cause))),
            Event::Exited(exit) => Ok(Some(Phase::Ended(End::of(&exit, None)))),
            Event::Tick => Ok(None),
            Event::Start | Event::Runs(_) | Event::Refuse(_) | Event::Misfit(_) => Err(Rejected),
        }
    }

    /// The first cause stays: what came later did not bring the end about.
    fn while_stopping(&mut self, event: Event) -> Result<Option<Phase>, Rejected> {
        match (event, &self.phase) {
            (Event::Exited(exit), Phase::Stopping(cause)) => {
                Ok(Some(Phase::Ended(End::of(&exit, Some(cause)))))
            }
            (Event::Runs(time), _) => {
                self.start_time = Some(time);
                Ok(None)
            }
            (Event::Stop(_) | Event::Tick, _) => Ok(None),
            (Event::Exited(_) | Event::Start | Event::Probed(..), _)
            | (Event::Refuse(_) | Event::Misfit(_), _) => Err(Rejected),
        }
    }

    fn count_ready(&mut self, outcome: Outcome) -> Verdict {
        let Some(terms) = self.assignment.terms.ready else {
            return Verdict::Open;
        };
        let verdict = self.ready.count(outcome.is_ok(), &terms);
        self.said = outcome.err().unwrap_or_default();
        verdict
    }

    fn count_alive(&mut self, outcome: Outcome) -> Option<Phase> {
        let terms = self.assignment.terms.alive?;
        match self.alive.count(outcome.is_ok(), &terms) {
            Verdict::Unwell => Some(Phase::Stopping(StopCause::NotAlive(
                outcome.err().unwrap_or_default(),
            ))),
            Verdict::Well | Verdict::Open => None,
        }
    }

    fn become_ready(&mut self, now: Now) -> Option<Phase> {
        self.awaited_since = None;
        self.ready_time.get_or_insert(now.wall);
        Some(Phase::Ready)
    }

    /// By when it has to be ready, on the boot's clock, as its terms are now.
    fn ready_by(&self) -> Option<Duration> {
        let timeout = self.assignment.terms.start_timeout;
        self.awaited_since
            .map(|since| since.saturating_add(timeout))
    }

    fn not_ready_in_time(&self, now: Now) -> Option<Phase> {
        self.ready_by()
            .filter(|by| now.boot >= *by)
            .map(|_| Phase::Stopping(StopCause::NotReadyInTime(self.said.clone())))
    }
}

/// What an earlier process of the agent left of an attempt that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// When it began to run.
    pub start_time: Option<SystemTime>,
    /// The same on the boot's clock, if it was in this boot.
    pub started: Option<Duration>,
    /// How ready it was, if it ever was.
    pub ready: Option<Readiness>,
    /// That it was being stopped, and why.
    pub stop: Option<StopCause>,
}

/// What is remembered of an attempt's readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Readiness {
    /// When it was ready first.
    pub first_time: SystemTime,
    /// Since when it is what it is.
    pub phase_time: SystemTime,
    /// It was ready, and is not now.
    pub unready: bool,
}

#[cfg(test)]
mod tests;
