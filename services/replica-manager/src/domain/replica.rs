//! One copy of a service: what is intended with it, and what is known of it. It never decides what to
//! do next; the planner does.

pub mod attempt;
pub mod observe;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::Class;
use super::failure::episode::{Episode, Exceeded};
use super::rollout::Edition;
use super::time::Time;
use attempt::Attempt;

/// One copy of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Its number, never used again within its service's uid.
    pub ordinal: u32,
    /// Why it exists.
    pub role: Role,
    /// What it runs, or will.
    pub edition: Edition,
    /// What is known of it.
    pub state: State,
    /// Since when it is so.
    pub since: Time,
    /// The intent to stop it.
    pub stop: Option<Stop>,
    /// How many attempts there were.
    pub attempts: u32,
    /// The current attempt, or the last.
    pub attempt: Option<Attempt>,
    /// The attempt before that one.
    pub previous: Option<Attempt>,
    /// The failures since it was last stable.
    pub episode: Option<Episode>,
    /// Allocations that have to be given back.
    pub releases: BTreeSet<String>,
    /// On its first start: it has neither failed nor been ready.
    pub first_start: bool,
    /// Attempts after the first since it was created.
    pub restarts: u32,
    /// When it was created.
    pub created: Time,
    /// Since when it has had no place though it asked for one.
    pub placeless: Option<Time>,
}

/// Why a replica exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// It is one of the wanted number.
    Member,
    /// It stands in for one that is in BACKOFF.
    Spare {
        /// That one.
        of: u32,
    },
    /// It is to replace one of another edition.
    Surge {
        /// That one.
        of: u32,
    },
    /// It is to replace one on a draining worker.
    Move {
        /// That one.
        of: u32,
    },
}

impl Role {
    /// The replica that it stands for, if it is not its own.
    #[must_use]
    pub fn of(self) -> Option<u32> {
        match self {
            Self::Member => None,
            Self::Spare { of } | Self::Surge { of } | Self::Move { of } => Some(of),
        }
    }
}

/// What is known of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    /// It wants an attempt.
    Pending {
        /// The room that its last attempt left, kept for the next one.
        hold: Option<String>,
    },
    /// Room is being asked for, under the attempt's id.
    Placing(Placing),
    /// No place would have it; nothing is decided yet.
    Refused(Placing),
    /// Its attempt has room and has not ended.
    Running(Phase),
    /// Its attempt has ended; nothing is decided yet.
    Ended,
    /// Another attempt follows.
    Backoff(Backoff),
    /// Nothing of it runs, as intended.
    Stopped,
    /// Its retries are used up.
    Failed {
        /// The class of the last failure.
        class: Class,
        /// The limit that was reached.
        exceeded: Exceeded,
    },
}

/// The question that was put to the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    /// Where it may be, the first choice first; never empty.
    pub choices: Vec<Choice>,
    /// The room of its last attempt, to be taken over if the place is the same.
    pub hold: Option<String>,
    /// When it was to be asked next, if it is asked ahead because room may have come free.
    pub ahead_of: Option<Time>,
    /// What the registry answered last, if that was no.
    pub refusal: String,
    /// The world's count of changes that may have made room when it was asked.
    #[serde(default)]
    pub room_seen: u64,
}

/// A place, and the retry stage that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Where.
    pub place: Place,
    /// The stage, from 0; `None` is none.
    pub stage: Option<usize>,
}

/// Where an attempt may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On this worker.
    Same {
        /// The worker.
        worker: String,
    },
    /// Not there.
    Avoid {
        /// On none of these workers.
        workers: BTreeSet<String>,
        /// In none of these regions.
        regions: BTreeSet<String>,
    },
    /// Anywhere.
    Anywhere,
}

/// How far an attempt with room has come on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its agent has not spoken of it, or waits for what it replaces.
    Allocated,
    /// Being started, or not yet ready.
    Starting,
    /// It gets traffic.
    Ready,
    /// It was ready, and its readiness probe fails.
    Unready,
    /// Its worker is LOST and it may still run there: `on_disconnect: stop`.
    Unreachable,
    /// The same, and its room was taken by force: no agent is told to run it any more.
    Revoked,
}

/// A wait for the next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// When the next attempt is due.
    pub due: Time,
    /// Why it waits.
    pub class: Class,
    /// The room that is kept for it.
    pub hold: Option<String>,
    /// The same in words.
    pub message: String,
    /// The world's count of changes that may have made room when room was asked for last. A part of the
    /// record: without it, every look would ask again.
    #[serde(default)]
    pub room_seen: u64,
}

/// The intent to stop a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why.
    pub why: StopWhy,
    /// When its agent is told; until then it only leaves the endpoints.
    pub at: Time,
    /// Whether its agent is told.
    pub told: bool,
}

/// Why a replica is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopWhy {
    /// Fewer are wanted.
    ScaleDown,
    /// One of the aimed-at edition took its place, or will.
    Update,
    /// Its edition is being rolled back.
    Rollback,
    /// Its move took its place.
    Moved,
    /// The drain that it was a move for was called off, or it came upon a draining worker.
    MoveUndone,
    /// The one that it stood in for is back.
    SpareNotNeeded,
    /// A user asked for its restart.
    Restart,
    /// A user stopped the service.
    ServiceStopped,
    /// The service failed.
    ServiceFailed,
    /// The service is being deleted.
    ServiceDeleted,
}

impl StopWhy {
    /// Whether the replica is forgotten once it has stopped.
    #[must_use]
    pub fn removes(self) -> bool {
        match self {
            Self::Restart | Self::ServiceStopped | Self::ServiceFailed => false,
            Self::ScaleDown
            | Self::Update
            | Self::Rollback
            | Self::Moved
            | Self::MoveUndone
            | Self::SpareNotNeeded
            | Self::ServiceDeleted => true,
        }
    }

    /// Whether another replica that is ready took its place.
    #[must_use]
    pub fn replaced(self) -> bool {
        matches!(self, Self::Update | Self::Moved)
    }
}

impl fmt::Display for StopWhy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ScaleDown => "fewer replicas are wanted",
            Self::Update => "replaced by the new version",
            Self::Rollback => "its version is being rolled back",
            Self::Moved => "moved off a draining worker",
            Self::MoveUndone => "its move is not needed any more",
            Self::SpareNotNeeded => "the replica it stood in for is back",
            Self::Restart => "restarted by a user",
            Self::ServiceStopped => "the service was stopped",
            Self::ServiceFailed => "the service failed",
            Self::ServiceDeleted => "the service is being deleted",
        })
    }
}

impl State {
    /// How far its attempt has come on its machine.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        if let Self::Running(phase) = self {
            Some(*phase)
        } else {
            None
        }
    }

    /// What it waits for, if another attempt follows.
    #[must_use]
    pub fn backoff(&self) -> Option<&Backoff> {
        if let Self::Backoff(backoff) = self {
            Some(backoff)
        } else {
            None
        }
    }

    /// What was asked for, if no place would have it.
    #[must_use]
    pub fn refused(&self) -> Option<&Placing> {
        if let Self::Refused(placing) = self {
            Some(placing)
        } else {
            None
        }
    }
}

impl Replica {
    /// A replica that wants its first attempt.
    #[must_use]
    pub fn new(ordinal: u32, role: Role, edition: Edition, now: Time) -> Self {
        Self {
            ordinal,
            role,
            edition,
            state: State::Pending { hold: None },
            since: now,
            stop: None,
            attempts: 0,
            attempt: None,
            previous: None,
            episode: None,
            releases: BTreeSet::new(),
            first_start: true,
            restarts: 0,
            created: now,
            placeless: None,
        }
    }

    /// Whether it gets traffic and is meant to keep it.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.state == State::Running(Phase::Ready) && self.stop.is_none()
    }

    /// Whether it has been ready since then, and is meant to stay.
    #[must_use]
    pub fn ready_since(&self) -> Option<Time> {
        self.ready().then_some(self.since)
    }

    /// Whether it is meant to go for good.
    #[must_use]
    pub fn leaving(&self) -> bool {
        self.stop.is_some_and(|stop| stop.why.removes())
    }

    /// Whether its attempt may run somewhere, or have room, or be about to.
    #[must_use]
    pub fn live(&self) -> bool {
        matches!(self.state, State::Placing(_) | State::Running(_))
    }

    /// Whether it neither runs nor will without a decision.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        matches!(self.state, State::Stopped | State::Failed { .. })
    }

    /// The worker that its current attempt has room on and has not ended on.
    #[must_use]
    pub fn worker(&self) -> Option<&str> {
        self.state.phase()?;
        let room = self.attempt.as_ref()?.allocation.as_ref()?;
        Some(&room.worker)
    }

    /// The last attempt that had room, ended or not.
    #[must_use]
    pub fn last_placed(&self) -> Option<&Attempt> {
        let attempts = [self.attempt.as_ref(), self.previous.as_ref()];
        attempts
            .into_iter()
            .flatten()
            .find(|a| a.allocation.is_some())
    }
}
