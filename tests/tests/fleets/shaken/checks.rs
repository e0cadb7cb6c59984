//! What must hold while the fleet is shaken, and what it must come to after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use muster_proto::{
    replicas::v1::{
        ListOrphansRequest, OnDisconnect, Replica, ReplicaPhase, RolloutState, Service,
        ServicePhase, replicas_service_client::ReplicasServiceClient,
    },
    workers::v1::{
        Allocation, AllocationState, GetWorkerRequest, Worker, WorkerLiveness, WorkerState,
        workers_service_client::WorkersServiceClient,
    },
};
use muster_tests::fleet::{Fleet, process::channel};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::{
    PATIENCE, Watched,
    calls::{self, Asked, in_time, is_away},
    expected::{Wanted, Wish},
    faults::Faults,
    mirror::Followed as _,
    processes::running,
};

/// Looks until a time that nothing is given to two.
pub(super) async fn nothing_is_given_twice_until(end: Instant, registry: std::net::SocketAddr) {
    while Instant::now() < end {
        match Allocation::list(registry).await {
            Ok(allocations) => nothing_is_given_twice(&allocations),
            Err(status) => assert!(is_away(&status), "{status}"),
        }
        sleep_until(end.min(Instant::now() + Duration::from_millis(200))).await;
    }
}

/// An accelerator is in one allocation only, or also in that which takes its room over. What was taken by force
/// from a machine that was not there holds nothing.
fn nothing_is_given_twice(allocations: &[Allocation]) {
    let mut holders = BTreeMap::<&str, Vec<&Allocation>>::new();
    let holding = |one: &&Allocation| one.state() != AllocationState::Revoked;
    for allocation in allocations.iter().filter(holding) {
        for gpu in &allocation.gpu_uuids {
            holders.entry(gpu).or_default().push(allocation);
        }
    }
    for (gpu, holders) in holders {
        let replaced: BTreeSet<_> = holders.iter().map(|one| &one.replaces).collect();
        let last = holders.iter().filter(|one| !replaced.contains(&one.id));
        assert!(last.count() == 1, "{gpu} is given twice: {holders:#?}");
        let held = holders
            .iter()
            .filter(|one| one.state() == AllocationState::Held);
        assert!(held.count() <= 1, "{gpu} is held twice: {holders:#?}");
    }
}

/// No two of one replica ran at the same time, but for one that a lost machine keeps, and never two on one
/// accelerator.
pub(super) fn no_two_ran(asked: &[Asked], watched: &Watched) {
    let seen = watched.workers.seen();
    let lost = |worker: &str| {
        seen.iter()
            .any(|one| one.name == worker && one.liveness() == WorkerLiveness::Lost)
    };
    let attempts: BTreeMap<_, _> = watched
        .allocations
        .seen()
        .into_iter()
        .filter_map(|one| Some((one.attributes.get("attempt_id")?.clone(), one.worker)))
        .collect();
    for one in asked {
        let marks = one.witness.marks();
        for mark in marks.iter().filter(|mark| mark.is_of_two()) {
            let worker = attempts.get(&mark.with);
            let kept = one.on_disconnect == OnDisconnect::Keep
                && mark.what == "overlap"
                && worker.is_some_and(|worker| lost(worker));
            assert!(kept, "{mark:?}, which was on {worker:?}: {marks:#?}");
        }
    }
}

fn time(time: Option<prost_types::Timestamp>) -> SystemTime {
    SystemTime::try_from(time.unwrap()).unwrap()
}

/// Everything that was given was given on a worker that was ACTIVE then.
pub(super) async fn all_was_given_on_active_ones(fleet: &Fleet, watched: &Watched) {
    let mut history = BTreeMap::new();
    for name in fleet.agents.keys() {
        let request = GetWorkerRequest {
            name: name.clone(),
            ..GetWorkerRequest::default()
        };
        let answer = fleet.workers().get_worker(request).await.unwrap();
        history.insert(name.clone(), answer.into_inner().worker.unwrap().history);
    }
    for allocation in watched.allocations.seen() {
        let given = time(allocation.create_time);
        let history = &history[&allocation.worker];
        let states = history.iter().enumerate().filter(|(at, change)| {
            let next = history.get(at + 1);
            time(change.time) <= given && next.is_none_or(|next| given <= time(next.time))
        });
        let active = states.filter(|(_, change)| change.new_state() == WorkerState::Active);
        assert!(
            active.count() > 0,
            "{allocation:#?} was given in {history:#?}"
        );
    }
}

/// All that there is, at about the same time.
struct Seen {
    services: Vec<Service>,
    replicas: Vec<Replica>,
    workers: Vec<Worker>,
    allocations: Vec<Allocation>,
    orphans: Vec<String>,
}

impl Seen {
    async fn now(fleet: &Fleet) -> Result<Self, Status> {
        let (manager, registry) = (fleet.manager.address, fleet.registry.address);
        let mut client = ReplicasServiceClient::new(channel(manager));
        let orphans = client.list_orphans(in_time(ListOrphansRequest::default()));
        let orphans = orphans.await?.into_inner().orphans;
        let services = Service::list(manager).await?;
        let mut replicas = Replica::list(manager).await?;
        // Those of a stopped service are kept, and have nothing.
        let phase = |one: &Service| one.status.as_ref().unwrap().phase();
        let stopped = |one: &&Service| phase(one) == ServicePhase::Stopped;
        let stopped: BTreeSet<_> = services
            .iter()
            .filter(stopped)
            .map(|one| &one.uid)
            .collect();
        replicas.retain(|one| {
            one.phase() != ReplicaPhase::Stopped || !stopped.contains(&one.service_uid)
        });
        Ok(Self {
            services,
            replicas,
            workers: Worker::list(registry).await?,
            allocations: Allocation::list(registry).await?,
            orphans: orphans.iter().map(|one| format!("{one:?}")).collect(),
        })
    }
}

/// Brings workers back to use and starts what has failed, until all is as it is meant to be, and stays so for a
/// moment.
pub(super) async fn until_as_expected(
    fleet: &mut Fleet,
    faults: &Faults,
    asked: &mut [Asked],
    watched: &Watched,
) {
    let end = Instant::now() + PATIENCE;
    let mut calm = 0;
    while calm < 2 {
        faults.watch_over(fleet);
        put_right(fleet, asked).await;
        let amiss = amiss(fleet, asked, watched).await;
        calm = if amiss.is_empty() { calm + 1 } else { 0 };
        assert!(
            Instant::now() < end,
            "it does not come to rest: {}",
            amiss.join("\n")
        );
        sleep(Duration::from_millis(300)).await;
    }
}

/// What is not as it is meant to be.
async fn amiss(fleet: &Fleet, asked: &[Asked], watched: &Watched) -> Vec<String> {
    let seen = match Seen::now(fleet).await {
        Ok(seen) => seen,
        Err(status) if is_away(&status) => return vec![format!("{status}")],
        Err(status) => panic!("{status}"),
    };
    let mut amiss = seen.orphans.clone();
    for one in asked {
        amiss.extend(amiss_of_service(one, &seen));
    }
    if seen.services.len()
        != asked
            .iter()
            .filter(|one| one.expected.wanted.is_some())
            .count()
    {
        let names: Vec<_> = seen.services.iter().map(|one| &one.name).collect();
        amiss.push(format!("there are the services {names:?}"));
    }
    amiss.extend(seen.workers.iter().filter_map(amiss_of_worker));
    amiss.extend(amiss_of_rooms(&seen));
    amiss.extend(amiss_of_processes(fleet, asked, &seen));
    amiss.extend(watched.services.wrong().await);
    amiss.extend(watched.replicas.wrong().await);
    amiss.extend(watched.workers.wrong().await);
    amiss.extend(watched.allocations.wrong().await);
    amiss
}

fn amiss_of_service(asked: &Asked, seen: &Seen) -> Option<String> {
    let found = seen
        .services
        .iter()
        .find(|one| one.name == asked.expected.name);
    let (wanted, found) = match (&asked.expected.wanted, found) {
        (None, None) => return None,
        (Some(wanted), Some(found)) => (wanted, found),
        (wanted, found) => return Some(format!("wanted is {wanted:?}, there is {found:#?}")),
    };
    let status = found.status.as_ref().unwrap();
    let counts = status.counts.unwrap();
    let right = if wanted.runs {
        status.phase() == ServicePhase::Healthy
            && (counts.wanted, counts.ready) == (wanted.replicas, wanted.replicas)
            && !status.updating
    } else {
        status.phase() == ServicePhase::Stopped
    };
    let replicas: Vec<_> = seen
        .replicas
        .iter()
        .filter(|one| one.service == asked.expected.name)
        .collect();
    let wrong = |replica: &&&Replica| {
        let attempt = replica.attempt.as_ref();
        replica.phase() != ReplicaPhase::Ready
            || replica.service_uid != found.uid
            || attempt.is_none_or(|attempt| attempt.end_time.is_some())
    };
    let wrong = replicas.iter().find(wrong);
    let so_many = replicas.len() == usize::try_from(running_of(wanted)).unwrap();
    (!right || !so_many || wrong.is_some())
        .then(|| format!("wanted is {wanted:?}, there is {found:#?} with {replicas:#?}"))
}

fn running_of(wanted: &Wanted) -> i32 {
    if wanted.runs { wanted.replicas } else { 0 }
}

fn amiss_of_worker(worker: &Worker) -> Option<String> {
    let drains = worker
        .drain
        .as_ref()
        .is_some_and(|drain| drain.end_time.is_none());
    let right = worker.state() == WorkerState::Active
        && worker.liveness() == WorkerLiveness::Alive
        && !worker.unconfirmed
        && !drains;
    (!right).then(|| format!("{worker:#?}"))
}

/// Each replica has its room, and nothing else has any.
fn amiss_of_rooms(seen: &Seen) -> Option<String> {
    let attempts = seen.replicas.iter().flat_map(|one| &one.attempt);
    let due: BTreeMap<_, _> = attempts
        .map(|one| (&one.allocation_id, (&one.worker, &one.gpu_uuids)))
        .collect();
    let held = seen.allocations.iter();
    let held = held.filter(|one| one.state() == AllocationState::Held);
    let held: BTreeMap<_, _> = held
        .map(|one| (&one.id, (&one.worker, &one.gpu_uuids)))
        .collect();
    let used: i32 = seen
        .workers
        .iter()
        .map(|one| one.usage.unwrap().allocations)
        .sum();
    let right = due == held
        && held.len() == seen.allocations.len()
        && used == i32::try_from(held.len()).unwrap();
    (!right).then(|| {
        format!(
            "{due:?} is due, given is {:#?}, {used} used",
            seen.allocations
        )
    })
}

/// Each replica runs, of its version, and nothing else does.
fn amiss_of_processes(fleet: &Fleet, asked: &[Asked], seen: &Seen) -> Option<String> {
    let tag = |replica: &Replica| {
        let asked = asked
            .iter()
            .find(|one| one.expected.name == replica.service);
        let service = seen
            .services
            .iter()
            .find(|one| one.uid == replica.service_uid);
        let rollout = service.and_then(|one| one.status.as_ref()?.rollout.as_ref());
        // A version whose replicas were killed before they had proven it has failed.
        let back = rollout.filter(|one| one.state() == RolloutState::RolledBack);
        let tag = asked?.expected.tag(back.map(|one| one.stable_version));
        Some(tag?.to_owned())
    };
    let due: BTreeSet<_> = seen
        .replicas
        .iter()
        .map(|one| (one.attempt.clone().unwrap_or_default().id, tag(one)))
        .collect();
    let running = running(fleet.path());
    let there: BTreeSet<_> = running
        .iter()
        .map(|one| (one.attempt.clone(), Some(one.tag.clone())))
        .collect();
    let right = due == there && running.len() == there.len();
    (!right).then(|| format!("due are {due:#?}, there are {running:#?}"))
}

/// Brings workers back to use, and starts what a failure has ended.
async fn put_right(fleet: &Fleet, asked: &mut [Asked]) {
    let Ok(seen) = Seen::now(fleet).await else {
        return;
    };
    for worker in seen.workers {
        let client = WorkersServiceClient::new(channel(fleet.registry.address));
        let name = worker.name.clone();
        // Meanwhile it may have come there by itself.
        let _ = match worker.state() {
            WorkerState::Draining => calls::resume(client, name).await,
            WorkerState::Disabled => calls::enable(client, name).await,
            WorkerState::Active | WorkerState::Provisioning | WorkerState::Unspecified => Ok(()),
        };
    }
    for one in asked.iter_mut().filter(|one| one.expected.fails_fast) {
        let mut services = seen.services.iter();
        let failed = services.any(|service| {
            let phase = service.status.as_ref().unwrap().phase();
            service.name == one.expected.name && phase == ServicePhase::Failed
        });
        if failed {
            one.ask(&Wish::Start).await;
        }
    }
}
