//! The manager ends at any moment, and the next one over the same store goes on: nothing is lost, nothing
//! is started twice, and no room is left behind.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_proto::replicas::v1::replicas_service_client::ReplicasServiceClient;
use muster_proto::replicas::v1::*;
use muster_proto::workers::v1::{Worker, WorkerLiveness};
use muster_store::{Options, Store, Transaction};
use tokio::time::Instant;

use crate::support::agent::Agent;
use crate::support::sandbox::{PATIENCE, Sandbox, at_once, launch, spec};

/// Ends the manager without any step of shutdown: its tasks are cut off where they are.
async fn kill(sandbox: &Sandbox) {
    sandbox.context.tasks.cut();
    sandbox.context.tasks.ended().await;
}

/// Another manager over the same store, with the same surroundings.
async fn again(sandbox: &mut Sandbox) {
    let (context, channel) = launch(&sandbox.serving, &sandbox.store).await;
    sandbox.client = ReplicasServiceClient::new(channel.clone());
    sandbox.context = context;
    sandbox.channel = channel;
    let workers: Vec<String> = sandbox.agents.iter().map(|a| a.worker.clone()).collect();
    let old = std::mem::take(&mut sandbox.agents);
    for (agent, worker) in old.into_iter().zip(workers) {
        assert_eq!(agent.worker, worker);
        sandbox
            .agents
            .push(agent.reconnect(sandbox.channel.clone()));
    }
}

fn running(agents: &[Agent]) -> Vec<String> {
    let all = agents.iter().flat_map(Agent::running);
    all.map(|assignment| assignment.replica).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_lost_doubled_or_left() {
    for moment in [0, 1, 2, 3, 5, 8, 13, 30] {
        let mut sandbox = Sandbox::start(&[3, 3]).await;
        let mut wanted = spec("chat", 3);
        wanted.retry = Some(at_once());
        sandbox.create(wanted).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        kill(&sandbox).await;
        again(&mut sandbox).await;
        sandbox.until_phase("chat", ServicePhase::Healthy).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let replicas = running(&sandbox.agents);
        let distinct: BTreeSet<&String> = replicas.iter().collect();
        assert_eq!(replicas.len(), 3, "killed after {moment} ms: {replicas:?}");
        assert_eq!(distinct.len(), 3, "killed after {moment} ms: {replicas:?}");
        assert_eq!(sandbox.registry.allocations().len(), 3, "after {moment} ms");
        sandbox.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn away_for_a_while_every_replica_runs_on_and_nothing_is_restarted() {
    let mut sandbox = Sandbox::start(&[2, 2]).await;
    let mut wanted = spec("chat", 3);
    wanted.retry = Some(at_once());
    sandbox.create(wanted).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let before = sandbox.replicas().await;
    kill(&sandbox).await;
    sandbox.registry.set_down(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    again(&mut sandbox).await;
    sandbox.registry.set_down(false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = sandbox.replicas().await;
    let attempts = |replicas: &[Replica]| -> Vec<Option<Attempt>> {
        replicas
            .iter()
            .map(|replica| replica.attempt.clone())
            .collect()
    };
    assert_eq!(attempts(&before), attempts(&after));
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager.db");
    let store = Store::embedded(&path, Options::default()).unwrap();
    let mut sandbox = Sandbox::with_store(&[3], store).await;
    let created = sandbox.create(spec("chat", 1)).await;
    kill(&sandbox).await;
    sandbox.store.close().await;
    sandbox.store = Store::embedded(&path, Options::default()).unwrap();
    // The newest is the record of this start.
    let latest = sandbox.store.revision().await.unwrap().0 - 1;
    let epoch = sandbox.store.epoch().to_string();
    again(&mut sandbox).await;
    assert_eq!(sandbox.service("chat").await.uid, created.uid);
    // Who has seen all of it goes on; who has not has to list.
    for (revision, resumes) in [(latest, true), (latest - 1, false)] {
        let request = WatchServicesRequest {
            resume_token: muster_runtime::resume::token(&epoch, revision),
            ..Default::default()
        };
        let watched = sandbox.client.watch_services(request).await;
        assert_eq!(watched.is_ok(), resumes, "{watched:?}");
    }
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_room_of_our_epoch_is_given_back_and_older_is_kept() {
    let sandbox = Sandbox::start(&[3]).await;
    let epoch = sandbox.store.epoch().to_string();
    // One that the registry does not take back keeps nothing else.
    sandbox.registry.keep("a-kept");
    sandbox.registry.plant("a-kept", "gone.0.3", &epoch);
    sandbox.registry.plant("a-ours", "gone.0.1", &epoch);
    sandbox
        .registry
        .plant("a-older", "gone.0.2", "000000000000-00000000");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = sandbox.registry.allocations();
        let ids: Vec<&str> = left.iter().map(|room| room.id.as_str()).collect();
        if ids == ["a-kept", "a-older"] {
            break;
        }
        assert!(Instant::now() < deadline, "{ids:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_is_answered_within_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::embedded(folder.path().join("m.db"), Options::default()).unwrap();
    let mut sandbox = Sandbox::with_store(&[20], store).await;
    let mut wanted = spec("chat", 10);
    wanted.retry = Some(at_once());
    sandbox.create(wanted).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let mut took = Vec::new();
    for replica in sandbox.replicas().await {
        let id = replica.attempt.unwrap().id;
        let before = sandbox.agent("w1").started().len();
        let killed = Instant::now();
        sandbox.agent("w1").exit(&id, 1).await;
        while sandbox.agent("w1").started().len() == before {
            assert!(killed.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(killed.elapsed());
    }
    took.sort_unstable();
    println!(
        "kill to the next start: p50 {:?}, worst {:?}",
        took[5], took[9]
    );
    assert!(took[5] < Duration::from_millis(200), "{took:?}");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_on_a_worker_that_was_deleted_meanwhile_is_given_up() {
    for (meanwhile, replaced) in [(true, false), (false, false), (true, true)] {
        let mut sandbox = Sandbox::start(&[1, 1]).await;
        let mut wanted = spec("chat", 1);
        wanted.retry = Some(at_once());
        sandbox.create(wanted).await;
        sandbox.until_phase("chat", ServicePhase::Healthy).await;
        let on = sandbox.replicas().await[0].members[0].worker.clone();
        if meanwhile {
            kill(&sandbox).await;
            match replaced {
                true => sandbox.registry.replace(&on),
                false => sandbox.registry.delete(&on),
            }
            again(&mut sandbox).await;
        } else {
            sandbox.registry.delete(&on);
        }
        sandbox
            .until("moved", |replicas| {
                replicas[0].phase == i32::from(ReplicaPhase::Ready)
                    && replicas[0].members[0].worker != on
            })
            .await;
        let previous = sandbox.replicas().await[0].previous_attempt.clone();
        let previous = previous.unwrap();
        assert_eq!(
            previous.failure_class,
            i32::from(FailureClass::Interruption)
        );
        let why = match replaced {
            true => "or deleted, and is back",
            false => "is deleted",
        };
        assert!(previous.message.contains(why), "{previous:?}");
        sandbox.stop().await;
    }
}

/// Gives every replica's record the output that records once had.
async fn fatten(store: &Store) {
    for record in store.list("replica/").await.unwrap().records {
        let mut replica: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let lines = vec!["\u{1f980}".repeat(1024); 20];
        replica["attempt"]["end"]["last_log_lines"] = serde_json::to_value(&lines).unwrap();
        let put = Transaction::new().put(record.key.clone(), serde_json::to_vec(&replica).unwrap());
        let _ = store.commit(put).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_larger_than_they_are_made_now_are_changed_a_few_at_a_time() {
    let mut sandbox = Sandbox::start(&[30]).await;
    let mut wanted = spec("chat", 30);
    wanted.retry = Some(RetryPolicy {
        interval: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..RetryPolicy::default()
    });
    sandbox.create(wanted).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    for replica in sandbox.replicas().await {
        let attempt = replica.attempt.unwrap();
        sandbox.agent("w1").exit(&attempt.id, 1).await;
    }
    let waits = i32::from(ReplicaPhase::Backoff);
    sandbox
        .until("all wait", |replicas| {
            replicas.iter().all(|replica| replica.phase == waits)
        })
        .await;
    kill(&sandbox).await;
    fatten(&sandbox.store).await;
    again(&mut sandbox).await;
    let stop = StopServiceRequest {
        name: "chat".to_owned(),
        ..StopServiceRequest::default()
    };
    sandbox.client.stop_service(stop).await.unwrap();
    sandbox.until_phase("chat", ServicePhase::Stopped).await;
    sandbox.stop().await;
}

/// A store in another epoch that holds what this one does.
async fn restored(store: &Store) -> Store {
    let copy = Store::memory();
    for prefix in ["service/", "version/", "replica/"] {
        for record in store.list(prefix).await.unwrap().records {
            let put = Transaction::new().put(record.key.clone(), record.value.clone());
            let _ = copy.commit(put).await.unwrap();
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_more_replicas_than_fit_a_transaction_goes_on_in_a_restored_store() {
    const COUNT: usize = 100;
    let mut sandbox = Sandbox::start(&[COUNT + 1]).await;
    sandbox
        .create(spec("chat", i32::try_from(COUNT).unwrap()))
        .await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    kill(&sandbox).await;
    sandbox.store = restored(&sandbox.store).await;
    again(&mut sandbox).await;
    let wanted = i32::try_from(COUNT + 1).unwrap();
    sandbox.scale("chat", wanted).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counts = sandbox.service("chat").await.status.unwrap().counts;
        if counts.as_ref().unwrap().ready == wanted {
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sandbox.agent("w1").started().len(), COUNT + 1);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_instance_knew_before_it_was_asked_ends_nothing() {
    let mut sandbox = Sandbox::start(&[2]).await;
    let mut wanted = spec("chat", 1);
    wanted.retry = Some(at_once());
    sandbox.create(wanted).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let attempt = sandbox.replicas().await[0].attempt.clone();
    kill(&sandbox).await;
    // It is lost, and back, while nobody plans.
    let now_is = |liveness: WorkerLiveness| {
        let change = |worker: &mut Worker| worker.liveness = liveness.into();
        sandbox.registry.set("w1", change);
    };
    now_is(WorkerLiveness::Lost);
    sandbox.registry.fall_behind();
    now_is(WorkerLiveness::Alive);
    let watches = sandbox.registry.watches();
    again(&mut sandbox).await;
    let registry = sandbox.registry.clone();
    sandbox
        .until("watched again", |replicas| {
            assert_eq!(replicas[0].attempt, attempt);
            registry.watches() >= watches + 2
        })
        .await;
    sandbox.registry.catch_up();
    sandbox.create(spec("more", 1)).await;
    sandbox.until_phase("more", ServicePhase::Healthy).await;
    assert_eq!(sandbox.replicas().await[0].attempt, attempt);
    sandbox.stop().await;
}
