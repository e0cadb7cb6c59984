//! A component is put back to what it was before: everything that has happened since goes on, whatever the
//! restored store knows of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use muster_proto::replicas::v1::{
    AdoptOrphanRequest, ListOrphansRequest, RemoveOrphanRequest, Replica, ReplicaPhase,
    RestartReplicaRequest, RetryPolicy, ScaleServiceRequest, ServicePhase, ServiceStatus,
};
use muster_tests::fleet::{self, Fleet, Process, Seen, command, witness::Witness};
use tokio::time::{Instant, sleep};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Long enough for whatever would be stopped or restarted wrongly to be so.
const AWHILE: Duration = Duration::from_secs(4);

const PROGRAM: &str = env!("CARGO_BIN_EXE_component");

/// Runs the command line; it has to succeed.
fn muster(args: &[&str]) {
    let output = command(Path::new(PROGRAM), "muster")
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "muster {args:?}: {said}");
}

/// A service of witnesses that is HEALTHY, with its processes.
async fn healthy(fleet: &Fleet, name: &str, replicas: i32) -> (Witness, BTreeMap<String, i32>) {
    let witness = Witness::new(fleet.path(), name);
    let spec = witness.spec(name, replicas, fleet::retry());
    fleet.apply(spec).await;
    fleet.until(name, ServicePhase::Healthy, PATIENCE).await;
    (witness, fleet.processes(name).await)
}

/// Backs a component up while it runs.
fn back_up(fleet: &Fleet, component: &str, process: &Process) -> String {
    let file = fleet.path().join(format!("{component}.backup"));
    let file = file.display().to_string();
    let flag = match component {
        "worker-registry" => "--workers-addr",
        _ => "--replicas-addr",
    };
    let address = format!("http://{}", process.address);
    muster(&[flag, &address, "backup", component, &file]);
    file
}

/// Puts what was backed up in the place of a store whose component is down.
fn put_back(fleet: &Fleet, backup: &str, store: &str) {
    let path = fleet.path().join(store);
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    let store = format!("embedded:{}", path.display());
    muster(&["restore", backup, "--store", &store]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_put_back_learns_from_its_agents_what_it_gave_away_since() {
    let mut fleet = Fleet::start(PROGRAM, 2).await;
    let (early, early_processes) = healthy(&fleet, "early", 2).await;
    let backup = back_up(&fleet, "worker-registry", &fleet.registry);
    let (late, late_processes) = healthy(&fleet, "late", 3).await;
    let gpus: BTreeMap<_, _> = fleet
        .allocations()
        .await
        .into_iter()
        .map(|one| (one.id, one.gpu_uuids))
        .collect();
    assert_eq!(gpus.len(), 5);
    let seen = ["early", "late"].map(|name| Seen::statuses(fleet.manager.address, name));
    fleet.registry.kill();
    put_back(&fleet, &backup, "registry");
    fleet.registry.start().await;
    fleet.until_allocations(5, PATIENCE).await;
    // What the agents told is what was given: nobody's accelerator is free for another.
    fleet.no_room_is_held_twice().await;
    for allocation in fleet.allocations().await {
        assert_eq!(gpus[&allocation.id], allocation.gpu_uuids);
    }
    let (more, _) = healthy(&fleet, "more", 4).await;
    fleet.no_room_is_held_twice().await;
    sleep(AWHILE).await;
    assert_eq!(fleet.processes("early").await, early_processes);
    assert_eq!(fleet.processes("late").await, late_processes);
    for (witness, starts) in [(&early, 2), (&late, 3), (&more, 4)] {
        assert_eq!(witness.starts(), starts, "{:#?}", witness.marks());
        witness.saw_no_overlap();
    }
    for seen in seen {
        assert_eq!(seen.phases().await, [ServicePhase::Healthy]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_put_back_stops_nothing_and_shows_what_it_does_not_know() {
    let mut fleet = Fleet::start(PROGRAM, 1).await;
    let (early, early_processes) = healthy(&fleet, "early", 2).await;
    let backup = back_up(&fleet, "replica-manager", &fleet.manager);
    let (late, late_processes) = healthy(&fleet, "late", 1).await;
    fleet.manager.kill();
    put_back(&fleet, &backup, "manager");
    fleet.manager.start().await;
    let orphan = fleet.until_orphan().await;
    assert_eq!(&*orphan.replica, "late/0");
    fleet.until("early", ServicePhase::Healthy, PATIENCE).await;
    sleep(AWHILE).await;
    assert_eq!(fleet.processes("early").await, early_processes);
    assert_eq!(
        fleet.processes_of(&late_processes),
        late_processes,
        "absence stopped it"
    );

    // A namesake made anew is another service: it takes nothing over by itself, and what is not its own
    // cannot be adopted by it.
    let adopt = AdoptOrphanRequest {
        attempt_id: orphan.attempt_id.clone(),
        service: "early".to_owned(),
        ..AdoptOrphanRequest::default()
    };
    fleet.manager().adopt_orphan(adopt).await.unwrap_err();
    let remove = RemoveOrphanRequest {
        attempt_id: orphan.attempt_id,
        ..RemoveOrphanRequest::default()
    };
    fleet.manager().remove_orphan(remove).await.unwrap();
    fleet.until_no_process(&late_processes, PATIENCE).await;
    fleet.until_allocations(2, PATIENCE).await;
    assert_eq!(late.of(0, "stop").len(), 1, "killed without its grace");
    assert_eq!(early.starts(), 2);
    early.saw_no_overlap();
    fleet.no_room_is_held_twice().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_put_back_gives_no_attempt_the_id_of_one_that_it_forgot() {
    let mut fleet = Fleet::start(PROGRAM, 1).await;
    let (once, _) = asleep(&fleet, "once", 1, None).await;
    let (chat, early) = asleep(&fleet, "chat", 2, fleet::retry()).await;
    let backup = back_up(&fleet, "replica-manager", &fleet.manager);
    // Of what is replaced and added now, the backup knows nothing.
    restart(&fleet, "once").await;
    restart(&fleet, "chat").await;
    scale(&fleet, 3).await;
    let late = [fleet.processes("once").await, fleet.processes("chat").await];
    let orphans: BTreeSet<String> = [(&once, "0.2"), (&chat, "0.2"), (&chat, "2.1")]
        .map(|(uid, rest)| format!("{uid}.{rest}"))
        .into();
    fleet.manager.kill();
    put_back(&fleet, &backup, "manager");
    fleet.manager.start().await;
    until_orphans(&fleet, &orphans).await;
    fleet.until("once", ServicePhase::Healthy, PATIENCE).await;
    // Also a replica of which the backup knows nothing gets attempts of its own.
    scale(&fleet, 3).await;
    sleep(AWHILE).await;
    until_orphans(&fleet, &orphans).await;
    for processes in &late {
        assert_eq!(
            &fleet.processes_of(processes),
            processes,
            "absence stopped it"
        );
    }
    fleet.no_room_is_held_twice().await;
    fleet.until_allocations(7, PATIENCE).await;
    assert_eq!(fleet.processes("chat").await["chat/1"], early["chat/1"]);

    for attempt in orphans {
        let remove = RemoveOrphanRequest {
            attempt_id: attempt,
            ..RemoveOrphanRequest::default()
        };
        fleet.manager().remove_orphan(remove).await.unwrap();
    }
    fleet.until_allocations(4, PATIENCE).await;
    assert_eq!(fleet.processes("chat").await["chat/1"], early["chat/1"]);
}

/// A service of sleepers that is HEALTHY, with its uid and processes.
async fn asleep(
    fleet: &Fleet,
    name: &str,
    replicas: i32,
    retry: Option<RetryPolicy>,
) -> (String, BTreeMap<String, i32>) {
    let applied = fleet.apply(fleet::sleeping(name, replicas, retry)).await;
    fleet.until(name, ServicePhase::Healthy, PATIENCE).await;
    (applied.uid, fleet.processes(name).await)
}

/// Has the first replica of a service stopped and started anew.
async fn restart(fleet: &Fleet, service: &str) {
    let id = format!("{service}/0");
    let request = RestartReplicaRequest {
        id: id.clone(),
        ..RestartReplicaRequest::default()
    };
    fleet.manager().restart_replica(request).await.unwrap();
    let again = |replica: &Replica| {
        let attempt = replica.attempt.as_ref();
        attempt.is_some_and(|attempt| attempt.number == 2)
            && replica.phase == i32::from(ReplicaPhase::Ready)
    };
    fleet.until_replica(&id, "restarted", again).await;
}

async fn scale(fleet: &Fleet, replicas: i32) {
    let request = ScaleServiceRequest {
        name: "chat".to_owned(),
        replicas,
        ..ScaleServiceRequest::default()
    };
    fleet.manager().scale_service(request).await.unwrap();
    let what = format!("{replicas} replicas that are ready");
    let test =
        |status: &ServiceStatus| status.counts.is_some_and(|counts| counts.ready == replicas);
    fleet.until_status("chat", &what, test).await;
}

async fn until_orphans(fleet: &Fleet, wanted: &BTreeSet<String>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let request = ListOrphansRequest::default();
        let answer = fleet.manager().list_orphans(request).await;
        let orphans = answer.unwrap().into_inner().orphans;
        let seen: BTreeSet<_> = orphans.into_iter().map(|one| one.attempt_id).collect();
        if seen == *wanted {
            return;
        }
        assert!(Instant::now() < end, "{seen:?}, not {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
