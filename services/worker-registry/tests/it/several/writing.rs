//! Writes by several instances at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use muster_proto::workers::v1 as proto;
use tonic::Code;

use super::{Several, until};
use crate::support::{Agent, allocate, ask, get};

#[tokio::test]
async fn the_last_accelerators_are_given_once_whoever_asks_where() {
    let several = Several::start(3).await;
    for (place, name) in ["a", "b", "c"].into_iter().enumerate() {
        Agent::join(&mut several.client(place), name).await;
    }
    for place in 0..3 {
        for name in ["a", "b", "c"] {
            until("all know all", async || {
                get(&mut several.client(place), name)
                    .await
                    .is_ok_and(|worker| worker.state() == proto::WorkerState::Active)
            })
            .await;
        }
    }
    let asked = (0..3).flat_map(|place| (0..12).map(move |number| (place, number)));
    let asked = asked.map(|(place, number)| {
        let mut client = several.client(place);
        async move { allocate(&mut client, &format!("r-{place}-{number}"), 1).await }
    });
    let (made, refused): (Vec<_>, Vec<_>) =
        join_all(asked).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (24, 12));
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    let made: Vec<_> = made.into_iter().filter_map(Result::ok).collect();
    let gpus: BTreeSet<_> = made.iter().flat_map(|one| one.gpu_uuids.clone()).collect();
    assert_eq!(gpus.len(), 24);
    let ids: BTreeSet<_> = made.into_iter().map(|one| one.id).collect();
    for place in 0..3 {
        until("every one is there", async || {
            let request = proto::ListAllocationsRequest {
                page_size: 1000,
                ..proto::ListAllocationsRequest::default()
            };
            let listed = several.client(place).list_allocations(request).await;
            let listed = listed.unwrap().into_inner().allocations;
            listed
                .into_iter()
                .map(|one| one.id)
                .collect::<BTreeSet<_>>()
                == ids
        })
        .await;
    }
}

#[tokio::test]
async fn a_call_that_comes_to_all_at_once_is_done_once() {
    let several = Several::start(3).await;
    Agent::join(&mut several.client(0), "a").await;
    for place in 0..3 {
        until("all know it", async || {
            get(&mut several.client(place), "a")
                .await
                .is_ok_and(|worker| worker.state() == proto::WorkerState::Active)
        })
        .await;
    }
    for round in 0..8 {
        let request = format!("r-{round}");
        let same = (0..3).map(|place| {
            let (mut client, request) = (several.client(place), request.clone());
            async move { client.allocate(ask(&request, 1)).await }
        });
        let made = join_all(same).await.into_iter();
        let ids: BTreeSet<_> = made
            .map(|answer| answer.unwrap().into_inner().allocation.unwrap().id)
            .collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
    assert_eq!(several.all[0].worker("a").await.usage.unwrap().gpus, 8);
}

#[tokio::test]
async fn a_write_is_read_at_another_instance_by_its_token() {
    let several = Several::start(2).await;
    several.cluster.pass_revisions(1000);
    let answer = several
        .client(0)
        .register_worker(crate::support::registration("a", "boot-1"))
        .await
        .unwrap()
        .into_inner();
    let request = proto::GetWorkerRequest {
        name: "a".to_owned(),
        not_before: answer.resume_token,
    };
    let read = several.client(1).get_worker(request).await.unwrap();
    assert_eq!(read.into_inner().worker.unwrap().generation, 1);
}

#[tokio::test]
async fn a_join_token_for_one_lets_in_one() {
    let mut config = super::quick();
    config.insecure_join = false;
    let several = Several::with(config, 3).await;
    let token = proto::CreateJoinTokenRequest {
        max_uses: Some(1),
        ..proto::CreateJoinTokenRequest::default()
    };
    let made = several.client(0).create_join_token(token).await.unwrap();
    let made = made.into_inner();
    for place in 0..3 {
        until("all know it", async || {
            let request = proto::ListJoinTokensRequest::default();
            let listed = several.client(place).list_join_tokens(request).await;
            !listed.unwrap().into_inner().join_tokens.is_empty()
        })
        .await;
    }
    let arrivals = (0..3).map(|place| {
        let mut client = several.client(place);
        let request = proto::RegisterWorkerRequest {
            join_token: made.secret.clone(),
            ..crate::support::registration(&format!("w{place}"), "boot-1")
        };
        async move { client.register_worker(request).await }
    });
    let came = join_all(arrivals).await;
    assert_eq!(came.iter().filter(|one| one.is_ok()).count(), 1, "{came:?}");
}
