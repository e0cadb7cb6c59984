//! What only the leader knows, at every instance; and what the next leader takes over.

use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::peer_service_client::PeerServiceClient;
use muster_proto::workers::v1::{AfterDeadline, WorkerLiveness};
use prost::Message as _;
use tonic::Code;

use super::{Several, until};
use crate::support::{Agent, OWNER, allocate, reason, term};

fn report() -> proto::ReportDrainRequest {
    proto::ReportDrainRequest {
        owner: OWNER.to_owned(),
        owner_term: term(1),
        worker: "a".to_owned(),
        moved: 3,
        left: 1,
        blocked: vec![proto::DrainBlock {
            reason: "NO_CAPACITY".to_owned(),
            ..proto::DrainBlock::default()
        }],
        eta_time: None,
    }
}

/// A draining worker with one allocation that stays.
async fn draining(several: &Several, place: usize, drain: proto::DrainWorkerRequest) -> Agent {
    let mut client = several.client(place);
    let agent = Agent::join(&mut client, "a").await;
    allocate(&mut client, "r1", 1).await.unwrap();
    client.drain_worker(drain).await.unwrap();
    agent
}

fn drain() -> proto::DrainWorkerRequest {
    proto::DrainWorkerRequest {
        name: "a".to_owned(),
        reason: "new kernel".to_owned(),
        ..proto::DrainWorkerRequest::default()
    }
}

#[tokio::test]
async fn a_report_at_a_follower_shows_everywhere() {
    let several = Several::start(3).await;
    let followers = several.followers().await;
    draining(&several, followers[0], drain()).await;
    until("the report is taken", async || {
        let mut client = several.client(followers[1]);
        client.report_drain(report()).await.is_ok()
    })
    .await;
    for one in &several.all {
        until("all show it", async || {
            let drain = one.worker("a").await.drain.unwrap();
            let blocked = drain.blocked.iter();
            drain.moved == 3
                && blocked
                    .map(|one| &one.reason)
                    .any(|one| one == "NO_CAPACITY")
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_passed_on_is_checked_as_if_it_came_directly() {
    let several = Several::start(2).await;
    let follower = several.followers().await[0];
    let leader = 1 - follower;
    draining(&several, follower, drain()).await;
    let refused = several
        .client(follower)
        .report_drain(proto::ReportDrainRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let released = several
        .client(follower)
        .release_mass_loss(proto::ReleaseMassLossRequest::default())
        .await;
    assert_eq!(released.unwrap().into_inner().workers, 0);

    let connect = |place: usize| {
        let registry = &several.all[place].registry;
        PeerServiceClient::connect(format!("http://{}", registry.address))
    };
    let forward = |method: &str, principal: &str| proto::ForwardRequest {
        method: format!("/muster.workers.v1.WorkersService/{method}"),
        request: report().encode_to_vec(),
        principal: principal.to_owned(),
    };
    let mut peer = connect(leader).await.unwrap();
    let viewer = forward("ReportDrain", "viewer:eve");
    let answer = peer.forward(viewer).await.unwrap().into_inner();
    assert_eq!(Code::from_i32(answer.status_code), Code::PermissionDenied);
    for (method, principal) in [("DeleteWorker", "admin:a"), ("ReportDrain", "nobody")] {
        let answer = peer.forward(forward(method, principal)).await.unwrap();
        let code = Code::from_i32(answer.into_inner().status_code);
        assert_eq!(code, Code::InvalidArgument, "{method}");
    }
    let mut peer = connect(follower).await.unwrap();
    let refused = peer.forward(forward("ReportDrain", "admin:a")).await;
    assert_eq!(reason(refused), "NO_LEADER");
}

#[tokio::test]
async fn nothing_is_placed_on_who_is_suspect_at_the_leader() {
    let mut config = super::quick();
    // SUSPECT for long enough to be seen.
    config.rules.lost_after = Duration::from_secs(20);
    config.rules.fence_after = Duration::from_secs(20);
    let several = Several::with(config, 2).await;
    let follower = several.followers().await[0];
    let agent = Agent::join(&mut several.client(follower), "a").await;
    until("it is suspect here too", async || {
        several.all[follower].liveness("a").await == WorkerLiveness::Suspect
    })
    .await;
    let refused = allocate(&mut several.client(follower), "r1", 1).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    agent
        .beat(&mut several.client(follower), &[])
        .await
        .unwrap();
    for one in &several.all {
        until("it is heard again", async || {
            one.liveness("a").await == WorkerLiveness::Alive
        })
        .await;
    }
    allocate(&mut several.client(follower), "r1", 1)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_next_leader_calls_a_deadline() {
    let several = Several::start(2).await;
    let first = several.leader(&[]).await;
    let second = 1 - first;
    let drain = proto::DrainWorkerRequest {
        deadline: Some(prost_types::Duration {
            seconds: 5,
            nanos: 0,
        }),
        after_deadline: AfterDeadline::Force.into(),
        ..drain()
    };
    draining(&several, second, drain).await;
    several.all[first].kill();
    until("it is forced", async || {
        several.all[second].worker("a").await.drain.unwrap().forced
    })
    .await;
}
