//! What watches see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_store::{Batch, Error, Options, Record, Revision, Store, Transaction, Watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Fixture, commit, history, put};

pub(crate) async fn a_change_has_before_and_after(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    let mut watch = store.watch("a", base).await.unwrap();
    put(&store, "a", "1").await;
    let first = store.get("a").await.unwrap();
    put(&store, "b", "elsewhere").await;
    put(&store, "a", "2").await;
    let second = store.get("a").await.unwrap();
    let last = commit(&store, Transaction::new().delete("a")).await;
    let expected = [
        (None, first.clone()),
        (first, second.clone()),
        (second, None),
    ];
    for (before, after) in expected {
        let batch = watch.next().await.unwrap();
        let [change] = &batch.changes[..] else {
            panic!("{batch:?}");
        };
        let told = (change.before.as_deref(), change.after.as_deref());
        assert_eq!(told, (before.as_ref(), after.as_ref()));
        assert_eq!(watch.position(), batch.revision);
    }
    assert_eq!(watch.position(), last);
}

pub(crate) async fn one_revision_is_one_batch_in_its_order(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = put(&store, "m/3", "x").await;
    let mut whole = store.watch("", base).await.unwrap();
    let mut part = store.watch("m/", base).await.unwrap();
    let transaction = Transaction::new()
        .put("m/2", "x")
        .put("a", "x")
        .delete("m/3")
        .put("m/1", "x");
    let at = commit(&store, transaction).await;
    for (watch, expected) in [
        (&mut whole, &["m/2", "a", "m/3", "m/1"][..]),
        (&mut part, &["m/2", "m/3", "m/1"]),
    ] {
        let batch = watch.next().await.unwrap();
        let keys: Vec<_> = batch.changes.iter().map(|change| &*change.key).collect();
        assert_eq!((batch.revision, &keys[..]), (at, expected));
    }
}

/// What a watch tells, added up.
#[derive(Default)]
struct Fold {
    records: BTreeMap<String, Arc<Record>>,
    revisions: Vec<u64>,
}

impl Fold {
    fn add(&mut self, batch: Batch) {
        self.revisions.push(batch.revision.0);
        for change in batch.changes {
            let key = change.key.to_string();
            assert_eq!(
                self.records.get(&key),
                change.before.as_ref(),
                "a gap before {}",
                batch.revision
            );
            match change.after {
                Some(after) => drop(self.records.insert(key, after)),
                None => drop(self.records.remove(&key)),
            }
        }
    }

    async fn follow(mut watch: Watch, prefix: &'static str) -> (&'static str, Self) {
        let mut fold = Self::default();
        loop {
            let batch = watch.next().await.unwrap();
            let last = batch
                .changes
                .iter()
                .any(|change| change.key.ends_with("/end"));
            assert!(
                batch
                    .changes
                    .iter()
                    .all(|change| change.key.starts_with(prefix))
            );
            fold.add(batch);
            if last {
                return (prefix, fold);
            }
        }
    }
}

pub(crate) async fn watches_have_no_gaps_under_concurrent_writers(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    let mut watches = JoinSet::new();
    for prefix in ["", "w/", "w/3"] {
        let watch = store.watch(prefix, base).await.unwrap();
        watches.spawn(Fold::follow(watch, prefix));
    }
    let mut writers = JoinSet::new();
    for writer in 0..8_u64 {
        let store = store.clone();
        writers.spawn(async move {
            let mut revisions = Vec::new();
            for index in 0..100_u64 {
                let key = |salt| format!("w/{}", (writer * 31 + index * salt) % 40);
                let transaction = Transaction::new()
                    .put(key(7), index.to_string())
                    .delete(key(11));
                revisions.push(commit(&store, transaction).await.0);
            }
            revisions
        });
    }
    let told = writers.join_all().await;
    let end = commit(&store, Transaction::new().put("w/3/end", "x")).await;
    // What changed nothing was answered with a revision that something else had.
    let told: BTreeSet<u64> = told.into_iter().flatten().chain([end.0]).collect();
    let expected: Vec<_> = told.into_iter().filter(|at| *at > base.0).collect();
    for (prefix, fold) in watches.join_all().await {
        let listed = store.list(prefix).await.unwrap().records;
        let listed = listed.into_iter().filter(|record| record.created > base);
        assert!(
            listed.eq(fold.records.into_values()),
            "the watch of {prefix:?} told something else"
        );
        if prefix.is_empty() {
            assert_eq!(fold.revisions, expected);
        } else {
            assert!(fold.revisions.is_sorted_by(|one, next| one < next));
        }
    }
}

pub(crate) async fn a_watch_resumes_anywhere_in_the_history(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    for index in 0..50 {
        put(&store, "k", &index.to_string()).await;
    }
    let all = read(&store, base, 50).await;
    for from in 0..50 {
        let resumed = read(&store, Revision(base.0 + from as u64), 50 - from).await;
        assert_eq!(resumed, all[from..]);
    }
    let mut tail = store
        .watch("", store.revision().await.unwrap())
        .await
        .unwrap();
    let nothing = timeout(Duration::from_millis(20), tail.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

async fn read(store: &Store, after: Revision, count: usize) -> Vec<Batch> {
    let mut watch = store.watch("", after).await.unwrap();
    let mut batches = Vec::new();
    for _ in 0..count {
        batches.push(watch.next().await.unwrap());
    }
    batches
}

pub(crate) async fn forgotten_and_future_revisions_are_refused(fixture: &impl Fixture) {
    let store = fixture.store(history(10)).await;
    for index in 0..30 {
        put(&store, "k", &index.to_string()).await;
    }
    let latest = store.revision().await.unwrap();
    let oldest = Revision(latest.0 - 10);
    for refused in [
        Revision(0),
        Revision(oldest.0 - 1),
        Revision(latest.0 + 1),
        Revision(u64::MAX),
    ] {
        let error = store.watch("", refused).await.unwrap_err();
        assert_eq!(error, Error::Compacted { oldest }, "{refused}");
    }
    assert_eq!(
        read(&store, oldest, 10).await.last().unwrap().revision,
        latest
    );
    store.watch("", latest).await.unwrap();
}

pub(crate) async fn a_slow_watch_is_told_to_list_again(fixture: &impl Fixture) {
    let store = fixture.store(history(10)).await;
    let base = store.revision().await.unwrap();
    let mut slow = store.watch("", base).await.unwrap();
    let mut fast = store.watch("", base).await.unwrap();
    for index in 0..100 {
        put(&store, "k", &index.to_string()).await;
        assert_eq!(
            fast.next().await.unwrap().revision,
            Revision(base.0 + index + 1)
        );
    }
    for _ in 0..2 {
        let error = slow.next().await.unwrap_err();
        assert!(matches!(error, Error::Compacted { .. }), "{error}");
    }
    let listing = store.list("").await.unwrap();
    store.watch("", listing.revision).await.unwrap();
}

pub(crate) async fn waiting_for_a_change_can_be_given_up(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    let mut watch = store.watch("", base).await.unwrap();
    let mut seen = Vec::new();
    let writer = JoinSet::from_iter([async move {
        for index in 0..200 {
            put(&store, "k", &index.to_string()).await;
        }
        store
    }]);
    while seen.len() < 200 {
        tokio::select! {
            biased;
            batch = watch.next() => seen.push(batch.unwrap().revision.0),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(seen.iter().copied().eq(base.0 + 1..=base.0 + 200));
    drop(writer.join_all().await);
}

/// The writer waits for the watcher each time, so one change slept through would stop both.
pub(crate) async fn no_change_is_slept_through(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let base = store.revision().await.unwrap();
    let (seen, mut see) = tokio::sync::watch::channel(base);
    let mut watch = store.watch("", base).await.unwrap();
    let mut watcher = JoinSet::new();
    watcher.spawn(async move {
        while let Ok(batch) = watch.next().await {
            seen.send_replace(batch.revision);
        }
    });
    for _ in 0..500 {
        let at = put(&store, "k", "x").await;
        let waited = timeout(Duration::from_secs(20), see.wait_for(|seen| *seen == at)).await;
        assert!(waited.is_ok(), "{at} was slept through");
    }
    store.close().await;
    watcher.join_all().await;
}
