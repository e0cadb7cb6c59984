//! What callers are told when something is not possible.

use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use muster_runtime::status::Details;
use prost_types::{Duration, Timestamp};
use tonic::Code;

use crate::support::{
    Agent, OWNER, Registry, allocate, ask, get, passed, reason, registration, release, spec, term,
};

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let mut wrong = registration("W 1", "");
    wrong.last_generation = -1;
    wrong.price = Some(types::Price {
        micro_usd_per_hour: -5,
    });
    let capacity = wrong.capacity.as_mut().unwrap();
    capacity.cpu_milli = -1;
    capacity.gpus[1].uuid = capacity.gpus[0].uuid.clone();
    let details = Details::of(&client.register_worker(wrong).await.unwrap_err());
    assert_eq!(
        (details.code, details.reason.as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    let mut fields: Vec<_> = details
        .violations
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    fields.sort_unstable();
    let expected = [
        "boot_id",
        "capacity.cpu_milli",
        "capacity.gpus[1].uuid",
        "last_generation",
        "name",
        "price",
    ];
    assert_eq!(fields, expected);

    let mut wrong = ask("", 1);
    wrong.owner.clear();
    wrong.owner_term = None;
    let inner = wrong.spec.as_mut().unwrap();
    inner.host_ports = vec![70_000];
    inner.project = "other".to_owned();
    inner.requirements.as_mut().unwrap().gpu_any_of[0].count = Some(types::Int32Range {
        min: Some(3),
        max: Some(2),
    });
    let details = Details::of(&client.allocate(wrong).await.unwrap_err());
    let mut fields: Vec<_> = details
        .violations
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    fields.sort_unstable();
    let expected = [
        "owner",
        "owner_term",
        "spec.host_ports",
        "spec.project",
        "spec.request_id",
        "spec.requirements.gpu_any_of[0].count",
    ];
    assert_eq!(fields, expected);
    registry.stop().await;
}

#[tokio::test]
async fn an_ask_has_so_many_alternatives_and_names_and_no_more() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let of = |alternatives: usize, names: usize| {
        let mut asked = ask("r1", 1);
        let needs = asked.spec.as_mut().unwrap().requirements.as_mut().unwrap();
        needs.gpu_any_of[0].names = (0..names).map(|number| format!("name-{number}")).collect();
        needs.gpu_any_of = vec![needs.gpu_any_of[0].clone(); alternatives];
        asked
    };
    let refused = client.allocate(of(32, 100)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    for (wrong, field) in [
        (of(33, 1), "spec.requirements.gpu_any_of"),
        (of(1, 101), "spec.requirements.gpu_any_of[0].names"),
    ] {
        assert_eq!(refused_field(client.allocate(wrong).await), field);
    }
    registry.stop().await;
}

/// The only field that a call is refused for.
fn refused_field<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> String {
    let details = Details::of(&result.unwrap_err());
    assert_eq!(details.code, Code::InvalidArgument, "{details:?}");
    let fields: Vec<_> = details.violations.iter().map(|one| &*one.field).collect();
    fields.join(" ")
}

fn lasting(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

#[tokio::test]
async fn what_ends_past_the_calendar_is_refused_and_breaks_nothing() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    // The longest duration that there is ends after the last year that there is.
    for seconds in [i64::MAX, i64::MAX - 2_000_000_000, 1 << 62, 315_576_000_000] {
        let request = proto::CreateJoinTokenRequest {
            ttl: lasting(seconds),
            ..Default::default()
        };
        assert_eq!(
            refused_field(client.create_join_token(request).await),
            "ttl"
        );
        let request = proto::DrainWorkerRequest {
            name: "w1".to_owned(),
            deadline: lasting(seconds),
            after_deadline: proto::AfterDeadline::Force.into(),
            ..Default::default()
        };
        assert_eq!(
            refused_field(client.drain_worker(request).await),
            "deadline"
        );
    }
    allocate(&mut client, "r1", 1).await.unwrap();
    assert!(get(&mut client, "w1").await.unwrap().drain.is_none());
    registry.stop().await;
}

#[tokio::test]
async fn times_that_the_contract_cannot_tell_are_refused() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let worker = Agent::join(&mut client, "w1").await;
    let mut checks = passed();
    checks[0].duration = lasting(1 << 62);
    checks[0].end_time = at(253_402_300_800);
    let request = proto::ActivateWorkerRequest {
        name: "w1".to_owned(),
        generation: worker.generation,
        checks,
    };
    assert_eq!(
        refused_field(client.activate_worker(request).await),
        "checks[0].duration checks[0].end_time"
    );
    let mut long = ask("r1", 1);
    long.spec.as_mut().unwrap().stop_grace = lasting(1 << 62);
    assert_eq!(
        refused_field(client.allocate(long).await),
        "spec.stop_grace"
    );
    let report = proto::ReportDrainRequest {
        owner: OWNER.to_owned(),
        owner_term: term(1),
        worker: "w1".to_owned(),
        eta_time: at(i64::MAX),
        ..Default::default()
    };
    assert_eq!(refused_field(client.report_drain(report).await), "eta_time");
    let filter = proto::WorkerEventFilter {
        since_time: at(-62_135_596_801),
        ..Default::default()
    };
    let request = proto::ListWorkerEventsRequest {
        filter: Some(filter),
        ..Default::default()
    };
    assert_eq!(
        refused_field(client.list_worker_events(request).await),
        "filter.since_time"
    );

    registry.stop().await;
}

#[tokio::test]
async fn what_a_filter_leaves_unsaid_is_named_beside_what_is_wrong() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let filter = proto::WorkerFilter {
        states: vec![99, 0],
        livenesses: vec![0],
        ..Default::default()
    };
    let request = proto::ListWorkersRequest {
        filter: Some(filter),
        ..Default::default()
    };
    assert_eq!(
        refused_field(client.list_workers(request).await),
        "filter.states filter.states filter.livenesses"
    );
    let request = proto::ReleaseMassLossRequest {
        zone: "z".repeat(254),
        reason: "r".repeat(257),
    };
    assert_eq!(
        refused_field(client.release_mass_loss(request).await),
        "zone reason"
    );
    registry.stop().await;
}

#[tokio::test]
async fn a_question_tells_why_each_worker_is_refused() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    for name in ["w1", "w2", "w3"] {
        Agent::join(&mut client, name).await;
    }
    allocate(&mut client, "r1", 6).await.unwrap();
    client
        .register_worker(registration("new", "b1"))
        .await
        .unwrap();
    let mut question = ask("", 9);
    question.validate_only = true;
    question.owner_term = None;
    let answer = client
        .allocate(question.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(answer.allocation.is_none());
    let groups: Vec<_> = answer
        .refusals
        .iter()
        .map(|one| (one.reason.as_str(), one.count))
        .collect();
    assert_eq!(groups, [("GPU", 3), ("WRONG_STATE", 1)]);
    assert!(
        answer.refusals[0]
            .shortfall
            .as_ref()
            .unwrap()
            .available
            .contains('8')
    );
    question.spec = Some(spec("", 8));
    let answer = client.allocate(question).await.unwrap().into_inner();
    assert!(["w2", "w3"].contains(&answer.allocation.unwrap().worker.as_str()));
    let listed = client
        .list_allocations(proto::ListAllocationsRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().total_size, 1);
    let none = client.allocate(ask("r9", 9)).await.unwrap_err();
    assert!(
        none.message().contains("3 workers: needs 9"),
        "{}",
        none.message()
    );
    registry.stop().await;
}

#[tokio::test]
async fn repeated_and_stale_calls_are_told_apart() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let made = allocate(&mut client, "r1", 1).await.unwrap();
    assert_eq!(allocate(&mut client, "r1", 1).await.unwrap(), made);
    assert_eq!(
        reason(allocate(&mut client, "r1", 2).await),
        "REQUEST_ID_REUSED"
    );
    release(&mut client, &made.id).await.unwrap();
    assert_eq!(
        reason(allocate(&mut client, "r1", 1).await),
        "ALREADY_RELEASED"
    );
    agent
        .beat(&mut client, &[(&made.id, proto::HeldPhase::Ended)])
        .await
        .unwrap();
    assert_eq!(
        reason(allocate(&mut client, "r1", 1).await),
        "ALREADY_RELEASED"
    );

    let claim = |revision| proto::ClaimOwnerRequest {
        owner: OWNER.to_owned(),
        owner_term: term(revision),
    };
    let claimed = client.claim_owner(claim(3)).await.unwrap().into_inner();
    assert!(claimed.previous_term.is_none() && !claimed.epoch.is_empty());
    assert_eq!(reason(client.claim_owner(claim(2)).await), "STALE_OWNER");
    assert_eq!(reason(allocate(&mut client, "r2", 1).await), "STALE_OWNER");
    assert_eq!(reason(release(&mut client, &made.id).await), "STALE_OWNER");

    let fenced = Agent::new("w1", 0);
    assert_eq!(reason(fenced.beat(&mut client, &[]).await), "FENCED");
    let ahead = Agent::new("w1", 2);
    assert_eq!(reason(ahead.beat(&mut client, &[]).await), "REREGISTER");
    registry.stop().await;
}

#[tokio::test]
async fn a_stale_etag_aborts_and_a_current_one_does_not() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let read = get(&mut client, "w1").await.unwrap();
    // Neither heartbeats nor allocations change it.
    allocate(&mut client, "r1", 1).await.unwrap();
    assert_eq!(get(&mut client, "w1").await.unwrap().etag, read.etag);
    let update = |etag: &str, label: &str| proto::UpdateWorkerRequest {
        worker: Some(proto::Worker {
            name: "w1".to_owned(),
            etag: etag.to_owned(),
            labels: [("tier".to_owned(), label.to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let written = client
        .update_worker(update(&read.etag, "gold"))
        .await
        .unwrap()
        .into_inner()
        .worker
        .unwrap();
    assert_ne!(written.etag, read.etag);
    let stale = client
        .update_worker(update(&read.etag, "lead"))
        .await
        .unwrap_err();
    assert_eq!(
        (stale.code(), Details::of(&stale).reason.as_str()),
        (Code::Aborted, "ETAG_MISMATCH")
    );
    assert_eq!(
        reason(client.update_worker(update("nonsense", "lead")).await),
        "INVALID_FIELD"
    );
    let drain = proto::DrainWorkerRequest {
        name: "w1".to_owned(),
        etag: read.etag,
        ..Default::default()
    };
    assert_eq!(reason(client.drain_worker(drain).await), "ETAG_MISMATCH");
    registry.stop().await;
}

#[tokio::test]
async fn wrong_states_name_the_state_and_what_to_do_first() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    allocate(&mut client, "r1", 1).await.unwrap();
    let name = || "w1".to_owned();
    let enable = client
        .enable_worker(proto::EnableWorkerRequest {
            name: name(),
            ..Default::default()
        })
        .await;
    let details = Details::of(&enable.unwrap_err());
    assert_eq!(
        (details.reason.as_str(), details.metadata["state"].as_str()),
        ("WRONG_STATE", "ACTIVE")
    );
    assert!(
        details.message.contains("in use already"),
        "{}",
        details.message
    );
    let disable = client
        .disable_worker(proto::DisableWorkerRequest {
            name: name(),
            ..Default::default()
        })
        .await;
    let details = Details::of(&disable.unwrap_err());
    assert_eq!(
        (
            details.reason.as_str(),
            details.metadata["allocations"].as_str()
        ),
        ("NOT_EMPTY", "1")
    );
    let delete = client
        .delete_worker(proto::DeleteWorkerRequest {
            name: name(),
            ..Default::default()
        })
        .await;
    assert_eq!(reason(delete), "WRONG_STATE");
    let missing = client
        .drain_worker(proto::DrainWorkerRequest {
            name: "w9".to_owned(),
            ..Default::default()
        })
        .await;
    assert_eq!(reason(missing), "RESOURCE_NOT_FOUND");
    registry.stop().await;
}

#[tokio::test]
async fn a_batch_takes_all_or_what_it_can() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    for name in ["w1", "w2"] {
        Agent::join(&mut client, name).await;
    }
    let batch = |specs: Vec<proto::AllocationSpec>, all_or_nothing| proto::BatchAllocateRequest {
        owner: OWNER.to_owned(),
        owner_term: term(1),
        specs,
        all_or_nothing,
    };
    let three = || (0..3).map(|id| spec(&format!("a{id}"), 8)).collect();
    assert_eq!(
        reason(client.batch_allocate(batch(three(), true)).await),
        "NO_CAPACITY"
    );
    let answer = client
        .batch_allocate(batch(three(), false))
        .await
        .unwrap()
        .into_inner();
    use proto::allocation_result::Result::{Allocation, Error};
    let outcomes: Vec<_> = answer
        .results
        .iter()
        .map(|one| one.result.as_ref().unwrap())
        .collect();
    assert!(
        matches!(outcomes[..], [Allocation(_), Allocation(_), Error(_)]),
        "{outcomes:?}"
    );
    assert_eq!(answer.results[2].refusals[0].reason, "GPU");
    let many = (0..13).map(|id| spec(&format!("b{id}"), 0)).collect();
    assert_eq!(
        reason(client.batch_allocate(batch(many, true)).await),
        "INVALID_FIELD"
    );
    let many = (0..200).map(|id| spec(&format!("c{id}"), 0)).collect();
    let answer = client
        .batch_allocate(batch(many, false))
        .await
        .unwrap()
        .into_inner();
    let given = answer
        .results
        .iter()
        .filter(|one| matches!(one.result, Some(Allocation(_))))
        .count();
    // Two workers of 64 processors, of which two went to the batch before.
    assert_eq!((answer.results.len(), given), (200, 126));
    registry.stop().await;
}
