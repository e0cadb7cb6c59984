//! Random lives of a small fleet against what must hold at every moment: no replica is placed on a worker
//! that is not ACTIVE, no accelerator is given twice or when it is gone, a worker is DISABLED only when it is empty, nothing
//! that was acknowledged is lost by a crash, and nobody who beats is declared lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::{AllocationState, HeldPhase, WorkerLiveness, WorkerState};
use muster_store::{MemoryCluster, Options, Store};
use proptest::prelude::*;
use tonic::{Code, Status};

use super::{Running, ask, call, config, pass, registration, term};
use crate::grpc::calls;
use crate::registry::Registry;

const WORKERS: usize = 3;
const GPUS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// With the accelerators that it has now.
    Register {
        worker: usize,
        restarted: bool,
    },
    /// One of its accelerators is gone, or comes back; it says so when it registers.
    Card {
        worker: usize,
        which: usize,
    },
    /// A call of an earlier registration comes late.
    Late {
        worker: usize,
        which: usize,
    },
    Activate {
        worker: usize,
    },
    /// Beats, and ends what it was told to end.
    Beat {
        worker: usize,
    },
    /// One of its replicas exits by itself.
    Exit {
        worker: usize,
        which: usize,
    },
    Drain {
        worker: usize,
        forced: bool,
    },
    Resume {
        worker: usize,
    },
    Disable {
        worker: usize,
        force: bool,
    },
    Enable {
        worker: usize,
    },
    Delete {
        worker: usize,
    },
    /// Several at once.
    Allocate {
        gpus: Vec<i32>,
    },
    Replace {
        which: usize,
    },
    Release {
        which: usize,
    },
    /// The agent is cut off until it beats again.
    Silence {
        worker: usize,
    },
    Pass {
        seconds: u64,
    },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        3 => (worker.clone(), any::<bool>()).prop_map(|(worker, restarted)| Step::Register { worker, restarted }),
        3 => (worker.clone(), 0_usize..GPUS).prop_map(|(worker, which)| Step::Card { worker, which }),
        1 => (worker.clone(), 0_usize..8).prop_map(|(worker, which)| Step::Late { worker, which }),
        4 => worker.clone().prop_map(|worker| Step::Activate { worker }),
        6 => worker.clone().prop_map(|worker| Step::Beat { worker }),
        2 => (worker.clone(), 0_usize..4).prop_map(|(worker, which)| Step::Exit { worker, which }),
        2 => (worker.clone(), any::<bool>()).prop_map(|(worker, forced)| Step::Drain { worker, forced }),
        1 => worker.clone().prop_map(|worker| Step::Resume { worker }),
        2 => (worker.clone(), any::<bool>()).prop_map(|(worker, force)| Step::Disable { worker, force }),
        2 => worker.clone().prop_map(|worker| Step::Enable { worker }),
        1 => worker.clone().prop_map(|worker| Step::Delete { worker }),
        8 => prop::collection::vec(1_i32..4, 1..4).prop_map(|gpus| Step::Allocate { gpus }),
        2 => (0_usize..12).prop_map(|which| Step::Replace { which }),
        4 => (0_usize..12).prop_map(|which| Step::Release { which }),
        2 => worker.prop_map(|worker| Step::Silence { worker }),
        3 => (1_u64..12).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Crash),
    ]
}

/// An agent as it should behave.
#[derive(Debug, Default)]
struct Agent {
    boot: u32,
    generation: i64,
    credential: String,
    /// The places of accelerators that are gone.
    gone: BTreeSet<usize>,
    /// Every registration of this process, as it was sent.
    sent: Vec<proto::RegisterWorkerRequest>,
    /// What it runs or has to end.
    held: BTreeMap<String, HeldPhase>,
    silent: bool,
    /// Fenced: it has stopped everything and is gone until it registers.
    stopped: bool,
}

struct World {
    /// One for each instance.
    stores: Vec<Store>,
    running: Vec<Running>,
    /// The instance that is called in this step.
    turn: usize,
    agents: Vec<Agent>,
    /// Every allocation that was acknowledged: its worker, and whether its owner gave it back.
    made: BTreeMap<String, (String, bool)>,
    /// Named ended by its agent, which was answered.
    ended: BTreeSet<String>,
    /// Workers that were disabled by force while they were lost, or deleted: what was there is written off.
    written_off: BTreeSet<String>,
    requests: u32,
}

fn name(worker: usize) -> String {
    format!("w{worker}")
}

fn tolerated(result: Result<(), Status>) {
    if let Err(status) = result {
        let code = status.code();
        let expected = [
            Code::FailedPrecondition,
            Code::NotFound,
            Code::AlreadyExists,
            Code::ResourceExhausted,
            Code::Unauthenticated,
        ];
        assert!(expected.contains(&code), "{status:?}");
    }
}

impl World {
    /// As many registries as there are stores, which are one store.
    async fn new(stores: Vec<Store>) -> Self {
        let mut world = Self {
            running: Vec::new(),
            stores,
            turn: 0,
            agents: (0..WORKERS).map(|_| Agent::default()).collect(),
            made: BTreeMap::new(),
            ended: BTreeSet::new(),
            written_off: BTreeSet::new(),
            requests: 0,
        };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        for store in &self.stores {
            self.running
                .push(Running::start(config(), store.clone()).await);
        }
    }

    /// Lets every instance show what any has been answered, and goes on with the next one.
    async fn settle(&mut self) {
        let shown = |running: &Running| running.registry.progress.current();
        let latest = self.running.iter().map(shown).max().unwrap();
        while self.running.iter().any(|running| shown(running) < latest) {
            tokio::task::yield_now().await;
        }
        self.turn = (self.turn + 1) % self.running.len();
    }

    fn registry(&self) -> Registry {
        self.running[self.turn].registry.clone()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Register { worker, restarted } => self.register(worker, restarted).await,
            Step::Card { worker, which } => {
                let gone = &mut self.agents[worker].gone;
                if !gone.remove(&which) {
                    gone.insert(which);
                }
            }
            Step::Late { worker, which } => self.late(worker, which).await,
            Step::Activate { worker } => self.activate(worker).await,
            Step::Beat { worker } => {
                self.agents[worker].silent = false;
                self.beat(worker).await;
            }
            Step::Exit { worker, which } => {
                let running = self.agents[worker].held.values_mut().nth(which);
                if let Some(phase) = running {
                    *phase = HeldPhase::Ended;
                }
            }
            Step::Drain { .. }
            | Step::Resume { .. }
            | Step::Disable { .. }
            | Step::Enable { .. }
            | Step::Delete { .. } => {
                self.operate(step).await;
            }
            Step::Allocate { gpus } => self.allocate(gpus).await,
            Step::Replace { which } => self.replace(which).await,
            Step::Release { which } => self.release(which).await,
            Step::Silence { worker } => self.agents[worker].silent = true,
            Step::Pass { seconds } => self.pass(seconds).await,
            Step::Crash => self.crash().await,
        }
    }

    async fn register(&mut self, worker: usize, restarted: bool) {
        let registry = self.registry();
        let agent = &mut self.agents[worker];
        if restarted || agent.stopped {
            agent.boot += 1;
            agent.stopped = false;
            agent.sent.clear();
        }
        let mut request = registration(&name(worker), &format!("boot-{}", agent.boot), GPUS);
        let mut place = 0..;
        let has = |_: &types::Gpu| !agent.gone.contains(&place.next().unwrap());
        request.capacity.as_mut().unwrap().gpus.retain(has);
        request.last_generation = agent.generation;
        request.held = held(agent);
        agent.sent.push(request.clone());
        let request = credited(agent, request);
        let named = ended(&self.agents[worker]);
        let known = self.worker(worker).map_or(0, |known| known.generation);
        let answer = calls::register(&registry, request).await;
        let agent = &mut self.agents[worker];
        match answer {
            Ok(answer) => {
                self.ended.extend(named);
                let generation = i64::try_from(answer.seen.worker.generation).unwrap();
                assert!(generation >= agent.generation, "generations only grow");
                agent.generation = generation;
                agent.silent = false;
                if !answer.rest.credential.is_empty() {
                    agent.credential = answer.rest.credential;
                }
                let has: BTreeSet<String> = answer
                    .seen
                    .worker
                    .machine
                    .gpus
                    .uuids()
                    .map(str::to_owned)
                    .collect();
                let said = agent.sent.last().unwrap();
                if has != gpus(said) {
                    assert_ne!(
                        said.last_generation, known,
                        "the registry does not take what it is told"
                    );
                    Box::pin(self.register(worker, false)).await;
                }
            }
            Err(status) => {
                // Deleted meanwhile: it comes as a new machine next time.
                agent.credential.clear();
                tolerated(Err(status));
            }
        }
    }

    /// What comes late changes nothing of the incarnation that is there.
    async fn late(&mut self, worker: usize, which: usize) {
        let agent = &self.agents[worker];
        // Of what it said first of this incarnation nobody can say that it is late.
        let sent = agent.sent.iter().rev().skip(1);
        let mut late = sent.filter(|sent| sent.last_generation < agent.generation);
        let Some(sent) = late.nth(which).cloned() else {
            return;
        };
        let named = sent.held.iter();
        let named = named.filter(|held| held.phase() == HeldPhase::Ended);
        self.ended
            .extend(named.map(|held| held.allocation_id.clone()));
        let request = credited(agent, sent);
        let before = self.worker(worker);
        if calls::register(&self.registry(), request).await.is_ok()
            && let Some(before) = before
            && before.generation == self.agents[worker].generation
        {
            let after = self.worker(worker).unwrap();
            assert_eq!(after.capacity, before.capacity, "what was gone is back");
            assert_eq!(after.generation, before.generation);
        }
    }

    async fn activate(&mut self, worker: usize) {
        let check = proto::WorkerCheck {
            name: "check".to_owned(),
            status: proto::CheckStatus::Passed.into(),
            ..proto::WorkerCheck::default()
        };
        let request = proto::ActivateWorkerRequest {
            name: name(worker),
            generation: self.agents[worker].generation,
            checks: vec![check],
        };
        tolerated(
            calls::activate(&self.registry(), call(request))
                .await
                .map(drop),
        );
    }

    /// One heartbeat of an agent that does as it is told.
    async fn beat(&mut self, worker: usize) {
        let registry = self.registry();
        let agent = &mut self.agents[worker];
        if agent.stopped {
            return;
        }
        let request = proto::HeartbeatRequest {
            name: name(worker),
            generation: agent.generation,
            held: held(agent),
            ..proto::HeartbeatRequest::default()
        };
        let named = ended(agent);
        match calls::heartbeat(&registry, call(request)).await {
            Ok(answer) => {
                self.ended.extend(named);
                let agent = &mut self.agents[worker];
                for notice in answer.notices {
                    agent.held.insert(notice.allocation_id, HeldPhase::Ended);
                }
                for id in answer.forgotten_allocations {
                    agent.held.remove(&id);
                }
                if answer.forced {
                    agent
                        .held
                        .values_mut()
                        .for_each(|phase| *phase = HeldPhase::Ended);
                }
                assert_eq!(
                    answer.unknown_allocations, [""; 0],
                    "of one epoch nothing is unknown"
                );
            }
            Err(status) => {
                // Fenced or unknown: it stops what it runs and goes.
                tolerated(Err(status));
                let agent = &mut self.agents[worker];
                agent.held.clear();
                agent.stopped = true;
            }
        }
    }

    async fn operate(&mut self, step: Step) {
        let registry = self.registry();
        let result = match step {
            Step::Drain { worker, forced } => {
                let request = proto::DrainWorkerRequest {
                    name: name(worker),
                    deadline: forced.then_some(prost_types::Duration {
                        seconds: 5,
                        nanos: 0,
                    }),
                    after_deadline: i32::from(forced) * 2,
                    ..proto::DrainWorkerRequest::default()
                };
                calls::drain(&registry, call(request)).await.map(drop)
            }
            Step::Resume { worker } => {
                let request = proto::ResumeWorkerRequest {
                    name: name(worker),
                    ..Default::default()
                };
                calls::resume(&registry, call(request)).await.map(drop)
            }
            Step::Disable { worker, force } => {
                let request = proto::DisableWorkerRequest {
                    name: name(worker),
                    force,
                    ..Default::default()
                };
                calls::disable(&registry, call(request)).await.map(drop)
            }
            Step::Enable { worker } => {
                let request = proto::EnableWorkerRequest {
                    name: name(worker),
                    ..Default::default()
                };
                calls::enable(&registry, call(request)).await.map(drop)
            }
            Step::Delete { worker } => {
                let request = proto::DeleteWorkerRequest {
                    name: name(worker),
                    ..Default::default()
                };
                calls::delete(&registry, call(request)).await.map(drop)
            }
            Step::Register { .. }
            | Step::Card { .. }
            | Step::Late { .. }
            | Step::Activate { .. }
            | Step::Beat { .. }
            | Step::Exit { .. }
            | Step::Allocate { .. }
            | Step::Replace { .. }
            | Step::Release { .. }
            | Step::Silence { .. }
            | Step::Pass { .. }
            | Step::Crash => Ok(()),
        };
        tolerated(result);
    }

    /// Several allocations at once, which must not meet.
    async fn allocate(&mut self, gpus: Vec<i32>) {
        let registry = self.registry();
        let states: BTreeMap<_, _> = self
            .workers()
            .into_iter()
            .map(|worker| (worker.name.clone(), worker))
            .collect();
        let mut asked = Vec::new();
        for gpus in gpus {
            self.requests += 1;
            asked.push(ask(&format!("r{}", self.requests), gpus));
        }
        let calls = asked
            .into_iter()
            .map(|request| calls::allocate(&registry, call(request)));
        for result in futures_util::future::join_all(calls).await {
            self.note_made(result, &states);
        }
    }

    fn note_made(
        &mut self,
        result: Result<proto::AllocateResponse, Status>,
        states: &BTreeMap<String, proto::Worker>,
    ) {
        let allocation = match result {
            Ok(answer) => answer.allocation.unwrap(),
            Err(status) => return tolerated(Err(status)),
        };
        let worker = &states[&allocation.worker];
        assert_eq!(
            worker.state(),
            WorkerState::Active,
            "placed on a worker that is not ACTIVE"
        );
        assert!(
            matches!(
                worker.liveness(),
                WorkerLiveness::Alive | WorkerLiveness::Unknown
            ),
            "{worker:?}"
        );
        let capacity = worker.capacity.as_ref().unwrap();
        let has = |uuid: &String| capacity.gpus.iter().any(|gpu| gpu.uuid == *uuid);
        assert!(
            allocation.gpu_uuids.iter().all(has),
            "given what is not there: {allocation:?}"
        );
        let place = self
            .agents
            .iter()
            .enumerate()
            .position(|(place, _)| name(place) == allocation.worker);
        let agent = &mut self.agents[place.unwrap()];
        if !agent.stopped {
            agent.held.insert(allocation.id.clone(), HeldPhase::Running);
        }
        self.made.insert(allocation.id, (allocation.worker, false));
    }

    async fn replace(&mut self, which: usize) {
        let Some((old, _)) = self
            .made
            .iter()
            .filter(|(_, (_, released))| !released)
            .nth(which)
        else {
            return;
        };
        let old = old.clone();
        let states: BTreeMap<_, _> = self
            .workers()
            .into_iter()
            .map(|worker| (worker.name.clone(), worker))
            .collect();
        self.requests += 1;
        let mut request = ask(&format!("r{}", self.requests), 1);
        request.spec.as_mut().unwrap().replaces.clone_from(&old);
        let result = calls::allocate(&self.registry(), call(request)).await;
        if result.is_ok() {
            self.made.get_mut(&old).unwrap().1 = true;
        }
        self.note_made(result, &states);
    }

    async fn release(&mut self, which: usize) {
        let Some((id, entry)) = self
            .made
            .iter_mut()
            .filter(|(_, (_, released))| !released)
            .nth(which)
        else {
            return;
        };
        entry.1 = true;
        let request = proto::ReleaseRequest {
            allocation_id: id.clone(),
            owner: "replica-manager".to_owned(),
            owner_term: term(),
            ..proto::ReleaseRequest::default()
        };
        tolerated(
            calls::release(&self.registry(), call(request))
                .await
                .map(drop),
        );
    }

    /// Time passes, while those who are not silent beat.
    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            pass(Duration::from_secs(1)).await;
            for worker in 0..WORKERS {
                if !self.agents[worker].silent {
                    self.beat(worker).await;
                }
            }
        }
    }

    async fn crash(&mut self) {
        let before = self.shown();
        self.end().await;
        self.start().await;
        assert_eq!(self.shown(), before, "a crash changed what was shown");
    }

    async fn end(&mut self) {
        for running in self.running.drain(..) {
            running.crash().await;
        }
    }

    fn workers(&self) -> Vec<proto::Worker> {
        let registry = self.registry();
        let view = registry.view();
        let render =
            |entry| crate::grpc::convert::render_worker(&registry.seen(entry), &registry.epoch);
        view.workers().map(render).collect()
    }

    fn worker(&self, worker: usize) -> Option<proto::Worker> {
        let mut all = self.workers().into_iter();
        all.find(|one| one.name == name(worker))
    }

    fn allocations(&self) -> Vec<proto::Allocation> {
        let registry = self.registry();
        let view = registry.view();
        let render = |allocation| {
            let seen = registry.seen_allocation(&view, allocation);
            crate::grpc::convert::render_allocation(&seen.allocation, seen.revoked.as_ref())
        };
        view.allocations().map(render).collect()
    }

    /// Everything durable.
    fn shown(&self) -> (Vec<proto::Worker>, Vec<proto::Allocation>) {
        let mut workers = self.workers();
        for worker in &mut workers {
            worker.liveness = 0;
            worker.liveness_time = None;
            worker.heartbeat_time = None;
            worker.drain = None;
        }
        (workers, self.allocations())
    }

    fn check(&mut self) {
        let workers = self.workers();
        let allocations = self.allocations();
        for worker in &workers {
            let empty = worker.usage.as_ref().unwrap().allocations == 0;
            if worker.state() == WorkerState::Disabled {
                assert!(empty, "DISABLED and not empty: {worker:?}");
            }
            if worker.unconfirmed {
                self.written_off.insert(worker.name.clone());
            }
            let place: usize = worker.name[1..].parse().unwrap();
            let agent = &self.agents[place];
            let beats = !agent.silent && !agent.stopped && agent.generation == worker.generation;
            let heard_lately = worker.heartbeat_time.is_some();
            if beats && heard_lately && worker.liveness() == WorkerLiveness::Lost {
                panic!("{} beats and is LOST", worker.name);
            }
        }
        check_gpus(&workers, &allocations);
        self.check_none_is_lost(&allocations);
    }

    /// What was acknowledged is there, unless it was given back and named ended, or written off.
    fn check_none_is_lost(&self, allocations: &[proto::Allocation]) {
        let there: BTreeSet<_> = allocations
            .iter()
            .map(|allocation| &allocation.id)
            .collect();
        for (id, (worker, released)) in &self.made {
            let over = *released && self.ended.contains(id);
            let gone = over || self.written_off.contains(worker);
            assert!(there.contains(id) || gone, "{id} on {worker} is gone");
        }
    }
}

/// No accelerator is given twice, but to the two of a replacement; and nobody is shown less than is given.
fn check_gpus(workers: &[proto::Worker], allocations: &[proto::Allocation]) {
    let revoked_through: BTreeMap<_, _> = workers
        .iter()
        .map(|worker| (&worker.name, worker.revoked_through))
        .collect();
    let counted = allocations
        .iter()
        .filter(|one| one.worker_generation > revoked_through[&one.worker]);
    let mut holders: BTreeMap<&String, Vec<&proto::Allocation>> = BTreeMap::new();
    for allocation in counted {
        for uuid in &allocation.gpu_uuids {
            holders.entry(uuid).or_default().push(allocation);
        }
    }
    for (uuid, holders) in holders {
        if let [one, other] = holders[..] {
            let linked = one.replaces == other.id || other.replaces == one.id;
            assert!(linked, "{uuid} was given to {} and {}", one.id, other.id);
            let (old, new) = if one.replaces == other.id {
                (other, one)
            } else {
                (one, other)
            };
            assert_ne!(
                old.state(),
                AllocationState::Held,
                "{} was replaced by {}",
                old.id,
                new.id
            );
            assert!(new.fencing_token > old.fencing_token);
        }
        assert!(holders.len() <= 2, "{uuid} has {} holders", holders.len());
    }
}

/// A call with the credential of its agent, if it has one.
fn credited(
    agent: &Agent,
    request: proto::RegisterWorkerRequest,
) -> tonic::Request<proto::RegisterWorkerRequest> {
    let mut request = call(request);
    if !agent.credential.is_empty() {
        let header = format!("Bearer {}", agent.credential).parse().unwrap();
        request.metadata_mut().insert("authorization", header);
    }
    request
}

fn gpus(request: &proto::RegisterWorkerRequest) -> BTreeSet<String> {
    let gpus = request.capacity.iter().flat_map(|capacity| &capacity.gpus);
    gpus.map(|gpu| gpu.uuid.clone()).collect()
}

fn held(agent: &Agent) -> Vec<proto::HeldAllocation> {
    let held = agent.held.iter().map(|(id, phase)| proto::HeldAllocation {
        allocation_id: id.clone(),
        phase: (*phase).into(),
        record: None,
    });
    held.collect()
}

fn ended(agent: &Agent) -> Vec<String> {
    let ended = agent
        .held
        .iter()
        .filter(|(_, phase)| **phase == HeldPhase::Ended);
    ended.map(|(id, _)| id.clone()).collect()
}

/// Stores of two instances on one cluster, on which somebody else counts revisions too.
async fn shared() -> Vec<Store> {
    let cluster = MemoryCluster::new();
    cluster.pass_revisions(7);
    let mut stores = Vec::new();
    for _ in 0..2 {
        let opened = cluster.open("/registry/", Options::default()).await;
        stores.push(opened.unwrap().0);
    }
    stores
}

fn run(instances: usize, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async move {
        let stores = match instances {
            1 => vec![Store::memory()],
            _ => shared().await,
        };
        let mut world = World::new(stores).await;
        for worker in 0..WORKERS {
            world.register(worker, false).await;
            world.activate(worker).await;
        }
        for step in steps {
            world.settle().await;
            world.take(step).await;
            world.settle().await;
            world.check();
        }
        world.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_must_hold_holds_at_every_step(steps in prop::collection::vec(step(), 1..60)) {
        run(1, steps);
    }

    #[test]
    fn it_holds_with_two_instances_on_one_store(steps in prop::collection::vec(step(), 1..40)) {
        run(2, steps);
    }
}
