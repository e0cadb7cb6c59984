//! Decisions that are too large for one transaction.

use std::time::{Duration, UNIX_EPOCH};

use muster_proto::workers::v1 as proto;
use muster_runtime::watch::Filter;
use muster_store::{Error as StoreError, MAX_BYTES, Store};

use super::{Running, ask, call, config, join, pass, registration, term};
use crate::domain::decide::Decision;
use crate::domain::event::{Event, Severity};
use crate::domain::fleet::{Change, Draft};
use crate::domain::text::Text;
use crate::domain::worker::Presence;
use crate::grpc::calls;
use crate::registry::Error;

/// More than a transaction may be.
fn too_large() -> Decision<()> {
    let message = "m".repeat(MAX_BYTES + 1);
    let (severity, actor) = (Severity::Info, "alice".into());
    let event = Event::of_zone("", UNIX_EPOCH, "Told", severity, message, actor);
    Decision {
        draft: Draft::of(Change::Event(event.into())),
        answer: (),
    }
}

#[tokio::test]
async fn one_that_is_refused_for_its_size_leaves_everything_as_it_was() {
    let running = Running::start(config(), Store::memory()).await;
    let registry = &running.registry;
    join(registry, "w1", 8).await;
    let token = registry.hubs.workers.resume_token();
    for round in 0..4 {
        let refused = registry.decide(|_, _| Ok(too_large()));
        let id = format!("call-{round}");
        let allocated = calls::allocate(registry, call(ask(&id, 1)));
        let (refused, allocated) = tokio::join!(refused, allocated);
        let refused = refused.map(|_| ()).unwrap_err();
        let is_size = matches!(refused, Error::Store(StoreError::TooLarge { .. }));
        assert!(is_size, "{refused:?}");
        allocated.unwrap();
    }
    let next = registry.with_book(|book| book.next_revision());
    assert_eq!(next, registry.view().revision() + 1);
    assert_eq!(registry.view().allocation_count(), 4);
    let resumed = registry.hubs.workers.watch(&token, Filter::all());
    assert!(resumed.is_ok(), "watches were ended");
    running.crash().await;
}

#[tokio::test]
async fn the_largest_batch_of_all_or_nothing_takes_over_what_has_ended() {
    let running = Running::start(config(), Store::memory()).await;
    let registry = &running.registry;
    for worker in 0..12 {
        join(registry, &format!("w{worker}"), 1).await;
    }
    let batch = |round: &str, replaces: &[String]| {
        let spec = |place: usize| proto::AllocationSpec {
            replaces: replaces.get(place).cloned().unwrap_or_default(),
            ..ask(&format!("{round}-{place}"), 1).spec.unwrap()
        };
        call(proto::BatchAllocateRequest {
            owner: "replica-manager".to_owned(),
            owner_term: term(),
            specs: (0..12).map(spec).collect(),
            all_or_nothing: true,
        })
    };
    let ids = |answer: proto::BatchAllocateResponse| -> Vec<String> {
        use proto::allocation_result::Result::Allocation;
        let id = |one: proto::AllocationResult| match one.result {
            Some(Allocation(allocation)) => allocation.id,
            other => panic!("{other:?}"),
        };
        answer.results.into_iter().map(id).collect()
    };
    let first = calls::batch_allocate(registry, batch("first", &[])).await;
    let first = ids(first.unwrap());
    registry.with_book(|book| {
        for id in &first {
            book.note_ended(&Text::from(id.as_str()), 1);
        }
    });
    let second = calls::batch_allocate(registry, batch("second", &first)).await;
    assert_eq!(ids(second.unwrap()).len(), 12);
    assert_eq!(registry.view().allocation_count(), 12);
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn large_workers_that_fall_silent_together_are_all_lost() {
    let running = Running::start(config(), Store::memory()).await;
    let registry = &running.registry;
    let check = |number: usize| proto::WorkerCheck {
        name: format!("check-{number}"),
        status: proto::CheckStatus::Passed.into(),
        message: "m".repeat(1000),
        ..proto::WorkerCheck::default()
    };
    for worker in 0..25 {
        let name = format!("w{worker}");
        let mut machine = registration(&name, "boot-1", 1);
        // Apart, so that no brake holds them.
        machine.zone = name.clone();
        calls::register(registry, call(machine)).await.unwrap();
        let request = proto::ActivateWorkerRequest {
            name,
            generation: 1,
            checks: (0..60).map(check).collect(),
        };
        calls::activate(registry, call(request)).await.unwrap();
    }
    let count = |test: fn(&Presence) -> bool| {
        let view = registry.view();
        let found = view.workers().filter(|entry| test(&entry.worker.presence));
        found.count()
    };
    pass(Duration::from_secs(60)).await;
    assert_eq!(
        count(|presence| matches!(presence, Presence::Lost { .. })),
        25
    );
    // So are their fences.
    pass(Duration::from_secs(300)).await;
    assert_eq!(
        count(|presence| matches!(presence, Presence::Lost { fenced: true, .. })),
        25
    );
    running.crash().await;
}
