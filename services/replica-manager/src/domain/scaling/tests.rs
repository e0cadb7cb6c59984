use super::*;
use crate::domain::spec::Metric;

const BOUNDS: Count = Count { min: 1, max: 8 };

fn policy() -> Scaling {
    Scaling {
        metric: Metric::Load,
        target: 10.0,
        up_delay: Duration::from_secs(30),
        down_delay: Duration::from_secs(300),
        port: 0,
        path: "/metrics".to_owned(),
    }
}

fn at(second: u64) -> Time {
    Time::default() + Duration::from_secs(1_000_000 + second)
}

/// Feeds (second, load) pairs, and tells what is desired after each.
fn run(start: u32, bounds: Count, samples: &[(u64, f64)]) -> Vec<u32> {
    let mut scaler = Autoscaler {
        desired: Some(start),
        ..Autoscaler::default()
    };
    let mut seen = Vec::new();
    for (second, total) in samples {
        let measure = Measure {
            total: *total,
            at: at(*second),
        };
        scaler = scaler.judge(&policy(), bounds, measure, at(*second));
        seen.push(scaler.desired.unwrap());
    }
    seen
}

#[test]
fn up_after_up_delay_and_not_reset_by_one_odd_sample() {
    let samples = [(0, 35.0), (10, 38.0), (20, 5.0), (25, 37.0), (30, 37.0)];
    assert_eq!(run(1, BOUNDS, &samples), [1, 1, 1, 1, 4]);
}

#[test]
fn two_samples_against_it_call_a_change_off() {
    let samples = [
        (0, 35.0),
        (10, 5.0),
        (20, 5.0),
        (30, 35.0),
        (59, 35.0),
        (60, 35.0),
    ];
    assert_eq!(run(1, BOUNDS, &samples), [1, 1, 1, 1, 1, 4]);
}

#[test]
fn down_after_down_delay_to_the_most_that_was_needed() {
    let samples = [
        (0, 15.0),
        (100, 25.0),
        (200, 15.0),
        (299, 15.0),
        (300, 15.0),
    ];
    assert_eq!(run(5, BOUNDS, &samples), [5, 5, 5, 5, 3]);
}

#[test]
fn bounds_hold() {
    assert_eq!(run(1, BOUNDS, &[(0, 9e9), (30, 9e9)]), [1, 8]);
    assert_eq!(run(3, BOUNDS, &[(0, 0.0), (300, 0.0)]), [3, 1]);
}

#[test]
fn from_zero_it_wakes_at_once() {
    let bounds = Count { min: 0, max: 4 };
    assert_eq!(run(0, bounds, &[(0, 0.0), (1, 0.5)]), [0, 1]);
    assert_eq!(run(1, bounds, &[(0, 0.0), (300, 0.0)]), [1, 0]);
}

#[test]
fn judging_the_same_measure_again_changes_nothing_however_late() {
    let measure = Measure {
        total: 35.0,
        at: at(0),
    };
    let scaler = Autoscaler::default().judge(&policy(), BOUNDS, measure, at(0));
    assert_eq!(scaler.judge(&policy(), BOUNDS, measure, at(10)), scaler);
    assert_eq!(scaler.due(&policy(), BOUNDS), Some(at(30)));
    assert_eq!(scaler.judge(&policy(), BOUNDS, measure, at(999)), scaler);
    let newer = Measure {
        at: at(30),
        ..measure
    };
    let later = scaler.judge(&policy(), BOUNDS, newer, at(30));
    assert_eq!(later.desired, Some(4));
}
