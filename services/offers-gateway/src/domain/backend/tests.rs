use super::*;
use crate::domain::offer::Source;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn standing(drop_after: Option<Duration>) -> Standing {
    Standing::new(Arc::new(Facts {
        name: "b".to_owned(),
        kind: "catalog",
        source: "here".to_owned(),
        refresh_interval: secs(100),
        drop_after,
        breaker: breaker::Policy::default(),
        disabled: None,
    }))
}

fn told(observed: SystemTime) -> Told {
    Told {
        snapshot: Arc::new(Snapshot::empty("b", Source::Catalog)),
        observed,
        live_capacity: false,
    }
}

fn ended(at: SystemTime, fault: Option<&str>) -> Ended {
    let fault = fault.map(|message| Fault {
        timed_out: false,
        message: message.to_owned(),
    });
    Ended {
        at,
        took: secs(1),
        fault,
    }
}

#[test]
fn a_refresh_that_went_well_is_followed_by_the_next_after_the_interval() {
    let mut standing = standing(None);
    assert!(standing.is_awaited());
    standing.begin();
    assert_eq!(standing.next_refresh, None);
    standing.succeed(told(START), ended(START, None), 0.0);
    assert_eq!(standing.next_refresh, Some(START + secs(100)));
    assert!(!standing.is_awaited());
    standing.succeed(told(START), ended(START, None), 1.0);
    assert_eq!(
        standing.next_refresh,
        Some(START + secs(90)),
        "jitter comes sooner, never later"
    );
}

#[test]
fn failures_are_retried_soon_and_then_left_alone() {
    let mut standing = standing(None);
    standing.fail(ended(START, Some("no")), 0.0);
    assert_eq!(standing.next_refresh, Some(START + secs(10)));
    standing.fail(ended(START, Some("no")), 0.0);
    standing.fail(ended(START, Some("no")), 0.0);
    assert_eq!(
        standing.next_refresh,
        Some(START + secs(30)),
        "the breaker is open"
    );
    assert!(
        !standing.is_awaited(),
        "it was tried: nobody waits for it any more"
    );
    assert!(!standing.breaker.allows(START + secs(29)));
}

#[test]
fn a_backend_is_asked_no_more_often_than_it_wants() {
    let mut standing = standing(None);
    let least = secs(600);
    standing.refresh_at_most_every(least);
    for _ in 0..5 {
        standing.fail(ended(START, Some("no")), 0.0);
        assert!(standing.next_refresh.unwrap() >= START + least);
    }
    standing.succeed(told(START), ended(START, None), 1.0);
    assert_eq!(standing.next_refresh, Some(START + least));
    // It wants that no longer.
    standing.refresh_at_most_every(secs(5));
    standing.succeed(told(START), ended(START, None), 0.0);
    assert_eq!(standing.next_refresh, Some(START + secs(100)));
}

#[test]
fn offers_of_a_time_to_come_are_asked_for_again_and_count_as_read_now() {
    let ahead = START + secs(5000);
    let mut standing = standing(Some(secs(1000)));
    standing.restore(told(ahead), START, 0.0);
    assert_eq!(standing.next_refresh, Some(START), "due at once");
    assert_eq!(standing.told.as_ref().unwrap().observed, START);
    standing.succeed(told(ahead), ended(ahead, None), 0.0);
    assert!(standing.is_older_than(secs(100), START));
    standing.clock_set_back(START);
    assert!(!standing.is_older_than(secs(100), START + secs(100)));
    assert!(standing.is_too_old(START + secs(1001)));
}

#[test]
fn old_offers_are_kept_until_they_are_too_old() {
    let mut standing = standing(Some(secs(1000)));
    standing.restore(told(START), START + secs(50), 0.0);
    assert_eq!(
        standing.next_refresh,
        Some(START + secs(100)),
        "it is fresh enough"
    );
    standing.restore(told(START), START + secs(500), 0.0);
    assert_eq!(
        standing.next_refresh,
        Some(START + secs(500)),
        "due at once"
    );
    assert!(standing.shown().is_some());
    assert!(!standing.is_too_old(START + secs(1000)));
    assert!(standing.is_too_old(standing.drop_time().unwrap()));
    standing.restore(told(START), START + secs(2000), 0.0);
    assert!(standing.shown().is_none());
    assert_eq!(standing.drop_time(), None);
}
