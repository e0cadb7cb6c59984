//! What a leader may write, and for how long.

use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_runtime::watch::Filter;
use muster_store::{HistoryLimits, Leases, Link, MemoryCluster, Options, Store};
use tonic::Code;

use super::{Running, ask, call, config, join, registration, term};
use crate::domain::decide::Decision;
use crate::domain::fleet::{Change, Draft};
use crate::domain::liveness::{Liveness, Longest};
use crate::domain::state::State;
use crate::grpc::calls;
use crate::registry::{Error, Registry};

async fn open(cluster: &MemoryCluster) -> (Store, Link) {
    let options = Options {
        leases: Leases {
            leader: Duration::from_millis(600),
            instance: Duration::from_secs(2),
        },
        ..Options::default()
    };
    cluster.open("/registry/", options).await.unwrap()
}

/// The same with no history to speak of.
async fn forgetful(cluster: &MemoryCluster) -> (Store, Link) {
    let options = Options {
        history: HistoryLimits::NONE,
        ..Options::default()
    };
    cluster.open("/registry/", options).await.unwrap()
}

async fn until(what: &str, test: impl Fn() -> bool) {
    let reached = async {
        while !test() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    assert!(reached.is_ok(), "never: {what}");
}

fn leads(registry: &Registry) -> bool {
    registry.instances.leading().is_some()
}

fn an_hour() -> Longest {
    Longest {
        lost_after: Duration::from_secs(10),
        fence_after: Duration::from_secs(3600),
    }
}

fn longer_fence() -> Decision<()> {
    Decision {
        draft: Draft::of(Change::Longest(an_hour())),
        answer: (),
    }
}

#[tokio::test]
async fn who_led_before_writes_nothing_and_who_leads_now_does() {
    let cluster = MemoryCluster::new();
    let (store, link) = open(&cluster).await;
    let first = Running::start(config(), store).await;
    until("the first leads", || leads(&first.registry)).await;
    let lead = first.registry.instances.leading().unwrap();
    let (store, _link) = open(&cluster).await;
    let second = Running::start(config(), store).await;
    link.cut();
    until("the second leads", || leads(&second.registry)).await;
    assert!(!leads(&first.registry));
    link.heal();

    let fence = || second.registry.view().longest();
    let before = fence();
    let refused = first
        .registry
        .decide_leading(&lead, |_, _| Ok(longer_fence()));
    let refused = refused.await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::NotLeading), "{refused:?}");
    assert_eq!(fence(), before);

    let lead = second.registry.instances.leading().unwrap();
    let written = second
        .registry
        .decide_leading(&lead, |_, _| Ok(longer_fence()));
    let written = written.await.unwrap();
    assert_eq!(fence(), an_hour());
    until("the first shows it", || {
        first.registry.progress.current() >= written.revision
    })
    .await;
    assert_eq!(first.registry.view().longest(), fence());
    first.crash().await;
    second.crash().await;
}

#[tokio::test]
async fn who_is_behind_the_store_stops_nothing_that_was_made_meanwhile() {
    let cluster = MemoryCluster::new();
    let (store, link) = cluster
        .open("/registry/", Options::default())
        .await
        .unwrap();
    let behind = Running::start(config(), store).await;
    let (store, _link) = cluster
        .open("/registry/", Options::default())
        .await
        .unwrap();
    let other = Running::start(config(), store).await;
    join(&other.registry, "w1", 4).await;
    until("it is known", || {
        behind
            .registry
            .view()
            .worker("w1")
            .is_some_and(|entry| entry.worker.state == State::Active)
    })
    .await;
    link.cut();
    let made = calls::allocate(&other.registry, call(ask("call-1", 1)));
    let made = made.await.unwrap().allocation.unwrap().id;
    let beat = |phase: proto::HeldPhase| {
        call(proto::HeartbeatRequest {
            name: "w1".to_owned(),
            generation: 1,
            held: vec![proto::HeldAllocation {
                allocation_id: made.clone(),
                phase: phase.into(),
                ..proto::HeldAllocation::default()
            }],
            ..proto::HeartbeatRequest::default()
        })
    };
    for phase in [proto::HeldPhase::Running, proto::HeldPhase::Ended] {
        let answer = calls::heartbeat(&behind.registry, beat(phase))
            .await
            .unwrap();
        assert_eq!(answer.notices, []);
        assert!(answer.forgotten_allocations.is_empty());
    }
    link.heal();
    behind.crash().await;
    other.crash().await;
}

#[tokio::test]
async fn who_names_something_ended_is_heard_before_that_is_stored() {
    let cluster = MemoryCluster::new();
    let (store, link) = cluster
        .open("/registry/", Options::default())
        .await
        .unwrap();
    let running = Running::start(config(), store).await;
    let registry = &running.registry;
    join(registry, "w1", 4).await;
    let made = calls::allocate(registry, call(ask("call-1", 1)));
    let made = made.await.unwrap().allocation.unwrap().id;
    let release = proto::ReleaseRequest {
        allocation_id: made.clone(),
        owner: "replica-manager".to_owned(),
        owner_term: term(),
        ..proto::ReleaseRequest::default()
    };
    calls::release(registry, call(release)).await.unwrap();
    let beat = call(proto::HeartbeatRequest {
        name: "w1".to_owned(),
        generation: 1,
        held: vec![proto::HeldAllocation {
            allocation_id: made,
            phase: proto::HeldPhase::Ended.into(),
            ..proto::HeldAllocation::default()
        }],
        ..proto::HeartbeatRequest::default()
    });
    let before = registry.lives.heard("w1");
    link.cut();
    let beaten = calls::heartbeat(registry, beat);
    let beaten = tokio::time::timeout(Duration::from_secs(1), beaten).await;
    assert!(!matches!(beaten, Ok(Ok(_))), "{beaten:?}");
    assert!(registry.lives.heard("w1") > before);
    link.heal();
    running.crash().await;
}

#[tokio::test]
async fn a_leader_trusts_those_who_beat_as_another_instance_told_them() {
    let cluster = MemoryCluster::new();
    let (store, link) = open(&cluster).await;
    let mut slow = config();
    slow.rules.interval = Duration::from_secs(1000);
    let first = Running::start(slow, store).await;
    join(&first.registry, "w1", 4).await;
    link.cut();
    let (store, _link) = open(&cluster).await;
    let mut quick = config();
    quick.rules.interval = Duration::from_millis(10);
    quick.rules.lost_after = Duration::from_millis(50);
    let second = Running::start(quick, store).await;
    let registry = &second.registry;
    until("the second leads", || leads(registry)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let entry = registry.view().worker("w1").cloned().unwrap();
    assert_eq!(registry.liveness(&entry.worker), Liveness::Unknown);
    first.crash().await;
    second.crash().await;
}

#[tokio::test]
async fn who_missed_more_than_the_history_holds_reads_all_anew() {
    let cluster = MemoryCluster::new();
    let (store, link) = forgetful(&cluster).await;
    let behind = Running::start(config(), store).await;
    let (store, _link) = open(&cluster).await;
    let other = Running::start(config(), store).await;
    let register = |name: String| {
        let request = call(registration(&name, "boot-1", 4));
        calls::register(&other.registry, request)
    };
    register("gone".to_owned()).await.unwrap();
    until("it is known", || {
        behind.registry.view().worker("gone").is_some()
    })
    .await;
    let old = behind.registry.hubs.workers.resume_token();
    link.cut();
    for place in 0..20 {
        register(format!("w{place}")).await.unwrap();
    }
    let deleted = other.registry.decide(|_, _| {
        let gone = Change::WorkerGone("gone".into());
        let draft = Draft::of(gone);
        Ok(Decision { draft, answer: () })
    });
    let deleted = deleted.await.unwrap();
    link.heal();
    until("it has caught up", || {
        behind.registry.progress.current() >= deleted.revision
    })
    .await;
    let registry = &behind.registry;
    let names = |registry: &Registry| -> Vec<_> {
        let view = registry.view();
        view.workers()
            .map(|entry| entry.worker.name.clone())
            .collect()
    };
    assert_eq!(names(registry), names(&other.registry));
    assert_eq!(names(registry).len(), 20);
    assert!(registry.lives.get("gone").is_none());
    let resumed = registry.hubs.workers.watch(&old, Filter::all());
    let resumed = resumed.map(|_| ()).unwrap_err();
    assert_eq!(resumed.code(), Code::OutOfRange, "{resumed:?}");
    let of = |registry: &Registry| -> Vec<_> {
        let events = registry.hubs.events.after("", |_| true, 1000);
        events.iter().map(|event| event.0.id.clone()).collect()
    };
    let (here, there) = (of(registry), of(&other.registry));
    assert!(
        here.iter().all(|id| there.contains(id)) && here.len() > 20,
        "{here:?}"
    );
    // It decides by what it read.
    calls::register(registry, call(registration("late", "boot-1", 4)))
        .await
        .unwrap();
    assert_eq!(registry.metrics.conflicts.get(), 0);
    behind.crash().await;
    other.crash().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_the_write_there() {
    let cluster = MemoryCluster::new();
    let (store, link) = open(&cluster).await;
    let running = Running::start(config(), store).await;
    let registry = &running.registry;
    until("it leads", || leads(registry)).await;
    link.lose_answers(1);
    let lost = registry.decide(|_, _| Ok(longer_fence())).await;
    assert!(matches!(lost, Err(Error::Store(_))), "{lost:?}");
    until("it is shown nevertheless", || {
        registry.view().longest() == an_hour()
    })
    .await;
    // The book has followed as well: what is decided next rests on it.
    let again = registry.decide(|_, _| Ok(longer_fence())).await;
    assert!(again.is_ok(), "{again:?}");
    assert_eq!(registry.metrics.conflicts.get(), 0);
    running.crash().await;
}
