//! The status: one word, in the design's order, and never another.

use super::harness::{Birth, Life, Sim, secs};
use super::retrying::retrying;
use crate::domain::failure::Class;
use crate::domain::replica::observe::ReportedPhase;
use crate::domain::spec::Spec;
use crate::domain::status::ServicePhase;

fn ten(min_healthy: u32) -> Sim {
    let spec = Spec {
        min_healthy,
        ..retrying(10, |_| ())
    };
    Sim::new(spec, &[("w1", 20)])
}

#[test]
fn one_of_ten_ready_is_degraded_or_down_by_min_healthy() {
    for (min_healthy, expected) in [(1, ServicePhase::Degraded), (2, ServicePhase::Down)] {
        let mut sim = ten(min_healthy);
        sim.run_to_phase(secs(10), ServicePhase::Healthy);
        for ordinal in 1..10 {
            sim.kill(ordinal, Class::Error);
        }
        sim.run(secs(1));
        assert_eq!(sim.phase(), expected, "{}", sim.reason());
        assert!(
            sim.reason().starts_with("1 of 10 ready"),
            "{}",
            sim.reason()
        );
    }
}

#[test]
fn ten_unready_after_having_been_ready_is_down() {
    let mut sim = ten(1);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    for ordinal in 0..10 {
        sim.report(ordinal, ReportedPhase::Unready);
    }
    sim.run(secs(1));
    assert_eq!(sim.phase(), ServicePhase::Down);
}

#[test]
fn nine_on_their_first_start_and_one_failed_is_starting_with_the_failure_named() {
    let mut sim = ten(1).script(|birth: &Birth| {
        if birth.ordinal == 3 {
            Life::crash(secs(1))
        } else {
            Life::slow(secs(100))
        }
    });
    sim.run(secs(5));
    assert_eq!(sim.phase(), ServicePhase::Starting);
    for part in ["chat/3", "code 1"] {
        assert!(
            sim.reason().contains(part),
            "{part} is not in {}",
            sim.reason()
        );
    }
}

#[test]
fn the_first_start_goes_pending_starting_healthy() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[]);
    sim.run(secs(5));
    sim.add_worker("w1", 2, "");
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let expected = [
        ServicePhase::Pending,
        ServicePhase::Starting,
        ServicePhase::Healthy,
    ];
    assert_eq!(sim.phases_seen(), expected);
}

#[test]
fn a_first_start_that_passes_its_timeout_is_not_starting_any_more() {
    let spec = Spec {
        start_timeout: secs(60),
        ..retrying(2, |_| ())
    };
    let mut sim = Sim::new(spec, &[("w1", 2)]).script(|birth: &Birth| {
        if birth.ordinal == 0 {
            Life::healthy()
        } else {
            Life::never_ready()
        }
    });
    sim.run(secs(50));
    assert_eq!(sim.phase(), ServicePhase::Starting);
    sim.run(secs(20));
    assert_eq!(sim.phase(), ServicePhase::Degraded);
}

#[test]
fn a_scale_up_of_a_healthy_service_stays_healthy_while_it_starts() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 9)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.ask(|service, now| service.scale(4, now).unwrap());
    sim.run(secs(20));
    assert_eq!(
        sim.phases_seen()
            .iter()
            .filter(|p| **p == ServicePhase::Healthy)
            .count(),
        1
    );
    assert_eq!(sim.ready(), 4);
}

#[test]
fn degradations_and_outages_are_told_apart() {
    let mut sim = Sim::new(retrying(3, |r| r.interval = secs(10)), &[("w1", 3)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.kill(0, Class::Error);
    sim.run_to_phase(secs(1), ServicePhase::Degraded);
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
    let totals = sim.service.header.totals;
    assert_eq!((totals.degradations, totals.outages), (1, 0));
    for ordinal in 0..3 {
        sim.kill(ordinal, Class::Error);
    }
    sim.run_to_phase(secs(1), ServicePhase::Down);
    sim.run_to_phase(secs(60), ServicePhase::Healthy);
    let totals = sim.service.header.totals;
    assert_eq!((totals.degradations, totals.outages), (1, 1));
}

#[test]
fn since_is_when_the_word_changed() {
    let mut sim = Sim::new(retrying(1, |_| ()), &[("w1", 1)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    let since = sim.service.header.status.since;
    sim.run(secs(500));
    assert_eq!(sim.service.header.status.since, since);
}

#[test]
fn copies_without_a_place_are_missing_once_their_start_takes_too_long() {
    let spec = |replicas| Spec {
        start_timeout: secs(30),
        ..retrying(replicas, |_| ())
    };
    for (first, before) in [(1, ServicePhase::Healthy), (5, ServicePhase::Starting)] {
        let mut sim = Sim::new(spec(first), &[("w1", 2)]);
        sim.run(secs(10));
        sim.ask(|service, now| service.scale(5, now).unwrap());
        sim.run(secs(15));
        assert_eq!(sim.phase(), before);
        sim.run(secs(30));
        assert_eq!(sim.phase(), ServicePhase::Degraded);
        let counts = sim.service.header.status.counts;
        assert_eq!((counts.ready, counts.starting, counts.backoff), (2, 0, 3));
        sim.add_worker("w2", 3, "");
        sim.run_to(secs(5), "all ready", |sim| sim.ready() == 5);
    }
}

#[test]
fn a_start_after_a_long_stop_is_a_first_start_again() {
    let mut sim = Sim::new(retrying(2, |_| ()), &[("w1", 2)]);
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    sim.run(secs(10_000));
    sim.ask(|service, now| service.stop("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Stopped);
    sim.ask(|service, now| service.start("by a test", now).unwrap());
    sim.run_to_phase(secs(10), ServicePhase::Healthy);
    assert!(!sim.phases_seen().contains(&ServicePhase::Down));
}
