//! The store as a whole: its end, its leader, its copies.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use muster_store::{
    Error, Options, Outcome, Record, Revision, Spec, Store, TERM_KEY, Transaction, restore,
};
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::{Fixture, commit, put};

pub(crate) async fn closing_finishes_what_is_queued(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    let mut watch = store.watch("", base).await.unwrap();
    let commits =
        (0..600).map(|index| store.commit(Transaction::new().put(format!("k/{index}"), "x")));
    let (outcomes, ()) = tokio::join!(unconstrained(join_all(commits)), store.close());
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    // Transactions that go over a network one by one may find it closed; queued ones never do.
    assert!(done == 600 || (store.is_shared() && done > 0), "{done}");
    let mut committed = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(outcome) => committed.push(outcome),
            Err(error) => assert_eq!(error, Error::Closed),
        }
    }
    for index in 1..=done as u64 {
        let revision = Revision(base.0 + index);
        assert!(committed.contains(&Outcome::Committed(revision)));
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    assert_eq!(watch.next().await, Err(Error::Closed));
}

pub(crate) async fn a_closed_store_says_so(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let mut waiting = store
        .watch("", store.revision().await.unwrap())
        .await
        .unwrap();
    let (told, (), ()) = tokio::join!(waiting.next(), store.close(), store.close());
    assert_eq!(told, Err(Error::Closed));
    store.close().await;
    assert_eq!(store.get("a").await, Err(Error::Closed));
    assert_eq!(store.list("").await, Err(Error::Closed));
    assert_eq!(store.revision().await, Err(Error::Closed));
    assert_eq!(
        store.commit(Transaction::new().put("a", "1")).await,
        Err(Error::Closed)
    );
    assert_eq!(
        store.watch("", Revision(0)).await.unwrap_err(),
        Error::Closed
    );
    assert_eq!(store.lead("one").await.unwrap_err(), Error::Closed);
}

pub(crate) async fn a_closed_store_has_not_failed(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let failed = store.failed();
    store.close().await;
    drop(store);
    assert!(timeout(Duration::from_millis(20), failed).await.is_err());
}

pub(crate) async fn a_stale_leader_is_fenced_off(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let leadership = store.lead("one").await.unwrap();
    assert_eq!(leadership.term().epoch, store.epoch());
    if !store.is_shared() {
        // Whoever has it has it again.
        let again = store.lead("one").await.unwrap();
        assert_eq!(again.term(), leadership.term());
    }
    commit(&store, leadership.fence(Transaction::new().put("a", "1"))).await;
    let taken = put(&store, TERM_KEY, "another").await;
    let outcome = store
        .commit(leadership.fence(Transaction::new().put("a", "2")))
        .await;
    let expected = Outcome::Conflict {
        key: TERM_KEY.into(),
        actual: Some(taken),
    };
    assert_eq!(outcome, Ok(expected));
}

pub(crate) async fn leadership_lasts_until_the_end(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let leadership = store.lead("one").await.unwrap();
    let lost = leadership.lost();
    tokio::pin!(lost);
    assert!(timeout(Duration::from_millis(20), &mut lost).await.is_err());
    store.close().await;
    timeout(Duration::from_secs(5), lost).await.unwrap();
}

pub(crate) async fn a_seat_is_held_until_the_end(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let seat = store.join("one", "here").await.unwrap();
    assert_eq!((seat.id(), seat.holds()), ("one", true));
    assert_eq!(store.age(), Duration::ZERO);
    store.close().await;
    assert!(!seat.holds());
    assert_eq!(store.join("one", "here").await.unwrap_err(), Error::Closed);
}

pub(crate) async fn a_backup_is_of_one_revision_and_restores_to_a_new_epoch(
    fixture: &impl Fixture,
) {
    let store = fixture.store(Options::default()).await;
    for index in 0..500 {
        put(&store, &format!("k/{index}"), &"v".repeat(index * 3)).await;
    }
    commit(&store, Transaction::new().delete("k/7")).await;
    let listing = store.list("").await.unwrap();
    let backup = store.backup().await.unwrap();
    put(&store, "k/later", "x").await;
    assert_eq!(
        (backup.epoch(), backup.revision()),
        (store.epoch(), listing.revision)
    );

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    backup.write_to(&file).unwrap();
    let target = directory.path().join("restored.db");
    let restored = restore(&file, &Spec::Embedded(target.clone()), Options::default())
        .await
        .unwrap();
    // What is of one life of a store only is not in it.
    let own = |record: &&Arc<Record>| record.key.starts_with("store/");
    let copies = listing.records.len() - listing.records.iter().filter(own).count();
    assert_eq!(
        (restored.revision, restored.records),
        (listing.revision, copies)
    );
    let copy = Store::embedded(&target, Options::default()).unwrap();
    assert_eq!(copy.epoch(), restored.epoch);
    assert!(copy.epoch() > store.epoch());
    let old_term = store.lead("one").await.unwrap().term();
    assert!(copy.lead("one").await.unwrap().term() > old_term);
    let copied = copy.list("k/").await.unwrap().records;
    assert_eq!(
        copied,
        listing
            .records
            .into_iter()
            .filter(|record| record.key.starts_with("k/"))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        put(&copy, "k/1", "on").await,
        Revision(restored.revision.0 + 2)
    );
}
