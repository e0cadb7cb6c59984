//! How a service is, in one word and in words. It reads a service and changes nothing.

use serde::{Deserialize, Serialize};

use super::failure::Class;
use super::replica::{Phase, Replica, Role, State, StopWhy};
use super::rollout::Stage;
use super::service::{Intent, Reached, Service, count};
use super::time::Time;

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// In a word.
    pub phase: ServicePhase,
    /// Since when.
    pub since: Time,
    /// Why, in words.
    pub reason: String,
    /// Its replicas.
    pub counts: Counts,
    /// A rolling update is under way.
    pub updating: bool,
    /// It wants no replica.
    pub scaled_to_zero: bool,
}

/// How a service is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServicePhase {
    /// Nothing has a place yet, and nothing has failed but for want of one.
    Pending,
    /// On its way to its first readiness.
    Starting,
    /// As many are ready as are wanted.
    Healthy,
    /// Fewer than wanted, and at least `min_healthy`.
    Degraded,
    /// Fewer than `min_healthy`: an outage.
    Down,
    /// Being stopped.
    Stopping,
    /// Stopped by a user.
    Stopped,
    /// Ended by a failure.
    Failed,
}

/// Replicas by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Meant to be ready.
    pub wanted: u32,
    /// Ready, and meant to stay.
    pub ready: u32,
    /// On their first start.
    pub starting: u32,
    /// Running and not ready, though not on their first start.
    pub unready: u32,
    /// Waiting for their next attempt.
    pub backoff: u32,
    /// Given up.
    pub failed: u32,
    /// Being stopped.
    pub stopping: u32,
    /// All but those that are at rest.
    pub copies: u32,
}

impl ServicePhase {
    /// Every phase, in order.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Starting,
        Self::Healthy,
        Self::Degraded,
        Self::Down,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// The word for it: `HEALTHY`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Down => "DOWN",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
        }
    }
}

/// What a replica is to its service's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ready,
    Starting,
    Unready,
    Backoff,
    Failed,
    Stopping,
    AtRest,
}

/// How the service is now. `since` is that of its last status as long as the phase is the same.
#[must_use]
pub fn status(service: &Service, reached: Reached, now: Time) -> Status {
    let counts = counts(service, now);
    let phase = phase(service, &counts, reached);
    let last = &service.header.status;
    let rollout = service.header.rollout.as_ref();
    Status {
        phase,
        since: if last.phase == phase { last.since } else { now },
        reason: reason(service, phase, &counts),
        counts,
        updating: rollout.is_some_and(|r| r.active()) && service.header.intent == Intent::Run,
        scaled_to_zero: service.header.intent == Intent::Run && counts.wanted == 0,
    }
}

/// What has been reached since the last start, with what is so now.
#[must_use]
pub fn reached(service: &Service, now: Time) -> Reached {
    let counts = counts(service, now);
    let before = service.header.reached;
    if counts.wanted == 0 {
        return Reached {
            up: before.up,
            ..Reached::default()
        };
    }
    let least = service.spec().min_healthy.min(counts.wanted);
    let placed = service
        .replicas
        .values()
        .any(|replica| replica.worker().is_some());
    Reached {
        placed: before.placed || placed,
        least: before.least || counts.ready >= least,
        wanted: before.wanted || counts.ready >= counts.wanted,
        up: before.up || counts.ready >= least.max(1),
    }
}

/// When a copy that is starting stops being so by time alone.
#[must_use]
pub fn start_deadline(service: &Service, replica: &Replica) -> Option<Time> {
    let starting = replica.first_start && !replica.at_rest() && replica.stop.is_none();
    let own = matches!(replica.role, Role::Member | Role::Surge { .. });
    if !starting || !own {
        return None;
    }
    let current = replica.attempt.as_ref().filter(|a| a.end.is_none());
    let placed = current.and_then(|attempt| Some(attempt.allocation.as_ref()?.at));
    // Without a place it is the time for which it has had none.
    let from = placed.or(replica.placeless).unwrap_or(replica.since);
    Some(from + service.spec().start_timeout)
}

fn counts(service: &Service, now: Time) -> Counts {
    let kinds: Vec<Kind> = service
        .replicas
        .values()
        .map(|replica| kind(service, replica, now))
        .collect();
    let of = |kind: Kind| count(kinds.iter().filter(|found| **found == kind));
    Counts {
        wanted: service.wanted(),
        ready: of(Kind::Ready),
        starting: of(Kind::Starting),
        unready: of(Kind::Unready),
        backoff: of(Kind::Backoff),
        failed: of(Kind::Failed),
        stopping: of(Kind::Stopping),
        copies: service.copies(),
    }
}

fn kind(service: &Service, replica: &Replica, now: Time) -> Kind {
    if replica.stop.is_some() && !replica.at_rest() {
        return Kind::Stopping;
    }
    let starting =
        replica.first_start && start_deadline(service, replica).is_none_or(|at| now < at);
    let own = matches!(replica.role, Role::Member | Role::Surge { .. });
    match &replica.state {
        State::Stopped => Kind::AtRest,
        State::Failed { .. } => Kind::Failed,
        State::Running(Phase::Ready) => Kind::Ready,
        // Waiting for a first place is part of a first start.
        State::Backoff(backoff) if backoff.class != Class::NoCapacity || !starting => Kind::Backoff,
        _ if starting && own => Kind::Starting,
        State::Backoff(_) => Kind::Backoff,
        State::Pending { .. }
        | State::Placing(_)
        | State::Refused(_)
        | State::Running(_)
        | State::Ended => Kind::Unready,
    }
}

fn phase(service: &Service, counts: &Counts, reached: Reached) -> ServicePhase {
    match service.header.intent {
        Intent::Failed => return ServicePhase::Failed,
        Intent::Delete => return ServicePhase::Stopping,
        Intent::Stop if counts.copies > 0 => return ServicePhase::Stopping,
        Intent::Stop => return ServicePhase::Stopped,
        Intent::Run => {}
    }
    if counts.ready >= counts.wanted {
        return ServicePhase::Healthy;
    }
    let least = service.spec().min_healthy.min(counts.wanted);
    if counts.ready < least {
        return if reached.least {
            ServicePhase::Down
        } else if !reached.placed && !failed(service) {
            ServicePhase::Pending
        } else if counts.ready + counts.starting >= least {
            ServicePhase::Starting
        } else {
            ServicePhase::Down
        };
    }
    if !broken(service, counts) {
        return if reached.wanted {
            ServicePhase::Healthy
        } else {
            ServicePhase::Starting
        };
    }
    ServicePhase::Degraded
}

/// Whether any copy has failed, but for want of a place.
fn failed(service: &Service) -> bool {
    service.replicas.values().any(|replica| {
        let class = match &replica.state {
            State::Failed { class, .. } => *class,
            State::Backoff(backoff) => backoff.class,
            State::Pending { .. }
            | State::Placing(_)
            | State::Refused(_)
            | State::Running(_)
            | State::Ended
            | State::Stopped => return false,
        };
        class != Class::NoCapacity
    })
}

/// Whether a missing copy is missing for another reason than that it starts.
fn broken(service: &Service, counts: &Counts) -> bool {
    let away = service.members().any(|replica| match &replica.state {
        State::Stopped => false,
        State::Failed { .. } | State::Ended => true,
        State::Backoff(backoff) => backoff.class != Class::NoCapacity || !replica.first_start,
        State::Running(Phase::Ready) => replica.stop.is_some(),
        State::Running(_) | State::Placing(_) | State::Pending { .. } | State::Refused(_) => {
            !replica.first_start
        }
    });
    // One that is stopped for the update is followed by one that starts.
    let replaced = service.replicas.values().filter(|replica| {
        let why = replica.stop.map(|stop| stop.why);
        !replica.at_rest() && matches!(why, Some(StopWhy::Update | StopWhy::Rollback))
    });
    away || counts.ready + counts.starting + count(replaced) < counts.wanted
}

fn reason(service: &Service, phase: ServicePhase, counts: &Counts) -> String {
    let header = &service.header;
    let missing = || worst(service).map_or(String::new(), |words| format!("; {words}"));
    let ready = format!("{} of {} ready", counts.ready, counts.wanted);
    let text = match phase {
        ServicePhase::Failed => match &header.failure {
            Some(failure) => failure.message.clone(),
            None => "failed".to_owned(),
        },
        ServicePhase::Stopping | ServicePhase::Stopped => header.intent_reason.clone(),
        ServicePhase::Healthy if counts.wanted == 0 => "no replica is wanted".to_owned(),
        ServicePhase::Pending => format!("waiting for a place{}", missing()),
        ServicePhase::Healthy if counts.ready >= counts.wanted => ready,
        ServicePhase::Starting
        | ServicePhase::Healthy
        | ServicePhase::Degraded
        | ServicePhase::Down => format!("{ready}{}", missing()),
    };
    match rollout_words(service) {
        Some(words) if header.intent == Intent::Run => format!("{text}; {words}"),
        _ => text,
    }
}

fn rollout_words(service: &Service) -> Option<String> {
    let rollout = service.header.rollout.as_ref()?;
    match rollout.stage {
        Stage::Complete | Stage::Running => None,
        Stage::Paused { .. } => Some(format!("update paused: {}", rollout.reason)),
        Stage::RollingBack => Some(format!("rolling back: {}", rollout.reason)),
        Stage::RolledBack => Some(format!("rolled back: {}", rollout.reason)),
    }
}

/// The replica that tells most of why others are missing, in words.
fn worst(service: &Service) -> Option<String> {
    let ranked = service.replicas.values().map(AsRef::as_ref);
    let ranked = ranked.filter(|replica: &&Replica| !replica.leaving());
    let ranked = ranked.filter_map(|replica| rank(replica).map(|rank| (rank, replica)));
    let (_, replica) = ranked.min_by_key(|(rank, replica)| (*rank, replica.ordinal))?;
    let id = service.replica_id(replica.ordinal);
    Some(format!("{id} {}", words(replica)))
}

fn rank(replica: &Replica) -> Option<u8> {
    match &replica.state {
        State::Failed { .. } => Some(0),
        State::Backoff(backoff) if backoff.class != Class::NoCapacity => Some(1),
        State::Running(Phase::Unready | Phase::Unreachable | Phase::Revoked) => Some(2),
        State::Backoff(_) | State::Refused(_) => Some(3),
        _ if replica.ready() => None,
        State::Running(_) if replica.episode.as_ref().is_some_and(|e| e.failures > 0) => Some(4),
        State::Running(_) | State::Placing(_) | State::Pending { .. } | State::Ended => Some(5),
        State::Stopped => None,
    }
}

/// How a replica is, in words: after its name.
#[must_use]
pub fn words(replica: &Replica) -> String {
    let end = replica
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.end.as_ref());
    let end = end.or_else(|| replica.previous.as_ref().and_then(|a| a.end.as_ref()));
    let last = end.map_or(String::new(), |end| format!(": {end}"));
    let after = match &replica.episode {
        Some(episode) if episode.failures > 0 => {
            format!(" after {} failures{last}", episode.failures)
        }
        _ => String::new(),
    };
    match &replica.state {
        State::Failed { class, .. } => format!("gave up on {class}{last}"),
        State::Backoff(backoff) if backoff.class == Class::NoCapacity => {
            format!("finds no place: {}", backoff.message)
        }
        State::Backoff(backoff) => format!("waits to be tried again: {}", backoff.message),
        State::Refused(placing) => format!("finds no place: {}", placing.refusal),
        State::Pending { .. } => "waits for an attempt".to_owned(),
        State::Placing(_) => format!("asks for a place{after}"),
        State::Running(Phase::Allocated) => format!("has a place{after}"),
        State::Running(Phase::Starting) => format!("starts{after}"),
        State::Running(Phase::Ready) => "is ready".to_owned(),
        State::Running(Phase::Unready) => "is not ready any more".to_owned(),
        State::Running(Phase::Unreachable | Phase::Revoked) => {
            "is on a lost worker, and not yet known to have stopped".to_owned()
        }
        State::Ended => format!("ended{last}"),
        State::Stopped => "is stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests;
