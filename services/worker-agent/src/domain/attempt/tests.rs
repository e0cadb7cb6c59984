use super::*;
use crate::domain::assignment::{Intent, Terms};
use crate::domain::end::{ExitCause, FailureClass};
use crate::domain::ids::{AllocationId, AttemptId, FencingToken};
use crate::domain::probe;

const PROBE: probe::Terms = probe::Terms {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    successes: 1,
    failures: 2,
};

fn at(secs: u64) -> Now {
    Now {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + secs),
        boot: Duration::from_secs(1_000 + secs),
    }
}

fn assignment(ready: Option<probe::Terms>) -> Assignment {
    Assignment {
        attempt: AttemptId::parse("abc.0.1").unwrap(),
        intent: Intent::Run,
        allocation: AllocationId::parse("a-1").unwrap(),
        token: FencingToken("e-1".into()),
        replaces: None,
        gpus: vec![],
        terms: Terms {
            start_timeout: Duration::from_secs(10),
            ready,
            alive: Some(PROBE),
            stop_grace: Duration::from_secs(5),
        },
        reason: String::new(),
    }
}

fn exit() -> Exit {
    Exit {
        cause: ExitCause::Exited,
        code: Some(1),
        signal: None,
        out_of_memory: false,
        time: at(50).wall,
        message: String::new(),
    }
}

fn stop() -> StopCause {
    StopCause::Assigned("scaled down".into())
}

/// An attempt that has been brought to a phase in the usual way, at 0 s.
fn brought_to(phase: &str) -> Attempt {
    let mut attempt = Attempt::new(assignment(Some(PROBE)), at(0));
    let good = || Event::Probed(Kind::Ready, Ok(()));
    let bad = || Event::Probed(Kind::Ready, Err("refused".into()));
    let steps: &[Event] = match phase {
        "waiting" => &[],
        "starting" => &[Event::Start],
        "running" => &[Event::Start, Event::Runs(at(0).wall)],
        "ready" => &[Event::Start, Event::Runs(at(0).wall), good()],
        "unready" => &[Event::Start, Event::Runs(at(0).wall), good(), bad(), bad()],
        "stopping" => &[Event::Start, Event::Runs(at(0).wall), Event::Stop(stop())],
        "ended" => &[Event::Start, Event::Runs(at(0).wall), Event::Exited(exit())],
        _ => panic!("{phase}"),
    };
    for event in steps {
        attempt.apply(event.clone(), at(0)).unwrap();
    }
    assert_eq!(name(&attempt), phase);
    attempt
}

fn name(attempt: &Attempt) -> &'static str {
    match attempt.phase() {
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Running(_) => "running",
        Phase::Ready => "ready",
        Phase::Unready => "unready",
        Phase::Stopping(_) => "stopping",
        Phase::Ended(_) => "ended",
    }
}

/// The cross product: what each event makes of each phase; "-" is rejected.
#[test]
fn every_event_in_every_phase() {
    let phases = "waiting starting running ready unready stopping ended";
    let good = |kind| Event::Probed(kind, Ok(()));
    let bad = |kind| Event::Probed(kind, Err("refused".into()));
    let (ready, alive) = (Kind::Ready, Kind::Alive);
    for (event, outcomes) in [
        (Event::Start, "starting - - - - - -"),
        (Event::Runs(at(1).wall), "- running - - - stopping -"),
        (good(ready), "- - ready ready ready - -"),
        (bad(ready), "- - running ready unready - -"),
        (good(alive), "- - - ready unready - -"),
        (bad(alive), "- - - ready unready - -"),
        (
            Event::Stop(stop()),
            "ended stopping stopping stopping stopping stopping -",
        ),
        (Event::Exited(exit()), "- ended ended ended ended ended -"),
        (Event::Refuse("no".into()), "ended - - - - - -"),
        (Event::Misfit("no".into()), "ended ended - - - - -"),
        (
            Event::Tick,
            "waiting starting running ready unready stopping -",
        ),
    ] {
        for (phase, expected) in phases.split(' ').zip(outcomes.split(' ')) {
            let mut attempt = brought_to(phase);
            let found = match attempt.apply(event.clone(), at(1)) {
                Ok(changed) => {
                    assert_eq!(changed, name(&attempt) != phase, "{event:?} while {phase}");
                    name(&attempt)
                }
                Err(Rejected) => {
                    assert_eq!(name(&attempt), phase, "{event:?} while {phase}");
                    "-"
                }
            };
            assert_eq!(found, expected, "{event:?} while {phase}");
        }
    }
}

#[test]
fn without_a_probe_it_is_ready_after_a_second() {
    let mut attempt = Attempt::new(assignment(None), at(0));
    attempt.apply(Event::Start, at(0)).unwrap();
    attempt.apply(Event::Runs(at(2).wall), at(2)).unwrap();
    assert_eq!(attempt.wake_at(), Some(at(3).boot));
    attempt.apply(Event::Tick, at(2)).unwrap();
    assert_eq!(name(&attempt), "running");
    attempt.apply(Event::Tick, at(3)).unwrap();
    assert_eq!(name(&attempt), "ready");
    assert_eq!(attempt.wake_at(), None);
    assert_eq!(attempt.ready_time(), Some(at(3).wall));
}

#[test]
fn it_has_to_be_ready_in_time_once() {
    for phase in ["starting", "running"] {
        let mut attempt = brought_to(phase);
        assert_eq!(attempt.wake_at(), Some(at(10).boot), "{phase}");
        attempt.apply(Event::Tick, at(9)).unwrap();
        assert_eq!(name(&attempt), phase);
        attempt.apply(Event::Tick, at(10)).unwrap();
        assert_eq!(name(&attempt), "stopping", "{phase}");
        attempt.apply(Event::Exited(exit()), at(11)).unwrap();
        assert_eq!(
            attempt.end().unwrap().class,
            Some(FailureClass::StartTimeout)
        );
    }
    for phase in ["ready", "unready"] {
        let mut attempt = brought_to(phase);
        assert_eq!(attempt.wake_at(), None);
        attempt.apply(Event::Tick, at(999)).unwrap();
        assert_eq!(name(&attempt), phase);
    }
}

#[test]
fn a_changed_start_timeout_counts_from_the_start_at_once() {
    let with_timeout = |secs| {
        let mut changed = assignment(Some(PROBE));
        changed.terms.start_timeout = Duration::from_secs(secs);
        changed
    };
    let started = Past {
        start_time: Some(at(0).wall),
        ..Past::default()
    };
    let known = Attempt::known(assignment(Some(PROBE)), started, at(3));
    for mut attempt in [brought_to("starting"), brought_to("running"), known] {
        let phase = name(&attempt);
        attempt.set_terms(&with_timeout(600));
        assert_eq!(attempt.wake_at(), Some(at(600).boot), "{phase}");
        attempt.apply(Event::Tick, at(599)).unwrap();
        assert_eq!(name(&attempt), phase);
        attempt.set_terms(&with_timeout(20));
        assert_eq!(attempt.wake_at(), Some(at(20).boot), "{phase}");
        attempt.apply(Event::Tick, at(599)).unwrap();
        assert_eq!(name(&attempt), "stopping", "{phase}");
    }
    let mut waiting = brought_to("waiting");
    waiting.set_terms(&with_timeout(20));
    assert_eq!(waiting.wake_at(), None);
    waiting.apply(Event::Start, at(5)).unwrap();
    assert_eq!(waiting.wake_at(), Some(at(25).boot));
    for phase in ["ready", "unready", "stopping"] {
        let mut attempt = brought_to(phase);
        attempt.set_terms(&with_timeout(20));
        assert_eq!(attempt.wake_at(), None, "{phase}");
    }
}

#[test]
fn a_start_that_is_too_slow_says_what_its_probe_said() {
    let mut attempt = brought_to("running");
    let refused = Event::Probed(Kind::Ready, Err("connection refused".into()));
    attempt.apply(refused, at(3)).unwrap();
    attempt.apply(Event::Tick, at(10)).unwrap();
    attempt.apply(Event::Exited(exit()), at(11)).unwrap();
    assert_eq!(
        attempt.end().unwrap().message,
        "not ready in time: connection refused"
    );
}

#[test]
fn failures_in_a_row_of_the_liveness_probe_end_it() {
    let mut attempt = brought_to("ready");
    let bad = || Event::Probed(Kind::Alive, Err("timed out".into()));
    assert_eq!(attempt.apply(bad(), at(1)), Ok(false));
    assert_eq!(attempt.apply(bad(), at(2)), Ok(true));
    assert_eq!(
        attempt.phase(),
        &Phase::Stopping(StopCause::NotAlive("timed out".into()))
    );
}

#[test]
fn the_first_cause_of_a_stop_stays() {
    let mut attempt = brought_to("stopping");
    attempt
        .apply(Event::Stop(StopCause::ForcedDrain), at(1))
        .unwrap();
    attempt.apply(Event::Exited(exit()), at(2)).unwrap();
    let end = attempt.end().unwrap();
    assert_eq!(
        (end.stopped, end.interrupted, end.class),
        (true, false, None)
    );
    assert_eq!(end.message, "scaled down");
}

#[test]
fn an_earlier_agent_is_believed() {
    let ready = Readiness {
        first_time: at(1).wall,
        phase_time: at(4).wall,
        unready: false,
    };
    let started = Past {
        start_time: Some(at(0).wall),
        ..Past::default()
    };
    for (past, expected, wake_at) in [
        (Past::default(), "starting", Some(at(30).boot)),
        (started.clone(), "running", Some(at(10).boot)),
        (
            Past {
                ready: Some(ready),
                ..started.clone()
            },
            "ready",
            None,
        ),
        (
            Past {
                ready: Some(Readiness {
                    unready: true,
                    ..ready
                }),
                ..started.clone()
            },
            "unready",
            None,
        ),
        (
            Past {
                ready: Some(ready),
                stop: Some(stop()),
                ..started
            },
            "stopping",
            None,
        ),
    ] {
        let attempt = Attempt::known(assignment(Some(PROBE)), past, at(20));
        assert_eq!(name(&attempt), expected);
        assert_eq!(attempt.wake_at(), wake_at, "{expected}");
    }
    let past = Past {
        start_time: Some(at(0).wall),
        ready: Some(ready),
        ..Past::default()
    };
    let attempt = Attempt::known(assignment(Some(PROBE)), past, at(20));
    assert_eq!(attempt.phase_time(), at(4).wall);
    assert_eq!(attempt.readiness(), Some(ready));
}

#[test]
fn a_wall_clock_that_is_set_ends_no_start() {
    let started = at(18);
    for wall in [at(0).wall, started.wall, at(3600).wall] {
        let past = Past {
            start_time: Some(wall),
            started: Some(started.boot),
            ..Past::default()
        };
        let attempt = Attempt::known(assignment(Some(PROBE)), past, at(20));
        assert_eq!(*attempt.phase(), Phase::Running(started.boot));
        assert_eq!(attempt.wake_at(), Some(at(28).boot));
    }
}
