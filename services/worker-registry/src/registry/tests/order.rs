//! Decisions in order, whatever else happens to the store.

use std::collections::BTreeSet;

use muster_proto::workers::v1 as proto;
use muster_runtime::watch::Filter;
use muster_store::{Store, Transaction};
use tonic::Code;

use super::{Running, ask, call, config, join};
use crate::grpc::calls;
use crate::registry::Registry;

/// Allocates many at once; answers what was given.
async fn allocate_many(registry: &Registry, prefix: &str, count: usize) -> Vec<proto::Allocation> {
    let calls = (0..count).map(|number| {
        let request = call(ask(&format!("{prefix}{number}"), 1));
        async move { calls::allocate(registry, request).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let given = answers.into_iter().filter_map(|answer| match answer {
        Ok(answer) => answer.allocation,
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            None
        }
    });
    given.collect()
}

fn gpus(allocations: &[proto::Allocation]) -> BTreeSet<String> {
    allocations
        .iter()
        .flat_map(|one| one.gpu_uuids.clone())
        .collect()
}

#[tokio::test]
async fn a_thousand_at_once_get_each_accelerator_once() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        Store::embedded(folder.path().join("r.db"), muster_store::Options::default()).unwrap();
    let running = Running::start(config(), store.clone()).await;
    for worker in 0..100 {
        join(&running.registry, &format!("w{worker}"), 8).await;
    }
    let given = allocate_many(&running.registry, "r", 1000).await;
    assert_eq!((given.len(), gpus(&given).len()), (800, 800));
    let tokens: BTreeSet<_> = given.iter().map(|one| one.fencing_token.clone()).collect();
    assert_eq!(tokens.len(), 800);
    assert_eq!(running.registry.metrics.conflicts.get(), 0);
    running.crash().await;
    store.close().await;
}

#[tokio::test]
async fn writes_of_others_in_the_same_store_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        Store::embedded(folder.path().join("r.db"), muster_store::Options::default()).unwrap();
    let running = Running::start(config(), store.clone()).await;
    for worker in 0..10 {
        join(&running.registry, &format!("w{worker}"), 8).await;
    }
    let foreign = async {
        for number in 0..50 {
            let put = Transaction::new().put("somebody-else", number.to_string());
            let _committed = store.commit(put).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (given, ()) = tokio::join!(allocate_many(&running.registry, "r", 100), foreign);
    assert_eq!((given.len(), gpus(&given).len()), (80, 80));
    let again = allocate_many(&running.registry, "r", 80).await;
    assert_eq!(gpus(&again), gpus(&given));
    running.crash().await;
    let running = Running::start(config(), store.clone()).await;
    assert_eq!(running.registry.view().allocation_count(), 80);
    running.crash().await;
    store.close().await;
}

#[tokio::test]
async fn watchers_go_on_after_writes_of_others_in_the_same_store() {
    let store = Store::memory();
    let running = Running::start(config(), store.clone()).await;
    let registry = &running.registry;
    join(registry, "w1", 8).await;
    let before = registry.hubs.workers.resume_token();
    for number in 0..3 {
        let put = Transaction::new().put("somebody-else", number.to_string());
        let _committed = store.commit(put).await.unwrap();
        // Those behind the first conflict by its revision.
        let given = allocate_many(registry, &format!("r{number}-"), 2).await;
        assert_eq!(given.len(), 2);
    }
    assert!(registry.metrics.conflicts.get() > 0);
    assert_eq!(registry.view().allocation_count(), 6);
    let resumed = registry.hubs.workers.watch(&before, Filter::all());
    assert!(resumed.is_ok(), "{:?}", resumed.map(|_| ()));
    running.crash().await;
}

#[tokio::test]
async fn a_record_changed_behind_our_back_is_read_anew() {
    let store = Store::memory();
    let running = Running::start(config(), store.clone()).await;
    join(&running.registry, "w1", 8).await;
    let record = store.get("workers/w1").await.unwrap().unwrap();
    let touched = Transaction::new().put("workers/w1", record.value);
    let _committed = store.commit(touched).await.unwrap();
    let given = allocate_many(&running.registry, "r", 3).await;
    assert_eq!(given.len(), 3);
    assert!(running.registry.metrics.conflicts.get() > 0);
    running.crash().await;
}

#[tokio::test]
async fn a_store_that_ended_is_told_as_unavailable() {
    let store = Store::memory();
    let running = Running::start(config(), store.clone()).await;
    join(&running.registry, "w1", 8).await;
    store.close().await;
    for _ in 0..2 {
        let refused = calls::allocate(&running.registry, call(ask("r1", 1)))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
    assert_eq!(running.registry.view().worker_count(), 1);
    running.crash().await;
}

#[tokio::test]
async fn what_rests_on_a_change_that_was_not_made_is_not_answered_as_made() {
    let store = Store::memory();
    let running = Running::start(config(), store.clone()).await;
    join(&running.registry, "w1", 8).await;
    let record = store.get("workers/w1").await.unwrap().unwrap();
    let touched = Transaction::new().put("workers/w1", record.value);
    let _committed = store.commit(touched).await.unwrap();
    // The same call twice: the second finds in the book what the first has decided, which is not made.
    let (one, other) = tokio::join!(
        calls::allocate(&running.registry, call(ask("r1", 1))),
        calls::allocate(&running.registry, call(ask("r1", 1))),
    );
    let made = |answer: Result<proto::AllocateResponse, tonic::Status>| {
        answer.unwrap().allocation.unwrap()
    };
    let (one, other) = (made(one), made(other));
    let there = |given: &proto::Allocation| {
        let view = running.registry.view();
        let known = view.allocation(&given.id);
        known.is_some_and(|known| known.gpus.iter().any(|gpu| **gpu == *given.gpu_uuids[0]))
    };
    for given in [&one, &other] {
        assert!(there(given), "{} was given, and is not there", given.id);
    }
    assert_eq!((one.id, one.fencing_token), (other.id, other.fencing_token));
    running.crash().await;
}
