//! What a transaction does.

use bytes::Bytes;
use futures_util::future::join_all;
use muster_store::{
    Condition, Error, MAX_BYTES, MAX_RECORDS, Options, Outcome, Revision, Store, Transaction,
};
use tokio::task::{JoinSet, unconstrained};

use crate::{Fixture, commit, put};

fn conflict(key: &str, actual: Option<Revision>) -> Outcome {
    Outcome::Conflict {
        key: key.into(),
        actual,
    }
}

pub(crate) async fn conditions_hold_or_conflict(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    put(&store, "there", "1").await;
    let at = put(&store, "there", "2").await;
    let earlier = Revision(at.0 - 1);
    let cases = [
        ("there", Condition::Absent, false),
        ("there", Condition::Exists, true),
        ("there", Condition::ModifiedAt(at), true),
        ("there", Condition::ModifiedAt(earlier), false),
        ("gone", Condition::Absent, true),
        ("gone", Condition::Exists, false),
        ("gone", Condition::ModifiedAt(at), false),
        ("gone", Condition::ModifiedAt(Revision(0)), false),
    ];
    for (key, condition, holds) in cases {
        let outcome = store
            .commit(Transaction::new().when(key, condition))
            .await
            .unwrap();
        let actual = (key == "there").then_some(at);
        let expected = if holds {
            Outcome::Committed(at)
        } else {
            conflict(key, actual)
        };
        assert_eq!(outcome, expected, "{key} {condition:?}");
    }
}

pub(crate) async fn a_conflict_changes_nothing(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let at = put(&store, "a", "1").await;
    let transaction = Transaction::new()
        .put("a", "2")
        .put("b", "2")
        .when("a", Condition::Exists)
        .when("b", Condition::Exists)
        .when("c", Condition::Exists);
    let outcome = store.commit(transaction).await.unwrap();
    assert_eq!(
        outcome,
        conflict("b", None),
        "the first that does not hold is named"
    );
    assert_eq!(store.revision().await, Ok(at));
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(store.get("b").await, Ok(None));
}

pub(crate) async fn a_transaction_is_whole(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    put(&store, "old", "1").await;
    let at = commit(
        &store,
        Transaction::new().put("x", "1").delete("old").put("y", "2"),
    )
    .await;
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, at);
    for key in ["x", "y"] {
        let record = store.get(key).await.unwrap().unwrap();
        assert_eq!((record.created, record.modified), (at, at));
    }
    assert_eq!(store.get("old").await, Ok(None));
}

pub(crate) async fn what_changes_nothing_takes_no_revision(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let at = put(&store, "a", "1").await;
    for transaction in [
        Transaction::new(),
        Transaction::new().when("a", Condition::Exists),
        Transaction::new().delete("gone"),
        Transaction::new().put("gone", "x").delete("gone"),
    ] {
        assert_eq!(commit(&store, transaction).await, at);
    }
    // The same value is a change: whoever puts it wants to be the last who did.
    let next = put(&store, "a", "1").await;
    assert!(next == Revision(at.0 + 1) || store.is_shared() && next > at);
}

pub(crate) async fn the_last_word_on_a_key_counts(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    let mut watch = store.watch("", base).await.unwrap();
    let transaction = Transaction::new()
        .put("a", "1")
        .delete("b")
        .put("a", "2")
        .put("b", "3");
    assert_eq!(commit(&store, transaction).await, Revision(base.0 + 1));
    let batch = watch.next().await.unwrap();
    let after: Vec<_> = batch
        .changes
        .iter()
        .map(|change| (&*change.key, change.after.as_ref().unwrap().value.clone()))
        .collect();
    assert_eq!(after, [("a", Bytes::from("2")), ("b", Bytes::from("3"))]);
}

pub(crate) async fn a_key_deleted_and_put_again_is_created_anew(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let revisions = async || {
        let record = store.get("a").await.unwrap().unwrap();
        (record.created, record.modified)
    };
    let first = put(&store, "a", "1").await;
    assert_eq!(revisions().await, (first, first));
    let second = put(&store, "a", "2").await;
    assert_eq!(revisions().await, (first, second));
    let deleted = commit(&store, Transaction::new().delete("a")).await;
    assert_eq!(store.get("a").await, Ok(None));
    let again = put(&store, "a", "2").await;
    assert_eq!(revisions().await, (again, again));
    assert!(first < second && second < deleted && deleted < again);
    let stale = Transaction::new()
        .when("a", Condition::ModifiedAt(second))
        .put("a", "3");
    assert_eq!(store.commit(stale).await, Ok(conflict("a", Some(again))));
}

/// Each depends on the one before it, and all are queued before the first is answered. On a shared store they may
/// be judged in another order, and then all after some one conflict.
pub(crate) async fn queued_transactions_are_judged_in_order(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = put(&store, "chain", "0").await;
    let commits = (0..600).map(|index| {
        let link = Transaction::new()
            .when("chain", Condition::ModifiedAt(Revision(base.0 + index)))
            .put("chain", index.to_string());
        store.commit(link)
    });
    // Else tokio would queue only some of them at a time, in an order of its own.
    let outcomes = unconstrained(join_all(commits)).await;
    let in_order = |(index, outcome): &(u64, &Result<Outcome, Error>)| {
        **outcome == Ok(Outcome::Committed(Revision(base.0 + index)))
    };
    let committed = (1..).zip(&outcomes).take_while(in_order).count();
    assert!(committed == 600 || store.is_shared() && committed > 0);
    for outcome in &outcomes[committed..] {
        assert!(matches!(outcome, Ok(Outcome::Conflict { .. })));
    }
    let last = store.get("chain").await.unwrap().unwrap().value;
    assert_eq!(last, (committed - 1).to_string());
}

pub(crate) async fn compare_and_swap_loses_no_increment(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    put(&store, "counter", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut conflicts = 0;
            for _ in 0..50 {
                while !increment(&store).await {
                    conflicts += 1;
                }
            }
            conflicts
        });
    }
    let conflicts: u32 = tasks.join_all().await.into_iter().sum();
    let record = store.get("counter").await.unwrap().unwrap();
    assert_eq!(record.value, "400", "with {conflicts} conflicts");
    assert_eq!(record.modified.0 - record.created.0, 400);
}

async fn increment(store: &Store) -> bool {
    let record = store.get("counter").await.unwrap().unwrap();
    let count: u32 = str::from_utf8(&record.value).unwrap().parse().unwrap();
    let swap = Transaction::new()
        .when("counter", Condition::ModifiedAt(record.modified))
        .put("counter", (count + 1).to_string());
    // Leaves room for another to come between.
    tokio::task::yield_now().await;
    matches!(store.commit(swap).await.unwrap(), Outcome::Committed(_))
}

pub(crate) async fn the_size_is_bounded(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let puts = |count: usize| {
        (0..count).fold(Transaction::new(), |transaction, index| {
            transaction.put(format!("key/{index}"), "v")
        })
    };
    let full = commit(&store, puts(MAX_RECORDS)).await;
    // Named twice is named once.
    let twice = (0..MAX_RECORDS).fold(puts(MAX_RECORDS), |transaction, index| {
        transaction.when(format!("key/{index}"), Condition::ModifiedAt(full))
    });
    let at = commit(&store, twice).await;
    let beside = puts(MAX_RECORDS).when("another", Condition::Absent);
    let heavy = Transaction::new().put("k", vec![0; MAX_BYTES]);
    let over = MAX_RECORDS + 1;
    for (transaction, records) in [(puts(over), over), (beside, over), (heavy, 1)] {
        assert_eq!(transaction.records(), records);
        let error = store.commit(transaction).await.unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { records: found, .. } if found == records),
            "{error}"
        );
    }
    assert_eq!(store.revision().await, Ok(at));
    commit(&store, Transaction::new().put("k", vec![0; MAX_BYTES - 1])).await;
}

pub(crate) async fn any_text_is_a_key_and_any_bytes_a_value(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    for key in ["", " ", "a/b", "\u{0}", "ключ", "🦀", "\u{10ffff}"] {
        for value in [Vec::new(), all_bytes.clone(), vec![0; 300_000]] {
            commit(&store, Transaction::new().put(key, value.clone())).await;
            assert_eq!(
                store.get(key).await.unwrap().unwrap().value,
                value,
                "{key:?}"
            );
        }
    }
}

pub(crate) async fn a_dropped_commit_harms_nothing(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    for index in 0..200 {
        let doomed = store.commit(
            Transaction::new()
                .put(format!("doomed/{index}"), "x")
                .put(format!("twin/{index}"), "x"),
        );
        tokio::select! {
            biased;
            _ = doomed => {}
            () = std::future::ready(()) => {}
        }
    }
    put(&store, "after", "1").await;
    for index in 0..200 {
        let doomed = store.get(&format!("doomed/{index}")).await.unwrap();
        let twin = store.get(&format!("twin/{index}")).await.unwrap();
        assert_eq!(
            doomed.map(|record| record.modified),
            twin.map(|record| record.modified)
        );
    }
}
