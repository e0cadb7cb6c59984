use std::sync::Arc;

use super::*;
use crate::domain::backend::{Ended, Facts, Told};
use crate::domain::offer::Source;
use crate::domain::snapshot::Snapshot;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn standing(disabled: Option<&str>) -> Standing {
    Standing::new(Arc::new(Facts {
        name: "b".to_owned(),
        kind: "catalog",
        source: "here".to_owned(),
        refresh_interval: secs(100),
        drop_after: Some(secs(1000)),
        breaker: breaker::Policy::default(),
        disabled: disabled.map(str::to_owned),
    }))
}

fn with_offers() -> Standing {
    let mut standing = standing(None);
    let told = Told {
        snapshot: Arc::new(Snapshot::empty("b", Source::Catalog)),
        observed: START,
        live_capacity: false,
    };
    standing.succeed(
        told,
        Ended {
            at: START,
            took: secs(2),
            fault: None,
        },
        0.0,
    );
    standing
}

fn fail(standing: &mut Standing, timed_out: bool) {
    let fault = Fault {
        timed_out,
        message: "no such host".to_owned(),
    };
    standing.fail(
        Ended {
            at: START,
            took: secs(2),
            fault: Some(fault),
        },
        0.0,
    );
}

fn axes(report: &Report) -> (Data, Refresh) {
    (report.data, report.refresh)
}

#[test]
fn age_decides_data() {
    let standing = with_offers();
    let at = |seconds| axes(&report(&standing, None, START + secs(seconds)));
    assert_eq!(at(0), (Data::Cached, Refresh::NotTried));
    assert_eq!(at(150), (Data::Cached, Refresh::NotTried));
    assert_eq!(at(151), (Data::Stale, Refresh::NotTried));
    assert_eq!(at(1000), (Data::Stale, Refresh::NotTried));
    assert_eq!(at(1001), (Data::None, Refresh::NotTried));
    let stale = stale_time(&standing).unwrap();
    assert_eq!(data(&standing, false, stale), Data::Stale);
    assert_eq!(
        data(&standing, false, stale - Duration::from_millis(1)),
        Data::Cached
    );
}

#[test]
fn a_call_that_waited_is_told_what_came_of_it() {
    let standing = with_offers();
    let of = |waited: &Waited| report(&standing, Some(waited), START + secs(1));
    assert_eq!(axes(&of(&Waited::Ok)), (Data::Fresh, Refresh::Ok));
    let late = of(&Waited::OutOfTime(secs(2)));
    assert_eq!(axes(&late), (Data::Cached, Refresh::TimedOut));
    assert_eq!(late.error, "no answer within 2s");
    let fault = Fault {
        timed_out: false,
        message: "401".to_owned(),
    };
    let failed = of(&Waited::Failed(fault));
    assert_eq!(
        (axes(&failed), failed.error.as_str()),
        ((Data::Cached, Refresh::Failed), "401")
    );
}

#[test]
fn what_is_wrong_with_a_backend_is_said_without_asking_it() {
    let mut failing = with_offers();
    fail(&mut failing, true);
    let told = report(&failing, None, START);
    assert_eq!(
        axes(&told),
        (Data::Cached, Refresh::TimedOut),
        "its offers are served all the same"
    );
    assert_eq!(told.error, "no such host");
    fail(&mut failing, false);
    assert_eq!(last_refresh(&failing), Refresh::Failed);
    fail(&mut failing, false);
    let open = report(&failing, None, START);
    assert_eq!(open.refresh, Refresh::BreakerOpen);
    assert_eq!(
        open.error,
        "left alone after 3 failures, the last: no such host"
    );
    assert_eq!(
        report(&failing, Some(&Waited::BreakerOpen), START).refresh,
        Refresh::BreakerOpen
    );
}

#[test]
fn a_backend_without_offers_has_none() {
    let waiting = report(&standing(None), None, START);
    assert_eq!(axes(&waiting), (Data::None, Refresh::NotTried));
    assert_eq!(waiting.error, "its first refresh is under way");
    let disabled = report(&standing(Some("no key in LAMBDA_API_KEY")), None, START);
    assert_eq!(axes(&disabled), (Data::None, Refresh::Disabled));
    assert_eq!(disabled.error, "no key in LAMBDA_API_KEY");
    assert_eq!(last_refresh(&standing(Some("x"))), Refresh::Disabled);
    assert_eq!(last_refresh(&with_offers()), Refresh::Ok);
}
