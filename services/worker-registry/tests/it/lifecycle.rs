//! A worker's life, and an allocation's.

use std::path::Path;

use muster_proto::ops::v1::SetMaintenanceRequest;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::HeldPhase::{Ended, Running};
use muster_proto::workers::v1::{AllocationState, WorkerLiveness, WorkerState};
use muster_store::{Options, Store};

use crate::joining::as_agent;
use crate::support::{Agent, Registry, allocate, config, get, reason, registration, release};

#[tokio::test]
async fn a_worker_registers_activates_and_gives_room() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let answer = client
        .register_worker(registration("w1", "boot-1"))
        .await
        .unwrap()
        .into_inner();
    let worker = answer.worker.unwrap();
    assert_eq!(
        (worker.generation, worker.state()),
        (1, WorkerState::Provisioning)
    );
    assert_eq!(worker.capacity.as_ref().unwrap().gpus.len(), 8);
    assert_eq!(worker.capacity.as_ref().unwrap().gpus[0].memory_mib, 81_920);
    assert!(worker.simulated);
    assert!(answer.credential.starts_with("mw1."));
    assert_eq!(reason(allocate(&mut client, "r0", 1).await), "NO_CAPACITY");

    let agent = Agent::new("w1", 1);
    assert_eq!(
        agent.activate(&mut client).await.unwrap().state(),
        WorkerState::Active
    );
    let allocation = allocate(&mut client, "r1", 2).await.unwrap();
    assert_eq!(
        (allocation.worker.as_str(), allocation.gpu_uuids.len()),
        ("w1", 2)
    );
    assert_eq!(allocation.state(), AllocationState::Held);
    let beat = agent
        .beat(&mut client, &[(&allocation.id, Running)])
        .await
        .unwrap();
    assert!(
        beat.notices.is_empty() && beat.unknown_allocations.is_empty(),
        "{beat:?}"
    );
    let shown = get(&mut client, "w1").await.unwrap();
    assert_eq!(shown.usage.unwrap().gpus, 2);
    assert_eq!(shown.liveness(), WorkerLiveness::Alive);
    assert_eq!(shown.history.len(), 2);
    registry.stop().await;
}

#[tokio::test]
async fn room_is_freed_once_it_is_released_and_its_agent_has_ended_it() {
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let allocation = allocate(&mut client, "r1", 2).await.unwrap();
    let releasing = release(&mut client, &allocation.id).await.unwrap().unwrap();
    assert_eq!(releasing.state(), AllocationState::Releasing);
    let beat = agent
        .beat(&mut client, &[(&allocation.id, Running)])
        .await
        .unwrap();
    assert_eq!(beat.notices[0].allocation_id, allocation.id);
    let beat = agent
        .beat(&mut client, &[(&allocation.id, Ended)])
        .await
        .unwrap();
    assert_eq!(
        beat.forgotten_allocations,
        std::slice::from_ref(&allocation.id)
    );
    assert_eq!(get(&mut client, "w1").await.unwrap().usage.unwrap().gpus, 0);
    assert!(
        release(&mut client, &allocation.id)
            .await
            .unwrap()
            .is_none()
    );
    registry.stop().await;
}

/// The accelerators of `worker` as it is shown.
fn gpus(worker: &proto::Worker) -> Vec<&str> {
    let gpus = worker.capacity.iter().flat_map(|capacity| &capacity.gpus);
    gpus.map(|gpu| gpu.uuid.as_str()).collect()
}

#[tokio::test]
async fn a_gpu_that_an_allocation_holds_is_gone_when_its_agent_registers_again() {
    for boot in ["boot-1", "boot-2"] {
        let registry = Registry::start().await;
        let mut client = registry.client().await;
        let answer = client.register_worker(registration("w1", "boot-1")).await;
        let credential = answer.unwrap().into_inner().credential;
        let mut agent = Agent::new("w1", 1);
        agent.activate(&mut client).await.unwrap();
        let lost = allocate(&mut client, "r1", 2).await.unwrap();
        let other = allocate(&mut client, "r2", 5).await.unwrap();
        let mut less = registration("w1", boot);
        less.last_generation = 1;
        let left = &mut less.capacity.as_mut().unwrap().gpus;
        left.retain(|gpu| gpu.uuid != lost.gpu_uuids[1]);
        let answer = client.register_worker(as_agent(less, &credential)).await;
        let worker = answer.unwrap().into_inner().worker.unwrap();
        assert_eq!((worker.generation, gpus(&worker).len()), (2, 7), "{boot}");
        assert!(!gpus(&worker).contains(&lost.gpu_uuids[1].as_str()));
        assert_eq!(worker.usage.unwrap().allocations, 2, "they are kept");
        agent.generation = 2;
        agent.activate(&mut client).await.unwrap();

        // Absence frees nothing: the agent has to name what held it.
        assert_eq!(reason(allocate(&mut client, "r3", 2).await), "NO_CAPACITY");
        let held = [(&*lost.id, Ended), (&*other.id, Running)];
        agent.beat(&mut client, &held).await.unwrap();
        assert_eq!(reason(allocate(&mut client, "r3", 2).await), "NO_CAPACITY");
        release(&mut client, &lost.id).await.unwrap();
        assert_eq!(reason(allocate(&mut client, "r3", 3).await), "NO_CAPACITY");
        let next = allocate(&mut client, "r3", 2).await.unwrap();
        assert!(!next.gpu_uuids.contains(&lost.gpu_uuids[1]), "{next:?}");

        let request = proto::ListWorkerEventsRequest::default();
        let events = client.list_worker_events(request).await.unwrap();
        let events = events.into_inner().events;
        let gone = events.iter().find(|event| event.kind == "AcceleratorsGone");
        let gone = gone.unwrap();
        assert_eq!(gone.attributes["gpus"], lost.gpu_uuids[1]);
        assert!(gone.message.ends_with("left: 7"));
        registry.stop().await;
    }
}

/// The store that a registry keeps in a folder.
fn open(folder: &Path) -> Store {
    Store::embedded(folder.join("r.db"), Options::default()).unwrap()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::with(config(), open(folder.path())).await;
    let mut client = registry.client().await;
    let agent = Agent::join(&mut client, "w1").await;
    let held = allocate(&mut client, "r1", 4).await.unwrap();
    let before = get(&mut client, "w1").await.unwrap();
    registry.stop().await.close().await;

    let registry = Registry::with(config(), open(folder.path())).await;
    let mut client = registry.client().await;
    let mut after = get(&mut client, "w1").await.unwrap();
    assert_eq!(after.liveness(), WorkerLiveness::Unknown);
    after.liveness = before.liveness;
    after.liveness_time = before.liveness_time;
    after.heartbeat_time = before.heartbeat_time;
    assert_eq!(after, before);
    assert_eq!(allocate(&mut client, "r1", 4).await.unwrap(), held);
    assert_eq!(reason(allocate(&mut client, "r2", 5).await), "NO_CAPACITY");
    agent
        .beat(&mut client, &[(&held.id, Running)])
        .await
        .unwrap();
    assert_eq!(
        get(&mut client, "w1").await.unwrap().liveness(),
        WorkerLiveness::Alive
    );
    let request = proto::ListWorkerEventsRequest::default();
    let events = client
        .list_worker_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["WorkerRegistered", "WorkerActivated"]);
    registry.stop().await.close().await;
}

#[tokio::test]
async fn maintenance_outlives_the_process_and_disturbs_no_decision() {
    let wanted = SetMaintenanceRequest {
        on: true,
        reason: "disk swap".to_owned(),
    };
    let registry = Registry::start().await;
    let mut client = registry.client().await;
    Agent::join(&mut client, "w1").await;
    let url = format!("http://{}", registry.address);
    let mut ops = OpsServiceClient::connect(url).await.unwrap();
    ops.set_maintenance(wanted).await.unwrap();
    assert!(!registry.context.health.is_ready());
    allocate(&mut client, "r1", 1).await.unwrap();
    ops.set_maintenance(SetMaintenanceRequest::default())
        .await
        .unwrap();
    allocate(&mut client, "r2", 1).await.unwrap();
    let store = registry.stop().await;

    let registry = Registry::with(config(), store).await;
    let mut client = registry.client().await;
    let worker = get(&mut client, "w1").await.unwrap();
    assert_eq!(worker.usage.unwrap().gpus, 2);
    registry.stop().await;
}

/// A held allocation as an agent lists it, which was never told under which term it was made.
fn as_its_agent_knows_it(allocation: &proto::Allocation) -> proto::HeldAllocation {
    proto::HeldAllocation {
        allocation_id: allocation.id.clone(),
        phase: Running.into(),
        record: Some(proto::Allocation {
            owner_term: None,
            create_time: None,
            ..allocation.clone()
        }),
    }
}

#[tokio::test]
async fn a_machine_that_comes_back_keeps_what_it_lists_and_brings_back_what_a_backup_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::with(config(), open(folder.path())).await;
    let mut client = registry.client().await;
    let first = client.register_worker(registration("w1", "boot-1")).await;
    let credential = first.unwrap().into_inner().credential;
    let agent = Agent::new("w1", 1);
    agent.activate(&mut client).await.unwrap();
    let known = allocate(&mut client, "r1", 1).await.unwrap();
    let lost = proto::Allocation {
        id: "of-before".to_owned(),
        subject: "chat/9".to_owned(),
        gpu_uuids: vec!["GPU-w1-7".to_owned()],
        fencing_token: format!("000000000000-00000000-{:020}", 7),
        ..known.clone()
    };
    let back = proto::RegisterWorkerRequest {
        last_generation: 1,
        held: [&known, &lost].map(as_its_agent_knows_it).to_vec(),
        ..registration("w1", "boot-2")
    };
    let mut back = tonic::Request::new(back);
    let credential = format!("Bearer {credential}").parse().unwrap();
    back.metadata_mut().insert("authorization", credential);
    let answer = client.register_worker(back).await.unwrap().into_inner();
    assert_eq!(answer.worker.unwrap().generation, 2);
    registry.stop().await.close().await;

    let registry = Registry::with(config(), open(folder.path())).await;
    let mut client = registry.client().await;
    let request = proto::ListAllocationsRequest::default();
    let listed = client.list_allocations(request).await.unwrap().into_inner();
    let held = |id: &str| {
        let found = listed.allocations.iter().find(|one| one.id == id);
        let found = found.unwrap_or_else(|| panic!("{id} is not in {listed:#?}"));
        assert_eq!(found.state(), AllocationState::Held);
        found.clone()
    };
    assert_eq!(held(&known.id), known, "what was known is as it was");
    assert_eq!(held("of-before").subject, "chat/9");
    assert_eq!(held("of-before").owner_term.unwrap().epoch, "");
    release(&mut client, "of-before").await.unwrap();
    registry.stop().await.close().await;
}
