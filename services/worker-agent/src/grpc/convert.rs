//! Between the contract's messages and the domain's words. Nothing here decides anything but the
//! defaults that the contract documents; what cannot be read is refused.

use std::time::{Duration, SystemTime};

use muster_proto::replicas::v1::{self as wire, AssignmentIntent, AttemptPhase};
use muster_proto::workers::v1::HeldPhase as WireHeldPhase;
use prost_types::{Duration as WireDuration, Timestamp};

use crate::domain::assignment::{Assignment, Intent, Terms};
use crate::domain::attempt::Phase;
use crate::domain::end::{End, FailureClass};
use crate::domain::holdings::HeldPhase;
use crate::domain::ids::{AllocationId, AttemptId, FencingToken, Invalid};
use crate::domain::probe;

const START_TIMEOUT: Duration = Duration::from_secs(600);
const STOP_GRACE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What is decided by of an assignment. Only ids that cannot be names are refused: what cannot be
/// run for another reason is to be reported as failed. Without an intent it is ignored.
pub fn parse_assignment(from: &wire::Assignment) -> Result<Option<Assignment>, Invalid> {
    let intent = match from.intent() {
        AssignmentIntent::Unspecified => return Ok(None),
        AssignmentIntent::Run => Intent::Run,
        AssignmentIntent::Stop => Intent::Stop,
    };
    let replaces = Some(from.replaces_allocation.as_str()).filter(|id| !id.is_empty());
    Ok(Some(Assignment {
        attempt: AttemptId::parse(&from.attempt_id)?,
        intent,
        allocation: AllocationId::parse(&from.allocation_id)?,
        token: FencingToken(from.fencing_token.clone()),
        replaces: replaces.map(AllocationId::parse).transpose()?,
        gpus: from.gpu_uuids.clone(),
        terms: parse_terms(from),
        reason: from.reason.clone(),
    }))
}

fn parse_terms(from: &wire::Assignment) -> Terms {
    let probes = from.probes.as_ref();
    let start = from.start.as_ref().and_then(|start| start.timeout.as_ref());
    Terms {
        start_timeout: duration_or(start, START_TIMEOUT),
        ready: probes
            .and_then(|probes| probes.ready.as_ref())
            .map(parse_probe_terms),
        alive: probes
            .and_then(|probes| probes.alive.as_ref())
            .map(parse_probe_terms),
        stop_grace: duration_or(
            from.stop.as_ref().and_then(|stop| stop.grace.as_ref()),
            STOP_GRACE,
        ),
    }
}

fn parse_probe_terms(from: &wire::Probe) -> probe::Terms {
    let count = |number: i32, default: u32| match u32::try_from(number) {
        Ok(0) | Err(_) => default,
        Ok(number) => number,
    };
    probe::Terms {
        interval: duration_or(from.interval.as_ref(), PROBE_INTERVAL).max(SHORTEST_INTERVAL),
        timeout: duration_or(from.timeout.as_ref(), PROBE_TIMEOUT),
        successes: count(from.successes, 1),
        failures: count(from.failures, 3),
    }
}

/// A duration of the contract; a negative one is none at all.
pub fn parse_duration(from: &WireDuration) -> Duration {
    Duration::try_from(*from).unwrap_or_default()
}

fn duration_or(from: Option<&WireDuration>, default: Duration) -> Duration {
    from.map_or(default, parse_duration)
}

/// A duration for the wire; one that is too long for it is the longest that fits.
pub fn render_duration(time: Duration) -> WireDuration {
    WireDuration::try_from(time).unwrap_or(WireDuration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

/// A time for the wire.
pub fn render_time(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// A phase in the manager's words.
pub fn render_phase(phase: &Phase) -> AttemptPhase {
    match phase {
        Phase::Waiting => AttemptPhase::Waiting,
        Phase::Starting | Phase::Running(_) => AttemptPhase::Starting,
        Phase::Ready => AttemptPhase::Ready,
        Phase::Unready => AttemptPhase::Unready,
        Phase::Stopping(_) => AttemptPhase::Stopping,
        Phase::Ended(_) => AttemptPhase::Ended,
    }
}

/// A phase in a word, for people.
pub fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Running(_) => "running",
        Phase::Ready => "ready",
        Phase::Unready => "unready",
        Phase::Stopping(_) => "stopping",
        Phase::Ended(_) => "ended",
    }
}

/// A phase in the registry's words.
pub fn render_held_phase(phase: HeldPhase) -> WireHeldPhase {
    match phase {
        HeldPhase::Waiting => WireHeldPhase::Waiting,
        HeldPhase::Running => WireHeldPhase::Running,
        HeldPhase::Stopping => WireHeldPhase::Stopping,
        HeldPhase::Ended => WireHeldPhase::Ended,
    }
}

/// A failure's class; unspecified if it was none.
pub fn render_class(class: Option<FailureClass>) -> wire::FailureClass {
    match class {
        None => wire::FailureClass::Unspecified,
        Some(FailureClass::Interruption) => wire::FailureClass::Interruption,
        Some(FailureClass::Error) => wire::FailureClass::Error,
        Some(FailureClass::OutOfMemory) => wire::FailureClass::Oom,
        Some(FailureClass::Probe) => wire::FailureClass::Probe,
        Some(FailureClass::StartTimeout) => wire::FailureClass::StartTimeout,
        Some(FailureClass::Image) => wire::FailureClass::Image,
        Some(FailureClass::Config) => wire::FailureClass::Config,
    }
}

/// A failure's class in a word, for people; "stopped" if it was none.
pub fn class_name(class: Option<FailureClass>) -> &'static str {
    match class {
        None => "stopped",
        Some(FailureClass::Interruption) => "interruption",
        Some(FailureClass::Error) => "error",
        Some(FailureClass::OutOfMemory) => "oom",
        Some(FailureClass::Probe) => "probe",
        Some(FailureClass::StartTimeout) => "start-timeout",
        Some(FailureClass::Image) => "image",
        Some(FailureClass::Config) => "config",
    }
}

/// How an attempt's process ended.
pub fn render_exit(end: &End) -> wire::ExitStatus {
    wire::ExitStatus {
        code: end.code,
        signal: end.signal.unwrap_or(0),
        out_of_memory: end.out_of_memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_assignment() -> wire::Assignment {
        wire::Assignment {
            attempt_id: "abc.0.1".into(),
            intent: AssignmentIntent::Run.into(),
            allocation_id: "a-1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_absent_has_the_documented_default() {
        let parsed = parse_assignment(&wire_assignment()).unwrap().unwrap();
        assert_eq!(parsed.terms.start_timeout, Duration::from_secs(600));
        assert_eq!(parsed.terms.stop_grace, Duration::from_secs(30));
        assert_eq!((parsed.terms.ready, parsed.replaces), (None, None));
        let terms = parse_probe_terms(&wire::Probe::default());
        assert_eq!(
            (terms.interval, terms.timeout),
            (Duration::from_secs(5), Duration::from_secs(2))
        );
        assert_eq!((terms.successes, terms.failures), (1, 3));
    }

    #[test]
    fn what_makes_no_sense_is_refused_or_bounded() {
        let bad = wire::Assignment {
            attempt_id: "../x".into(),
            ..wire_assignment()
        };
        assert!(parse_assignment(&bad).is_err());
        let none = wire::Assignment {
            intent: 0,
            ..wire_assignment()
        };
        assert_eq!(parse_assignment(&none), Ok(None));
        let unknown = wire::Assignment {
            intent: 77,
            ..wire_assignment()
        };
        assert_eq!(parse_assignment(&unknown), Ok(None));
        let probe = wire::Probe {
            interval: Some(WireDuration {
                seconds: -5,
                nanos: 0,
            }),
            failures: -1,
            ..Default::default()
        };
        let terms = parse_probe_terms(&probe);
        assert_eq!((terms.interval, terms.failures), (SHORTEST_INTERVAL, 3));
        assert_eq!(render_duration(Duration::MAX).seconds, i64::MAX);
    }
}
