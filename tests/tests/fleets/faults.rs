//! What replicas live through when agents, machines and the manager fail, with every part a process of
//! its own. The replicas themselves hold a lock while they run, so that two of one never go unnoticed.

use std::{collections::BTreeMap, time::Duration};

use clap::ValueEnum as _;
use muster_proto::{
    replicas::v1::{
        DeleteServiceRequest, FailureClass, OnDisconnect, RemoveOrphanRequest, Replica,
        ReplicaPhase, ScaleServiceRequest, ServicePhase, ServiceSpec, UpdateServiceRequest,
    },
    workers::v1::WorkerLiveness,
};
use muster_tests::fleet::{self, Fleet, Layout, witness::Witness};
use replica_manager::crash::Step;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tonic::Code;

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Long enough for whatever would be restarted wrongly to be restarted.
const AWHILE: Duration = Duration::from_secs(4);

async fn fleet(layout: Layout) -> Fleet {
    Fleet::laid_out(env!("CARGO_BIN_EXE_component"), layout).await
}

/// Two machines that are lost after four seconds of silence, and fenced after ten.
async fn two_machines(wired: bool) -> Fleet {
    let flags = [
        "--heartbeat-interval=250ms",
        "--lost-after=4s",
        "--fence-after=10s",
        "--fence-margin=500ms",
    ];
    let registry = flags.map(str::to_owned).to_vec();
    fleet(Layout {
        agents: 2,
        registry,
        wired,
        ..Layout::default()
    })
    .await
}

/// A service of witnesses that is HEALTHY, with its processes.
async fn healthy(fleet: &Fleet, spec: ServiceSpec) -> BTreeMap<String, i32> {
    let name = spec.name.clone();
    fleet.apply(spec).await;
    fleet.until(&name, ServicePhase::Healthy, PATIENCE).await;
    fleet.processes(&name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_and_started_again_finds_its_replicas_running() {
    let mut fleet = fleet(Layout {
        agents: 1,
        ..Layout::default()
    })
    .await;
    let witness = Witness::new(fleet.path(), "chat");
    let before = healthy(&fleet, witness.spec("chat", 3, fleet::retry())).await;
    let seen = fleet.statuses("chat");
    for generation in 2..=4 {
        fleet.agent("w1").kill();
        assert_eq!(fleet.processes_of(&before), before, "one ended with it");
        fleet.agent("w1").start().await;
        fleet.until_generation("w1", generation).await;
        fleet.until_known("chat", &before).await;
    }
    sleep(AWHILE).await;
    assert_eq!(fleet.processes("chat").await, before);
    assert_eq!(witness.starts(), 3, "{:#?}", witness.marks());
    assert_eq!(seen.phases().await, [ServicePhase::Healthy]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_components_away_for_a_while_stop_and_restart_nothing() {
    let mut fleet = two_machines(false).await;
    let witness = Witness::new(fleet.path(), "chat");
    let before = healthy(&fleet, witness.spec("chat", 4, fleet::retry())).await;
    fleet.kill_components();
    // Longer than a machine may be silent.
    sleep(Duration::from_secs(6)).await;
    assert_eq!(fleet.processes_of(&before), before, "one ended with them");
    fleet.start_components().await;
    fleet.until_known("chat", &before).await;
    sleep(AWHILE).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    assert_eq!(fleet.processes("chat").await, before);
    assert_eq!(witness.starts(), 4, "{:#?}", witness.marks());
    fleet.until_allocations(4, PATIENCE).await;
}

fn ready(replica: &Replica) -> bool {
    replica.phase() == ReplicaPhase::Ready
}

fn ready_elsewhere(replica: &Replica, than: &str) -> bool {
    ready(replica) && replica.attempt.as_ref().unwrap().worker != than
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_cut_off_is_replaced_with_keep_and_its_old_one_is_stopped_once_it_is_back() {
    let fleet = two_machines(true).await;
    let witness = Witness::new(fleet.path(), "chat");
    let before = healthy(&fleet, witness.spec("chat", 1, fleet::retry())).await;
    let seen = fleet.endpoints("chat");
    let worker = fleet.holds_most("chat").await;
    fleet.cut_off(&worker);
    let lost = WorkerLiveness::Lost;
    fleet.until_liveness(&worker, lost, PATIENCE).await;
    let elsewhere = |one: &Replica| ready_elsewhere(one, &worker);
    let moved = fleet.until_replica("chat/0", "elsewhere", elsewhere).await;
    let ended = moved.previous_attempt.unwrap();
    assert_eq!(ended.failure_class(), FailureClass::Interruption);
    assert_eq!(fleet.processes_of(&before), before, "silence stopped it");
    fleet.reconnect(&worker);
    fleet.until_no_process(&before, PATIENCE).await;
    witness.until(0, "stop", 1, PATIENCE).await;
    fleet
        .until_liveness(&worker, WorkerLiveness::Alive, PATIENCE)
        .await;
    fleet.until_allocations(1, PATIENCE).await;
    let after = fleet.until_replica("chat/0", "READY", ready).await;
    assert_eq!(after.attempt, moved.attempt, "the new one was touched");
    assert_eq!(witness.starts(), 2);
    seen.were_never_two_of_one().await;
}

/// The machine is silent because its agent is hung, or dead: the supervisor alone keeps the promise.
async fn stop_holds_without_an_agent(silence: impl FnOnce(&mut Fleet, &str)) {
    let mut fleet = two_machines(false).await;
    let witness = Witness::new(fleet.path(), "chat");
    let spec = ServiceSpec {
        on_disconnect: OnDisconnect::Stop.into(),
        ..witness.spec("chat", 1, fleet::retry())
    };
    let before = healthy(&fleet, spec).await;
    let seen = fleet.endpoints("chat");
    let worker = fleet.holds_most("chat").await;
    silence(&mut fleet, &worker);
    let lost = WorkerLiveness::Lost;
    fleet.until_liveness(&worker, lost, PATIENCE).await;
    fleet.until_no_process(&before, PATIENCE).await;
    let elsewhere = |one: &Replica| ready_elsewhere(one, &worker);
    fleet.until_replica("chat/0", "elsewhere", elsewhere).await;
    assert_eq!(witness.of(0, "stop").len(), 1, "killed without its grace");
    assert_eq!(witness.starts(), 2, "{:#?}", witness.marks());
    witness.saw_no_overlap();
    seen.were_never_two_of_one().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_stop_and_a_hung_agent_the_old_one_is_dead_before_the_next_starts() {
    stop_holds_without_an_agent(|fleet, worker| fleet.agent(worker).signal(Signal::STOP)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_stop_and_a_dead_agent_the_old_one_is_dead_before_the_next_starts() {
    stop_holds_without_an_agent(|fleet, worker| fleet.agent(worker).kill()).await;
}

/// One service lives: its replicas start, one fails and is restarted, one goes, then all do. That is every
/// step that there is between an intent and what is learnt of it.
async fn live(fleet: &Fleet, witness: &Witness, name: &str) {
    let spec = witness.spec(name, 2, fleet::retry());
    let spec = &spec;
    fleet
        .insist(async |mut manager| {
            let request = UpdateServiceRequest {
                request_id: format!("apply-{name}"),
                ..fleet::full_replacement(spec.clone())
            };
            manager.update_service(request).await.map(drop)
        })
        .await;
    fleet.until(name, ServicePhase::Healthy, PATIENCE).await;
    witness.fail(0);
    witness.until(0, "start", 2, PATIENCE).await;
    fleet.until(name, ServicePhase::Healthy, PATIENCE).await;
    fleet
        .insist(async |mut manager| {
            let request = ScaleServiceRequest {
                name: name.to_owned(),
                replicas: 1,
                ..ScaleServiceRequest::default()
            };
            manager.scale_service(request).await.map(drop)
        })
        .await;
    witness.until(1, "stop", 1, PATIENCE).await;
    fleet
        .insist(async |mut manager| {
            let request = DeleteServiceRequest {
                name: name.to_owned(),
                ..DeleteServiceRequest::default()
            };
            match manager.delete_service(request).await {
                // Its answer may have been lost.
                Err(status) if status.code() == Code::NotFound => Ok(()),
                answer => answer.map(drop),
            }
        })
        .await;
    witness.until(0, "stop", 1, PATIENCE).await;
}

/// The manager ends at a step, as after `kill -9`, and another goes on where it was.
async fn ends_at(fleet: &mut Fleet, step: &str) {
    let witness = Witness::new(fleet.path(), step);
    fleet.manager.kill();
    let mut manager = fleet.manager.again();
    let keeping = async {
        manager.start_with(&[format!("--crash-at={step}")]).await;
        let end = Instant::now() + PATIENCE;
        while manager.ended().is_none() {
            assert!(Instant::now() < end, "it never came to {step}");
            sleep(Duration::from_millis(5)).await;
        }
        manager.start().await;
        manager
    };
    let (manager, ()) = tokio::join!(keeping, live(fleet, &witness, step));
    fleet.manager = manager;
    fleet.until_gone(step).await;
    fleet.until_allocations(0, PATIENCE).await;
    let marks = witness.marks();
    let alive = marks.iter().filter(|mark| fleet::is_alive(mark.pid));
    assert_eq!(alive.count(), 0, "{step}: left behind: {marks:#?}");
    assert_eq!(witness.starts(), 3, "{step}: {marks:#?}");
    witness.saw_no_overlap();
}

/// Half of all steps, so that both halves are walked side by side.
async fn ends_at_every_other_step(first: usize) {
    let mut fleet = fleet(Layout {
        agents: 1,
        ..Layout::default()
    })
    .await;
    for step in Step::value_variants().iter().skip(first).step_by(2) {
        let value = step.to_possible_value().unwrap();
        ends_at(&mut fleet, value.get_name()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_ends_at_any_step_leaves_nothing_lost_doubled_or_behind() {
    ends_at_every_other_step(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_ends_at_any_other_step_leaves_nothing_lost_doubled_or_behind() {
    ends_at_every_other_step(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_lost_its_store_stops_nothing_until_someone_says_so() {
    let mut fleet = fleet(Layout {
        agents: 1,
        ..Layout::default()
    })
    .await;
    let witness = Witness::new(fleet.path(), "chat");
    let before = healthy(&fleet, witness.spec("chat", 1, fleet::retry())).await;
    fleet.manager.kill();
    std::fs::remove_file(fleet.path().join("manager")).unwrap();
    fleet.manager.start().await;
    let orphan = fleet.until_orphan().await;
    assert_eq!((&*orphan.replica, &*orphan.worker), ("chat/0", "w1"));
    sleep(AWHILE).await;
    assert_eq!(fleet.processes_of(&before), before, "absence stopped it");
    let request = RemoveOrphanRequest {
        attempt_id: orphan.attempt_id,
        ..RemoveOrphanRequest::default()
    };
    fleet.manager().remove_orphan(request).await.unwrap();
    fleet.until_no_process(&before, PATIENCE).await;
    fleet.until_allocations(0, PATIENCE).await;
    assert_eq!(witness.of(0, "stop").len(), 1, "killed without its grace");
}
