//! Rolling updates and their rollback.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::harness::{Birth, Life, Sim, secs};
use super::retrying::retrying;
use super::scaling;
use crate::domain::failure::Class;
use crate::domain::plan::{Reason, plan};
use crate::domain::replica::observe::ReportedPhase;
use crate::domain::replica::{Role, StopWhy};
use crate::domain::rollout::Stage;
use crate::domain::service::apply::Action;
use crate::domain::service::{Intent, Service};
use crate::domain::spec::diff::{self, Effect};
use crate::domain::spec::{Count, Spec, Update};
use crate::domain::status::ServicePhase;

fn new_command(spec: &mut Spec) {
    spec.run.command.push("-v2".to_owned());
}

fn stage(sim: &Sim) -> Stage {
    sim.service.header.rollout.as_ref().unwrap().stage
}

fn running(sim: &Sim) -> Sim {
    let spec = (*sim.service.applied).clone();
    Sim::new(spec, &[])
}

fn three() -> Sim {
    let mut sim = Sim::new(retrying(3, |_| ()), &[("w1", 3), ("w2", 3)]);
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    sim.run(secs(20));
    sim.least_ready = u32::MAX;
    sim
}

#[test]
fn every_replica_is_replaced_and_none_is_missed_meanwhile() {
    let mut sim = three();
    assert_eq!(sim.apply(new_command), Effect::Rolling);
    sim.run_to(secs(200), "complete", |sim| stage(sim) == Stage::Complete);
    assert_eq!(sim.least_ready, 3);
    assert_eq!(sim.most_copies, 4);
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.edition.version == 2)
    );
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.role == Role::Member)
    );
    assert_eq!(sim.phases_seen().last(), Some(&ServicePhase::Healthy));
    sim.run(secs(10));
    assert_eq!(sim.rooms_held(), 3);
    assert!(running(&sim).service.header.rollout.is_none());
}

#[test]
fn max_unavailable_without_surge_stops_first() {
    let mut sim = Sim::new(
        Spec {
            update: Update {
                max_surge: 0,
                max_unavailable: 1,
                ..retrying(3, |_| ()).update
            },
            ..retrying(3, |_| ())
        },
        &[("w1", 3)],
    );
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    sim.run(secs(20));
    sim.least_ready = u32::MAX;
    sim.apply(new_command);
    sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
    assert_eq!(sim.least_ready, 2);
    assert_eq!(sim.most_copies, 3);
    assert!(!sim.phases_seen().contains(&ServicePhase::Degraded));
}

#[test]
fn a_new_version_that_never_gets_ready_is_rolled_back_at_its_deadline() {
    let mut sim = three();
    sim.rescript(|birth: &Birth| match birth.version {
        1 => Life::healthy(),
        _ => Life::never_ready(),
    });
    sim.apply(new_command);
    sim.run_to(secs(700), "rolled back", |sim| {
        stage(sim) == Stage::RolledBack
    });
    assert!(
        (600.0..700.0).contains(&(sim.elapsed() - 22.0)),
        "{}",
        sim.elapsed()
    );
    assert_eq!(
        sim.least_ready, 3,
        "the old version is never below its number"
    );
    assert_eq!(sim.service.header.version, 2, "the spec stays as applied");
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.edition.version == 1)
    );
    assert!(sim.reason().contains("rolled back"), "{}", sim.reason());
    assert_eq!(sim.phase(), ServicePhase::Healthy);
}

#[test]
fn a_new_version_that_crashes_is_rolled_back_at_once() {
    let mut sim = three();
    sim.rescript(|birth: &Birth| match birth.version {
        1 => Life::healthy(),
        _ => Life::crash(secs(1)),
    });
    sim.apply(new_command);
    sim.run_to(secs(20), "rolled back", |sim| {
        stage(sim) == Stage::RolledBack
    });
    assert_eq!(sim.least_ready, 3);
    assert!(sim.reason().contains("code 1"), "{}", sim.reason());
}

#[test]
fn rollback_comes_before_fail_fast() {
    let spec = Spec {
        retry: None,
        ..retrying(3, |_| ())
    };
    let mut sim = Sim::new(spec, &[("w1", 4)]).script(|birth: &Birth| match birth.version {
        1 => Life::healthy(),
        _ => Life::crash(secs(1)),
    });
    sim.run(secs(30));
    sim.apply(new_command);
    sim.run(secs(30));
    assert_eq!(stage(&sim), Stage::RolledBack);
    assert_eq!(sim.service.header.intent, Intent::Run);
    assert_eq!(sim.ready(), 3);
}

#[test]
fn copies_of_a_new_version_that_fail_together_are_rolled_back_as_one_is() {
    let patient = retrying(5, |_| ());
    let fast = Spec {
        retry: None,
        ..patient.clone()
    };
    // The second way, not all of them fit into one plan.
    let ways = [
        (fast.clone(), Class::Error, 40),
        (fast, Class::Error, 2),
        (patient, Class::Config, 40),
    ];
    for (mut spec, class, batch) in ways {
        spec.update.max_surge = 4;
        let mut sim =
            Sim::new(spec, &[("w1", 9)]).script(move |birth: &Birth| match birth.version {
                1 => Life::healthy(),
                _ => Life::dies(secs(1), class),
            });
        sim.run(secs(30));
        sim.least_ready = u32::MAX;
        sim.terms.batch = batch;
        sim.apply(new_command);
        sim.run(secs(60));
        assert_eq!(sim.starts.len(), 9, "four were tried");
        assert_eq!(sim.service.header.intent, Intent::Run, "{}", sim.reason());
        assert_eq!(stage(&sim), Stage::RolledBack);
        assert_eq!(sim.least_ready, 5);
        assert_eq!(sim.ordinals(), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn once_proven_a_failure_is_no_reason_to_go_back() {
    let mut sim = three();
    sim.apply(new_command);
    sim.run_to(secs(100), "proven", |sim| {
        sim.service
            .header
            .proven
            .is_some_and(|proven| proven.version == 2)
    });
    let newest = *sim.ordinals().last().unwrap();
    sim.kill(newest, Class::Error);
    sim.run_to(secs(400), "complete", |sim| stage(sim) == Stage::Complete);
}

#[test]
fn no_capacity_only_pauses_an_update() {
    let mut sim = Sim::new(retrying(3, |_| ()), &[("w1", 3)]);
    sim.run(secs(30));
    sim.apply(new_command);
    sim.run(secs(3000));
    assert!(
        matches!(stage(&sim), Stage::Paused { .. }),
        "{:?}",
        stage(&sim)
    );
    assert_eq!(sim.ready(), 3);
    assert!(sim.reason().contains("paused"), "{}", sim.reason());
    sim.add_worker("w2", 1, "");
    sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
}

#[test]
fn the_same_spec_again_after_a_rollback_changes_nothing_and_another_is_tried() {
    let mut sim = three();
    sim.rescript(|birth: &Birth| match birth.version {
        2 => Life::crash(secs(1)),
        _ => Life::healthy(),
    });
    sim.apply(new_command);
    sim.run_to(secs(20), "rolled back", |sim| {
        stage(sim) == Stage::RolledBack
    });
    assert_eq!(sim.apply(|_| ()), Effect::None);
    sim.run(secs(60));
    assert_eq!(stage(&sim), Stage::RolledBack);
    assert_eq!(sim.service.header.version, 2);
    sim.apply(new_command);
    sim.run_to(secs(200), "complete", |sim| stage(sim) == Stage::Complete);
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.edition.version == 3)
    );
    assert_eq!(sim.least_ready, 3);
}

#[test]
fn a_restart_of_the_service_tries_a_rolled_back_version_again() {
    let mut sim = three();
    sim.rescript(|birth: &Birth| match birth.version {
        2 => Life::crash(secs(1)),
        _ => Life::healthy(),
    });
    sim.apply(new_command);
    sim.run_to(secs(20), "rolled back", |sim| {
        stage(sim) == Stage::RolledBack
    });
    sim.rescript(|_| Life::healthy());
    sim.ask(|service, now| service.restart(now).unwrap());
    sim.run_to(secs(200), "complete", |sim| stage(sim) == Stage::Complete);
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.edition.version == 2)
    );
}

#[test]
fn a_restart_replaces_every_replica_as_an_update_does() {
    let mut sim = three();
    let before = sim.ordinals();
    sim.ask(|service, now| service.restart(now).unwrap());
    sim.run_to(secs(200), "complete", |sim| stage(sim) == Stage::Complete);
    assert!(
        sim.ordinals()
            .iter()
            .all(|ordinal| !before.contains(ordinal))
    );
    assert_eq!(sim.least_ready, 3);
    assert_eq!(sim.service.header.version, 1);
}

#[test]
fn a_change_in_place_restarts_nothing() {
    let mut sim = three();
    let before = sim.starts.len();
    assert_eq!(sim.apply(|spec| spec.stop_grace = secs(3)), Effect::InPlace);
    sim.run(secs(100));
    assert_eq!(sim.starts.len(), before);
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.edition.version == 2)
    );
}

#[test]
fn a_broken_version_is_replaced_by_the_one_that_mends_it() {
    let mut sim =
        Sim::new(retrying(3, |_| ()), &[("w1", 4)]).script(|birth: &Birth| match birth.version {
            1 => Life::crash(secs(1)),
            _ => Life::healthy(),
        });
    sim.run(secs(100));
    assert_eq!(sim.phase(), ServicePhase::Down);
    sim.apply(new_command);
    sim.run_to_phase(secs(100), ServicePhase::Healthy);
    sim.run_to(secs(100), "complete", |sim| stage(sim) == Stage::Complete);
}

#[test]
fn an_update_in_the_middle_of_an_update_goes_to_the_last() {
    let mut sim = three();
    sim.apply(new_command);
    sim.run(secs(5));
    sim.apply(new_command);
    sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
    assert!(
        sim.service
            .replicas
            .values()
            .all(|r| r.edition.version == 3)
    );
    assert_eq!(sim.least_ready, 3);
}

#[test]
fn a_member_of_the_new_version_that_finds_no_room_only_pauses_the_update() {
    let mut spec = retrying(2, |retry| retry.max_duration = secs(60));
    spec.update.max_surge = 0;
    spec.update.max_unavailable = 1;
    let mut sim = Sim::new(spec, &[("w1", 2)]);
    sim.run(secs(30));
    sim.slots.insert("w1".to_owned(), 1);
    sim.apply(new_command);
    sim.run(secs(3000));
    assert!(
        matches!(stage(&sim), Stage::Paused { .. }),
        "{}",
        sim.reason()
    );
    assert_eq!(sim.ready(), 1);
    sim.add_worker("w2", 2, "");
    sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
}

#[test]
fn a_version_that_nothing_has_proven_is_not_gone_back_to() {
    let patient = retrying(3, |retry| retry.interval = secs(1));
    let fast = Spec {
        retry: None,
        ..patient.clone()
    };
    for spec in [fast, patient] {
        let life = |birth: &Birth| match birth.version {
            1 => Life::healthy(),
            2 => Life::ready_then_dies(secs(2), secs(6), Class::Error),
            _ => Life::crash(secs(1)),
        };
        let mut sim = Sim::new(spec, &[("w1", 4), ("w2", 4)]).script(life);
        sim.run(secs(30));
        sim.least_ready = u32::MAX;
        sim.apply(new_command);
        sim.run_to(secs(5), "ready", |sim| sim.ready() == 4);
        sim.apply(new_command);
        sim.run_to(secs(60), "rolled back", |sim| {
            stage(sim) == Stage::RolledBack
        });
        sim.run(secs(60));
        assert_eq!(sim.least_ready, 3);
        assert_eq!(sim.service.header.intent, Intent::Run);
        assert_eq!(
            sim.ordinals(),
            [0, 1, 2],
            "the first ones were never touched"
        );
    }
}

#[test]
fn a_version_that_never_gets_ready_makes_room_for_the_next() {
    let mut sim = three();
    sim.rescript(|birth: &Birth| match birth.version {
        2 => Life::never_ready(),
        _ => Life::healthy(),
    });
    sim.apply(new_command);
    sim.run(secs(20));
    sim.apply(new_command);
    sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
    let mut replicas = sim.service.replicas.values();
    assert!(replicas.all(|r| r.edition.version == 3));
    assert_eq!(sim.least_ready, 3);
}

#[test]
fn a_mended_version_gets_the_room_that_a_crash_loop_holds() {
    let lives = [
        Life::crash(secs(1)),
        Life::ready_then_dies(secs(1), secs(5), Class::Error),
    ];
    for crashing in lives {
        let spec = retrying(1, |retry| retry.interval = secs(5));
        let mut sim = Sim::new(spec, &[("w1", 1)]).script(move |birth| match birth.version {
            1 => crashing,
            _ => Life::healthy(),
        });
        sim.run(secs(20));
        sim.apply(new_command);
        sim.run_to(secs(60), "complete", |sim| stage(sim) == Stage::Complete);
        sim.run(secs(5));
        assert_eq!((sim.ready(), sim.rooms_held()), (1, 1));
    }
}

/// Three on a full worker, of which those with these ordinals do not serve.
fn partly_broken(broken: &[u32]) -> Sim {
    let mut sim = Sim::new(retrying(3, |_| ()), &[("w1", 3)]);
    sim.run(secs(30));
    for ordinal in broken {
        sim.report(*ordinal, ReportedPhase::Unready);
    }
    sim.run(secs(1));
    sim.least_ready = u32::MAX;
    sim
}

#[test]
fn an_update_gets_the_room_of_what_does_not_serve_and_of_nothing_else() {
    for (broken, ready) in [(&[1][..], 2), (&[0, 1, 2], 0)] {
        let mut sim = partly_broken(broken);
        sim.apply(new_command);
        sim.run_to(secs(20), "one of the new ones ready", |sim| {
            sim.ready() > ready
        });
        assert_eq!(sim.stops(StopWhy::Update), 1, "one at a time");
        sim.add_worker("w2", 1, "");
        sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
        sim.run(secs(5));
        assert_eq!((sim.least_ready, sim.ready()), (ready, 3));
    }
}

#[test]
fn a_new_version_that_fails_in_the_room_of_what_does_not_serve_costs_no_other() {
    let mut sim = partly_broken(&[1]);
    sim.rescript(|birth: &Birth| match birth.version {
        1 => Life::healthy(),
        _ => Life::crash(secs(1)),
    });
    sim.apply(new_command);
    sim.run(secs(60));
    assert_eq!(stage(&sim), Stage::RolledBack);
    assert_eq!((sim.least_ready, sim.ready()), (2, 3));
    assert!(sim.is_ready(0) && sim.is_ready(2));
}

#[test]
fn an_update_that_fits_nowhere_costs_at_most_one_that_does_not_serve() {
    let mut sim = partly_broken(&[1]);
    // What comes free is not enough for one of the new ones.
    sim.slots.insert("w1".to_owned(), 0);
    sim.apply(new_command);
    sim.run(secs(5));
    assert_eq!(sim.stops(StopWhy::Update), 0, "it may be back in a moment");
    sim.run(secs(60));
    assert_eq!(sim.stops(StopWhy::Update), 1);
    sim.report(2, ReportedPhase::Unready);
    sim.run(secs(300));
    assert_eq!(sim.stops(StopWhy::Update), 1);
    assert!(matches!(stage(&sim), Stage::Paused { .. }));
    assert_eq!(sim.ordinals(), [0, 2, 3, 4]);
}

#[test]
fn a_version_that_never_served_makes_room_on_its_only_place() {
    let mut sim = Sim::new(retrying(1, |_| ()), &[("w1", 1)]);
    sim.rescript(|birth: &Birth| match birth.version {
        1 => Life::never_ready(),
        _ => Life::healthy(),
    });
    sim.run(secs(20));
    sim.apply(new_command);
    sim.run_to(secs(60), "complete", |sim| stage(sim) == Stage::Complete);
    sim.run(secs(5));
    assert_eq!((sim.ready(), sim.rooms_held()), (1, 1));
}

#[test]
fn a_crash_beside_an_update_that_never_finds_room_costs_its_room_but_not_its_retry() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run(secs(30));
    sim.slots.insert("w1".to_owned(), 1);
    sim.apply(new_command);
    sim.run(secs(5));
    sim.kill(0, Class::Error);
    sim.run(secs(5));
    assert_eq!(sim.rooms_held(), 1, "it kept its room");
    sim.run(secs(3000));
    assert!(sim.is_ready(1));
    assert_eq!(sim.replica(0).edition.version, 1);
    assert_eq!(sim.replica(0).attempts, 2, "it asks for a place again");
    assert!(matches!(stage(&sim), Stage::Paused { .. }));
    sim.add_worker("w2", 2, "");
    sim.run_to(secs(300), "complete", |sim| stage(sim) == Stage::Complete);
}

#[test]
fn the_time_that_nobody_planned_is_none_without_progress() {
    let mut sim = three();
    sim.rescript(|_: &Birth| Life::slow(secs(650)));
    sim.apply(new_command);
    sim.run(secs(10));
    sim.away(secs(600));
    sim.run(secs(70));
    assert!(sim.service.header.rollout.as_ref().unwrap().forward());
    sim.rescript(|_: &Birth| Life::never_ready());
    sim.run_to(secs(700), "taken back", |sim| {
        stage(sim) == Stage::RollingBack
    });
}

#[test]
fn an_old_replica_leaves_the_endpoints_before_it_is_told_to_stop() {
    let mut sim = three();
    sim.apply(new_command);
    sim.run_to(secs(60), "leaving", |sim| sim.stops(StopWhy::Update) > 0);
    let leaving = sim
        .service
        .replicas
        .values()
        .find(|r| r.stop.is_some())
        .unwrap();
    let weight = crate::domain::endpoints::weight(leaving);
    assert_eq!((weight, leaving.stop.unwrap().told), (Some(0), false));
    let ordinal = leaving.ordinal;
    sim.run_to(secs(2), "told", |sim| {
        sim.replica(ordinal).stop.unwrap().told
    });
    assert_eq!(crate::domain::endpoints::weight(sim.replica(ordinal)), None);
}

#[test]
fn scaling_goes_on_during_an_update() {
    let mut sim = three();
    sim.apply(new_command);
    sim.run(secs(3));
    sim.ask(|service, now| service.scale(5, now).unwrap());
    sim.run_to(secs(400), "complete", |sim| stage(sim) == Stage::Complete);
    sim.run(secs(10));
    assert_eq!(sim.ready(), 5);
    sim.apply(|spec| spec.run.command.push("-v3".to_owned()));
    sim.run(secs(3));
    sim.ask(|service, now| service.scale(1, now).unwrap());
    sim.run_to(secs(400), "complete", |sim| stage(sim) == Stage::Complete);
    sim.run(secs(20));
    assert_eq!(sim.ready(), 1);
}

/// A service of so many ready replicas that is about to be updated.
fn large(count: u32) -> (Sim, Service) {
    let (sim, mut service) = scaling::large(count);
    let mut spec = service.spec().clone();
    new_command(&mut spec);
    spec.replicas = Count {
        min: count,
        max: count,
    };
    let difference = diff::diff(service.spec(), &spec);
    service.update(spec, &difference, sim.now).unwrap();
    (sim, service)
}

#[test]
fn of_thousands_each_is_kept_for_a_reason_of_its_own() {
    // Looked at for each of the others, these would be hundreds of millions of looks.
    const COUNT: u32 = 20_000;
    let (sim, service) = large(COUNT);
    let planned = plan(sim.now.into(), &service, &sim.world());
    let kept = planned.reasons.iter().filter(|reason| {
        matches!(reason, Reason::KeepsReady { ready, floor, .. } if (*ready, *floor) == (COUNT, COUNT))
    });
    let kept: BTreeSet<_> = kept.filter_map(Reason::ordinal).collect();
    assert_eq!(kept.len(), 20_000);
    let all: HashSet<_> = planned.reasons.iter().collect();
    assert_eq!(all.len(), planned.reasons.len());
    let created = planned.actions.iter();
    let created = created.filter(|action| matches!(action, Action::Create { .. }));
    assert_eq!(created.count(), 1, "{:?}", planned.actions);
}

#[test]
fn what_may_be_stopped_is_counted_down_stop_by_stop() {
    let (sim, mut service) = large(60);
    let mut spec = service.spec().clone();
    spec.update.max_unavailable = 7;
    service.applied = Arc::new(spec);
    let planned = plan(sim.now.into(), &service, &sim.world());
    let stops = planned.actions.iter();
    let stops = stops.filter(|action| matches!(action, Action::Stop { .. }));
    assert_eq!(stops.count(), 7, "{:?}", planned.actions);
    let after = planned.reasons.iter().filter(|reason| {
        matches!(
            reason,
            Reason::KeepsReady {
                ready: 53,
                floor: 53,
                ..
            }
        )
    });
    assert_eq!(after.count(), 53);
}
