//! Retry: delays, episodes, limits, stages, and the siblings that nothing happens to.

use super::super::Reason;
use super::harness::{Life, Sim, secs};
use crate::domain::failure::Class;
use crate::domain::failure::policy::{Exhausted, Growth, Retry, Rule, Stage, StagePlace};
use crate::domain::replica::State;
use crate::domain::replica::observe::ReportedPhase;
use crate::domain::service::{FailureReason, Intent};
use crate::domain::spec::testing::spec;
use crate::domain::spec::{Count, Spec, defaults};
use crate::domain::status::ServicePhase;

pub(super) fn retrying(replicas: u32, change: impl FnOnce(&mut Retry)) -> Spec {
    let mut retry = defaults::retry();
    change(&mut retry);
    Spec {
        replicas: Count {
            min: replicas,
            max: replicas,
        },
        retry: Some(retry),
        ..spec("chat")
    }
}

/// Seconds between starts, rounded.
fn gaps(starts: &[f64]) -> Vec<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "seconds of a test")]
    let round = |gap: f64| gap.round() as i64;
    starts
        .windows(2)
        .map(|pair| round(pair[1] - pair[0]))
        .collect()
}

#[test]
fn the_other_is_untouched_and_the_failed_one_restarts_after_interval() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let before = sim.elapsed();
    sim.kill(0, Class::Error);
    sim.run_to_phase(secs(1), ServicePhase::Degraded);
    sim.run_to_phase(secs(40), ServicePhase::Healthy);
    let restarted = *sim.started(0).last().unwrap();
    assert!(
        (30.0..30.1).contains(&(restarted - before)),
        "{}",
        restarted - before
    );
    assert_eq!(sim.started(1).len(), 1);
    assert_eq!(sim.replica(0).restarts, 1);
}

#[test]
fn both_fail_an_outage_begins_and_its_length_is_recorded() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.kill(1, Class::Error);
    sim.run_to_phase(secs(1), ServicePhase::Down);
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
    let totals = sim.service.header.totals;
    assert_eq!(totals.outages, 1);
    assert_eq!(totals.restarts, 2);
    let lasted = totals.last_recovery.unwrap();
    assert!((secs(31)..secs(34)).contains(&lasted), "{lasted:?}");
}

#[test]
fn an_old_service_whose_scale_up_finds_no_capacity_keeps_its_hour() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run(secs(2 * 86_400));
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    sim.ask(|service, now| service.scale(3, now).unwrap());
    let scaled = sim.elapsed();
    sim.run(secs(3590));
    assert!(matches!(&sim.replica(2).state, State::Backoff(b) if b.class == Class::NoCapacity));
    assert_eq!(
        sim.started(0).len() + sim.started(1).len(),
        2,
        "healthy ones are untouched"
    );
    sim.run_to(secs(100), "given up", |sim| {
        matches!(sim.replica(2).state, State::Failed { .. })
    });
    let given_up = sim.elapsed() - scaled;
    assert!((3600.0..3660.0).contains(&given_up), "{given_up}");
    assert_eq!(sim.phase(), ServicePhase::Degraded);
    assert_eq!(sim.service.header.intent, Intent::Run);
}

#[test]
fn waiting_for_capacity_ends_as_soon_as_it_appears() {
    let mut sim = Sim::new(retrying(1, |_| ()), &[]);
    sim.run(secs(95));
    let before = sim.elapsed();
    sim.add_worker("w1", 1, "");
    sim.run_to_phase(secs(5), ServicePhase::Healthy);
    assert!(sim.started(0)[0] - before < 0.1);
    assert_eq!(sim.replica(0).attempts, 1, "asking is no attempt");
}

#[test]
fn a_crash_loop_grows_with_jitter_and_ends_with_its_episode() {
    let growth = Growth {
        factor: 2.0,
        max: secs(300),
        jitter: 0.2,
    };
    let spec = retrying(2, |retry| {
        retry.interval = secs(10);
        retry.growth = Some(growth);
    });
    let mut sim = Sim::new(spec, &[("w1", 4)]).script(|birth| {
        if birth.ordinal == 0 {
            Life::crash(secs(1))
        } else {
            Life::healthy()
        }
    });
    sim.run(secs(1000));
    let gaps = gaps(&sim.started(0));
    let base = [10.0, 20.0, 40.0, 80.0, 160.0, 300.0];
    for (gap, least) in gaps.iter().zip(base) {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let delay = *gap as f64 - 1.0;
        assert!(
            (least - 0.6..=least * 1.2 + 0.6).contains(&delay),
            "{gaps:?}"
        );
    }
    // Scaling goes on meanwhile.
    sim.ask(|service, now| service.scale(3, now).unwrap());
    sim.run(secs(10));
    assert!(sim.is_ready(2));
    sim.run_to(secs(5000), "exhausted", |sim| {
        matches!(sim.replica(0).state, State::Failed { .. })
    });
    assert!(
        (3600.0..4000.0).contains(&sim.elapsed()),
        "{}",
        sim.elapsed()
    );
    assert_eq!(sim.started(1).len(), 1);
    assert_eq!(sim.rooms_held(), 2, "an exhausted replica holds nothing");
}

#[test]
fn an_update_goes_on_beside_a_crash_loop_and_waits_for_no_retry() {
    let spec = retrying(2, |retry| retry.interval = secs(300));
    let mut sim = Sim::new(spec, &[("w1", 4)]).script(|birth| {
        if birth.version == 1 && birth.ordinal == 0 {
            Life::crash(secs(1))
        } else {
            Life::healthy()
        }
    });
    sim.run(secs(400));
    assert_eq!(sim.phase(), ServicePhase::Degraded);
    sim.apply(|spec| spec.run.command.push("mended".to_owned()));
    sim.least_ready = u32::MAX;
    sim.run_to_phase(secs(100), ServicePhase::Healthy);
    assert_eq!(sim.least_ready, 1, "the sibling was missed");
    sim.run_to(secs(100), "updated", |sim| {
        let replicas = sim.service.replicas.values();
        replicas.map(|r| r.edition.version).all(|of| of == 2)
    });
}

#[test]
fn attempts_that_run_a_little_and_crash_again_are_one_episode() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]).script(|birth| {
        if birth.ordinal == 0 {
            Life::ready_then_dies(secs(1), secs(100), Class::Error)
        } else {
            Life::healthy()
        }
    });
    sim.run(secs(2));
    sim.run_to(secs(8000), "exhausted", |sim| {
        matches!(sim.replica(0).state, State::Failed { .. })
    });
    assert!(
        (3600.0..3900.0).contains(&sim.elapsed()),
        "{}",
        sim.elapsed()
    );
}

#[test]
fn a_replica_that_was_stable_begins_a_new_episode() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]).script(|birth| {
        if birth.ordinal == 0 {
            Life::ready_then_dies(secs(1), secs(200), Class::Error)
        } else {
            Life::healthy()
        }
    });
    sim.run(secs(20_000));
    assert!(!matches!(sim.replica(0).state, State::Failed { .. }));
    assert!(sim.replica(0).restarts > 50);
}

#[test]
fn an_interval_of_zero_restarts_at_once_and_a_crash_loop_does_not_spin() {
    let mut sim = Sim::new(retrying(1, |retry| retry.interval = secs(0)), &[("w1", 1)])
        .script(|_| Life::crash(secs(0)));
    sim.run(secs(20));
    let starts = sim.started(0);
    assert!(starts[1] - starts[0] < 0.1, "{starts:?}");
    assert!(gaps(&starts[1..]).iter().all(|gap| *gap == 1), "{starts:?}");
}

#[test]
fn stages_same_worker_twice_then_others_then_another_region() {
    let stage = |attempts, place| Stage { attempts, place };
    let spec = retrying(1, |retry| {
        retry.interval = secs(1);
        retry.stages = vec![
            stage(Some(2), StagePlace::SameWorker),
            stage(Some(2), StagePlace::OtherWorker),
            stage(None, StagePlace::OtherRegion),
        ];
    });
    let mut sim = Sim::new(spec, &[]).script(|birth| {
        if birth.worker.starts_with("west") {
            Life::healthy()
        } else {
            Life::crash(secs(1))
        }
    });
    for name in ["east1", "east2", "east3"] {
        sim.add_worker(name, 1, "east");
    }
    sim.add_worker("west1", 1, "west");
    // Best fit would pick the west too: make it the last choice until its stage.
    sim.slots.insert("west1".to_owned(), 1);
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
    let workers: Vec<&str> = sim
        .starts
        .iter()
        .map(|(.., worker)| worker.as_str())
        .collect();
    assert_eq!(
        workers,
        ["east1", "east1", "east1", "east2", "east3", "west1"]
    );
}

#[test]
fn a_stage_that_nothing_meets_is_skipped_with_a_reason() {
    let stage = |attempts, place| Stage { attempts, place };
    let spec = retrying(1, |retry| {
        retry.interval = secs(1);
        retry.stages = vec![
            stage(Some(2), StagePlace::OtherRegion),
            stage(None, StagePlace::SameWorker),
        ];
    });
    let mut sim = Sim::new(spec, &[]);
    sim.add_worker("east1", 1, "east");
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(1));
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let skipped = Reason::StageSkipped {
        ordinal: 0,
        stage: 1,
        place: StagePlace::OtherRegion,
    };
    assert!(sim.reasons.contains(&skipped), "{:?}", sim.reasons);
}

#[test]
fn when_all_stages_are_skipped_it_is_placed_anywhere() {
    let spec = retrying(1, |retry| {
        retry.interval = secs(1);
        retry.stages = vec![Stage {
            attempts: None,
            place: StagePlace::OtherWorker,
        }];
    });
    let mut sim = Sim::new(spec, &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(1));
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some("w1"));
}

#[test]
fn without_stages_the_same_worker_comes_first_but_for_what_blames_it() {
    for (class, same) in [
        (Class::Error, true),
        (Class::Oom, true),
        (Class::StartTimeout, false),
    ] {
        let mut sim = Sim::new(
            retrying(1, |r| r.interval = secs(1)),
            &[("w1", 3), ("w2", 3)],
        );
        sim.run_to_phase(secs(10), ServicePhase::Healthy);
        let worker = sim.replica(0).worker().unwrap().to_owned();
        sim.kill(0, class);
        sim.run(secs(1));
        sim.run_to_phase(secs(10), ServicePhase::Healthy);
        assert_eq!(
            sim.replica(0).worker() == Some(worker.as_str()),
            same,
            "{class}"
        );
    }
}

#[test]
fn room_is_kept_for_a_retry_within_a_minute_and_given_back_for_a_later_one() {
    for (interval, kept) in [(30, true), (90, false)] {
        let spec = retrying(1, |retry| retry.interval = secs(interval));
        let mut sim = Sim::new(spec, &[("w1", 1)]);
        sim.run_to_phase(secs(10), ServicePhase::Healthy);
        sim.kill(0, Class::Error);
        sim.run(secs(5));
        assert_eq!(sim.rooms_held(), usize::from(kept), "interval {interval}");
        sim.run_to_phase(secs(120), ServicePhase::Healthy);
        assert_eq!(sim.rooms_held(), 1);
    }
}

#[test]
fn exhausted_service_fails_the_service() {
    let spec = retrying(2, |retry| {
        retry.interval = secs(1);
        retry.max_attempts = Some(2);
        retry.exhausted = Exhausted::Service;
    });
    let mut sim = Sim::new(spec, &[("w1", 2)]).script(|birth| {
        if birth.ordinal == 0 {
            Life::crash(secs(1))
        } else {
            Life::healthy()
        }
    });
    sim.run(secs(30));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    assert_eq!(sim.started(0).len(), 3);
    let failure = sim.service.header.failure.clone().unwrap();
    assert_eq!(failure.reason, FailureReason::RetriesExhausted);
    assert!(sim.processes.is_empty());
}

#[test]
fn when_every_wanted_replica_has_given_up_the_service_fails() {
    let spec = retrying(2, |retry| {
        retry.interval = secs(1);
        retry.max_attempts = Some(1);
    });
    let mut sim = Sim::new(spec, &[("w1", 2)]).script(|_| Life::crash(secs(1)));
    sim.run(secs(30));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    let failure = sim.service.header.failure.clone().unwrap();
    assert_eq!(failure.reason, FailureReason::RetriesExhausted);
}

#[test]
fn an_exhausted_replica_is_revived_by_a_restart_and_by_a_new_version() {
    let spec = || {
        retrying(2, |retry| {
            retry.interval = secs(1);
            retry.max_attempts = Some(1);
        })
    };
    let broken = |ordinal| {
        move |birth: &super::harness::Birth| {
            if birth.ordinal == ordinal {
                Life::crash(secs(1))
            } else {
                Life::healthy()
            }
        }
    };
    let mut sim = Sim::new(spec(), &[("w1", 3)]).script(broken(0));
    sim.run(secs(30));
    assert!(matches!(sim.replica(0).state, State::Failed { .. }));
    assert_eq!(sim.phase(), ServicePhase::Degraded);
    sim.rescript(|_| Life::healthy());
    sim.ask(|service, now| service.restart_replica(0, now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Healthy);

    for change in [
        (|spec: &mut Spec| spec.stop_grace = secs(5)) as fn(&mut Spec),
        |spec: &mut Spec| spec.run.command.push("-v".to_owned()),
    ] {
        let mut sim = Sim::new(spec(), &[("w1", 3)]).script(broken(0));
        sim.run(secs(30));
        sim.rescript(|_| Life::healthy());
        sim.apply(change);
        sim.run_to_phase(secs(120), ServicePhase::Healthy);
        sim.run(secs(60));
        assert_eq!(sim.ready(), 2);
        assert_eq!(sim.ordinals().len(), 2);
    }
}

#[test]
fn a_liveness_failure_restarts_the_process_as_probe() {
    let mut sim = Sim::new(retrying(1, |r| r.interval = secs(1)), &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Probe);
    sim.run_to_phase(secs(1), ServicePhase::Down);
    assert_eq!(sim.replica(0).episode.as_ref().unwrap().last, Class::Probe);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.started(0).len(), 2);
}

#[test]
fn unready_is_degraded_and_out_of_the_endpoints_and_restarts_nothing() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.report(0, ReportedPhase::Unready);
    sim.run_to_phase(secs(1), ServicePhase::Degraded);
    let ready: Vec<u32> = crate::domain::endpoints::endpoints(&sim.service)
        .map(|(replica, ..)| replica.ordinal)
        .collect();
    assert_eq!(ready, [1]);
    sim.run(secs(3600));
    assert_eq!(sim.started(0).len(), 1);
    sim.report(0, ReportedPhase::Ready);
    sim.run_to_phase(secs(1), ServicePhase::Healthy);
}

#[test]
fn a_class_takes_its_own_interval() {
    let spec = retrying(1, |retry| {
        let rule = Rule {
            interval: Some(secs(5)),
            ..Rule::default()
        };
        retry.classes.insert(Class::Oom, rule);
    });
    let mut sim = Sim::new(spec, &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let before = sim.elapsed();
    sim.kill(0, Class::Oom);
    sim.run(secs(1));
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    let waited = sim.started(0)[1] - before;
    assert!((5.0..5.1).contains(&waited), "{waited}");
}

#[test]
fn a_running_attempt_is_never_ended_by_max_duration() {
    let spec = retrying(1, |retry| {
        retry.max_duration = secs(60);
        retry.interval = secs(1);
    });
    let mut sim = Sim::new(spec, &[("w1", 1)]).script(|birth| match birth.attempt {
        1 => Life::crash(secs(1)),
        _ => Life::slow(secs(500)),
    });
    sim.run_to_phase(secs(600), ServicePhase::Healthy);
    assert_eq!(sim.started(0).len(), 2);
}

fn gives_up_after_two() -> Spec {
    retrying(1, |retry| {
        retry.interval = secs(1);
        retry.max_attempts = Some(1);
    })
}

#[test]
fn a_service_that_gave_up_starts_again_when_asked_and_with_a_mended_version() {
    let mut sim = Sim::new(gives_up_after_two(), &[("w1", 1)]).script(|_| Life::crash(secs(1)));
    sim.run_to_phase(secs(30), ServicePhase::Failed);
    sim.rescript(|_| Life::healthy());
    sim.ask(|service, now| service.start("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).restarts, 2);

    let broken = |birth: &super::harness::Birth| match birth.version {
        1 => Life::crash(secs(1)),
        _ => Life::healthy(),
    };
    let mut sim = Sim::new(gives_up_after_two(), &[("w1", 1)]).script(broken);
    sim.run_to_phase(secs(30), ServicePhase::Failed);
    sim.apply(|spec| spec.run.command.push("mended".to_owned()));
    sim.ask(|service, now| service.start("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).edition.version, 2);
}

#[test]
fn one_that_gave_up_comes_back_when_its_service_is_stopped_and_started() {
    let spec = Spec {
        replicas: Count { min: 2, max: 2 },
        ..gives_up_after_two()
    };
    for changed in [false, true] {
        let mut sim = Sim::new(spec.clone(), &[("w1", 2)]).script(|birth| match birth.ordinal {
            0 => Life::crash(secs(1)),
            _ => Life::healthy(),
        });
        sim.run(secs(30));
        assert!(matches!(sim.replica(0).state, State::Failed { .. }));
        sim.ask(|service, now| service.stop("by a test", now).unwrap());
        sim.run_to_phase(secs(30), ServicePhase::Stopped);
        assert!(matches!(sim.replica(0).state, State::Failed { .. }));
        sim.rescript(|_| Life::healthy());
        if changed {
            sim.apply(|spec| spec.run.command.push("mended".to_owned()));
        }
        sim.ask(|service, now| service.start("by a test", now).unwrap());
        sim.run_to_phase(secs(10), ServicePhase::Healthy);
        assert_eq!(sim.ordinals(), [0, 1]);
    }
}

#[test]
fn a_failure_without_ever_a_place_is_no_wait_for_one() {
    let mut sim = Sim::new(gives_up_after_two(), &[]);
    sim.run(secs(2));
    assert_eq!(sim.phase(), ServicePhase::Pending);
    let replica = sim.service.replica_mut(0).unwrap();
    replica.state = State::Failed {
        class: Class::Error,
        exceeded: crate::domain::failure::episode::Exceeded::Attempts,
    };
    sim.schedule_look(secs(0));
    sim.run(secs(1));
    assert_eq!(sim.phase(), ServicePhase::Down);
}

#[test]
fn a_copy_that_never_had_a_place_waits_even_if_exhausted_is_service() {
    let spec = || {
        retrying(2, |retry| {
            retry.interval = secs(1);
            retry.max_duration = secs(10);
            retry.exhausted = Exhausted::Service;
        })
    };
    let mut sim = Sim::new(spec(), &[("w1", 1), ("w2", 1)]);
    sim.run(secs(30));
    sim.ask(|service, now| service.scale(4, now).unwrap());
    sim.run(secs(100));
    assert_eq!(sim.service.header.intent, Intent::Run);
    assert_eq!(sim.ready(), 2);
    sim.add_worker("w3", 2, "");
    sim.run_to(secs(10), "all ready", |sim| sim.ready() == 4);

    // One that lost its place has limits.
    let mut sim = Sim::new(spec(), &[("w1", 1), ("w2", 1)]);
    sim.run(secs(30));
    sim.cut_off("w2");
    sim.run_to_phase(secs(60), ServicePhase::Failed);
}

#[test]
fn a_change_of_the_policy_counts_for_those_that_wait_already() {
    let mut sim = Sim::new(
        retrying(1, |retry| retry.interval = secs(1200)),
        &[("w1", 1)],
    );
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(20));
    let interval = |seconds| {
        move |spec: &mut Spec| {
            spec.retry = spec.retry.take().map(|retry| Retry {
                interval: secs(seconds),
                ..retry
            });
        }
    };
    sim.apply(interval(60));
    sim.run_to_phase(secs(45), ServicePhase::Healthy);
    let starts = sim.started(0);
    assert!(
        (60.0..70.0).contains(&(starts[1] - starts[0])),
        "{starts:?}"
    );

    let mut sim = Sim::new(retrying(1, |retry| retry.interval = secs(3000)), &[]);
    sim.run(secs(100));
    sim.slots.insert("w1".to_owned(), 1);
    sim.apply(interval(60));
    sim.run(secs(1));
    let asked = sim.replica(0).since;
    assert!(asked + secs(1) >= sim.now, "it was to be asked a while ago");
}

#[test]
fn a_clock_that_is_set_back_makes_no_wait_longer() {
    let mut sim = Sim::new(retrying(2, |retry| retry.interval = secs(15)), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(1));
    sim.set_back(secs(3600));
    sim.run_to_phase(secs(20), ServicePhase::Healthy);

    sim.ask(|service, now| service.scale(1, now).unwrap());
    sim.run(secs(0));
    sim.set_back(secs(3600));
    sim.run_to(secs(5), "stopped", |sim| sim.service.replicas.len() == 1);
}

#[test]
fn a_retry_that_came_due_while_nobody_planned_is_made() {
    let spec = retrying(1, |retry| {
        retry.interval = secs(30);
        retry.max_duration = secs(60);
    });
    let mut sim = Sim::new(spec, &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(1));
    sim.away(secs(7200));
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
}

#[test]
fn of_very_many_that_gave_up_a_plan_revives_as_many_as_fit_a_transaction() {
    let spec = retrying(60, |retry| {
        retry.interval = secs(1);
        retry.max_attempts = Some(1);
    });
    let mut sim = Sim::new(spec, &[("w1", 60)]).script(|_| Life::crash(secs(1)));
    sim.run(secs(60));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    let before = sim.service.replicas.clone();
    sim.rescript(|_| Life::healthy());
    sim.ask(|service, now| {
        service.start("again", now).unwrap();
        assert_eq!(service.replicas, before, "by the wish itself");
    });
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
}

#[test]
fn a_change_of_the_policy_counts_for_very_many_that_wait() {
    let spec = retrying(60, |retry| retry.interval = secs(3000));
    let mut sim = Sim::new(spec, &[("w1", 60)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    for ordinal in 0..60 {
        sim.kill(ordinal, Class::Error);
    }
    sim.run(secs(20));
    sim.apply(|spec| {
        spec.retry = spec.retry.take().map(|retry| Retry {
            interval: secs(60),
            ..retry
        });
    });
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
}
