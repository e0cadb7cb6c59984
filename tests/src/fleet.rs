//! A whole fleet as processes: the three components, agents, and what a test asks
//! and does to them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong here ends the test that asked for it"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use muster_proto::{
    agents::v1::{GetAgentRequest, agents_service_client::AgentsServiceClient},
    health::v1::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    offers::v1::{
        ListOffersRequest, ListOffersResponse, OfferFilter,
        offers_service_client::OffersServiceClient,
    },
    replicas::v1::{
        EnvVar, ListReplicasRequest, Placement, ProcessRuntime, Replica, ReplicaCount,
        ReplicaFilter, ReplicaPhase, ReplicaRole, RetryPolicy, RunSpec, Service, ServiceFilter,
        ServicePhase, ServiceSpec, Spread, StopPolicy, UpdatePolicy, UpdateServiceRequest,
        WatchServicesRequest, replicas_service_client::ReplicasServiceClient, run_spec,
        service_change,
    },
    types::v1::{GpuRequest, Int32Range, Requirements},
    workers::v1::{
        DrainWorkerRequest, GetWorkerRequest, ListAllocationsRequest, ListWorkersRequest, Worker,
        WorkerState, workers_service_client::WorkersServiceClient,
    },
};
use prost_types::FieldMask;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// How long a component may take to serve or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A duration as the contract writes it.
pub fn span(duration: Duration) -> Option<prost_types::Duration> {
    Some(duration.try_into().unwrap())
}

/// A process of the fleet; killed when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    /// Where health and metrics are, in plaintext.
    pub ops: SocketAddr,
}

impl Process {
    /// Asks it to stop, and waits for how it has.
    pub async fn terminate(mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it does not stop");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it answers on its ops port.
    pub fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.ops).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes, and where they keep their state.
pub struct Fleet {
    /// Every component, by the name it is started under.
    program: PathBuf,
    folder: tempfile::TempDir,
    pub gateway: Process,
    pub registry: Process,
    manager: Option<Process>,
    manager_address: SocketAddr,
    pub agents: BTreeMap<String, Process>,
}

/// An address that nobody listens on.
pub fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap()
}

/// `program` under the name of a component or of the command line, with none of this process's
/// settings.
pub fn command(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("MUSTER_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Starts a component under its name and waits until it is SERVING.
pub async fn start(
    program: &Path,
    folder: &Path,
    name: &str,
    address: SocketAddr,
    args: &[String],
    environment: &[(&str, &str)],
) -> Process {
    let file = folder.join(format!("{name}-{}.log", address.port()));
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&file)
        .unwrap();
    let ops = free_port();
    let child = command(program, name)
        .envs(environment.iter().copied())
        .arg(format!("--listen={address}"))
        .arg(format!("--ops-listen={ops}"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut process = Process {
        child,
        address,
        ops,
    };
    let end = Instant::now() + PATIENCE;
    while !serves(ops).await {
        let ended = process.child.try_wait().unwrap();
        let log = || std::fs::read_to_string(&file).unwrap_or_default();
        assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", log());
        assert!(Instant::now() < end, "{name} does not serve\n{}", log());
        sleep(Duration::from_millis(20)).await;
    }
    process
}

async fn serves(address: SocketAddr) -> bool {
    let Ok(channel) = dial(address).connect().await else {
        return false;
    };
    let request = HealthCheckRequest {
        service: "readiness".to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

fn dial(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(20))
}

fn channel(address: SocketAddr) -> Channel {
    dial(address).connect_lazy()
}

impl Fleet {
    /// Three components on stores of their own, and this many agents with eight
    /// simulated GPUs each, which are ACTIVE.
    pub async fn start(program: &str, agents: usize) -> Self {
        let program = PathBuf::from(program);
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let (offers, workers, replicas) = (free_port(), free_port(), free_port());
        let gateway = vec![format!("--data={}", at.join("gateway").display())];
        let gateway = start(&program, at, "offers-gateway", offers, &gateway, &[]).await;
        let registry = vec![store(at, "registry"), "--insecure-join".to_owned()];
        let registry = start(&program, at, "worker-registry", workers, &registry, &[]).await;
        let mut fleet = Self {
            program,
            folder,
            gateway,
            registry,
            manager: None,
            manager_address: replicas,
            agents: BTreeMap::new(),
        };
        fleet.start_manager().await;
        for number in 1..=agents {
            fleet.start_agent(&format!("w{number}")).await;
        }
        fleet.until_active(agents).await;
        fleet
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub async fn start_agent(&mut self, name: &str) {
        let args = [
            format!("--name={name}"),
            format!("--data={}", self.folder.path().join(name).display()),
            "--gpus=H100:8".to_owned(),
            format!("--workers-addr=http://{}", self.registry.address),
            format!("--replicas-addr=http://{}", self.manager_address),
        ];
        let agent = start(
            &self.program,
            self.folder.path(),
            "worker-agent",
            free_port(),
            &args,
            &[],
        )
        .await;
        self.agents.insert(name.to_owned(), agent);
    }

    /// Kills an agent as a crash would end it.
    pub fn kill_agent(&mut self, name: &str) {
        drop(self.agents.remove(name));
    }

    pub async fn start_manager(&mut self) {
        let args = [
            store(self.folder.path(), "manager"),
            format!("--offers-addr=http://{}", self.gateway.address),
            format!("--workers-addr=http://{}", self.registry.address),
        ];
        let manager = start(
            &self.program,
            self.folder.path(),
            "replica-manager",
            self.manager_address,
            &args,
            &[],
        )
        .await;
        self.manager = Some(manager);
    }

    /// Kills the replica-manager as a crash would end it.
    pub async fn kill_manager(&mut self) {
        let manager = self.manager.take().expect("the manager runs");
        let pid = Pid::from_raw(i32::try_from(manager.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        drop(manager);
    }

    pub fn offers(&self) -> OffersServiceClient<Channel> {
        OffersServiceClient::new(channel(self.gateway.address))
    }

    pub fn workers(&self) -> WorkersServiceClient<Channel> {
        WorkersServiceClient::new(channel(self.registry.address))
    }

    pub fn manager(&self) -> ReplicasServiceClient<Channel> {
        ReplicasServiceClient::new(channel(self.manager_address))
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

    /// Creates or changes a service, as `muster apply` does.
    pub async fn apply(&self, spec: ServiceSpec) -> Service {
        let request = UpdateServiceRequest {
            spec: Some(spec),
            update_mask: Some(FieldMask {
                paths: vec!["*".to_owned()],
            }),
            allow_missing: true,
            ..UpdateServiceRequest::default()
        };
        self.manager()
            .update_service(request)
            .await
            .unwrap()
            .into_inner()
            .service
            .unwrap()
    }

    /// Waits until a service is in a phase.
    pub async fn until(&self, name: &str, phase: ServicePhase, patience: Duration) -> Service {
        let mut last = None;
        let waited = timeout(patience, async {
            loop {
                let mut watch = self.watch(name).await;
                while let Ok(Some(message)) = watch.message().await {
                    for change in message.changes {
                        if let Some(service_change::Change::Put(service)) = change.change {
                            let reached = service.status.as_ref().unwrap().phase() == phase;
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
            .unwrap_or_else(|_| panic!("{name} is not {phase:?}; it is {last:#?}"))
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
            // A stream may last longer than a call.
            let endpoint =
                Endpoint::from_shared(format!("http://{}", self.manager_address)).unwrap();
            if let Ok(channel) = endpoint.connect().await
                && let Ok(stream) = ReplicasServiceClient::new(channel)
                    .watch_services(request)
                    .await
            {
                return stream.into_inner();
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Watches how many replicas of a service are ready, until it is stopped.
    pub fn watch_least_ready(&self, name: &str) -> LeastReady {
        let (name, address) = (name.to_owned(), self.manager_address);
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
        let task = tokio::spawn(async move {
            let mut least = i32::MAX;
            loop {
                let filter = ServiceFilter {
                    names: vec![name.clone()],
                    ..ServiceFilter::default()
                };
                let request = WatchServicesRequest {
                    filter: Some(filter),
                    ..Default::default()
                };
                let mut client = ReplicasServiceClient::new(channel_for_streams(address));
                let opened = tokio::select! {
                    _ = &mut stopped => return least,
                    opened = client.watch_services(request) => opened,
                };
                let Ok(stream) = opened else {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let mut stream = stream.into_inner();
                loop {
                    let message = tokio::select! {
                        _ = &mut stopped => return least,
                        message = stream.message() => message,
                    };
                    let Ok(Some(message)) = message else {
                        break;
                    };
                    for change in message.changes {
                        if let Some(service_change::Change::Put(service)) = change.change {
                            least = least.min(service.status.unwrap().counts.unwrap().ready);
                        }
                    }
                }
            }
        });
        LeastReady { stop, task }
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
        let mut processes = BTreeMap::new();
        for replica in self.replicas(service).await {
            if replica.phase() != ReplicaPhase::Ready {
                continue;
            }
            let attempt = replica.attempt.unwrap();
            let agent = self.agents[&attempt.worker].address;
            let mut client = AgentsServiceClient::new(channel(agent));
            let agent = client
                .get_agent(GetAgentRequest {})
                .await
                .unwrap()
                .into_inner();
            let running = agent
                .attempts
                .iter()
                .find(|one| one.attempt_id == attempt.id);
            processes.insert(replica.id, running.expect("the agent runs it").pid);
        }
        processes
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

    /// No accelerator is in two allocations.
    pub async fn no_room_is_held_twice(&self) {
        let request = ListAllocationsRequest {
            page_size: 1000,
            ..ListAllocationsRequest::default()
        };
        let answer = self
            .workers()
            .list_allocations(request)
            .await
            .unwrap()
            .into_inner();
        let mut seen = BTreeSet::new();
        for gpu in answer
            .allocations
            .iter()
            .flat_map(|allocation| &allocation.gpu_uuids)
        {
            assert!(seen.insert(gpu.clone()), "{gpu} is given twice");
        }
    }

    /// Stops every component and agent with SIGTERM; each ends with code 0.
    pub async fn stop_components(&mut self) {
        let mut all = vec![&mut self.gateway, &mut self.registry];
        all.extend(self.manager.as_mut());
        all.extend(self.agents.values_mut());
        for process in all {
            let pid = Pid::from_raw(i32::try_from(process.child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            let end = Instant::now() + PATIENCE;
            loop {
                if let Some(status) = process.child.try_wait().unwrap() {
                    assert!(status.success(), "{status}");
                    break;
                }
                assert!(Instant::now() < end, "a component does not stop");
                sleep(Duration::from_millis(20)).await;
            }
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

fn channel_for_streams(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

/// The least number of ready replicas that is seen.
pub struct LeastReady {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<i32>,
}

impl LeastReady {
    pub async fn stop(self) -> i32 {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

fn store(folder: &Path, name: &str) -> String {
    format!("--store=embedded:{}", folder.join(name).display())
}

fn gpus(name: &str, count: i32) -> GpuRequest {
    GpuRequest {
        names: vec![name.to_owned()],
        count: Some(Int32Range {
            min: Some(count),
            max: None,
        }),
        ..GpuRequest::default()
    }
}

/// A service of processes that say that they are up and sleep, on one GPU each.
pub fn sleeping(name: &str, replicas: i32, retry: Option<RetryPolicy>) -> ServiceSpec {
    let line = format!("echo {name} is up; exec sleep 3600");
    ServiceSpec {
        name: name.to_owned(),
        replicas: Some(ReplicaCount {
            min: Some(replicas),
            max: None,
        }),
        run: Some(RunSpec {
            runtime: Some(run_spec::Runtime::Process(ProcessRuntime {})),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
            env: Vec::<EnvVar>::new(),
            ..RunSpec::default()
        }),
        resources: Some(Requirements {
            gpu_any_of: vec![gpus("H100", 1)],
            ..Requirements::default()
        }),
        placement: Some(Placement {
            spread: Spread::None.into(),
            ..Placement::default()
        }),
        retry,
        update: Some(UpdatePolicy {
            min_ready: span(Duration::from_secs(1)),
            ..UpdatePolicy::default()
        }),
        stop: Some(StopPolicy {
            grace: span(Duration::from_secs(2)),
        }),
        ..ServiceSpec::default()
    }
}

/// A policy that restarts at once.
pub fn retry() -> Option<RetryPolicy> {
    Some(RetryPolicy {
        interval: span(Duration::from_millis(500)),
        ..RetryPolicy::default()
    })
}

/// Kills a process as a crash would end it.
pub fn kill(pid: i32) {
    // It may have ended by itself by now.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// Whether a process is there and has not ended.
pub fn is_alive(pid: i32) -> bool {
    let there = test_kill_process(Pid::from_raw(pid).unwrap()).is_ok();
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let zombie = state
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'));
    there && !zombie
}
