//! Watches are complete, in order and resumable, whoever writes meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::HeldPhase::Ended;
use muster_proto::workers::v1::WorkerLiveness::{Alive, Lost, Suspect, Unknown};
use tonic::Streaming;

use crate::support::{Agent, Client, Registry, allocate, reason, registration, release};

/// What a watcher of workers and one of allocations have put together.
#[derive(Debug, Default)]
struct Fold {
    workers: BTreeMap<String, proto::Worker>,
    allocations: BTreeMap<String, proto::Allocation>,
    token: String,
    synced: bool,
}

impl Fold {
    fn take_workers(&mut self, message: proto::WatchWorkersResponse) {
        use proto::worker_change::Change::{Deleted, Observed, Put};
        for change in message.changes {
            match change.change.unwrap() {
                Put(worker) => {
                    let known = self.workers.insert(worker.name.clone(), worker.clone());
                    if let Some(known) = known {
                        assert!(
                            known.generation <= worker.generation,
                            "backwards: {known:?} {worker:?}"
                        );
                    }
                }
                Observed(worker) => {
                    assert!(
                        self.workers.contains_key(&worker.name),
                        "observed before it was put"
                    );
                    self.workers.insert(worker.name.clone(), worker);
                }
                Deleted(worker) => {
                    self.workers
                        .remove(&worker.name)
                        .expect("deleted what was never put");
                }
            }
        }
        self.position(message.resume_token, message.synced);
    }

    fn take_allocations(&mut self, message: proto::WatchAllocationsResponse) {
        use proto::allocation_change::Change::{Deleted, Put};
        for change in message.changes {
            match change.change.unwrap() {
                Put(allocation) => {
                    let known = self
                        .allocations
                        .insert(allocation.id.clone(), allocation.clone());
                    assert_ne!(known.as_ref(), Some(&allocation), "told twice");
                }
                Deleted(allocation) => {
                    self.allocations
                        .remove(&allocation.id)
                        .expect("deleted what was never put");
                }
            }
        }
        self.position(message.resume_token, message.synced);
    }

    fn position(&mut self, token: String, synced: bool) {
        assert!(synced || !self.synced, "synced once is synced for ever");
        self.synced = synced;
        if !token.is_empty() {
            self.token = token;
        }
    }
}

async fn watch_allocations(
    client: &mut Client,
    token: &str,
) -> Streaming<proto::WatchAllocationsResponse> {
    let request = proto::WatchAllocationsRequest {
        filter: None,
        resume_token: token.to_owned(),
    };
    client
        .watch_allocations(request)
        .await
        .unwrap()
        .into_inner()
}

async fn watch_workers(
    client: &mut Client,
    filter: Option<proto::WorkerFilter>,
) -> Streaming<proto::WatchWorkersResponse> {
    let request = proto::WatchWorkersRequest {
        filter,
        resume_token: String::new(),
    };
    client.watch_workers(request).await.unwrap().into_inner()
}

async fn all_allocations(client: &mut Client) -> BTreeMap<String, proto::Allocation> {
    let mut all = BTreeMap::new();
    let mut request = proto::ListAllocationsRequest {
        page_size: 1000,
        ..Default::default()
    };
    loop {
        let answer = client
            .list_allocations(request.clone())
            .await
            .unwrap()
            .into_inner();
        all.extend(
            answer
                .allocations
                .into_iter()
                .map(|one| (one.id.clone(), one)),
        );
        if answer.next_page_token.is_empty() {
            return all;
        }
        request.page_token = answer.next_page_token;
    }
}

/// Allocates, releases and ends, over and over.
async fn churn(mut client: Client, agent: Agent, rounds: usize) {
    for round in 0..rounds {
        let id = format!("{}-{round}", agent.name);
        let Ok(made) = allocate(&mut client, &id, 1).await else {
            continue;
        };
        if round % 3 == 0 {
            continue;
        }
        release(&mut client, &made.id).await.unwrap();
        let owner = Agent::new(&made.worker, 1);
        owner.beat(&mut client, &[(&made.id, Ended)]).await.unwrap();
    }
}

async fn until_equal(
    stream: &mut Streaming<proto::WatchAllocationsResponse>,
    fold: &mut Fold,
    expected: &BTreeMap<String, proto::Allocation>,
) {
    let wait = async {
        while fold.allocations != *expected || !fold.synced {
            fold.take_allocations(stream.message().await.unwrap().unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the watch came to the same state");
}

#[tokio::test]
async fn watchers_end_where_the_lists_do_under_concurrent_writers() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let mut agents = Vec::new();
    for number in 0..6 {
        agents.push(Agent::join(&mut client, &format!("w{number}")).await);
    }
    let mut early = watch_allocations(&mut client, "").await;
    let mut early_fold = Fold::default();
    let writers = agents
        .iter()
        .map(|agent| churn(client.clone(), agent.clone(), 20));
    futures_util::future::join_all(writers).await;
    let mut late = watch_allocations(&mut client, "").await;
    let expected = all_allocations(&mut client).await;
    assert!(expected.len() >= 36, "{}", expected.len());
    until_equal(&mut early, &mut early_fold, &expected).await;
    let mut late_fold = Fold::default();
    until_equal(&mut late, &mut late_fold, &expected).await;
    registry.stop().await;
}

#[tokio::test]
async fn a_watch_resumed_from_any_token_misses_and_repeats_nothing() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let mut stream = watch_allocations(&mut client, "").await;
    let mut fold = Fold::default();
    for round in 0..12 {
        let made = allocate(&mut client, &format!("r{round}"), 1).await;
        if let Ok(made) = made
            && round % 2 == 0
        {
            release(&mut client, &made.id).await.unwrap();
            agent.beat(&mut client, &[(&made.id, Ended)]).await.unwrap();
        }
        // Each time a part is read, and the rest is left to a watch that goes on from there.
        fold.take_allocations(stream.message().await.unwrap().unwrap());
        if round % 3 == 2 {
            stream = watch_allocations(&mut client, &fold.token).await;
            fold.synced = false;
        }
    }
    let expected = all_allocations(&mut client).await;
    until_equal(&mut stream, &mut fold, &expected).await;
    registry.stop().await;
}

#[tokio::test]
async fn a_restarted_registry_resumes_its_latest_position_and_refuses_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        muster_store::Store::embedded(folder.path().join("r.db"), muster_store::Options::default())
            .unwrap()
    };
    let registry = Registry::with(crate::support::config(), open()).await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let old = client
        .allocate(crate::support::ask("r1", 1))
        .await
        .unwrap()
        .into_inner()
        .resume_token;
    client.allocate(crate::support::ask("r2", 1)).await.unwrap();
    registry.stop().await.close().await;
    let registry = Registry::with(crate::support::config(), open()).await;
    let mut client = registry.client().await;
    let request = proto::WatchAllocationsRequest {
        filter: None,
        resume_token: old,
    };
    assert_eq!(
        reason(client.watch_allocations(request).await),
        "HISTORY_CHANGED"
    );
    let now = client
        .list_allocations(proto::ListAllocationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut stream = watch_allocations(&mut client, &now.resume_token).await;
    let made = allocate(&mut client, "r3", 1).await.unwrap();
    let mut fold = Fold::default();
    while fold.allocations.is_empty() {
        fold.take_allocations(stream.message().await.unwrap().unwrap());
    }
    assert_eq!(fold.allocations.into_values().collect::<Vec<_>>(), [made]);
    registry.stop().await.close().await;
}

#[tokio::test]
async fn watchers_go_on_after_a_restart_and_are_told_what_is_in_memory_anew() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        muster_store::Store::embedded(folder.path().join("r.db"), muster_store::Options::default())
            .unwrap()
    };
    let registry = Registry::with(crate::support::config(), open()).await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    agent.beat(&mut client, &[]).await.unwrap();
    let first = allocate(&mut client, "r1", 1).await.unwrap();
    let (mut workers, mut allocations) = (Fold::default(), Fold::default());
    let mut stream = watch_workers(&mut client, None).await;
    while !workers.synced {
        workers.take_workers(stream.message().await.unwrap().unwrap());
    }
    assert_eq!(workers.workers["w1"].liveness(), Alive);
    let mut stream = watch_allocations(&mut client, "").await;
    while !allocations.synced {
        allocations.take_allocations(stream.message().await.unwrap().unwrap());
    }
    registry.stop().await.close().await;

    let registry = Registry::with(crate::support::config(), open()).await;
    let mut client = registry.client().await;
    let request = proto::WatchWorkersRequest {
        resume_token: workers.token.clone(),
        ..Default::default()
    };
    let mut stream = client.watch_workers(request).await.unwrap().into_inner();
    workers.synced = false;
    while !workers.synced {
        let message = stream.message().await.unwrap().unwrap();
        assert!(!message.changes.is_empty() || message.synced, "{message:?}");
        workers.take_workers(message);
    }
    assert_eq!(workers.workers["w1"].liveness(), Unknown);
    let mut stream = watch_allocations(&mut client, &allocations.token).await;
    let second = allocate(&mut client, "r2", 1).await.unwrap();
    while !allocations.allocations.contains_key(&second.id) {
        allocations.take_allocations(stream.message().await.unwrap().unwrap());
    }
    let known: Vec<_> = allocations.allocations.into_values().collect();
    assert!(known == [first.clone(), second.clone()] || known == [second, first]);
    registry.stop().await.close().await;
}

#[tokio::test]
async fn a_worker_that_leaves_the_filter_is_deleted_from_it() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    for name in ["w1", "w2"] {
        Agent::join(&mut client, name).await;
    }
    let active = proto::WorkerFilter {
        states: vec![proto::WorkerState::Active.into()],
        ..Default::default()
    };
    let mut stream = watch_workers(&mut client, Some(active)).await;
    let mut fold = Fold::default();
    while !fold.synced {
        fold.take_workers(stream.message().await.unwrap().unwrap());
    }
    assert_eq!(fold.workers.len(), 2);
    // Usage is told with the allocation that changes it.
    let made = allocate(&mut client, "r1", 3).await.unwrap();
    let disable = |name: &str| proto::DisableWorkerRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let other = if made.worker == "w1" { "w2" } else { "w1" };
    client.disable_worker(disable(other)).await.unwrap();
    client
        .register_worker(registration("w3", "b1"))
        .await
        .unwrap();
    while fold.workers.len() > 1 {
        fold.take_workers(stream.message().await.unwrap().unwrap());
    }
    assert_eq!(fold.workers[&made.worker].usage.unwrap().gpus, 3);
    registry.stop().await;
}

#[tokio::test]
async fn silence_is_observed_and_loss_is_durable() {
    let mut config = crate::support::config();
    config.rules.lost_after = Duration::from_millis(800);
    let registry = Registry::with(config, muster_store::Store::memory()).await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let mut stream = watch_workers(&mut client, None).await;
    let mut seen = Vec::new();
    let wait = async {
        while seen.last() != Some(&("put", Lost)) {
            for change in stream.message().await.unwrap().unwrap().changes {
                use proto::worker_change::Change::{Deleted, Observed, Put};
                let (kind, worker) = match change.change.unwrap() {
                    Put(worker) => ("put", worker),
                    Observed(worker) => ("observed", worker),
                    Deleted(worker) => ("deleted", worker),
                };
                seen.push((kind, worker.liveness()));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("LOST was told");
    assert_eq!(seen, [("put", Alive), ("observed", Suspect), ("put", Lost)]);
    registry.stop().await;
}

#[tokio::test]
async fn a_stopping_registry_ends_watches_with_a_word() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let mut stream = watch_workers(&mut client, None).await;
    assert!(stream.message().await.unwrap().unwrap().synced);
    let stopping = tokio::task::LocalSet::new();
    let ended = stopping.run_until(async {
        let ended = tokio::task::spawn_local(async move {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("ended without a word"),
                    Err(status) => return status,
                }
            }
        });
        registry.stop().await;
        ended.await.unwrap()
    });
    let status = ended.await;
    let details = muster_runtime::status::Details::of(&status);
    assert_eq!(
        (status.code(), details.reason.as_str()),
        (tonic::Code::Unavailable, "SHUTTING_DOWN")
    );
    assert!(details.retry_delay.is_some());
}
