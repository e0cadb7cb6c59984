//! What an instance answers that is behind the others: nothing by which its caller does what cannot be undone,
//! and nothing as done that is not.

use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::{AfterDeadline, WorkerLiveness};
use muster_runtime::shutdown::Cause;
use muster_store::Leases;
use tokio::task::JoinSet;
use tonic::Code;
use worker_registry::Config;

use super::{Several, until};
use crate::support::{Agent, allocate, release};

/// Instances that keep their seats while they are cut off for as long as a test takes.
async fn seated(config: Config, count: usize) -> Several {
    let mut config = config;
    config.patience.silent_after = Duration::from_secs(60);
    evicting(config, count).await
}

/// The same, where whoever does not answer loses its seat as soon as the settings say.
async fn evicting(mut config: Config, count: usize) -> Several {
    config.patience.lease = Duration::from_secs(120);
    let leases = Leases {
        instance: Duration::from_secs(120),
        leader: Duration::from_secs(1),
    };
    Several::with_leases(config, leases, count).await
}

/// The one that leads, and one that does not, both of which know the worker as ACTIVE.
async fn known_by_both(several: &Several, name: &str) -> (usize, usize) {
    let leader = several.leader(&[]).await;
    let behind = 1 - leader;
    until("both know it", async || {
        let mut known = 0;
        for one in &several.all {
            let read = crate::support::get(&mut one.client.clone(), name).await;
            known += usize::from(read.is_ok_and(|w| w.state() == proto::WorkerState::Active));
        }
        known == several.all.len()
    })
    .await;
    (leader, behind)
}

#[tokio::test]
async fn no_fence_has_passed_of_a_worker_whose_lease_another_instance_renews() {
    let mut config = super::quick();
    config.rules.lost_after = Duration::from_secs(2);
    config.rules.fence_after = Duration::from_secs(4);
    let several = seated(config, 2).await;
    let first = several.leader(&[]).await;
    let agent = Agent::join(&mut several.client(first), "a").await;
    let (leader, behind) = known_by_both(&several, "a").await;
    several.all[behind].link.cut();
    until("it is lost", async || {
        several.all[leader].liveness("a").await == WorkerLiveness::Lost
    })
    .await;
    // It is back, at the one that does not know that it was lost, and counts its lease from each answer.
    let mut client = several.client(behind);
    for _ in 0..30 {
        let answer = agent.beat(&mut client, &[]).await;
        let sent = tokio::time::Instant::now();
        if answer.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let worker = several.all[leader].worker("a").await;
        assert!(
            !worker.fenced || sent.elapsed() > Duration::from_secs(4),
            "fenced {:?} after a heartbeat was answered with {:?}",
            sent.elapsed(),
            answer.unwrap().terms,
        );
    }
}

#[tokio::test]
async fn whoever_is_behind_gives_back_no_room_that_it_has_not_seen() {
    let several = seated(crate::support::config(), 2).await;
    let first = several.leader(&[]).await;
    Agent::join(&mut several.client(first), "a").await;
    let (leader, behind) = known_by_both(&several, "a").await;
    several.all[behind].link.cut();
    let made = allocate(&mut several.client(leader), "r1", 1)
        .await
        .unwrap();
    let released = release(&mut several.client(behind), &made.id).await;
    several.all[behind].link.heal();
    let left = several.all[leader].worker("a").await.usage.unwrap().gpus;
    match released {
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        Ok(answer) => assert_eq!(left, 0, "released as {answer:?}, and held for ever"),
    }
}

#[tokio::test]
async fn whoever_is_behind_takes_no_change_for_one_that_is_made() {
    let several = seated(crate::support::config(), 2).await;
    let first = several.leader(&[]).await;
    Agent::join(&mut several.client(first), "a").await;
    let (leader, behind) = known_by_both(&several, "a").await;
    let label = |value: &str| proto::UpdateWorkerRequest {
        worker: Some(proto::Worker {
            name: "a".to_owned(),
            labels: [("tier".to_owned(), value.to_owned())].into(),
            ..proto::Worker::default()
        }),
        ..proto::UpdateWorkerRequest::default()
    };
    several
        .client(leader)
        .update_worker(label("one"))
        .await
        .unwrap();
    until("it is labelled everywhere", async || {
        several.all[behind].worker("a").await.labels["tier"] == "one"
    })
    .await;
    several.all[behind].link.cut();
    several
        .client(leader)
        .update_worker(label("two"))
        .await
        .unwrap();
    // The last word: one again.
    let updated = several.client(behind).update_worker(label("one")).await;
    several.all[behind].link.heal();
    let is = several.all[leader].worker("a").await.labels["tier"].clone();
    match updated {
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        Ok(_) => assert_eq!(is, "one"),
    }
}

#[tokio::test]
async fn whoever_is_behind_calls_no_token_unknown_and_no_etag_stale() {
    let several = seated(crate::support::config(), 2).await;
    let first = several.leader(&[]).await;
    Agent::join(&mut several.client(first), "a").await;
    let (leader, behind) = known_by_both(&several, "a").await;
    several.all[behind].link.cut();
    let token = proto::CreateJoinTokenRequest::default();
    let made = several
        .client(leader)
        .create_join_token(token)
        .await
        .unwrap();
    let id = made.into_inner().join_token.unwrap().id;
    let revoke = proto::RevokeJoinTokenRequest { id };
    let revoked = several.client(behind).revoke_join_token(revoke).await;
    let code = revoked.unwrap_err().code();
    let changed = proto::UpdateWorkerRequest {
        worker: Some(proto::Worker {
            name: "a".to_owned(),
            labels: [("tier".to_owned(), "one".to_owned())].into(),
            ..proto::Worker::default()
        }),
        ..proto::UpdateWorkerRequest::default()
    };
    let changed = several.client(leader).update_worker(changed).await.unwrap();
    let drain = proto::DrainWorkerRequest {
        name: "a".to_owned(),
        etag: changed.into_inner().worker.unwrap().etag,
        ..proto::DrainWorkerRequest::default()
    };
    let drained = several.client(behind).drain_worker(drain).await;
    let codes = [code, drained.unwrap_err().code()];
    assert_eq!(codes, [Code::Unavailable, Code::Unavailable]);
}

#[tokio::test]
async fn whoever_is_behind_forces_no_drain_that_was_called_off() {
    let several = seated(crate::support::config(), 2).await;
    let first = several.leader(&[]).await;
    let agent = Agent::join(&mut several.client(first), "a").await;
    let (leader, behind) = known_by_both(&several, "a").await;
    allocate(&mut several.client(leader), "r1", 1)
        .await
        .unwrap();
    let drain = proto::DrainWorkerRequest {
        name: "a".to_owned(),
        reason: "new kernel".to_owned(),
        deadline: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        after_deadline: AfterDeadline::Force.into(),
        ..proto::DrainWorkerRequest::default()
    };
    several.client(leader).drain_worker(drain).await.unwrap();
    until("it is forced", async || {
        let drain = several.all[behind].worker("a").await.drain;
        drain.is_some_and(|drain| drain.forced)
    })
    .await;
    several.all[behind].link.cut();
    let resume = proto::ResumeWorkerRequest {
        name: "a".to_owned(),
        ..proto::ResumeWorkerRequest::default()
    };
    let resumed = several.client(leader).resume_worker(resume).await.unwrap();
    assert_eq!(
        resumed.into_inner().worker.unwrap().state(),
        proto::WorkerState::Active
    );
    allocate(&mut several.client(leader), "r2", 1)
        .await
        .unwrap();
    // An agent that is told so stops all that it runs, what was just placed on it as well.
    let answer = agent.beat(&mut several.client(behind), &[]).await;
    assert!(!answer.is_ok_and(|answer| answer.forced));
}

#[tokio::test]
async fn whoever_is_cut_off_hears_what_agents_say_again_for_as_long_as_it_has_its_seat() {
    let several = seated(crate::support::config(), 2).await;
    let first = several.leader(&[]).await;
    let agent = Agent::join(&mut several.client(first), "a").await;
    let (leader, behind) = known_by_both(&several, "a").await;
    let made = allocate(&mut several.client(leader), "r1", 1)
        .await
        .unwrap();
    until("its room is known", async || {
        let usage = several.all[behind].worker("a").await.usage;
        usage.is_some_and(|usage| usage.gpus == 1)
    })
    .await;
    several.all[behind].link.cut();
    // Its owner still holds it: nothing is to be written.
    let held = [(&*made.id, proto::HeldPhase::Ended)];
    for _ in 0..2 {
        agent
            .beat(&mut several.client(behind), &held)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn whoever_leads_next_waits_out_the_lease_of_an_instance_that_lost_its_seat_before() {
    let mut config = super::quick();
    config.rules.lost_after = Duration::from_secs(2);
    config.rules.fence_after = Duration::from_secs(4);
    config.patience.silent_after = Duration::from_secs(1);
    let several = evicting(config, 4).await;
    let first = several.leader(&[]).await;
    let away = several.followers().await[0];
    let agent = Agent::join(&mut several.client(away), "a").await;
    for one in &several.all {
        until("all know it", async || {
            crate::support::get(&mut one.client.clone(), "a")
                .await
                .is_ok()
        })
        .await;
    }
    // The agent reaches one instance alone, which is cut off, knows no later leader, and holds its lease.
    let mut client = several.client(away);
    let mut beating = JoinSet::new();
    beating.spawn(async move {
        while agent.beat(&mut client, &[]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    several.all[away].link.cut();
    let end = async |place: usize| {
        let context = &several.all[place].registry.context;
        context.shutdown.begin(Cause::asked("an upgrade"));
        context.shutdown.finished().await;
    };
    end(first).await;
    let second = several.leader(&[first, away]).await;
    let id = several.all[away].registry.context.identity.instance.clone();
    until("its seat is taken", async || {
        let seats = several.all[second]
            .registry
            .store
            .instances()
            .await
            .unwrap();
        seats.iter().all(|seat| *seat.id != *id)
    })
    .await;
    end(second).await;
    let third = several.leader(&[first, second, away]).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(
        beating.try_join_next().is_none(),
        "it is not answered any more"
    );
    let liveness = several.all[third].liveness("a").await;
    assert_ne!(liveness, WorkerLiveness::Lost, "it beats, and is answered");
}
