use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::text::Text;

const S: Duration = Duration::from_secs(1);

fn terms() -> Terms {
    Terms {
        interval: 2 * S,
        lost_after: 10 * S,
        fence_after: 60 * S,
    }
}

#[test]
fn intervals_grow_with_the_fleet() {
    let rules = Rules::default();
    assert_eq!(rules.terms(1000, Longest::default()), terms());
    let large = rules.terms(100_000, Longest::default());
    assert_eq!(
        (large.interval, large.lost_after, large.fence_after),
        (10 * S, 40 * S, 60 * S)
    );
    let longest = Longest {
        lost_after: 20 * S,
        fence_after: 90 * S,
    };
    let small = rules.terms(1, longest);
    assert_eq!((small.lost_after, small.fence_after), (10 * S, 90 * S));
    assert_eq!(small.patient(longest).lost_after, 20 * S);
    assert_eq!(rules.fenced_after(60 * S), Duration::from_millis(61_600));
}

#[test]
fn jitter_only_shortens_and_by_at_most_a_tenth() {
    for hash in [0, 1, 1023, 1024, u64::MAX] {
        let interval = terms().jittered(hash).interval;
        assert!(
            interval <= 2 * S && interval > Duration::from_millis(1799),
            "{interval:?}"
        );
    }
    assert_ne!(terms().jittered(1), terms().jittered(900));
}

#[test]
fn silence_is_suspected_at_half_and_expires_at_the_whole() {
    let mut pulse = Pulse::unknown(Moment::ZERO, terms());
    assert_eq!(pulse.judge(4 * S), Verdict::Fine(5 * S));
    assert_eq!(pulse.liveness(), Liveness::Unknown);
    assert_eq!(pulse.judge(5 * S), Verdict::Suspect(10 * S));
    assert_eq!(pulse.judge(6 * S), Verdict::Fine(10 * S));
    assert!(pulse.beat(7 * S, terms()));
    assert!(!pulse.beat(8 * S, terms()));
    assert_eq!(pulse.judge(12 * S), Verdict::Fine(13 * S));
    assert_eq!(pulse.judge(18 * S), Verdict::Expired);
    assert_eq!(pulse.liveness(), Liveness::Suspect);
}

#[test]
fn an_expiry_never_moves_backwards() {
    let mut pulse = Pulse::alive(
        Moment::ZERO,
        Terms {
            lost_after: 100 * S,
            ..terms()
        },
    );
    pulse.beat(S, terms());
    assert_eq!(pulse.judge(40 * S), Verdict::Fine(50 * S));
    assert!(matches!(pulse.judge(60 * S), Verdict::Suspect(at) if at == 100 * S));
}

#[test]
fn what_another_heard_counts_from_when_it_was_heard() {
    let mut pulse = Pulse::unknown(Moment::ZERO, terms());
    assert!(matches!(pulse.judge(6 * S), Verdict::Suspect(_)));
    // Too long ago to end the silence, yet it puts off the loss.
    assert!(!pulse.heard_at(S, 7 * S, terms()));
    assert_eq!(pulse.liveness(), Liveness::Suspect);
    assert_eq!(pulse.judge(10 * S), Verdict::Fine(11 * S));
    assert!(pulse.heard_at(9 * S, 10 * S, terms()));
    assert_eq!((pulse.liveness(), pulse.heard()), (Liveness::Alive, 9 * S));
    // What is older than what is known changes nothing.
    assert!(!pulse.heard_at(3 * S, 10 * S, terms()));
    assert_eq!(pulse.judge(10 * S), Verdict::Fine(14 * S));
    assert_eq!(pulse.judge(19 * S), Verdict::Expired);
}

#[test]
fn who_is_trusted_counts_as_heard_now() {
    let mut pulse = Pulse::unknown(Moment::ZERO, terms());
    assert!(matches!(pulse.judge(6 * S), Verdict::Suspect(_)));
    assert!(pulse.trust(7 * S, terms()));
    assert_eq!(pulse.liveness(), Liveness::Unknown);
    assert_eq!(pulse.judge(11 * S), Verdict::Fine(12 * S));
    assert!(!pulse.trust(11 * S, terms()));
    assert!(matches!(pulse.judge(20 * S), Verdict::Suspect(at) if at == 21 * S));
}

#[test]
fn observed_time_stands_still_while_nobody_ticks() {
    let step = Duration::from_millis(100);
    let mut observer = Observer::new(step, 7 * S);
    assert_eq!(observer.tick(7 * S + step), None);
    assert_eq!(observer.moment(7 * S + 2 * step), 2 * step);
    // Stopped for thirty seconds, and asked before the next tick, then after it.
    assert_eq!(observer.moment(37 * S), 2 * step);
    assert_eq!(observer.tick(37 * S), Some(Duration::from_millis(29_800)));
    assert_eq!(observer.moment(37 * S), 2 * step);
    assert_eq!(observer.tick(37 * S + step), None);
    assert_eq!(observer.moment(37 * S + step), 3 * step);
}

proptest! {
    #[test]
    fn the_wheel_gives_what_is_due_never_early_and_late_by_less_than_a_tick(
        entries in prop::collection::vec(0_u64..60_000, 0..200),
        steps in prop::collection::vec(1_u64..5_000, 1..40),
    ) {
        let tick = Duration::from_millis(50);
        let mut wheel = Wheel::new(tick, Moment::ZERO);
        let mut waiting: BTreeMap<usize, Duration> = BTreeMap::new();
        for (item, at) in entries.into_iter().enumerate() {
            let at = Duration::from_millis(at);
            wheel.insert(at, item);
            waiting.insert(item, at);
        }
        let mut now = Duration::ZERO;
        for step in steps {
            now += Duration::from_millis(step);
            let mut latest = 0;
            for item in wheel.advance(now) {
                let at = waiting.remove(&item).unwrap();
                prop_assert!(at <= now, "early: {at:?} at {now:?}");
                // What is due at zero is given with the first tick.
                let due = at.as_millis().div_ceil(50).max(1);
                prop_assert!(due >= latest, "out of order");
                latest = due;
            }
            // What is due at or before the last whole tick is gone; due at zero waits for the first.
            let whole = Duration::from_millis(u64::try_from(now.as_millis()).unwrap() / 50 * 50);
            let late: Vec<_> = waiting.values().filter(|at| **at <= whole && whole >= tick).collect();
            prop_assert!(late.is_empty(), "late at {now:?}: {late:?}");
            prop_assert_eq!(wheel.len(), waiting.len());
        }
    }
}

fn names(count: usize) -> Vec<Text> {
    (0..count)
        .map(|place| format!("w{place:03}").into())
        .collect()
}

fn brake() -> (Brake, Text) {
    (Brake::new(600 * S), "eu-1".into())
}

fn census(members: u32, silent: u32) -> Census {
    Census { members, silent }
}

#[test]
fn few_losses_pass_the_brake() {
    let (mut brake, zone) = brake();
    let judged = brake.judge(&zone, census(20, 10), names(10), 10 * S, 100 * S);
    assert_eq!((judged.lost.len(), judged.news), (10, None));
}

#[test]
fn a_small_zone_has_no_brake() {
    let (mut brake, zone) = brake();
    let judged = brake.judge(&zone, census(9, 9), names(9), 10 * S, 100 * S);
    assert_eq!(judged.lost.len(), 9);
}

#[test]
fn over_half_of_a_zone_is_held_until_half_are_back() {
    let (mut brake, zone) = brake();
    let judged = brake.judge(&zone, census(20, 11), names(3), 10 * S, 100 * S);
    assert_eq!(judged.lost, names(0));
    assert_eq!(judged.news, Some(ZoneNews::Holds(census(20, 11))));
    let judged = brake.judge(&zone, census(20, 11), names(11), 10 * S, 101 * S);
    assert_eq!(judged, Judged::default());
    assert_eq!(brake.holding().collect::<Vec<_>>(), [(&zone, 11)]);
    let judged = brake.judge(&zone, census(20, 10), Vec::new(), 10 * S, 110 * S);
    assert_eq!(judged.news, Some(ZoneNews::Recovered(census(20, 10))));
    assert_eq!(judged.lost, names(11));
    assert_eq!(brake.holding().count(), 0);
}

#[test]
fn losses_one_after_the_other_within_the_window_count_together() {
    let (mut brake, zone) = brake();
    assert_eq!(
        brake
            .judge(&zone, census(20, 6), names(6), 10 * S, 100 * S)
            .lost
            .len(),
        6
    );
    // Six of them are members no more; five others are silent of the fourteen left.
    let judged = brake.judge(&zone, census(14, 5), names(5), 10 * S, 105 * S);
    assert!(matches!(judged.news, Some(ZoneNews::Holds(_))));
    let (mut brake, zone) = (Brake::new(600 * S), zone);
    brake.judge(&zone, census(20, 6), names(6), 10 * S, 100 * S);
    let judged = brake.judge(&zone, census(14, 5), names(5), 10 * S, 111 * S);
    assert_eq!((judged.lost.len(), judged.news), (5, None));
}

#[test]
fn a_brake_holds_no_longer_than_it_may() {
    let (mut brake, zone) = brake();
    brake.judge(&zone, census(20, 20), names(20), 10 * S, 100 * S);
    assert_eq!(
        brake
            .judge(&zone, census(20, 20), Vec::new(), 10 * S, 699 * S)
            .lost
            .len(),
        0
    );
    let judged = brake.judge(&zone, census(20, 20), Vec::new(), 10 * S, 700 * S);
    assert_eq!(judged.news, Some(ZoneNews::HeldOut(census(20, 20))));
    assert_eq!(judged.lost.len(), 20);
}

#[test]
fn a_released_brake_stays_off_for_a_while() {
    let (mut brake, zone) = brake();
    brake.judge(&zone, census(20, 20), names(12), 10 * S, 100 * S);
    assert_eq!(brake.release(&zone, 10 * S, 101 * S), names(12));
    let later: Vec<_> = names(20).into_iter().skip(12).collect();
    let judged = brake.judge(&zone, census(8, 8), later.clone(), 10 * S, 102 * S);
    assert_eq!((judged.lost, judged.news), (later, None));
}

#[test]
fn zones_do_not_hold_each_other() {
    let (mut brake, zone) = brake();
    let other: Text = "us-1".into();
    brake.judge(&zone, census(20, 20), names(20), 10 * S, 100 * S);
    let judged = brake.judge(&other, census(20, 1), names(1), 10 * S, 100 * S);
    assert_eq!(judged.lost, names(1));
    let holding: BTreeSet<_> = brake.holding().map(|(zone, _)| zone.clone()).collect();
    assert_eq!(holding, BTreeSet::from([zone]));
}
