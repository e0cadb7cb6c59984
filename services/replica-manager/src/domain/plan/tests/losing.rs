//! Lost machines, agents that come back, and components that are away.

use super::harness::{Sim, secs};
use super::retrying::retrying;
use crate::domain::failure::Class;
use crate::domain::replica::{Phase, State};
use crate::domain::spec::{OnDisconnect, Spec};
use crate::domain::status::ServicePhase;
use crate::domain::world::{Liveness, Position, WorkerState};

fn two(on_disconnect: OnDisconnect) -> Sim {
    let spec = Spec {
        on_disconnect,
        ..retrying(2, |retry| retry.interval = secs(1))
    };
    let mut sim = Sim::new(spec, &[("w1", 1), ("w2", 1), ("w3", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim
}

#[test]
fn keep_a_lost_machine_is_an_interruption_and_the_old_one_is_stopped_when_it_is_back() {
    let mut sim = two(OnDisconnect::Keep);
    sim.cut_off("w1");
    sim.run(secs(1));
    assert_eq!(
        sim.replica(0).episode.as_ref().unwrap().last,
        Class::Interruption
    );
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some("w3"));
    assert_eq!(crate::domain::endpoints::endpoints(&sim.service).count(), 2);
    assert_eq!(
        sim.processes.len(),
        3,
        "the old process runs on, out of the endpoints"
    );
    sim.come_back("w1");
    sim.run(secs(5));
    assert_eq!(sim.processes.len(), 2);
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    assert_eq!(sim.started(0).len(), 2);
}

#[test]
fn stop_the_next_attempt_waits_for_the_fence() {
    let mut sim = two(OnDisconnect::Stop);
    sim.cut_off("w1");
    sim.run(secs(50));
    assert_eq!(sim.replica(0).state, State::Running(Phase::Unreachable));
    assert_eq!(sim.phase(), ServicePhase::Degraded);
    assert_eq!(crate::domain::endpoints::endpoints(&sim.service).count(), 1);
    assert_eq!(sim.started(0).len(), 1);
    sim.fence("w1");
    // The harness fails if two processes of one replica ever run.
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some("w3"));
}

#[test]
fn stop_a_machine_that_is_back_before_the_fence_has_lost_nothing() {
    let mut sim = two(OnDisconnect::Stop);
    sim.cut_off("w1");
    sim.run(secs(20));
    sim.come_back("w1");
    sim.run_to_phase(secs(5), ServicePhase::Healthy);
    assert_eq!(sim.started(0).len(), 1);
    assert_eq!(sim.replica(0).worker(), Some("w1"));
}

#[test]
fn what_was_known_of_a_machine_before_room_was_given_there_ends_nothing() {
    let at = |epoch: &str, revision| Position {
        epoch: epoch.to_owned(),
        revision,
    };
    for on_disconnect in [OnDisconnect::Keep, OnDisconnect::Stop] {
        for (older, newer) in [
            (at("e1", 0), at("e1", 100)),
            (at("e0", 100), at("e2", 0)),
            (at("e1", 0), Position::default()),
        ] {
            let mut sim = two(on_disconnect);
            sim.position = older;
            sim.set_worker("w1", |worker| {
                worker.liveness = Liveness::Lost;
                worker.fenced = true;
            });
            sim.run(secs(30));
            assert_eq!(sim.replica(0).state, State::Running(Phase::Ready));
            assert_eq!(sim.starts.len(), 2);
            // It is lost once more, and that is news.
            sim.position = newer;
            sim.cut_off("w1");
            sim.fence("w1");
            sim.run(secs(20));
            assert_eq!(sim.phase(), ServicePhase::Healthy);
            assert_eq!(sim.replica(0).worker(), Some("w3"));
        }
    }
}

#[test]
fn silence_short_of_lost_changes_nothing() {
    let mut sim = two(OnDisconnect::Keep);
    sim.set_worker("w1", |worker| worker.liveness = Liveness::Suspect);
    sim.run(secs(5));
    sim.set_worker("w1", |worker| worker.liveness = Liveness::Unknown);
    sim.run(secs(100));
    sim.set_worker("w1", |worker| worker.liveness = Liveness::Alive);
    sim.run(secs(100));
    assert_eq!(sim.phases_seen().last(), Some(&ServicePhase::Healthy));
    assert_eq!(sim.starts.len(), 2);
}

#[test]
fn a_worker_that_the_registry_does_not_know_says_nothing() {
    let mut sim = two(OnDisconnect::Keep);
    sim.workers.remove("w1");
    sim.schedule_look(secs(1));
    sim.run(secs(1000));
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    assert_eq!(sim.starts.len(), 2);
}

#[test]
fn keep_a_worker_taken_out_by_force_ends_what_it_had() {
    let mut sim = two(OnDisconnect::Keep);
    sim.cut_off("w1");
    sim.force_off("w1");
    sim.run(secs(1));
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some("w3"));
}

#[test]
fn stop_a_fenced_worker_taken_out_by_force_ends_what_it_had() {
    let mut sim = two(OnDisconnect::Stop);
    sim.cut_off("w1");
    sim.run(secs(5));
    sim.fence("w1");
    sim.force_off("w1");
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some("w3"));
}

/// Taken out by force before its fence passed: nothing is started before something says that the old one
/// has ended.
fn taken(before: impl FnOnce(&mut Sim)) -> Sim {
    let mut sim = two(OnDisconnect::Stop);
    before(&mut sim);
    sim.force_off("w1");
    sim.run(secs(40));
    assert_eq!(sim.replica(0).state, State::Running(Phase::Revoked));
    assert_eq!(sim.started(0).len(), 1);
    assert_eq!(sim.ready(), 1);
    sim
}

#[test]
fn stop_force_before_the_fence_waits_for_it() {
    let mut sim = taken(|sim| {
        sim.cut_off("w1");
        sim.run(secs(5));
        assert_eq!(sim.replica(0).state, State::Running(Phase::Unreachable));
    });
    sim.fence("w1");
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some("w3"));
}

#[test]
fn stop_a_forced_deadline_on_a_lost_worker_waits_for_the_fence() {
    let mut sim = taken(|sim| {
        // Nowhere to go before the deadline.
        sim.set_worker("w3", |worker| worker.state = WorkerState::Provisioning);
        sim.drain("w1", 1);
        sim.run(secs(5));
        sim.cut_off("w1");
        sim.run(secs(5));
    });
    sim.resume("w3");
    sim.run(secs(20));
    assert_eq!(sim.started(0).len(), 1);
    sim.fence("w1");
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.starts.last().unwrap().3, "w3");
}

#[test]
fn stop_what_force_took_waits_for_the_word_of_an_agent_that_is_back() {
    let mut sim = taken(|sim| sim.cut_off("w1"));
    sim.register_again("w1");
    // Put back before its agent has said that all has ended.
    sim.set_worker("w1", |worker| worker.state = WorkerState::Provisioning);
    sim.run(secs(20));
    assert_eq!(sim.replica(0).state, State::Running(Phase::Revoked));
    assert_eq!(sim.started(0).len(), 1);
    sim.processes.retain(|_, process| process.worker != "w1");
    sim.set_worker("w1", |worker| worker.unconfirmed = false);
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.started(0).len(), 2);
}

#[test]
fn a_machine_lost_while_the_service_is_being_stopped_does_not_hold_it_up() {
    let mut sim = two(OnDisconnect::Keep);
    sim.cut_off("w1");
    sim.ask(|service, now| service.stop("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Stopped);
}

#[test]
fn what_ran_on_a_deleted_worker_is_gone_and_a_worker_that_is_only_unknown_says_nothing() {
    let at = |epoch: &str, revision| Position {
        epoch: epoch.to_owned(),
        revision,
    };
    for on_disconnect in [OnDisconnect::Keep, OnDisconnect::Stop] {
        // Of another life of the registry's store, and of before the room was given.
        for says_nothing in [at("e2", 100), at("e1", 0), Position::default()] {
            let mut sim = two(on_disconnect);
            sim.delete("w1", says_nothing);
            sim.run(secs(30));
            assert_eq!(sim.replica(0).worker(), Some("w1"));
            assert_eq!(sim.started(0).len(), 1);
        }
        let mut sim = two(on_disconnect);
        sim.delete("w1", at("e1", 100));
        sim.run(secs(5));
        assert_eq!(sim.phase(), ServicePhase::Healthy);
        assert_eq!(sim.replica(0).worker(), Some("w3"));
        assert_eq!(
            sim.replica(0).episode.as_ref().unwrap().last,
            Class::Interruption
        );
    }
}

/// Whoever was away when it was deleted sees only its successor.
#[test]
fn what_ran_on_a_worker_that_another_has_replaced_is_gone() {
    for on_disconnect in [OnDisconnect::Keep, OnDisconnect::Stop] {
        let mut sim = two(on_disconnect);
        sim.replace("w1");
        sim.run(secs(5));
        assert_eq!(sim.phase(), ServicePhase::Healthy);
        assert_eq!(sim.replica(0).attempt.as_ref().unwrap().number, 2);
        assert_eq!(sim.replica(1).attempt.as_ref().unwrap().number, 1);
        assert_eq!(
            sim.replica(0).episode.as_ref().unwrap().last,
            Class::Interruption
        );
    }
}
