//! Pages, positions and filters.

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::WorkerState;

use crate::support::{Agent, Client, Registry, allocate, reason, registration};

async fn fleet(client: &mut Client, count: usize) {
    for number in 0..count {
        let mut request = registration(&format!("w{number:03}"), "b1");
        request.region = if number % 3 == 0 { "us" } else { "eu" }.to_owned();
        client.register_worker(request).await.unwrap();
    }
}

fn page(token: &str, size: i32) -> proto::ListWorkersRequest {
    proto::ListWorkersRequest {
        page_size: size,
        page_token: token.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn pages_make_up_the_whole_in_order() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    fleet(&mut client, 25).await;
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let answer = client
            .list_workers(page(&token, 7))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.total_size, 25);
        assert!(answer.workers.len() <= 7);
        names.extend(answer.workers.into_iter().map(|worker| worker.name));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = (0..25).map(|number| format!("w{number:03}")).collect();
    assert_eq!(names, expected);
    registry.stop().await;
}

#[tokio::test]
async fn a_page_token_opens_only_for_its_own_request() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    fleet(&mut client, 5).await;
    let token = client
        .list_workers(page("", 2))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let mut other = page(&token, 2);
    other.filter = Some(proto::WorkerFilter {
        regions: vec!["us".to_owned()],
        ..Default::default()
    });
    assert_eq!(
        reason(client.list_workers(other).await),
        "PAGE_TOKEN_MISMATCH"
    );
    let allocations = proto::ListAllocationsRequest {
        page_token: token.clone(),
        ..Default::default()
    };
    assert_eq!(
        reason(client.list_allocations(allocations).await),
        "PAGE_TOKEN_MISMATCH"
    );
    assert_eq!(
        reason(client.list_workers(page("xx", 2)).await),
        "PAGE_TOKEN_MISMATCH"
    );
    assert_eq!(
        reason(client.list_workers(page("", -1)).await),
        "INVALID_FIELD"
    );
    let store = registry.stop().await;
    let registry = Registry::with(crate::support::config(), store).await;
    let mut client = registry.client().await;
    assert_eq!(
        reason(client.list_workers(page(&token, 2)).await),
        "PAGE_TOKEN_EXPIRED"
    );
    registry.stop().await;
}

#[tokio::test]
async fn filters_hold_together() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    fleet(&mut client, 9).await;
    Agent::new("w000", 1).activate(&mut client).await.unwrap();
    let names = async |client: &mut Client, filter| {
        let request = proto::ListWorkersRequest {
            filter: Some(filter),
            ..Default::default()
        };
        let answer = client.list_workers(request).await.unwrap().into_inner();
        assert_eq!(
            usize::try_from(answer.total_size).unwrap(),
            answer.workers.len()
        );
        answer
            .workers
            .into_iter()
            .map(|worker| worker.name)
            .collect::<Vec<_>>()
    };
    let us = proto::WorkerFilter {
        regions: vec!["us".to_owned()],
        ..Default::default()
    };
    assert_eq!(
        names(&mut client, us.clone()).await,
        ["w000", "w003", "w006"]
    );
    let active = proto::WorkerFilter {
        states: vec![WorkerState::Active.into()],
        ..us.clone()
    };
    assert_eq!(names(&mut client, active).await, ["w000"]);
    let gpu = proto::WorkerFilter {
        gpu_names: vec!["nvidia h100".to_owned()],
        names: vec!["w001".to_owned()],
        ..Default::default()
    };
    assert_eq!(names(&mut client, gpu).await, ["w001"]);
    let none = proto::WorkerFilter {
        gpu_names: vec!["A100".to_owned()],
        ..Default::default()
    };
    assert_eq!(names(&mut client, none).await, [""; 0]);
    let alive = proto::WorkerFilter {
        livenesses: vec![proto::WorkerLiveness::Lost.into()],
        ..Default::default()
    };
    assert_eq!(names(&mut client, alive).await, [""; 0]);
    let unsaid = proto::ListWorkersRequest {
        filter: Some(proto::WorkerFilter {
            states: vec![0],
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(reason(client.list_workers(unsaid).await), "INVALID_FIELD");
    registry.stop().await;
}

#[tokio::test]
async fn reads_are_not_behind_what_the_caller_has_seen() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let answer = client
        .allocate(crate::support::ask("r1", 1))
        .await
        .unwrap()
        .into_inner();
    let request = proto::GetAllocationRequest {
        id: answer.allocation.unwrap().id,
        not_before: answer.resume_token.clone(),
    };
    client.get_allocation(request).await.unwrap();
    let mut wrong = proto::GetWorkerRequest {
        name: "w1".to_owned(),
        not_before: "xx".to_owned(),
    };
    assert_eq!(
        reason(client.get_worker(wrong.clone()).await),
        "INVALID_FIELD"
    );
    let other = Registry::start().await;
    let mut elsewhere = other.client().await;
    Agent::join(&mut elsewhere, "w1").await;
    wrong.not_before = elsewhere
        .allocate(crate::support::ask("r1", 1))
        .await
        .unwrap()
        .into_inner()
        .resume_token;
    assert_eq!(reason(client.get_worker(wrong).await), "HISTORY_CHANGED");
    other.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn events_tell_what_happened_oldest_first() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    for name in ["w1", "w2"] {
        Agent::join(&mut client, name).await;
    }
    allocate(&mut client, "r1", 1).await.unwrap();
    let disable = proto::DisableWorkerRequest {
        name: "w2".to_owned(),
        reason: "old".to_owned(),
        ..Default::default()
    };
    client.disable_worker(disable).await.unwrap();
    let filter = proto::WorkerEventFilter {
        workers: vec!["w2".to_owned()],
        ..Default::default()
    };
    let request = proto::ListWorkerEventsRequest {
        filter: Some(filter),
        page_size: 2,
        ..Default::default()
    };
    let first = client
        .list_worker_events(request.clone())
        .await
        .unwrap()
        .into_inner();
    let kinds: Vec<_> = first
        .events
        .iter()
        .map(|event| event.kind.as_str())
        .collect();
    assert_eq!(kinds, ["WorkerRegistered", "WorkerActivated"]);
    let rest = proto::ListWorkerEventsRequest {
        page_token: first.next_page_token,
        ..request
    };
    let rest = client.list_worker_events(rest).await.unwrap().into_inner();
    assert_eq!(
        (rest.events.len(), rest.events[0].kind.as_str()),
        (1, "WorkerDisabled")
    );
    assert!(rest.events[0].message.contains("old"));
    assert_eq!(rest.events[0].component, "worker-registry");
    registry.stop().await;
}
