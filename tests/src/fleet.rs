//! A whole fleet as processes: the three components, agents, and what a test asks
//! and does to them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong here ends the test that asked for it"
)]

pub mod etcd;
pub mod metered;
pub mod process;
pub mod spec;
pub mod watching;
pub mod wire;
pub mod witness;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_proto::{
    agents::v1::{GetAgentRequest, agents_service_client::AgentsServiceClient},
    offers::v1::{
        ListOffersRequest, ListOffersResponse, OfferFilter,
        offers_service_client::OffersServiceClient,
    },
    replicas::v1::{
        Endpoint, GetServiceRequest, ListOrphansRequest, ListReplicasRequest, Orphan, Replica,
        ReplicaFilter, ReplicaPhase, ReplicaRole, Service, ServiceFilter, ServicePhase,
        ServiceSpec, ServiceStatus, UpdateServiceRequest, WatchServicesRequest,
        replicas_service_client::ReplicasServiceClient, service_change,
    },
    types::v1::Requirements,
    workers::v1::{
        Allocation, DrainWorkerRequest, GetWorkerRequest, ListAllocationsRequest,
        ListWorkersRequest, Worker, WorkerLiveness, WorkerState,
        workers_service_client::WorkersServiceClient,
    },
};
use process::{Launch, channel, channel_for_streams};
pub use process::{Process, command, free_port, is_alive, kill, start};
use prost_types::FieldMask;
use rustix::process::Signal;
use spec::gpus;
pub use spec::{retry, retry_every, sleeping, span};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, transport::Channel};
pub use watching::Seen;
use wire::Wire;

/// How long a component may take to serve or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fleet is made of, beside the three components.
#[derive(Debug, Default)]
pub struct Layout {
    /// Agents with eight simulated GPUs each.
    pub agents: usize,
    /// Flags of the worker-registry.
    pub registry: Vec<String>,
    /// Flags of the replica-manager.
    pub manager: Vec<String>,
    /// Where several instances keep their state; absent is a file for each component.
    pub shared: Option<Shared>,
    /// Whether the agents' ways to the components can be cut.
    pub wired: bool,
}

/// Several instances of the worker-registry and of the replica-manager.
#[derive(Debug)]
pub struct Shared {
    /// Of each so many.
    pub instances: usize,
    /// The store of all of them.
    pub store: String,
    /// That of the first worker-registry, if its way to it can be cut.
    pub first_registry: Option<String>,
}

impl Layout {
    /// The flag by which a component is told its store.
    fn store(&self, folder: &Path, name: &str) -> String {
        match &self.shared {
            Some(shared) => format!("--store={}", shared.store),
            None => format!("--store=embedded:{}", folder.join(name).display()),
        }
    }

    fn first_registry(&self, folder: &Path) -> String {
        let shared = self.shared.as_ref();
        let own = shared.and_then(|shared| shared.first_registry.as_ref());
        own.map_or_else(
            || self.store(folder, "registry"),
            |own| format!("--store={own}"),
        )
    }
}

/// The processes, and where they keep their state.
pub struct Fleet {
    /// Every component, by the name it is started under.
    program: PathBuf,
    folder: tempfile::TempDir,
    pub gateway: Process,
    pub registry: Process,
    pub manager: Process,
    /// Further instances of the two.
    pub more_registries: Vec<Process>,
    pub more_managers: Vec<Process>,
    pub agents: BTreeMap<String, Process>,
    wires: BTreeMap<String, [Wire; 2]>,
    wired: bool,
}

impl Drop for Fleet {
    /// What agents run outlives them, but not the test: each replica ends with its supervisor.
    fn drop(&mut self) {
        self.kill_components();
        process::kill_all_of(self.folder.path());
        if std::thread::panicking() && std::env::var_os("MUSTER_TEST_KEEP").is_some() {
            self.folder.disable_cleanup(true);
        }
    }
}

/// Runs a task of the test's own.
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
fn own<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

impl Fleet {
    /// Three components on stores of their own, and this many agents with eight
    /// simulated GPUs each, which are ACTIVE.
    pub async fn start(program: &str, agents: usize) -> Self {
        let layout = Layout {
            agents,
            ..Layout::default()
        };
        Self::laid_out(program, layout).await
    }

    /// The same, otherwise than usual.
    pub async fn laid_out(program: &str, layout: Layout) -> Self {
        let mut fleet = Self::of(program, &layout);
        fleet.gateway.start().await;
        fleet.registry.start().await;
        fleet.manager.start().await;
        let more = fleet.more_registries.iter_mut();
        for more in more.chain(&mut fleet.more_managers) {
            more.start().await;
        }
        for number in 1..=layout.agents {
            fleet.add_agent(&format!("w{number}")).await;
        }
        fleet.until_active(layout.agents).await;
        fleet
    }

    /// The components, none of which is started yet.
    fn of(program: &str, layout: &Layout) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_owned();
        let component = |name: &str, args: Vec<String>, flags: &[String]| {
            Process::new(Launch {
                program: program.into(),
                folder: at.clone(),
                name: name.to_owned(),
                address: free_port(),
                args: [&args, flags].concat(),
                environment: Vec::new(),
            })
        };
        let more = layout.shared.as_ref().map_or(0, |all| all.instances - 1);
        let of_registry = |own: String| {
            let args = vec![own, "--insecure-join".to_owned()];
            component("worker-registry", args, &layout.registry)
        };
        let registry = of_registry(layout.first_registry(&at));
        let more_registries: Vec<_> = (0..more)
            .map(|_| of_registry(layout.store(&at, "registry")))
            .collect();
        let workers = urls(std::iter::once(&registry).chain(&more_registries));
        let workers = format!("--workers-addr={workers}");
        let data = format!("--data={}", at.join("gateway").display());
        let gateway = component("offers-gateway", vec![data, workers.clone()], &[]);
        let of_manager = || {
            let offers = format!("--offers-addr=http://{}", gateway.address);
            let args = vec![layout.store(&at, "manager"), offers, workers.clone()];
            component("replica-manager", args, &layout.manager)
        };
        Self {
            program: program.into(),
            manager: of_manager(),
            more_managers: (0..more).map(|_| of_manager()).collect(),
            folder,
            gateway,
            registry,
            more_registries,
            agents: BTreeMap::new(),
            wires: BTreeMap::new(),
            wired: layout.wired,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn add_agent(&mut self, name: &str) {
        let mut workers = urls(std::iter::once(&self.registry).chain(&self.more_registries));
        let mut replicas = urls(std::iter::once(&self.manager).chain(&self.more_managers));
        if self.wired {
            let wires = [
                Wire::to(self.registry.address).await,
                Wire::to(self.manager.address).await,
            ];
            [workers, replicas] = wires
                .each_ref()
                .map(|wire| format!("http://{}", wire.address));
            self.wires.insert(name.to_owned(), wires);
        }
        let args = vec![
            format!("--name={name}"),
            format!("--data={}", self.path().join(name).display()),
            "--gpus=H100:8".to_owned(),
            format!("--workers-addr={workers}"),
            format!("--replicas-addr={replicas}"),
        ];
        let mut agent = Process::new(Launch {
            program: self.program.clone(),
            folder: self.path().to_owned(),
            name: "worker-agent".to_owned(),
            address: free_port(),
            args,
            environment: Vec::new(),
        });
        agent.start().await;
        self.agents.insert(name.to_owned(), agent);
    }

    pub fn agent(&mut self, name: &str) -> &mut Process {
        self.agents.get_mut(name).expect("there is such an agent")
    }

    /// Nothing comes through between a machine and the components any more.
    pub fn cut_off(&self, name: &str) {
        self.wires[name].iter().for_each(Wire::cut);
    }

    /// It comes through again.
    pub fn reconnect(&self, name: &str) {
        self.wires[name].iter().for_each(Wire::mend);
    }

    pub fn offers(&self) -> OffersServiceClient<Channel> {
        OffersServiceClient::new(channel(self.gateway.address))
    }

    pub fn workers(&self) -> WorkersServiceClient<Channel> {
        WorkersServiceClient::new(channel(self.registry.address))
    }

    pub fn manager(&self) -> ReplicasServiceClient<Channel> {
        ReplicasServiceClient::new(channel(self.manager.address))
    }

    /// The cheapest offers with one of these GPUs.
    pub async fn cheapest(&self, gpu: &str, count: i32) -> ListOffersResponse {
        let needs = Requirements {
            gpu_any_of: vec![gpus(gpu, 1)],
            ..Requirements::default()
        };
        let filter = OfferFilter {
            requirements: Some(needs),
            ..OfferFilter::default()
        };
        let request = ListOffersRequest {
            filter: Some(filter),
            page_size: count,
            ..ListOffersRequest::default()
        };
        self.offers()
            .list_offers(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Our own machines as the gateway offers them, the cheapest first.
    pub async fn idle_machines(&self) -> ListOffersResponse {
        let filter = OfferFilter {
            backends: vec!["fleet".to_owned()],
            ..OfferFilter::default()
        };
        let request = ListOffersRequest {
            filter: Some(filter),
            max_age: Some(prost_types::Duration::default()),
            ..ListOffersRequest::default()
        };
        let answer = self.offers().list_offers(request).await;
        answer.unwrap().into_inner()
    }

    /// Creates or changes a service, as `muster apply` does.
    pub async fn apply(&self, spec: ServiceSpec) -> Service {
        let answer = self.manager().update_service(full_replacement(spec)).await;
        answer.unwrap().into_inner().service.unwrap()
    }

    /// Asks the manager until it answers, while it is killed and started.
    pub async fn insist(
        &self,
        call: impl AsyncFn(ReplicasServiceClient<Channel>) -> Result<(), Status>,
    ) {
        let end = Instant::now() + PATIENCE;
        while let Err(status) = call(self.manager()).await {
            // The last of them is what the library says of a connection that ends under a call.
            let away = matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled
            );
            assert!(away && Instant::now() < end, "{status}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until there is no such service.
    pub async fn until_gone(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = GetServiceRequest {
                name: name.to_owned(),
                ..GetServiceRequest::default()
            };
            match self.manager().get_service(request).await {
                Err(status) if status.code() == Code::NotFound => return,
                answer => assert!(Instant::now() < end, "it is there: {answer:#?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a service is in a phase.
    pub async fn until(&self, name: &str, phase: ServicePhase, patience: Duration) -> Service {
        let reached = |status: &ServiceStatus| status.phase() == phase;
        self.until_within(name, &format!("{phase:?}"), reached, patience)
            .await
    }

    /// Waits until the status of a service is as a test wants it.
    pub async fn until_status(
        &self,
        name: &str,
        what: &str,
        test: impl Fn(&ServiceStatus) -> bool,
    ) -> Service {
        self.until_within(name, what, test, PATIENCE).await
    }

    async fn until_within(
        &self,
        name: &str,
        what: &str,
        test: impl Fn(&ServiceStatus) -> bool,
        patience: Duration,
    ) -> Service {
        let mut last = None;
        let waited = timeout(patience, async {
            loop {
                let mut watch = self.watch(name).await;
                while let Ok(Some(message)) = watch.message().await {
                    for change in message.changes {
                        if let Some(service_change::Change::Put(service)) = change.change {
                            let reached = test(service.status.as_ref().unwrap());
                            last = Some(service.clone());
                            if reached {
                                return service;
                            }
                        }
                    }
                }
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{name} is not {what}; it is {last:#?}"))
    }

    async fn watch(
        &self,
        name: &str,
    ) -> tonic::Streaming<muster_proto::replicas::v1::WatchServicesResponse> {
        let filter = ServiceFilter {
            names: vec![name.to_owned()],
            ..ServiceFilter::default()
        };
        loop {
            let request = WatchServicesRequest {
                filter: Some(filter.clone()),
                ..Default::default()
            };
            let channel = channel_for_streams(self.manager.address);
            if let Ok(stream) = ReplicasServiceClient::new(channel)
                .watch_services(request)
                .await
            {
                return stream.into_inner();
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Every status of a service from now on.
    pub fn statuses(&self, service: &str) -> Seen<ServiceStatus> {
        Seen::statuses(self.manager.address, service)
    }

    /// The endpoints of a service from now on, after each change.
    pub fn endpoints(&self, service: &str) -> Seen<BTreeMap<String, Endpoint>> {
        Seen::endpoints(self.manager.address, service)
    }

    /// Every replica of a service.
    pub async fn replicas(&self, service: &str) -> Vec<Replica> {
        let filter = ReplicaFilter {
            services: vec![service.to_owned()],
            ..ReplicaFilter::default()
        };
        let request = ListReplicasRequest {
            filter: Some(filter),
            page_size: 1000,
            ..Default::default()
        };
        self.manager()
            .list_replicas(request)
            .await
            .unwrap()
            .into_inner()
            .replicas
    }

    /// The process of each ready replica of a service, as its agent says.
    pub async fn processes(&self, service: &str) -> BTreeMap<String, i32> {
        let processes = self.processes_if_known(service).await;
        processes.expect("its agent runs it")
    }

    /// `None` where an agent does not know of a ready replica.
    async fn processes_if_known(&self, service: &str) -> Option<BTreeMap<String, i32>> {
        let mut processes = BTreeMap::new();
        for replica in self.replicas(service).await {
            if replica.phase() != ReplicaPhase::Ready {
                continue;
            }
            let attempt = replica.attempt.unwrap();
            let agent = self.agents[&attempt.worker].address;
            let mut client = AgentsServiceClient::new(channel(agent));
            let answer = client.get_agent(GetAgentRequest {}).await.unwrap();
            let attempts = answer.into_inner().attempts;
            let running = attempts.iter().find(|one| one.attempt_id == attempt.id)?;
            processes.insert(replica.id, running.pid);
        }
        Some(processes)
    }

    /// Those of some processes that are there.
    pub fn processes_of(&self, processes: &BTreeMap<String, i32>) -> BTreeMap<String, i32> {
        let there = processes.iter().filter(|(_, pid)| is_alive(**pid));
        there
            .map(|(replica, pid)| (replica.clone(), *pid))
            .collect()
    }

    pub async fn until_no_process(&self, processes: &BTreeMap<String, i32>, patience: Duration) {
        let end = Instant::now() + patience;
        while !self.processes_of(processes).is_empty() {
            assert!(
                Instant::now() < end,
                "still there: {:?}",
                self.processes_of(processes)
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The worker on which most ready replicas of a service are.
    pub async fn holds_most(&self, service: &str) -> String {
        let mut held = BTreeMap::<String, usize>::new();
        for replica in self.replicas(service).await {
            *held.entry(replica.attempt.unwrap().worker).or_default() += 1;
        }
        held.into_iter().max_by_key(|(_, held)| *held).unwrap().0
    }

    pub async fn drain(&self, worker: &str) {
        let request = DrainWorkerRequest {
            name: worker.to_owned(),
            reason: "a test wants it empty".to_owned(),
            ..DrainWorkerRequest::default()
        };
        self.workers().drain_worker(request).await.unwrap();
    }

    /// Waits until a replica of a service is on its way to replace another.
    pub async fn until_moving(&self, service: &str, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let replicas = self.replicas(service).await;
            if replicas
                .iter()
                .any(|replica| replica.role() == ReplicaRole::Move)
                || replicas.len() > 3
            {
                return;
            }
            assert!(Instant::now() < end, "nothing moves: {replicas:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn worker(&self, name: &str) -> Worker {
        let request = GetWorkerRequest {
            name: name.to_owned(),
            ..GetWorkerRequest::default()
        };
        self.workers()
            .get_worker(request)
            .await
            .unwrap()
            .into_inner()
            .worker
            .unwrap()
    }

    pub async fn until_worker(&self, name: &str, state: WorkerState, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let worker = self.worker(name).await;
            if worker.state() == state {
                return;
            }
            assert!(Instant::now() < end, "{name} is not {state:?}: {worker:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a machine has come back so often, and takes work.
    pub async fn until_generation(&self, name: &str, generation: i64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let worker = self.worker(name).await;
            let active = worker.state() == WorkerState::Active;
            if active && worker.generation == generation {
                return;
            }
            assert!(Instant::now() < end, "not {generation}: {worker:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn until_liveness(&self, name: &str, is: WorkerLiveness, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let worker = self.worker(name).await;
            if worker.liveness() == is {
                return;
            }
            assert!(Instant::now() < end, "{name} is not {is:?}: {worker:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until agents that have just started know these processes as those of a service again.
    pub async fn until_known(&self, service: &str, processes: &BTreeMap<String, i32>) {
        let end = Instant::now() + PATIENCE;
        loop {
            let known = self.processes_if_known(service).await;
            if known.as_ref() == Some(processes) {
                return;
            }
            assert!(Instant::now() < end, "{known:?} of {processes:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_active(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self
                .workers()
                .list_workers(ListWorkersRequest::default())
                .await;
            let workers = answer.unwrap().into_inner().workers;
            let active = workers
                .iter()
                .filter(|worker| worker.state() == WorkerState::Active);
            if active.count() == count {
                return;
            }
            assert!(Instant::now() < end, "not ACTIVE: {workers:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that the registry has given away.
    pub async fn allocations(&self) -> Vec<Allocation> {
        let request = ListAllocationsRequest {
            page_size: 1000,
            ..ListAllocationsRequest::default()
        };
        let answer = self.workers().list_allocations(request).await;
        answer.unwrap().into_inner().allocations
    }

    /// No accelerator is in two allocations.
    pub async fn no_room_is_held_twice(&self) {
        let mut seen = BTreeSet::new();
        for gpu in self
            .allocations()
            .await
            .iter()
            .flat_map(|allocation| &allocation.gpu_uuids)
        {
            assert!(seen.insert(gpu.clone()), "{gpu} is given twice");
        }
    }

    /// Waits until so many allocations are left.
    pub async fn until_allocations(&self, count: usize, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let held = self.allocations().await;
            if held.len() == count {
                return;
            }
            assert!(Instant::now() < end, "not {count} allocations: {held:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an agent has told all of something that the manager does not know.
    pub async fn until_orphan(&self) -> Orphan {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = ListOrphansRequest::default();
            let answer = self.manager().list_orphans(request).await;
            let orphans = answer.unwrap().into_inner().orphans;
            if let Some(orphan) = orphans.iter().find(|one| !one.replica.is_empty()) {
                return orphan.clone();
            }
            assert!(Instant::now() < end, "no orphan: {orphans:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a replica is as a test wants it.
    pub async fn until_replica(
        &self,
        id: &str,
        what: &str,
        test: impl Fn(&Replica) -> bool,
    ) -> Replica {
        let (service, _) = id.split_once('/').unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let replicas = self.replicas(service).await;
            if let Some(found) = replicas.iter().find(|one| one.id == id && test(one)) {
                return found.clone();
            }
            assert!(Instant::now() < end, "{id} is not {what}: {replicas:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops every component and agent with SIGTERM; each ends with code 0.
    pub async fn stop_components(&mut self) {
        let mut all = vec![&mut self.gateway, &mut self.registry, &mut self.manager];
        all.extend(self.agents.values_mut());
        for process in all {
            process.signal(Signal::TERM);
            let end = Instant::now() + PATIENCE;
            loop {
                if let Some(status) = process.ended() {
                    assert!(status.success(), "{status}");
                    break;
                }
                assert!(Instant::now() < end, "a component does not stop");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Kills every component and agent as a power cut would, but for what the agents run.
    pub fn kill_components(&mut self) {
        let all = [&mut self.gateway, &mut self.registry, &mut self.manager];
        let more = self
            .more_registries
            .iter_mut()
            .chain(&mut self.more_managers);
        let all = all.into_iter().chain(more).chain(self.agents.values_mut());
        all.for_each(Process::kill);
    }

    /// Starts them again.
    pub async fn start_components(&mut self) {
        self.gateway.start().await;
        self.registry.start().await;
        self.manager.start().await;
        for agent in self.agents.values_mut() {
            agent.start().await;
        }
    }

    /// Ends replicas that outlived the fleet.
    pub async fn end(&self, processes: &BTreeMap<String, i32>) {
        for pid in processes.values() {
            kill(*pid);
        }
        self.until_no_process(processes, PATIENCE).await;
    }
}

/// What `muster apply` asks for.
pub fn full_replacement(spec: ServiceSpec) -> UpdateServiceRequest {
    UpdateServiceRequest {
        spec: Some(spec),
        update_mask: Some(FieldMask {
            paths: vec!["*".to_owned()],
        }),
        allow_missing: true,
        ..UpdateServiceRequest::default()
    }
}

/// Where instances of one component are, as the others are told.
fn urls<'a>(instances: impl Iterator<Item = &'a Process>) -> String {
    let urls: Vec<_> = instances
        .map(|one| format!("http://{}", one.address))
        .collect();
    urls.join(",")
}
