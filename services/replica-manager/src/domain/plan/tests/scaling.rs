//! Scaling by load, spares, and what users ask for.

use std::sync::Arc;
use std::time::Duration;

use super::harness::{Birth, Life, Sim, secs};
use super::retrying::retrying;
use crate::domain::failure::Class;
use crate::domain::plan::plan;
use crate::domain::replica::{Phase, Replica, Role, State, Stop, StopWhy};
use crate::domain::service::apply::Action;
use crate::domain::service::{Intent, Service};
use crate::domain::spec::{Count, Metric, Scaling, Spec, defaults};
use crate::domain::status::ServicePhase;

pub(super) fn by_load(min: u32, max: u32) -> Spec {
    Spec {
        replicas: Count { min, max },
        scaling: Some(Scaling {
            metric: Metric::Load,
            target: 10.0,
            up_delay: defaults::UP_DELAY,
            down_delay: defaults::DOWN_DELAY,
            port: 0,
            path: "/metrics".to_owned(),
        }),
        ..retrying(min, |_| ())
    }
}

/// Reports this load every five seconds for a while.
pub(super) fn feed(sim: &mut Sim, load: f64, span: Duration) {
    let until = sim.now + span;
    while sim.now < until {
        sim.load(load);
        sim.run(secs(5));
    }
}

#[test]
fn load_rises_one_odd_sample_falls() {
    let mut sim = Sim::new(by_load(1, 8), &[("w1", 8)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    feed(&mut sim, 35.0, secs(20));
    assert_eq!(sim.ready(), 1);
    feed(&mut sim, 3.0, secs(5));
    feed(&mut sim, 35.0, secs(10));
    assert_eq!(sim.service.wanted(), 4);
    sim.run(secs(5));
    assert_eq!(sim.ready(), 4);
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    feed(&mut sim, 5.0, secs(290));
    assert_eq!(sim.ready(), 4);
    feed(&mut sim, 5.0, secs(20));
    assert_eq!(sim.ready(), 1);
    assert_eq!(sim.service.spec().replicas, Count { min: 1, max: 8 });
}

/// Eight that are asked for by their load.
fn eight(down_delay: Duration) -> Sim {
    let mut spec = by_load(1, 8);
    spec.scaling = spec.scaling.map(|scaling| Scaling {
        down_delay,
        ..scaling
    });
    let mut sim = Sim::new(spec, &[("w1", 8)]);
    feed(&mut sim, 75.0, secs(60));
    assert_eq!(sim.ready(), 8);
    sim
}

#[test]
fn no_change_is_made_by_what_was_measured_once() {
    // The next leader plans before anything is measured again.
    let mut sim = eight(defaults::DOWN_DELAY);
    sim.load(3.0);
    sim.run(secs(2));
    sim.measure = None;
    sim.away(secs(400));
    sim.run(secs(10));
    assert_eq!(sim.service.wanted(), 8, "nothing was measured");
    feed(&mut sim, 75.0, secs(60));
    assert_eq!(sim.service.wanted(), 8, "what is measured is weighed first");

    // Nobody measures any more.
    let mut sim = eight(defaults::DOWN_DELAY);
    sim.load(0.0);
    sim.run(secs(60));
    sim.measure = None;
    sim.run(secs(900));
    assert_eq!(sim.service.wanted(), 8);

    // The delay is over while the measure still counts.
    let mut sim = eight(secs(20));
    sim.load(3.0);
    sim.run(secs(59));
    assert_eq!(sim.service.wanted(), 8);
    feed(&mut sim, 3.0, secs(5));
    assert_eq!(sim.service.wanted(), 1);
}

#[test]
fn to_zero_and_back() {
    let mut sim = Sim::new(by_load(0, 3), &[("w1", 3)]);
    sim.run(secs(5));
    assert_eq!(sim.phase(), ServicePhase::Healthy);
    assert!(sim.service.header.status.scaled_to_zero);
    feed(&mut sim, 12.0, secs(10));
    assert_eq!(sim.ready(), 2);
    assert!(!sim.phases_seen().contains(&ServicePhase::Down));
    feed(&mut sim, 0.0, secs(400));
    assert_eq!(sim.service.copies(), 0);
    assert!(sim.service.header.status.scaled_to_zero);
    feed(&mut sim, 5.0, secs(10));
    assert_eq!(sim.ready(), 1);
    assert!(!sim.phases_seen().contains(&ServicePhase::Down));
}

#[test]
fn a_spare_stands_in_for_one_of_four_and_goes_when_it_is_back() {
    let spec = Spec {
        replicas: Count { min: 4, max: 6 },
        ..retrying(4, |retry| retry.interval = secs(300))
    };
    let mut sim = Sim::new(spec, &[("w1", 4), ("w2", 4)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(20));
    let spare = sim.service.companion(Role::Spare { of: 0 }).unwrap();
    assert!(spare.ready(), "a spare runs");
    assert_eq!(sim.phase(), ServicePhase::Healthy, "four are ready");
    let failed_on = sim
        .replica(0)
        .last_placed()
        .unwrap()
        .allocation
        .clone()
        .unwrap()
        .worker;
    assert_ne!(spare.worker(), Some(failed_on.as_str()), "elsewhere");
    sim.run_to(secs(320), "back", |sim| sim.is_ready(0));
    sim.run_to(secs(20), "the spare gone", |sim| {
        sim.service.companion(Role::Spare { of: 0 }).is_none()
    });
    sim.run(secs(10));
    assert_eq!(sim.ready(), 4);
    assert_eq!(sim.ordinals(), [0, 1, 2, 3]);
    assert_eq!(sim.stops(StopWhy::SpareNotNeeded), 1);
}

#[test]
fn spares_stay_within_max_and_are_not_started_for_short_waits() {
    let spec = Spec {
        replicas: Count { min: 4, max: 5 },
        ..retrying(4, |retry| retry.interval = secs(300))
    };
    let mut sim = Sim::new(spec, &[("w1", 9), ("w2", 9)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.kill(1, Class::Error);
    sim.run(secs(20));
    assert_eq!(sim.service.copies(), 5);

    let spec = Spec {
        replicas: Count { min: 2, max: 6 },
        ..retrying(2, |retry| retry.interval = secs(5))
    };
    let mut sim = Sim::new(spec, &[("w1", 9), ("w2", 9)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run(secs(20));
    assert_eq!(sim.ordinals(), [0, 1]);
}

/// One of two replicas at most, which waits long for its retry, and a spare that serves.
fn stood_in_for() -> Sim {
    let spec = Spec {
        replicas: Count { min: 1, max: 2 },
        ..retrying(1, |retry| retry.interval = secs(1200))
    };
    let mut sim = Sim::new(spec, &[("w1", 2), ("w2", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run_to(secs(20), "stood in for", |sim| {
        let spare = sim.service.companion(Role::Spare { of: 0 });
        spare.is_some_and(Replica::ready)
    });
    sim.least_ready = u32::MAX;
    sim
}

#[test]
fn a_spare_takes_the_place_for_good_when_max_leaves_room_for_one() {
    let mut sim = stood_in_for();
    sim.apply(|spec| spec.replicas.max = 1);
    sim.run(secs(10));
    assert_eq!(sim.ordinals(), [1]);
    assert_eq!(sim.replica(1).role, Role::Member);
    assert_eq!(sim.least_ready, 1);
}

#[test]
fn a_spare_is_the_next_that_is_wanted_where_max_allows_no_other() {
    let mut sim = stood_in_for();
    sim.ask(|service, now| service.scale(2, now).unwrap());
    sim.run(secs(20));
    assert_eq!(sim.ordinals(), [0, 1]);
    assert_eq!(sim.replica(1).role, Role::Member);
    sim.run_to(secs(1200), "both ready", |sim| sim.ready() == 2);
    assert_eq!(sim.least_ready, 1);
}

#[test]
fn an_update_while_nothing_is_wanted_is_on_trial_until_it_has_served() {
    for fast in [false, true] {
        let mut spec = by_load(0, 3);
        spec.retry = spec.retry.filter(|_| !fast);
        let mut sim = Sim::new(spec, &[("w1", 3)]).script(|birth: &Birth| match birth.version {
            1 => Life::healthy(),
            _ => Life::crash(secs(1)),
        });
        feed(&mut sim, 5.0, secs(30));
        assert_eq!(sim.ready(), 1);
        feed(&mut sim, 0.0, secs(400));
        assert_eq!(sim.service.copies(), 0);
        sim.apply(|spec| spec.run.command.push("-v2".to_owned()));
        sim.run(secs(2000));
        let proven = sim.service.header.proven.unwrap();
        assert_eq!(proven.version, 1, "nothing of the other has run");
        assert!(!sim.service.header.status.updating);
        feed(&mut sim, 5.0, secs(30));
        assert_eq!(sim.ready(), 1, "{}", sim.reason());
        assert!(sim.reason().contains("rolled back"), "{}", sim.reason());
        assert_eq!(sim.service.header.intent, Intent::Run);
    }
}

#[test]
fn a_user_scales_up_and_down_and_the_next_apply_puts_the_specs_number_back() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 9)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.ask(|service, now| service.scale(5, now).unwrap());
    sim.run(secs(10));
    assert_eq!(sim.ready(), 5);
    assert!(!sim.phases_seen().contains(&ServicePhase::Degraded));
    sim.apply(|spec| {
        spec.labels.insert("a".to_owned(), "b".to_owned());
    });
    sim.run(secs(20));
    assert_eq!(sim.ready(), 2);
    assert_eq!(sim.ordinals(), [0, 1], "the newest go first");
}

#[test]
fn what_is_scaled_down_finishes_what_it_serves_before_it_is_told_to_stop() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.ask(|service, now| service.scale(1, now).unwrap());
    sim.run(sim.terms.leave_first / 2);
    assert!(!sim.is_ready(1), "it is out of the endpoints");
    assert!(!sim.replica(1).stop.unwrap().told);
    assert!(!sim.processes[&(1, 1)].stopping);
    sim.run(sim.terms.leave_first);
    assert!(sim.processes[&(1, 1)].stopping);
    sim.run_to(secs(10), "gone", |sim| sim.ordinals() == [0]);
}

#[test]
fn those_that_do_not_serve_go_first() {
    let mut sim = Sim::new(retrying(4, |_| ()), &[("w1", 9)]).script(|birth: &Birth| {
        if birth.ordinal == 1 {
            Life::crash(secs(5))
        } else {
            Life::healthy()
        }
    });
    sim.run(secs(20));
    sim.ask(|service, now| service.scale(3, now).unwrap());
    sim.run(secs(20));
    assert_eq!(sim.ordinals(), [0, 2, 3]);
    assert_eq!(sim.phase(), ServicePhase::Healthy);
}

#[test]
fn stop_and_start_keep_the_replicas_and_delete_forgets_them() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.ask(|service, now| service.stop("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Stopped);
    assert_eq!(sim.ordinals(), [0, 1]);
    sim.run(secs(2));
    assert_eq!(sim.rooms_held(), 0);
    sim.ask(|service, now| service.start("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.ordinals(), [0, 1]);
    sim.ask(|service, now| service.delete("by a test", now));
    sim.run_to(secs(20), "gone", |sim| sim.gone);
    assert_eq!(sim.rooms_held(), 0);
}

#[test]
fn a_start_while_it_is_still_stopping_brings_it_back() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.ask(|service, now| service.stop("by a test", now).unwrap());
    sim.run(Duration::from_millis(100));
    sim.ask(|service, now| service.start("by a test", now).unwrap());
    sim.run_to_phase(secs(20), ServicePhase::Healthy);
    assert_eq!(sim.ready(), 2);
}

#[test]
fn a_restarted_replica_stays_on_its_worker_and_its_room() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 1), ("w2", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let worker = sim.replica(0).worker().unwrap().to_owned();
    sim.ask(|service, now| service.restart_replica(0, now).unwrap());
    sim.run(Duration::from_millis(1500));
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert_eq!(sim.replica(0).worker(), Some(worker.as_str()));
    assert_eq!(sim.replica(0).attempts, 2);
    assert!(
        sim.replica(0).episode.is_none(),
        "what we did ourselves is no failure"
    );
}

/// A service of so many ready replicas.
pub(super) fn large(count: u32) -> (Sim, Service) {
    let mut sim = Sim::new(retrying(1, |_| ()), &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let mut service = sim.service.clone();
    for ordinal in 1..count {
        let mut replica = (*service.replicas[&0]).clone();
        replica.ordinal = ordinal;
        service.replicas.insert(ordinal, Arc::new(replica));
    }
    service.header.next_ordinal = count;
    service.header.scale = Some(count);
    (sim, service)
}

/// Acts on one replica after the other that a plan makes; which replicas, in order.
fn acts(sim: &Sim, service: &Service, wanted: fn(&Action) -> bool) -> Vec<u32> {
    let planned = plan(sim.now.into(), service, &sim.world());
    let acts = planned.actions.iter().filter(|action| wanted(action));
    acts.filter_map(Action::ordinal).collect()
}

#[test]
fn of_thousands_those_that_are_missed_least_are_stopped_first() {
    // Looked at for each of the others, these would be hundreds of millions of looks.
    const COUNT: u32 = 20_000;
    let (sim, mut service) = large(COUNT);
    for starting in [7, 9_000] {
        service.replica_mut(starting).unwrap().state = State::Running(Phase::Starting);
    }
    service.header.scale = Some(10);
    let stopped = acts(&sim, &service, |action| {
        matches!(action, Action::Stop { .. })
    });
    let batch = u32::try_from(sim.terms.batch).unwrap();
    let highest = (COUNT + 2 - batch..COUNT).rev();
    assert_eq!(
        stopped,
        [9_000, 7].into_iter().chain(highest).collect::<Vec<_>>()
    );
}

#[test]
fn thousands_that_were_stopped_are_started_in_order() {
    let (sim, mut service) = large(20_000);
    for ordinal in 0..20_000 {
        let replica = service.replica_mut(ordinal).unwrap();
        replica.attempt = None;
        replica.state = State::Stopped;
        replica.stop = Some(Stop {
            why: StopWhy::ServiceStopped,
            at: sim.now,
            told: true,
        });
    }
    let revived = acts(&sim, &service, |action| {
        matches!(action, Action::Revive { .. })
    });
    let batch = u32::try_from(sim.terms.batch).unwrap();
    assert_eq!(revived, (0..batch).collect::<Vec<_>>());
}
