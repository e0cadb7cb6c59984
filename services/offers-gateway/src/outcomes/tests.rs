use std::future::pending;

use tokio::time::timeout;

use super::*;

const ID: &str = "cloud/eu/t/ondemand";

async fn outcomes(store: &Store) -> Outcomes {
    let clock = Clock::system();
    let board = Board::new("e".to_owned(), clock.clone(), []);
    Outcomes::start(store.clone(), board, clock, Policy::default())
        .await
        .unwrap()
}

fn weight(outcomes: &Outcomes) -> Option<f64> {
    outcomes
        .0
        .board
        .state()
        .book
        .record(ID)
        .and_then(|record| record.failed)
        .map(|failed| failed.weight)
}

#[tokio::test]
async fn outcomes_outlive_the_process_and_reach_other_gateways() {
    let store = Store::memory();
    let (first, second) = (outcomes(&store).await, outcomes(&store).await);
    let following = timeout(Duration::from_secs(5), second.clone().run(pending()));
    let told = async {
        first.tell(ID, "H100", Outcome::NoCapacity).await.unwrap();
        second.tell(ID, "H100", Outcome::NoCapacity).await.unwrap();
        assert!(
            weight(&second).unwrap() > 1.9,
            "it adds to what the other was told"
        );
        first
            .tell(ID, "H100", Outcome::PriceChanged(Some(MicroUsd(7))))
            .await
            .unwrap();
        let changed = || {
            second
                .0
                .board
                .state()
                .book
                .record(ID)
                .and_then(|record| record.priced?.price)
                == Some(MicroUsd(7))
        };
        timeout(Duration::from_secs(4), async {
            while !changed() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    };
    tokio::select! {
        _ = following => panic!("it follows until it is told to stop"),
        () = told => {}
    }
    let restarted = outcomes(&store).await;
    let record = restarted.0.board.state().book.record(ID).cloned().unwrap();
    let price = record.priced.and_then(|priced| priced.price);
    assert_eq!((price, record.gpus.as_str()), (Some(MicroUsd(7)), "H100"));
    assert!(record.failed.is_some_and(|failed| failed.weight > 1.9));
}

#[tokio::test(start_paused = true)]
async fn what_has_faded_is_removed_from_the_store() {
    let store = Store::memory();
    let outcomes = outcomes(&store).await;
    outcomes
        .tell(ID, "H100", Outcome::NoCapacity)
        .await
        .unwrap();
    outcomes
        .tell("cloud/eu/u/ondemand", "H100", Outcome::NoCapacity)
        .await
        .unwrap();
    let _ = timeout(
        Duration::from_secs(2 * 900),
        outcomes.clone().run(pending()),
    )
    .await;
    assert_eq!(
        outcomes
            .0
            .board
            .state()
            .book
            .expiry(ID)
            .map(|at| at < outcomes.0.clock.now()),
        Some(true)
    );
    outcomes
        .tell("cloud/eu/u/ondemand", "H100", Outcome::NoCapacity)
        .await
        .unwrap();
    let _ = timeout(
        Duration::from_secs(2 * 900),
        outcomes.clone().run(pending()),
    )
    .await;
    let left: Vec<_> = store
        .list(PREFIX)
        .await
        .unwrap()
        .records
        .into_iter()
        .map(|record| record.key.clone())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(weight(&outcomes), None);
}

/// The clock was an hour ahead when a failure was told, and is set right.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_no_mark_last_longer() {
    let store = Store::memory();
    let ahead = Clock::system().now() + Duration::from_secs(3600);
    let clock = Clock::starting_at(ahead);
    let board = Board::new("e".to_owned(), clock.clone(), []);
    let outcomes = Outcomes::start(store.clone(), board, clock.clone(), Policy::default());
    let outcomes = outcomes.await.unwrap();
    outcomes
        .tell(ID, "H100", Outcome::NoCapacity)
        .await
        .unwrap();
    let running = timeout(Duration::from_secs(3600), outcomes.clone().run(pending()));
    let setting = async {
        sleep(Duration::from_secs(60)).await;
        clock.resync();
        pending::<()>().await;
    };
    let _ = tokio::select! {
        ended = running => ended,
        () = setting => return,
    };
    assert_eq!(weight(&outcomes), None, "it has faded within the hour");

    // One that another gateway told, or this one before it was started again.
    outcomes
        .tell(ID, "H100", Outcome::NoCapacity)
        .await
        .unwrap();
    let behind = Clock::starting_at(clock.now() - Duration::from_secs(3600));
    let board = Board::new("e".to_owned(), behind.clone(), []);
    let other = Outcomes::start(store.clone(), board, behind, Policy::default());
    let other = other.await.unwrap();
    assert_eq!(weight(&other), Some(1.0));
    let _ = timeout(Duration::from_secs(3600), other.clone().run(pending())).await;
    assert_eq!(weight(&other), None, "nor has that");
}

#[tokio::test]
async fn many_who_tell_the_same_at_once_are_all_heard() {
    let folder = tempfile::tempdir().unwrap();
    let spec = format!("embedded:{}", folder.path().join("store").display());
    let spec: muster_store::Spec = spec.parse().unwrap();
    let store = Store::open(&spec, muster_store::Options::default()).await;
    let store = store.unwrap();
    let outcomes = outcomes(&store).await;
    let told = (0..100).map(|_| outcomes.tell(ID, "H100", Outcome::NoCapacity));
    for told in futures_util::future::join_all(told).await {
        told.unwrap();
    }
    assert!(weight(&outcomes).unwrap() > 90.0);
}

#[test]
fn what_is_no_record_is_as_if_nothing_had_been_told() {
    for bytes in [
        &b""[..],
        b"{}",
        b"{\"outcome\":\"exploded\",\"weight\":1,\"at_nanos\":1,\"gpus\":\"\"}",
    ] {
        assert_eq!(decode(bytes), None);
    }
}

#[test]
fn records_are_kept_whole_and_those_of_before_are_read() {
    let at = UNIX_EPOCH + Duration::from_nanos(5);
    let failed = Failed {
        why: Why::NoQuota,
        weight: 2.5,
        in_zone: 1.5,
        in_region: 1.0,
        at,
    };
    let priced = Priced {
        price: Some(MicroUsd(7)),
        weight: 1.0,
        at: at + Duration::from_secs(1),
    };
    for number in 1..8 {
        let record = Record {
            failed: (number & 1 > 0).then_some(failed),
            priced: (number & 2 > 0).then_some(priced),
            launched_at: (number & 4 > 0).then_some(at),
            gpus: "T4".to_owned(),
        };
        assert_eq!(decode(&encode(&record)), Some(record));
    }
    let old = |text: &str| decode(text.as_bytes()).unwrap();
    let record = old(r#"{"outcome":"no-quota","weight":2.5,"at_nanos":5,"gpus":"T4"}"#);
    let whole = Failed {
        in_zone: 2.5,
        in_region: 2.5,
        ..failed
    };
    assert_eq!(record.failed, Some(whole));
    let record = old(r#"{"outcome":"launched","weight":1,"at_nanos":5,"gpus":"T4"}"#);
    assert_eq!(record.launched_at, Some(at));
}
