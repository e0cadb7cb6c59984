use super::*;
use crate::domain::failure::policy::{Rule, StagePlace};
use crate::domain::spec::defaults;

fn at(seconds: u64) -> Time {
    Time::default() + Duration::from_secs(1_000_000 + seconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn each_class_has_its_own_count_and_clock() {
    let mut episode = Episode::begin(Class::Error, at(0));
    episode.add(Class::Oom, at(100));
    episode.add(Class::Error, at(200));
    assert_eq!(episode.count(Class::Error), 2);
    assert_eq!(episode.count(Class::Oom), 1);
    assert_eq!(episode.elapsed(Class::Error, at(300)), secs(300));
    assert_eq!(episode.elapsed(Class::Oom, at(300)), secs(200));
    assert_eq!(episode.failures, 3);
}

#[test]
fn waiting_for_capacity_is_charged_to_no_capacity_alone() {
    let mut episode = Episode::begin(Class::Error, at(0));
    episode.add(Class::NoCapacity, at(10));
    episode.add(Class::NoCapacity, at(70));
    episode.placed(at(110));
    assert_eq!(episode.elapsed(Class::NoCapacity, at(500)), secs(100));
    assert_eq!(episode.elapsed(Class::Error, at(150)), secs(50));
    assert_eq!(episode.failures, 1);
    episode.add(Class::Oom, at(200));
    assert_eq!(episode.elapsed(Class::Oom, at(230)), secs(30));
}

#[test]
fn the_duration_counts_over_attempts_and_ends_a_crash_loop() {
    let retry = defaults::retry();
    let mut episode = Episode::begin(Class::Error, at(0));
    for second in (60..3600).step_by(60) {
        assert_eq!(episode.exceeded(&retry, at(second)), None, "{second}");
        episode.add(Class::Error, at(second));
    }
    assert_eq!(episode.exceeded(&retry, at(3600)), Some(Exceeded::Duration));
}

#[test]
fn the_last_class_picks_the_limits() {
    let mut retry = defaults::retry();
    retry.classes.insert(
        Class::Error,
        Rule {
            max_attempts: Some(1),
            ..Rule::default()
        },
    );
    let mut episode = Episode::begin(Class::Error, at(0));
    assert_eq!(episode.exceeded(&retry, at(30)), None);
    episode.add(Class::Error, at(31));
    assert_eq!(episode.exceeded(&retry, at(61)), Some(Exceeded::Attempts));
    episode.add(Class::Probe, at(62));
    assert_eq!(episode.exceeded(&retry, at(90)), None);
}

#[test]
fn stages_last_for_their_attempts_and_the_last_may_be_unlimited() {
    let stage = |attempts, place| Stage { attempts, place };
    let stages = [
        stage(Some(2), StagePlace::SameWorker),
        stage(Some(1), StagePlace::OtherWorker),
        stage(None, StagePlace::OtherRegion),
    ];
    let mut episode = Episode::begin(Class::Error, at(0));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let stage = episode.next_stage(&stages);
        seen.push(stage);
        episode.placed_by(stage);
    }
    assert_eq!(seen, [0, 0, 1, 2, 2, 2]);
}

#[test]
fn a_limited_last_stage_is_a_limit() {
    let mut retry = defaults::retry();
    retry.stages = vec![Stage {
        attempts: Some(2),
        place: StagePlace::SameWorker,
    }];
    let mut episode = Episode::begin(Class::Error, at(0));
    for _ in 0..2 {
        assert_eq!(episode.exceeded(&retry, at(1)), None);
        episode.placed_by(episode.next_stage(&retry.stages));
    }
    assert_eq!(episode.exceeded(&retry, at(1)), Some(Exceeded::Stages));
}
