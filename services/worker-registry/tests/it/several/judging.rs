//! Who judges, by whose word, and what it does not hold against workers.

use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::WorkerLiveness;
use muster_proto::workers::v1::peer_service_client::PeerServiceClient;
use muster_store::TERM_KEY;
use tonic::Code;

use super::{Several, until};
use crate::support::{Agent, reason};

#[tokio::test]
async fn who_beats_anywhere_is_alive_and_who_is_silent_is_lost_once() {
    let several = Several::start(3).await;
    let mut beating = Vec::new();
    for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
        beating.push(several.join(name, place).await);
    }
    let follower = several.followers().await[0];
    Agent::join(&mut several.client(follower), "silent").await;
    for one in &several.all {
        until("it is lost", async || {
            one.liveness("silent").await == WorkerLiveness::Lost
        })
        .await;
        for name in ["a", "b", "c"] {
            until("the others are alive everywhere", async || {
                one.liveness(name).await == WorkerLiveness::Alive
            })
            .await;
        }
    }
    let lost = several.all[0].events("WorkerLost").await;
    assert_eq!(lost.len(), 1, "{lost:?}");
    for one in &several.all {
        assert_eq!(one.events("WorkerLost").await, lost);
    }
}

#[tokio::test]
async fn a_leader_that_dies_costs_no_worker_and_another_judges() {
    let several = Several::start(3).await;
    let first = several.leader(&[]).await;
    let mut beating = Vec::new();
    for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
        beating.push(several.join(name, place).await);
    }
    several.all[first].kill();
    let second = several.leader(&[first]).await;
    until("all beat elsewhere", async || {
        beating.iter().all(|one| one.at() != first)
    })
    .await;
    // A writer's call needs no leader, and a silent worker is found by the next one.
    Agent::join(&mut several.client(second), "silent").await;
    let other = 3 - first - second;
    for place in [second, other] {
        until("it is lost", async || {
            several.all[place].liveness("silent").await == WorkerLiveness::Lost
        })
        .await;
        let lost = several.all[place].events("WorkerLost").await;
        assert_eq!(lost.len(), 1, "{lost:?}");
    }
}

#[tokio::test]
async fn an_instance_that_is_cut_off_sends_its_agents_away() {
    let several = Several::start(2).await;
    let follower = several.followers().await[0];
    let beating = several.join("a", follower).await;
    several.all[follower].link.cut();
    until("its agent beats elsewhere", async || {
        beating.at() != follower
    })
    .await;
    let agent = Agent::new("a", several.all[follower].worker("a").await.generation);
    let refused = agent.beat(&mut several.client(follower), &[]).await;
    let status = refused.clone().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        reason(refused),
        ErrorReason::StoreUnavailable.as_str_name()["ERROR_REASON_".len()..]
    );
    let leader = several.leader(&[follower]).await;
    Agent::join(&mut several.client(leader), "silent").await;
    until(
        "a silent worker is lost once its lease is over",
        async || several.all[leader].liveness("silent").await == WorkerLiveness::Lost,
    )
    .await;
    assert_eq!(several.all[leader].events("WorkerLost").await.len(), 1);
    several.all[follower].link.heal();
    until("it answers again", async || {
        agent.beat(&mut several.client(follower), &[]).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_away_costs_writes_alone() {
    let several = Several::start(2).await;
    let _a = several.join("a", 0).await;
    let _b = several.join("b", 1).await;
    several.cluster.stop();
    for place in [0, 1] {
        let registered = several
            .client(place)
            .register_worker(crate::support::registration("late", "boot-1"))
            .await;
        let status = registered.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        several.all[place].worker("a").await;
    }
    until("nobody leads", async || {
        let request = proto::ReleaseMassLossRequest::default();
        let asked = several.client(0).release_mass_loss(request).await;
        asked.is_err_and(|status| status.code() == Code::Unavailable)
    })
    .await;
    several.cluster.start();
    let leader = several.leader(&[]).await;
    until("writes go on", async || {
        let late = crate::support::registration("late", "boot-1");
        several.client(leader).register_worker(late).await.is_ok()
    })
    .await;
    until("the one that stays away is lost", async || {
        several.all[leader].liveness("late").await == WorkerLiveness::Lost
    })
    .await;
    assert_eq!(several.all[leader].events("WorkerLost").await.len(), 1);
}

#[tokio::test]
async fn only_the_leader_of_now_is_told_who_was_heard() {
    let several = Several::start(2).await;
    let follower = several.followers().await[0];
    let agent = Agent::join(&mut several.client(follower), "a").await;
    agent
        .beat(&mut several.client(follower), &[])
        .await
        .unwrap();
    let registry = &several.all[follower].registry;
    let url = format!("http://{}", registry.address);
    let mut peer = PeerServiceClient::connect(url).await.unwrap();
    let ask = |revision, names: Vec<String>| proto::HeardSinceRequest {
        workers: names,
        leader_revision: revision,
    };
    let term = registry.store.get(TERM_KEY).await.unwrap().unwrap();
    let term = i64::try_from(term.modified.0).unwrap();
    let names = vec!["a".to_owned(), "nobody".to_owned()];
    let heard = peer.heard_since(ask(term, names.clone())).await.unwrap();
    let heard = heard.into_inner().heard;
    let known: Vec<_> = heard.iter().map(|one| one.ago.is_some()).collect();
    assert_eq!(known, [true, false]);
    let refused = peer.heard_since(ask(term - 1, names)).await;
    assert_eq!(reason(refused), "NO_LEADER");
    let many = vec![String::new(); 10_001];
    let refused = peer.heard_since(ask(term, many)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = peer.watch_observed(proto::WatchObservedRequest {}).await;
    assert_eq!(reason(refused.map(|_| ())), "NO_LEADER");
}
