//! Fail fast, and classes that are `fail`.

use super::harness::{Birth, Life, Sim, secs};
use crate::domain::failure::Class;
use crate::domain::failure::policy::Rule;
use crate::domain::replica::{Role, State};
use crate::domain::rollout::Stage;
use crate::domain::service::{FailureReason, Intent};
use crate::domain::spec::testing::spec;
use crate::domain::spec::{Count, Spec, defaults};
use crate::domain::status::ServicePhase;

pub(super) fn chat(replicas: u32) -> Spec {
    Spec {
        replicas: Count {
            min: replicas,
            max: replicas,
        },
        ..spec("chat")
    }
}

#[test]
fn no_worker_fits_yet_and_they_activate_after_20_s() {
    let mut sim = Sim::new(chat(2), &[]);
    sim.run(secs(20));
    assert_eq!(sim.phase(), ServicePhase::Pending);
    assert!(sim.reason().contains("no room"), "{}", sim.reason());
    sim.add_worker("w1", 2, "");
    sim.run_to_phase(secs(5), ServicePhase::Healthy);
}

#[test]
fn without_a_place_it_fails_after_60_s_and_not_before() {
    let mut sim = Sim::new(chat(1), &[]);
    sim.run(secs(59));
    assert_eq!(sim.phase(), ServicePhase::Pending);
    sim.run(secs(2));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    let failure = sim.service.header.failure.clone().unwrap();
    assert_eq!(failure.reason, FailureReason::NoCapacity);
    assert!(failure.message.contains("chat/0"), "{}", failure.message);
}

#[test]
fn a_paced_drain_and_a_scale_up_without_capacity_never_fail_it() {
    let mut sim = Sim::new(chat(2), &[("w1", 2), ("w2", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let holder = if sim.on("w2").is_empty() { "w1" } else { "w2" };
    sim.add_worker("w3", 1, "");
    sim.drain(holder, 1);
    sim.run_to(secs(60), "moved", |sim| {
        sim.on(holder).is_empty() && sim.ready() == 2
    });
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    sim.ask(|service, now| service.scale(9, now).unwrap());
    sim.run(secs(7200));
    assert_eq!(sim.service.header.intent, Intent::Run);
    assert!(sim.reason().contains("finds no place"), "{}", sim.reason());
    assert!(sim.ready() >= 2);
    assert!(!sim.phases_seen().contains(&ServicePhase::Failed));
}

#[test]
fn one_of_two_exits_and_the_service_fails_with_the_reason() {
    let mut sim = Sim::new(chat(2), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(1, Class::Error);
    sim.run(secs(1));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    for part in ["chat/1", "code 1", "last words"] {
        assert!(
            sim.reason().contains(part),
            "{part} is not in {}",
            sim.reason()
        );
    }
    sim.run(secs(5));
    assert!(sim.processes.is_empty(), "the other is stopped");
    assert_eq!(sim.rooms_held(), 0);
    assert_eq!(
        sim.ordinals(),
        [0, 1],
        "the records stay for people to look at"
    );
}

#[test]
fn start_service_leaves_failed_and_starts_everything_again() {
    let mut sim = Sim::new(chat(2), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(10));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    sim.ask(|service, now| service.start("again", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.ordinals(), [0, 1]);
    assert_eq!(sim.replica(0).attempts, 2);
    assert!(sim.service.header.failure.is_none());
}

#[test]
fn a_class_that_is_fail_fails_at_once_and_others_are_retried() {
    let mut retrying = chat(2);
    let mut retry = defaults::retry();
    let rule = Rule {
        fail: true,
        ..Rule::default()
    };
    retry.classes.insert(Class::Image, rule);
    retrying.retry = Some(retry);
    let mut sim = Sim::new(retrying, &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run_to_phase(secs(1), ServicePhase::Degraded);
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
    sim.kill(0, Class::Image);
    sim.run(secs(1));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    let failure = sim.service.header.failure.clone().unwrap();
    assert_eq!(failure.reason, FailureReason::FailingClass);
}

#[test]
fn config_is_fail_unless_said_otherwise() {
    let mut retrying = chat(1);
    retrying.retry = Some(defaults::retry());
    let mut sim =
        Sim::new(retrying.clone(), &[("w1", 1)]).script(|_| Life::dies(secs(1), Class::Config));
    sim.run(secs(3));
    assert_eq!(sim.phase(), ServicePhase::Failed);
    if let Some(retry) = &mut retrying.retry {
        retry.classes.insert(Class::Config, Rule::default());
    }
    let mut sim = Sim::new(retrying, &[("w1", 1)]).script(|_| Life::dies(secs(1), Class::Config));
    sim.run(secs(3));
    assert!(matches!(sim.replica(0).state, State::Backoff(_)));
}

#[test]
fn a_lost_machine_counts_without_retry() {
    let mut sim = Sim::new(chat(2), &[("w1", 1), ("w2", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.cut_off("w1");
    sim.run(secs(1));
    assert_eq!(sim.phase(), ServicePhase::Failed);
}

#[test]
fn a_service_that_was_up_waits_for_room_when_it_is_scaled_up_from_none() {
    let mut sim = Sim::new(chat(1), &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.ask(|service, now| service.scale(0, now).unwrap());
    sim.run(secs(10));
    sim.slots.insert("w1".to_owned(), 0);
    sim.ask(|service, now| service.scale(1, now).unwrap());
    sim.run(secs(600));
    assert_eq!(sim.phase(), ServicePhase::Pending, "{}", sim.reason());
    sim.add_worker("w2", 1, "");
    sim.run_to_phase(secs(5), ServicePhase::Healthy);
    // Started anew, it has to find a place in time again.
    sim.ask(|service, now| service.stop("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Stopped);
    sim.slots.insert("w2".to_owned(), 0);
    sim.ask(|service, now| service.start("by a test", now).unwrap());
    sim.run_to_phase(secs(70), ServicePhase::Failed);
}

#[test]
fn one_that_may_have_no_ready_replica_was_not_up_by_that() {
    let spec = Spec {
        min_healthy: 0,
        ..chat(1)
    };
    let mut sim = Sim::new(spec, &[]);
    sim.run_to_phase(secs(70), ServicePhase::Failed);
}

#[test]
fn a_move_that_fails_is_tried_again_and_ends_nothing() {
    let mut sim = Sim::new(chat(1), &[("w1", 1)]);
    sim.run(secs(30));
    sim.rescript(|birth: &Birth| match birth.attempt {
        1 | 2 => Life::crash(secs(1)),
        _ => Life::healthy(),
    });
    sim.add_worker("w2", 1, "");
    sim.least_ready = u32::MAX;
    sim.drain("w1", 1);
    sim.run_to(secs(200), "moved", |sim| {
        sim.on("w1").is_empty() && sim.ready() == 1
    });
    assert_eq!(sim.least_ready, 1);
    assert!(!sim.phases_seen().contains(&ServicePhase::Failed));
    let starts = sim.started(1);
    assert!(
        starts.windows(2).all(|pair| pair[1] - pair[0] >= 30.0),
        "{starts:?}"
    );
}

#[test]
fn an_extra_copy_of_what_never_ran_fails_it() {
    let mut sim = Sim::new(chat(1), &[("w1", 2)]).script(|birth: &Birth| match birth.version {
        1 => Life::never_ready(),
        _ => Life::crash(secs(1)),
    });
    sim.run(secs(5));
    sim.apply(|spec| spec.run.command.push("-v2".to_owned()));
    sim.run_to_phase(secs(20), ServicePhase::Failed);
}

#[test]
fn a_lost_machine_costs_an_update_nothing_but_the_copy_on_it() {
    let mut sim = Sim::new(chat(1), &[("w1", 1), ("w2", 1), ("w3", 1)]);
    sim.run(secs(30));
    sim.apply(|spec| spec.run.command.push("-v2".to_owned()));
    sim.run_to(secs(10), "ready", |sim| sim.ready() == 2);
    assert_eq!(sim.replica(1).role, Role::Surge { of: 0 });
    sim.kill(1, Class::Interruption);
    sim.run_to(secs(100), "complete", |sim| {
        sim.service.header.rollout.as_ref().unwrap().stage == Stage::Complete
    });
    assert!(!sim.phases_seen().contains(&ServicePhase::Failed));
}
