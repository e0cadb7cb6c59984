use super::*;
use crate::domain::spec::defaults;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits(interval: Duration, growth: Option<Growth>) -> Limits {
    Limits {
        fail: false,
        interval,
        max_duration: secs(3600),
        max_attempts: None,
        growth,
    }
}

const DOUBLING: Growth = Growth {
    factor: 2.0,
    max: Duration::from_secs(300),
    jitter: 0.0,
};

#[test]
fn without_growth_every_delay_is_the_interval() {
    for number in 1..50 {
        let delay = limits(secs(30), None).delay(number, number == 1, "u.0.1");
        assert_eq!(delay, secs(30), "retry {number}");
    }
}

#[test]
fn growth_doubles_up_to_its_maximum() {
    let limits = limits(secs(30), Some(DOUBLING));
    let delays: Vec<u64> = (1..=6)
        .map(|n| limits.delay(n, n == 1, "u.0.1").as_secs())
        .collect();
    assert_eq!(delays, [30, 60, 120, 240, 300, 300]);
    assert_eq!(limits.delay(4_000_000_000, false, "u.0.1"), secs(300));
}

#[test]
fn the_interval_wins_over_a_smaller_maximum() {
    let limits = limits(secs(600), Some(DOUBLING));
    assert_eq!(limits.delay(3, false, "u.0.1"), secs(600));
}

#[test]
fn jitter_only_ever_adds_and_differs_by_attempt() {
    let growth = Growth {
        factor: 1.0,
        jitter: 0.2,
        ..DOUBLING
    };
    let limits = limits(secs(100), Some(growth));
    let delays: Vec<Duration> = (0..100)
        .map(|n| limits.delay(1, true, &format!("u.0.{n}")))
        .collect();
    assert!(delays.iter().all(|d| *d >= secs(100) && *d < secs(120)));
    assert!(delays.iter().any(|d| *d < secs(105)) && delays.iter().any(|d| *d > secs(115)));
}

#[test]
fn an_interval_under_a_second_serves_the_first_retry_only() {
    let limits = limits(Duration::ZERO, Some(DOUBLING));
    let delays: Vec<u64> = (1..=4)
        .map(|n| limits.delay(n, n == 1, "u.0.1").as_secs())
        .collect();
    assert_eq!(delays, [0, 1, 2, 4]);
}

#[test]
fn config_fails_unless_it_is_named() {
    let mut retry = defaults::retry();
    assert!(retry.limits(Class::Config).fail);
    retry.classes.insert(Class::Config, Rule::default());
    assert!(!retry.limits(Class::Config).fail);
    for class in Class::ALL.into_iter().filter(|c| *c != Class::Config) {
        assert!(!retry.limits(class).fail, "{class}");
    }
}

#[test]
fn a_class_takes_what_it_leaves_out_from_the_policy() {
    let mut retry = defaults::retry();
    retry.max_attempts = Some(10);
    retry.classes.insert(
        Class::NoCapacity,
        Rule {
            interval: Some(secs(60)),
            ..Rule::default()
        },
    );
    let limits = retry.limits(Class::NoCapacity);
    assert_eq!(limits.interval, secs(60));
    assert_eq!(limits.max_duration, retry.max_duration);
    assert_eq!(limits.max_attempts, Some(10));
}
