//! Drains: replicas move off, one at a time, and come back to nothing when a drain is called off.

use super::super::Reason;
use super::harness::{Birth, Life, Sim, secs};
use super::retrying::retrying;
use crate::domain::failure::Class;
use crate::domain::replica::{Replica, Role, StopWhy};
use crate::domain::rollout::Stage;
use crate::domain::service::Intent;
use crate::domain::spec::{Count, Spec};
use crate::domain::status::ServicePhase;

fn three() -> Sim {
    let mut sim = Sim::new(retrying(3, |_| ()), &[("w1", 3)]);
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    sim.run(secs(20));
    sim.least_ready = u32::MAX;
    sim
}

#[test]
fn replicas_move_one_at_a_time_and_none_is_missed() {
    let mut sim = three();
    sim.add_worker("w2", 3, "");
    sim.drain("w1", 1);
    sim.run_to(secs(200), "empty", |sim| sim.on("w1").is_empty());
    assert_eq!(sim.least_ready, 3);
    assert_eq!(sim.most_copies, 4);
    assert_eq!(sim.stops(StopWhy::Moved), 3);
    assert_eq!(sim.phases_seen().last(), Some(&ServicePhase::Healthy));
    sim.run(secs(5));
    assert_eq!(sim.ordinals().len(), 3);
}

#[test]
fn max_parallel_counts_unfinished_moves_of_all_services() {
    let mut sim = three();
    sim.add_worker("w2", 3, "");
    sim.elsewhere.insert("w1".to_owned(), 1);
    sim.drain("w1", 1);
    sim.run(secs(100));
    assert_eq!(sim.on("w1").len(), 3);
    let waits = Reason::MoveWaits {
        ordinal: 0,
        worker: "w1".to_owned(),
    };
    assert!(sim.reasons.contains(&waits));
    sim.elsewhere.clear();
    sim.drain("w1", 3);
    sim.run(secs(1));
    assert_eq!(sim.most_copies, 6, "three at a time");
    sim.run_to(secs(60), "empty", |sim| sim.on("w1").is_empty());
}

#[test]
fn draining_the_only_worker_that_fits_waits_and_loses_nothing() {
    let mut sim = three();
    sim.drain("w1", 1);
    sim.run(secs(10_000));
    assert_eq!(sim.ready(), 3);
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    assert_eq!(sim.service.header.intent, Intent::Run);
    sim.add_worker("w2", 3, "");
    sim.run_to(secs(200), "empty", |sim| sim.on("w1").is_empty());
}

#[test]
fn a_drain_called_off_undoes_moves_whose_replacement_is_not_ready() {
    let mut sim = three();
    sim.rescript(|_: &Birth| Life::slow(secs(100)));
    sim.add_worker("w2", 3, "");
    sim.drain("w1", 1);
    sim.run(secs(20));
    assert_eq!(sim.on("w2").len(), 1);
    sim.resume("w1");
    sim.run(secs(10));
    assert_eq!(sim.on("w2").len(), 0);
    assert_eq!(sim.on("w1").len(), 3);
    assert_eq!(sim.stops(StopWhy::Moved), 0);
}

#[test]
fn a_drain_called_off_finishes_moves_whose_replacement_is_ready() {
    let mut sim = three();
    sim.add_worker("w2", 3, "");
    sim.drain("w1", 1);
    sim.run(secs(5));
    sim.resume("w1");
    sim.run(secs(60));
    assert_eq!((sim.on("w1").len(), sim.on("w2").len()), (2, 1));
    assert_eq!(sim.ready(), 3);
}

#[test]
fn a_replica_that_dies_while_it_is_moved_is_followed_by_its_move() {
    let mut sim = three();
    sim.rescript(|_: &Birth| Life::slow(secs(30)));
    sim.add_worker("w2", 3, "");
    sim.drain("w1", 1);
    sim.run(secs(5));
    sim.kill(0, Class::Error);
    sim.run(secs(40));
    assert!(!sim.service.replicas.contains_key(&0));
    sim.run_to(secs(300), "empty", |sim| sim.on("w1").is_empty());
    sim.run(secs(60));
    assert_eq!(sim.ready(), 3);
    assert_eq!(sim.ordinals().len(), 3);
}

#[test]
fn a_forced_end_is_an_interruption_and_the_replica_starts_elsewhere() {
    let mut sim = three();
    sim.add_worker("w2", 3, "");
    sim.rescript(|_: &Birth| Life::slow(secs(60)));
    sim.drain("w1", 1);
    sim.run(secs(5));
    for ordinal in [0, 1, 2] {
        sim.kill(ordinal, Class::Interruption);
    }
    sim.run(secs(1));
    sim.run_to_phase(secs(200), ServicePhase::Healthy);
    assert_eq!(sim.on("w2").len(), 3);
}

#[test]
fn an_update_a_drain_and_a_crash_together_never_go_below_the_floor() {
    // The harness checks after each plan that no act of ours goes below the floor.
    for crash_at in [1, 3, 5, 8, 13, 21, 34, 55] {
        let mut sim = three();
        sim.add_worker("w2", 4, "");
        sim.apply(|spec: &mut Spec| spec.run.command.push("-v2".to_owned()));
        sim.run(secs(2));
        sim.drain("w1", 1);
        sim.run(secs(crash_at));
        let victim = sim
            .service
            .replicas
            .values()
            .find(|r| r.ready())
            .unwrap()
            .ordinal;
        sim.kill(victim, Class::Error);
        sim.run_to(secs(1000), "complete and empty", |sim| {
            let stage = sim.service.header.rollout.as_ref().unwrap().stage;
            stage == Stage::Complete && sim.on("w1").is_empty()
        });
        sim.run_to_phase(secs(200), ServicePhase::Healthy);
        assert_eq!(sim.ready(), 3, "crash after {crash_at} s");
    }
}

#[test]
fn others_on_a_draining_worker_keep_their_weight() {
    let mut sim = three();
    sim.add_worker("w2", 3, "");
    sim.drain("w1", 1);
    sim.run_to(secs(60), "leaving", |sim| sim.stops(StopWhy::Moved) > 0);
    let weights: Vec<u32> = crate::domain::endpoints::endpoints(&sim.service)
        .map(|(_, _, weight)| weight)
        .collect();
    assert_eq!(weights, [0, 1, 1, 1]);
}

#[test]
fn an_update_and_a_drain_that_both_wait_for_room_leave_each_other_be() {
    let mut sim = three();
    sim.ask(|service, now| service.restart(now)).unwrap();
    sim.run(secs(5));
    sim.drain("w1", 1);
    sim.run(secs(5));
    let made = sim.ordinals();
    sim.run(secs(1_000));
    assert_eq!(sim.ordinals(), made);
    assert_eq!(sim.stops(StopWhy::MoveUndone), 0);
    assert_eq!(sim.ready(), 3);
    sim.add_worker("w2", 4, "");
    sim.run_to(secs(500), "moved and updated", |sim| {
        let stage = sim.service.header.rollout.as_ref().unwrap().stage;
        stage == Stage::Complete && sim.on("w1").is_empty()
    });
    assert_eq!(sim.least_ready, 3);
}

#[test]
fn a_spare_that_serves_moves_too_and_stays_a_spare() {
    let spec = Spec {
        replicas: Count { min: 1, max: 2 },
        ..retrying(1, |retry| retry.interval = secs(600))
    };
    let mut sim = Sim::new(spec, &[("w1", 1), ("w2", 1), ("w3", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let spare = Role::Spare { of: 0 };
    sim.kill(0, Class::Error);
    sim.run_to(secs(20), "stood in for", |sim| {
        let spare = sim.service.companion(Role::Spare { of: 0 });
        spare.is_some_and(Replica::ready)
    });
    sim.least_ready = u32::MAX;
    let stands_in = sim.service.companion(spare).unwrap();
    let worker = stands_in.worker().unwrap().to_owned();
    sim.drain(&worker, 1);
    sim.run_to(secs(60), "empty", |sim| sim.on(&worker).is_empty());
    assert_eq!(sim.least_ready, 1);
    assert!(sim.service.companion(spare).unwrap().ready());
    sim.run_to(secs(600), "back", |sim| sim.is_ready(0));
    sim.run(secs(30));
    assert_eq!(sim.ordinals(), [0]);
}
