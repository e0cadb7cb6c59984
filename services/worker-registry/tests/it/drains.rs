//! Emptying workers, whatever happens meanwhile.

use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::HeldPhase::{Ended, Running};
use muster_proto::workers::v1::{AfterDeadline, WorkerLiveness, WorkerState};
use muster_store::Store;

use crate::support::{
    Agent, Client, OWNER, Registry, allocate, config, get, reason, release, spec, term, until,
};

fn request(name: &str) -> proto::DrainWorkerRequest {
    proto::DrainWorkerRequest {
        name: name.to_owned(),
        reason: "new kernel".to_owned(),
        ..Default::default()
    }
}

fn forced(name: &str, millis: i32) -> proto::DrainWorkerRequest {
    let deadline = prost_types::Duration {
        seconds: i64::from(millis / 1000),
        nanos: millis % 1000 * 1_000_000,
    };
    proto::DrainWorkerRequest {
        deadline: Some(deadline),
        after_deadline: AfterDeadline::Force.into(),
        ..request(name)
    }
}

async fn report(client: &mut Client, worker: &str, moved: i32, blocked: &[&str]) {
    let block = |reason: &&str| proto::DrainBlock {
        reason: (*reason).to_owned(),
        ..Default::default()
    };
    let request = proto::ReportDrainRequest {
        owner: OWNER.to_owned(),
        owner_term: term(1),
        worker: worker.to_owned(),
        moved,
        left: 1,
        blocked: blocked.iter().map(block).collect(),
        eta_time: None,
    };
    client.report_drain(request).await.unwrap();
}

async fn blocked(client: &mut Client, worker: &str) -> Vec<String> {
    let drain = get(client, worker).await.unwrap().drain.unwrap();
    drain
        .blocked
        .into_iter()
        .map(|block| block.reason)
        .collect()
}

/// The states of a worker that was drained.
const LIFE: [WorkerState; 4] = [
    WorkerState::Provisioning,
    WorkerState::Active,
    WorkerState::Draining,
    WorkerState::Disabled,
];

/// Registries that judge quickly: lost after 800 ms of silence.
fn quick() -> worker_registry::Config {
    let mut config = config();
    config.rules.lost_after = Duration::from_millis(800);
    config.rules.fence_after = Duration::from_millis(1200);
    config.rules.fence_margin = Duration::from_millis(50);
    config.owner_silent_after = Duration::from_millis(600);
    config
}

#[tokio::test]
async fn an_empty_worker_is_told_to_drain_before_it_is_disabled() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    client.drain_worker(request("w1")).await.unwrap();
    let answer = client
        .list_worker_events(proto::ListWorkerEventsRequest::default())
        .await
        .unwrap();
    let events = answer.into_inner().events;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let expected = [
        "WorkerRegistered",
        "WorkerActivated",
        "WorkerDraining",
        "WorkerDisabled",
    ];
    assert_eq!(kinds, expected);
    registry.stop().await;
}

#[tokio::test]
async fn a_drain_is_followed_to_its_end() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let mut held = Vec::new();
    for id in ["r1", "r2"] {
        held.push(allocate(&mut client, id, 1).await.unwrap());
    }
    let answer = client
        .drain_worker(request("w1"))
        .await
        .unwrap()
        .into_inner();
    let drain = answer.worker.unwrap().drain.unwrap();
    assert_eq!(
        (
            drain.total,
            drain.left,
            drain.max_parallel,
            drain.actor.as_str()
        ),
        (2, 2, 1, "anonymous")
    );
    report(&mut client, "w1", 1, &["NO_CAPACITY"]).await;
    release(&mut client, &held[0].id).await.unwrap();
    agent
        .beat(&mut client, &[(&held[0].id, Ended), (&held[1].id, Running)])
        .await
        .unwrap();
    let drain = get(&mut client, "w1").await.unwrap().drain.unwrap();
    assert_eq!((drain.moved, drain.left), (1, 1));
    assert_eq!(blocked(&mut client, "w1").await, ["NO_CAPACITY"]);
    release(&mut client, &held[1].id).await.unwrap();
    let beat = agent
        .beat(&mut client, &[(&held[1].id, Ended)])
        .await
        .unwrap();
    assert_eq!(beat.state(), WorkerState::Disabled);
    let worker = get(&mut client, "w1").await.unwrap();
    assert!(worker.drain.unwrap().end_time.is_some());
    let states: Vec<_> = worker
        .history
        .iter()
        .map(proto::WorkerTransition::new_state)
        .collect();
    assert_eq!(states, LIFE);
    assert_eq!(worker.history[2].reason, "new kernel");
    registry.stop().await;
}

#[tokio::test]
async fn a_question_changes_nothing_and_names_what_would_fail() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let mut failing = crate::support::ask("r1", 1);
    failing.spec = Some(proto::AllocationSpec {
        fails_if_forced: true,
        ..spec("r1", 1)
    });
    client.allocate(failing).await.unwrap();
    allocate(&mut client, "r2", 1).await.unwrap();
    let question = proto::DrainWorkerRequest {
        validate_only: true,
        ..request("w1")
    };
    let answer = client.drain_worker(question).await.unwrap().into_inner();
    assert_eq!(answer.would_fail, ["chat/r1"]);
    assert_eq!(answer.worker.unwrap().state(), WorkerState::Draining);
    assert_eq!(
        get(&mut client, "w1").await.unwrap().state(),
        WorkerState::Active
    );
    registry.stop().await;
}

#[tokio::test]
async fn several_drain_at_once_and_one_is_called_off() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let mut agents = Vec::new();
    for name in ["w1", "w2", "w3"] {
        agents.push(Agent::join(&mut client, name).await);
    }
    let mut held = Vec::new();
    for (number, name) in ["w1", "w2", "w3"].iter().enumerate() {
        let mut ask = crate::support::ask(&format!("r{number}"), 8);
        ask.spec.as_mut().unwrap().worker = (*name).to_owned();
        held.push(
            client
                .allocate(ask)
                .await
                .unwrap()
                .into_inner()
                .allocation
                .unwrap(),
        );
        client.drain_worker(request(name)).await.unwrap();
    }
    assert_eq!(reason(allocate(&mut client, "r9", 1).await), "NO_CAPACITY");
    let resumed = proto::ResumeWorkerRequest {
        name: "w2".to_owned(),
        ..Default::default()
    };
    let resumed = client
        .resume_worker(resumed)
        .await
        .unwrap()
        .into_inner()
        .worker
        .unwrap();
    assert_eq!(resumed.state(), WorkerState::Active);
    assert!(resumed.drain.unwrap().end_time.is_some());
    for place in [0, 2] {
        release(&mut client, &held[place].id).await.unwrap();
        agents[place]
            .beat(&mut client, &[(&held[place].id, Ended)])
            .await
            .unwrap();
        assert_eq!(
            get(&mut client, &agents[place].name).await.unwrap().state(),
            WorkerState::Disabled
        );
    }
    registry.stop().await;
}

#[tokio::test]
async fn a_forced_deadline_needs_nobody_but_the_agent() {
    let registry = Registry::with(quick(), Store::memory()).await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let held = allocate(&mut client, "r1", 1).await.unwrap();
    client.drain_worker(forced("w1", 300)).await.unwrap();
    assert!(
        !agent
            .beat(&mut client, &[(&held.id, Running)])
            .await
            .unwrap()
            .forced
    );
    // Nobody reports: the manager is down. The agent beats on, is told, and stops.
    let mut told = false;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        told |= agent
            .beat(&mut client, &[(&held.id, Running)])
            .await
            .unwrap()
            .forced;
    }
    assert!(told);
    assert_eq!(blocked(&mut client, "w1").await, ["OWNER_SILENT"]);
    agent.beat(&mut client, &[(&held.id, Ended)]).await.unwrap();
    assert_eq!(
        get(&mut client, "w1").await.unwrap().state(),
        WorkerState::Draining
    );
    // The manager is back, and gives back what has ended.
    assert!(release(&mut client, &held.id).await.unwrap().is_none());
    assert_eq!(
        get(&mut client, "w1").await.unwrap().state(),
        WorkerState::Disabled
    );
    registry.stop().await;
}

#[tokio::test]
async fn a_worker_lost_while_it_drains_is_blocked_until_its_deadline_or_force() {
    let registry = Registry::with(quick(), Store::memory()).await;
    let mut client = registry.client().await;
    for name in ["w1", "w2"] {
        Agent::join(&mut client, name).await;
        let mut ask = crate::support::ask(name, 1);
        ask.spec.as_mut().unwrap().worker = name.to_owned();
        client.allocate(ask).await.unwrap();
    }
    client.drain_worker(request("w1")).await.unwrap();
    client.drain_worker(forced("w2", 1900)).await.unwrap();
    let lost = async |client: &mut Client| {
        get(client, "w1").await.unwrap().liveness() == WorkerLiveness::Lost
    };
    until("w1 is LOST", async || lost(&mut client.clone()).await).await;
    assert!(
        blocked(&mut client, "w1")
            .await
            .contains(&"LOST".to_owned())
    );
    let disabled = async |client: &mut Client| {
        get(client, "w2").await.unwrap().state() == WorkerState::Disabled
    };
    until("w2 is DISABLED", async || {
        disabled(&mut client.clone()).await
    })
    .await;
    let second = get(&mut client, "w2").await.unwrap();
    assert!(second.unconfirmed && second.generation == 2 && second.revoked_through == 1);
    assert_eq!(
        get(&mut client, "w1").await.unwrap().state(),
        WorkerState::Draining
    );
    let force = proto::DisableWorkerRequest {
        name: "w1".to_owned(),
        force: true,
        ..Default::default()
    };
    let first = client
        .disable_worker(force)
        .await
        .unwrap()
        .into_inner()
        .worker
        .unwrap();
    assert!(first.unconfirmed && first.state() == WorkerState::Disabled);
    let none_left = async |client: &mut Client| {
        let listed = client
            .list_allocations(proto::ListAllocationsRequest::default())
            .await
            .unwrap();
        listed.into_inner().allocations.is_empty()
    };
    until("what was revoked is forgotten", async || {
        none_left(&mut client.clone()).await
    })
    .await;
    registry.stop().await;
}

#[tokio::test]
async fn a_lost_worker_disabled_by_force_is_fenced_still_and_then_deleted() {
    let registry = Registry::with(quick(), Store::memory()).await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    allocate(&mut client, "r1", 1).await.unwrap();
    let lost = async |client: &mut Client| {
        get(client, "w1").await.unwrap().liveness() == WorkerLiveness::Lost
    };
    until("w1 is LOST", async || lost(&mut client.clone()).await).await;
    let force = proto::DisableWorkerRequest {
        name: "w1".to_owned(),
        force: true,
        ..Default::default()
    };
    client.disable_worker(force).await.unwrap();
    let fenced = async |client: &mut Client| get(client, "w1").await.unwrap().fenced;
    until("w1 is fenced", async || fenced(&mut client.clone()).await).await;
    let delete = proto::DeleteWorkerRequest {
        name: "w1".to_owned(),
        ..Default::default()
    };
    client.delete_worker(delete).await.unwrap();
    registry.stop().await;
}

#[tokio::test]
async fn a_lost_workers_fence_is_marked_and_its_return_ends_it() {
    let registry = Registry::with(quick(), Store::memory()).await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let held = allocate(&mut client, "r1", 1).await.unwrap();
    let fenced = async |client: &mut Client| get(client, "w1").await.unwrap().fenced;
    let started = tokio::time::Instant::now();
    until("w1 is fenced", async || fenced(&mut client.clone()).await).await;
    assert!(
        started.elapsed() > Duration::from_millis(1_200),
        "{:?}",
        started.elapsed()
    );
    let revoked = release(&mut client, &held.id).await.unwrap().unwrap();
    assert_eq!(revoked.state(), proto::AllocationState::Revoked);
    let beat = agent
        .beat(&mut client, &[(&held.id, Running)])
        .await
        .unwrap();
    assert_eq!(beat.notices[0].state(), proto::AllocationState::Revoked);
    let back = get(&mut client, "w1").await.unwrap();
    assert_eq!(
        (back.liveness(), back.fenced),
        (WorkerLiveness::Alive, false)
    );
    agent.beat(&mut client, &[(&held.id, Ended)]).await.unwrap();
    assert_eq!(
        get(&mut client, "w1")
            .await
            .unwrap()
            .usage
            .unwrap()
            .allocations,
        0
    );
    registry.stop().await;
}

#[tokio::test]
async fn a_drain_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        || Store::embedded(folder.path().join("r.db"), muster_store::Options::default()).unwrap();
    let registry = Registry::with(config(), open()).await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let held = allocate(&mut client, "r1", 1).await.unwrap();
    client.drain_worker(forced("w1", 700)).await.unwrap();
    registry.stop().await.close().await;

    let registry = Registry::with(config(), open()).await;
    let mut client = registry.client().await;
    assert_eq!(
        get(&mut client, "w1").await.unwrap().state(),
        WorkerState::Draining
    );
    let mut told = false;
    for _ in 0..100 {
        told |= agent
            .beat(&mut client, &[(&held.id, Running)])
            .await
            .unwrap()
            .forced;
        if told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(told);
    release(&mut client, &held.id).await.unwrap();
    agent.beat(&mut client, &[(&held.id, Ended)]).await.unwrap();
    assert_eq!(
        get(&mut client, "w1").await.unwrap().state(),
        WorkerState::Disabled
    );
    registry.stop().await.close().await;
}

#[tokio::test]
async fn an_agents_own_shutdown_ends_with_its_leaving() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let held = allocate(&mut client, "r1", 1).await.unwrap();
    let shutdown = proto::DrainWorkerRequest {
        cause: proto::DrainCause::Shutdown.into(),
        generation: agent.generation,
        ..forced("w1", 900)
    };
    client.drain_worker(shutdown).await.unwrap();
    let leave = |held: Vec<proto::HeldAllocation>| proto::HeartbeatRequest {
        name: "w1".to_owned(),
        generation: 1,
        leaving: true,
        held,
        ..Default::default()
    };
    assert_eq!(
        reason(client.heartbeat(leave(Vec::new())).await),
        "NOT_EMPTY"
    );
    release(&mut client, &held.id).await.unwrap();
    let ended = proto::HeldAllocation {
        allocation_id: held.id,
        phase: Ended.into(),
        record: None,
    };
    client.heartbeat(leave(vec![ended])).await.unwrap();
    let left = get(&mut client, "w1").await.unwrap();
    assert_eq!(
        (left.state(), left.liveness()),
        (WorkerState::Disabled, WorkerLiveness::Left)
    );
    registry.stop().await;
}

/// The value of a metric of the registry.
fn metric(registry: &Registry, name: &str) -> f64 {
    let text = registry.context.metrics.render().unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_fleet_and_its_longest_drain_are_measured() {
    const LONGEST: &str = "muster_registry_longest_drain_seconds ";
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let of = |state: &str| {
        let series = format!("muster_registry_workers{{state=\"{state}\"}} ");
        metric(&registry, &series)
    };
    let agent = Agent::join(&mut client, "w1").await;
    assert_eq!((of("ACTIVE"), of("DRAINING")), (1.0, 0.0));
    assert_eq!(metric(&registry, LONGEST), 0.0);
    let held = allocate(&mut client, "r1", 1).await.unwrap();
    client.drain_worker(request("w1")).await.unwrap();
    assert_eq!((of("ACTIVE"), of("DRAINING")), (0.0, 1.0));
    assert_eq!(metric(&registry, "muster_registry_drains "), 1.0);
    until("the drain's age grows", async || {
        metric(&registry, LONGEST) > 0.05
    })
    .await;
    release(&mut client, &held.id).await.unwrap();
    agent.beat(&mut client, &[(&held.id, Ended)]).await.unwrap();
    assert_eq!((of("DRAINING"), of("DISABLED")), (0.0, 1.0));
    assert_eq!(metric(&registry, "muster_registry_drains "), 0.0);
    assert_eq!(metric(&registry, LONGEST), 0.0);
}
