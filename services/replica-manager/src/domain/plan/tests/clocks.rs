//! A clock that is set back by a day, in the middle of each wait: it takes no longer than it would anyway,
//! counted from then.

use super::harness::{Birth, Life, Sim, secs};
use super::retrying::retrying;
use super::scaling::{by_load, feed};
use crate::domain::replica::State;
use crate::domain::rollout::Stage;
use crate::domain::service::Intent;
use crate::domain::spec::Spec;
use crate::domain::status::ServicePhase;

/// What comes of a story, told with and without the clock being set back at one point of it.
fn both<T>(story: impl Fn(&dyn Fn(&mut Sim)) -> T) -> [T; 2] {
    let back = |sim: &mut Sim| sim.set_back(secs(86_400));
    [story(&|_| ()), story(&back)]
}

fn stage(sim: &Sim) -> Stage {
    sim.service.header.rollout.as_ref().unwrap().stage
}

fn new_command(spec: &mut Spec) {
    spec.run.command.push("-v2".to_owned());
}

#[test]
fn the_load_is_followed() {
    let wanted = both(|point| {
        let mut sim = Sim::new(by_load(1, 8), &[("w1", 8)]);
        feed(&mut sim, 75.0, secs(60));
        assert_eq!(sim.service.wanted(), 8);
        feed(&mut sim, 35.0, secs(100));
        point(&mut sim);
        feed(&mut sim, 35.0, secs(290));
        let before = sim.service.wanted();
        feed(&mut sim, 35.0, secs(20));
        let after = sim.service.wanted();
        (before, after)
    });
    assert_eq!(wanted, [(4, 4), (8, 4)]);
}

#[test]
fn limits_of_retries_hold() {
    let spec = || {
        retrying(2, |retry| {
            retry.interval = secs(5);
            retry.max_duration = secs(100);
        })
    };
    let gave_up = both(|point| {
        let mut sim = Sim::new(spec(), &[("w1", 2)]).script(|birth: &Birth| match birth.ordinal {
            0 => Life::healthy(),
            _ => Life::crash(secs(1)),
        });
        sim.run(secs(50));
        point(&mut sim);
        sim.run(secs(120));
        matches!(sim.replica(1).state, State::Failed { .. })
    });
    assert_eq!(gave_up, [true, true]);
}

#[test]
fn what_was_tried_anew_is_so_once() {
    let spec = || {
        retrying(2, |retry| {
            retry.interval = secs(1);
            retry.max_attempts = Some(2);
        })
    };
    let starts = both(|point| {
        let mut sim = Sim::new(spec(), &[("w1", 2)]).script(|birth: &Birth| match birth.ordinal {
            0 => Life::healthy(),
            _ => Life::crash(secs(1)),
        });
        sim.run(secs(30));
        sim.apply(|spec| spec.stop_grace += secs(1));
        sim.run(secs(2));
        point(&mut sim);
        sim.run(secs(300));
        assert_eq!(sim.service.header.intent, Intent::Run);
        sim.started(1).len()
    });
    assert_eq!(starts, [6, 6]);
}

#[test]
fn a_first_start_that_takes_too_long_is_told() {
    let phases = both(|point| {
        let spec = Spec {
            start_timeout: secs(100),
            ..retrying(1, |_| ())
        };
        let mut sim = Sim::new(spec, &[("w1", 1)]).script(|_| Life::never_ready());
        sim.run(secs(50));
        point(&mut sim);
        let before = sim.phase();
        sim.run(secs(110));
        (before, sim.phase())
    });
    assert_eq!(phases, [(ServicePhase::Starting, ServicePhase::Down); 2]);
}

#[test]
fn an_update_without_progress_is_taken_back() {
    for paused in [false, true] {
        let stages = both(|point| {
            let mut sim = Sim::new(retrying(3, |_| ()), &[("w1", 3)]);
            if !paused {
                sim.add_worker("w2", 1, "");
            }
            sim.run(secs(30));
            sim.rescript(|birth: &Birth| match birth.version {
                1 => Life::healthy(),
                _ => Life::never_ready(),
            });
            sim.apply(new_command);
            sim.run(secs(100));
            assert_eq!(matches!(stage(&sim), Stage::Paused { .. }), paused);
            point(&mut sim);
            sim.run(secs(10));
            sim.add_worker("w3", 1, "");
            sim.run(secs(620));
            stage(&sim)
        });
        assert_eq!(stages, [Stage::RolledBack; 2], "paused: {paused}");
    }
}

#[test]
fn a_question_that_was_asked_ahead_of_its_time_is_asked_again_in_time() {
    let starts = both(|point| {
        let mut sim = Sim::new(retrying(1, |_| ()), &[("w1", 0)]);
        sim.run(secs(2));
        assert!(sim.replica(0).state.backoff().is_some());
        sim.add_worker("w2", 0, "");
        sim.run(secs(0));
        assert!(matches!(sim.replica(0).state, State::Placing(_)));
        point(&mut sim);
        sim.run(secs(1));
        // Nobody is told that there is room.
        sim.slots.insert("w2".to_owned(), 1);
        sim.run(secs(65));
        sim.started(0).len()
    });
    assert_eq!(starts, [1, 1]);
}
