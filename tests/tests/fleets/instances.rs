//! Several instances of the worker-registry and of the replica-manager on a real etcd, with every part a
//! process of its own: instances, members of etcd and the ways between them fail while services run.
//! Nothing that runs notices.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use muster_proto::{
    ops::v1::{Instance, ListInstancesRequest, ops_service_client::OpsServiceClient},
    replicas::v1::{
        GetServiceRequest, Replica, ReplicaPhase, ScaleServiceRequest, ServicePhase,
        replicas_service_client::ReplicasServiceClient,
    },
    workers::v1::{
        ListWorkersRequest, Worker, WorkerLiveness, workers_service_client::WorkersServiceClient,
    },
};
use muster_tests::fleet::{
    self, Fleet, Layout, Process, Shared,
    etcd::{self, Etcd},
    process::channel,
    wire::Wire,
    witness::Witness,
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tonic::Code;

const PROGRAM: &str = env!("CARGO_BIN_EXE_component");

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Long enough for whatever would be restarted wrongly to be restarted.
const AWHILE: Duration = Duration::from_secs(4);

/// How long etcd stands still: a minute where there is time for it.
fn standing_still() -> Duration {
    let soak = std::env::var_os("MUSTER_SOAK").is_some();
    Duration::from_secs(if soak { 60 } else { 6 })
}

/// Three instances of each component and two machines. Machines are lost after six seconds, leaders after
/// two, seats after four: what the whole lives by, scaled down.
async fn fleet(etcd: &Etcd, first_registry: Option<String>) -> Fleet {
    let leases = ["--leader-lease=2s", "--instance-lease=4s"].map(str::to_owned);
    let mut registry = leases.to_vec();
    registry.extend(
        [
            "--heartbeat-interval=250ms",
            "--lost-after=6s",
            "--fence-after=12s",
            "--fence-margin=500ms",
            "--peer-silent-after=2s",
        ]
        .map(str::to_owned),
    );
    let layout = Layout {
        agents: 2,
        registry,
        manager: leases.to_vec(),
        shared: Some(Shared {
            instances: 3,
            store: etcd.store("muster"),
            first_registry,
        }),
        wired: false,
    };
    Fleet::laid_out(PROGRAM, layout).await
}

/// A service of three witnesses that is HEALTHY, with its processes.
async fn healthy(fleet: &Fleet) -> (Witness, BTreeMap<String, i32>) {
    let witness = Witness::new(fleet.path(), "chat");
    fleet.apply(witness.spec("chat", 3, fleet::retry())).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    (witness, fleet.processes("chat").await)
}

/// The instances of a component, as the one at this address knows them.
async fn instances(address: SocketAddr) -> Vec<Instance> {
    let mut client = OpsServiceClient::new(channel(address));
    let answer = client.list_instances(ListInstancesRequest {}).await;
    answer.map_or_else(|_| Vec::new(), |answer| answer.into_inner().instances)
}

/// Where the leader is, as the one at this address knows it.
async fn leader(address: SocketAddr) -> SocketAddr {
    let end = Instant::now() + PATIENCE;
    loop {
        let all = instances(address).await;
        let leaders: Vec<_> = all.iter().filter(|one| one.leader).collect();
        if let [leader] = leaders[..] {
            return leader.address.parse().unwrap();
        }
        assert!(Instant::now() < end, "not one leader: {all:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the one at this address knows another leader than this one.
async fn until_led_by_another(address: SocketAddr, than: SocketAddr) {
    let end = Instant::now() + PATIENCE;
    while leader(address).await == than {
        assert!(Instant::now() < end, "{than} goes on leading");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Makes the one that leads the first of some, so that the others are left when it ends.
async fn put_leader_first(first: &mut Process, more: &mut [Process]) {
    let leads = leader(first.address).await;
    if let Some(other) = more.iter_mut().find(|one| one.address == leads) {
        std::mem::swap(first, other);
    }
    assert_eq!(first.address, leads);
}

/// Scales the service by the manager at this address, however often it takes; how long it took.
async fn scale(address: SocketAddr, replicas: i32) -> Duration {
    let begun = Instant::now();
    loop {
        let request = ScaleServiceRequest {
            name: "chat".to_owned(),
            replicas,
            ..ScaleServiceRequest::default()
        };
        let mut client = ReplicasServiceClient::new(channel(address));
        match client.scale_service(request).await {
            Ok(_) => return begun.elapsed(),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                assert!(begun.elapsed() < PATIENCE, "{status}");
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn workers(address: SocketAddr) -> Vec<Worker> {
    let mut client = WorkersServiceClient::new(channel(address));
    let answer = client.list_workers(ListWorkersRequest::default()).await;
    answer.unwrap().into_inner().workers
}

/// Nobody was ever declared lost: no worker's record tells of it.
async fn nobody_was_lost(address: SocketAddr) {
    for worker in workers(address).await {
        assert_ne!(worker.liveness(), WorkerLiveness::Lost, "{worker:#?}");
        assert_eq!(worker.generation, 1, "it registered again: {worker:#?}");
    }
    let request = muster_proto::workers::v1::ListWorkerEventsRequest {
        page_size: 1000,
        ..Default::default()
    };
    let mut client = WorkersServiceClient::new(channel(address));
    let events = client.list_worker_events(request).await.unwrap();
    for event in events.into_inner().events {
        assert_ne!(event.kind, "WorkerLost", "{event:#?}");
    }
}

/// Waits until a replica is ready, and its service HEALTHY.
async fn until_ready(fleet: &Fleet, replica: &str) {
    let ready = |one: &Replica| one.phase() == ReplicaPhase::Ready;
    fleet.until_replica(replica, "ready", ready).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
}

/// What ran before runs still, each once, and nothing else was started.
async fn nothing_was_touched(fleet: &Fleet, witness: &Witness, before: &BTreeMap<String, i32>) {
    let now = fleet.processes("chat").await;
    for (replica, pid) in before {
        assert_eq!(now.get(replica), Some(pid), "{replica} was restarted");
    }
    assert_eq!(witness.starts(), now.len(), "{:#?}", witness.marks());
    witness.saw_no_overlap();
    fleet.no_room_is_held_twice().await;
}

/// `muster health` shows each instance, that the first one leads, and how far each is.
fn health_shows_who_leads(fleet: &Fleet) {
    let url = |process: &Process| format!("http://{}", process.address);
    let output = fleet::command(Path::new(PROGRAM), "muster")
        .arg(format!("--offers-addr={}", url(&fleet.gateway)))
        .arg(format!("--workers-addr={}", url(&fleet.more_registries[0])))
        .arg(format!("--replicas-addr={}", url(&fleet.more_managers[1])))
        .args(["health", "-o", "json"])
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, leader) in [
        ("worker-registry", &fleet.registry),
        ("replica-manager", &fleet.manager),
    ] {
        let of = |one: &&serde_json::Value| one["component"] == name;
        let component = shown["components"].as_array().unwrap().iter().find(of);
        let instances = component.unwrap()["instances"].as_array().unwrap();
        assert_eq!(instances.len(), 3, "{shown:#}");
        for instance in instances {
            let leads = instance["address"] == leader.address.to_string();
            assert_eq!(instance["leader"], leads, "{shown:#}");
            assert!(instance["lag"].is_string(), "{shown:#}");
            assert_ne!(instance["revision"], "0", "{shown:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_and_a_member_of_etcd_die_and_nothing_that_runs_notices() {
    if !etcd::is_there() {
        return;
    }
    let mut etcd = Etcd::start(3).await;
    let mut fleet = fleet(&etcd, None).await;
    for address in [fleet.registry.address, fleet.manager.address] {
        assert_eq!(instances(address).await.len(), 3);
    }
    let (witness, before) = healthy(&fleet).await;
    put_leader_first(&mut fleet.registry, &mut fleet.more_registries).await;
    put_leader_first(&mut fleet.manager, &mut fleet.more_managers).await;
    health_shows_who_leads(&fleet);
    let other = fleet.more_managers[0].address;
    let seen = fleet::Seen::statuses(other, "chat");

    etcd.kill(0);
    let after_member = scale(other, 4).await;
    fleet.registry.kill();
    std::mem::swap(&mut fleet.registry, &mut fleet.more_registries[0]);
    leader(fleet.registry.address).await;
    let after_registry = scale(other, 5).await;
    fleet.manager.kill();
    std::mem::swap(&mut fleet.manager, &mut fleet.more_managers[0]);
    let after_manager = scale(fleet.manager.address, 6).await;
    println!(
        "writes resumed {after_member:?} after a member, {after_registry:?} after the registry, {after_manager:?} after the manager ended"
    );
    until_ready(&fleet, "chat/5").await;
    sleep(AWHILE).await;
    nobody_was_lost(fleet.registry.address).await;
    nothing_was_touched(&fleet, &witness, &before).await;
    assert_eq!(fleet.allocations().await.len(), 6);
    let phases = seen.phases().await;
    assert!(
        phases
            .iter()
            .all(|phase| matches!(phase, ServicePhase::Healthy | ServicePhase::Starting)),
        "{phases:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_cut_off_from_etcd_stops_answering_and_its_agents_move_over() {
    if !etcd::is_there() {
        return;
    }
    let etcd = Etcd::start(1).await;
    let wire = Wire::to(etcd.clients()[0]).await;
    let own = format!("etcd:http://{}/muster", wire.address);
    let mut fleet = fleet(&etcd, Some(own)).await;
    let (witness, before) = healthy(&fleet).await;
    let other = fleet.more_registries[0].address;
    let cut = Instant::now();
    wire.cut();
    // Whichever instance the agents were at: the one that is cut off takes no beat once its lease has passed.
    let mut client = WorkersServiceClient::new(channel(fleet.registry.address));
    loop {
        let beat = muster_proto::workers::v1::HeartbeatRequest {
            name: "w1".to_owned(),
            generation: 1,
            ..Default::default()
        };
        match client.heartbeat(beat).await {
            Err(status) if status.code() == Code::Unavailable => break,
            Ok(_) | Err(_) => assert!(cut.elapsed() < PATIENCE, "it goes on answering"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    // So short a lease, renewed some time before the cut, may pass before the instance counts as away.
    let stale = loop {
        let read = client.list_workers(ListWorkersRequest::default()).await;
        let read = read.unwrap();
        if read.metadata().contains_key("muster-age") {
            break read.into_inner();
        }
        assert!(cut.elapsed() < PATIENCE, "it does not say how old it is");
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(stale.workers.len(), 2);
    until_led_by_another(other, fleet.registry.address).await;
    sleep(AWHILE * 3).await;
    nobody_was_lost(other).await;
    nothing_was_touched(&fleet, &witness, &before).await;

    wire.mend();
    let end = Instant::now() + PATIENCE;
    while instances(other).await.len() < 3 {
        assert!(Instant::now() < end, "it is not back");
        sleep(Duration::from_millis(100)).await;
    }
    // What the others wrote meanwhile is known there.
    std::mem::swap(&mut fleet.registry, &mut fleet.more_registries[0]);
    scale(fleet.manager.address, 4).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    nobody_was_lost(other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_stands_still_for_a_while_and_all_goes_on_after() {
    if !etcd::is_there() {
        return;
    }
    let etcd = Etcd::start(3).await;
    let fleet = fleet(&etcd, None).await;
    let (witness, before) = healthy(&fleet).await;
    let seen = fleet.statuses("chat");
    etcd.pause();
    sleep(standing_still()).await;
    let request = GetServiceRequest {
        name: "chat".to_owned(),
        ..GetServiceRequest::default()
    };
    let read = fleet.manager().get_service(request).await.unwrap();
    let age = read
        .metadata()
        .get("muster-age")
        .expect("it says how old it is");
    assert!(
        age.to_str().unwrap().parse::<u64>().unwrap() >= 3,
        "{age:?}"
    );
    let request = ScaleServiceRequest {
        name: "chat".to_owned(),
        replicas: 4,
        ..ScaleServiceRequest::default()
    };
    let refused = fleet.manager().scale_service(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(fleet.processes_of(&before), before);
    etcd.go_on();
    let resumed = scale(fleet.manager.address, 5).await;
    println!("writes resumed {resumed:?} after etcd went on");
    until_ready(&fleet, "chat/4").await;
    sleep(AWHILE).await;
    nobody_was_lost(fleet.registry.address).await;
    nothing_was_touched(&fleet, &witness, &before).await;
    let phases = seen.phases().await;
    assert!(!phases.contains(&ServicePhase::Down), "{phases:?}");
    assert!(!phases.contains(&ServicePhase::Degraded), "{phases:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stood_still_writes_nothing_when_it_goes_on() {
    if !etcd::is_there() {
        return;
    }
    let etcd = Etcd::start(1).await;
    let mut fleet = fleet(&etcd, None).await;
    let (witness, before) = healthy(&fleet).await;
    put_leader_first(&mut fleet.registry, &mut fleet.more_registries).await;
    put_leader_first(&mut fleet.manager, &mut fleet.more_managers).await;
    let (paused_registry, paused_manager) = (fleet.registry.address, fleet.manager.address);
    fleet.registry.signal(Signal::STOP);
    fleet.manager.signal(Signal::STOP);
    let (registry, manager) = (
        fleet.more_registries[0].address,
        fleet.more_managers[0].address,
    );
    until_led_by_another(manager, paused_manager).await;
    until_led_by_another(registry, paused_registry).await;
    // There is something to be done that the old leader does not know to be done.
    scale(manager, 4).await;
    witness.fail(0);
    witness.until(0, "start", 2, PATIENCE).await;
    witness.until(3, "start", 1, PATIENCE).await;
    fleet.registry.signal(Signal::CONT);
    fleet.manager.signal(Signal::CONT);
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    sleep(AWHILE).await;
    until_led_by_another(paused_manager, paused_manager).await;
    until_led_by_another(paused_registry, paused_registry).await;
    let now = fleet.processes("chat").await;
    assert_eq!(now.len(), 4);
    for untouched in ["chat/1", "chat/2"] {
        assert_eq!(now[untouched], before[untouched]);
    }
    assert_eq!(witness.starts(), 5, "{:#?}", witness.marks());
    assert_eq!(fleet.allocations().await.len(), 4);
    witness.saw_no_overlap();
    nobody_was_lost(registry).await;
}
