//! A registry and a manager made by hand, and an agent between them: what the agent says is kept,
//! and what it is told is whatever a test sets. They check nothing; tests do.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::Stream;
use muster_proto::agents::v1::agents_service_client::AgentsServiceClient;
use muster_proto::agents::v1::{GetAgentRequest, GetAgentResponse};
use muster_proto::replicas::v1::assignment_change::Change;
use muster_proto::replicas::v1::assignments_service_server::{
    AssignmentsService, AssignmentsServiceServer,
};
use muster_proto::replicas::v1::run_spec::Runtime;
use muster_proto::replicas::v1::*;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1::workers_service_server::{WorkersService, WorkersServiceServer};
use muster_proto::workers::v1::*;
use muster_runtime::connect::{Channel, Endpoints};
use muster_runtime::context::Context;
use muster_runtime::server::Listeners;
use muster_runtime::shutdown::{Cause, Report, Shutdown};
use muster_runtime::status;
use muster_runtime::task::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status};
use worker_agent::config::Config;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_worker-agent");
pub(crate) const WORKER: &str = "w1";

/// What the registry answers, and what it has heard.
pub(crate) struct RegistryState {
    pub(crate) generation: i64,
    pub(crate) revoked_through: i64,
    pub(crate) epoch: String,
    pub(crate) state: WorkerState,
    pub(crate) interval: Duration,
    pub(crate) fence_after: Duration,
    pub(crate) notices: Vec<AllocationNotice>,
    pub(crate) forced: bool,
    /// Every call fails with this.
    pub(crate) failing: Option<Status>,
    /// How many calls have failed so.
    pub(crate) failed: usize,
    /// Calls are taken and never answered.
    pub(crate) hanging: bool,
    /// Ended allocations are not forgotten.
    pub(crate) keeps_ended: bool,
    pub(crate) unknown: Vec<String>,
    pub(crate) registrations: Vec<RegisterWorkerRequest>,
    pub(crate) tokens: Vec<Option<String>>,
    pub(crate) beats: Vec<(Instant, HeartbeatRequest)>,
    pub(crate) checks: Vec<WorkerCheck>,
    pub(crate) drains: Vec<DrainWorkerRequest>,
    pub(crate) left: bool,
}

/// What the manager tells, and what it has heard.
#[derive(Default)]
pub(crate) struct ManagerState {
    pub(crate) assignments: BTreeMap<String, Assignment>,
    pub(crate) watches: Vec<WatchAssignmentsRequest>,
    pub(crate) reports: Vec<(Option<Instant>, ReportReplicasRequest)>,
    pub(crate) latest: BTreeMap<String, AttemptReport>,
    pub(crate) failing: Option<Status>,
    pub(crate) keeps_ended: bool,
}

pub(crate) struct Fleet {
    pub(crate) registry: Arc<Mutex<RegistryState>>,
    pub(crate) manager: Arc<Mutex<ManagerState>>,
    changed: watch::Sender<u64>,
    pub(crate) workers: Endpoints,
    pub(crate) replicas: Endpoints,
    pub(crate) tasks: Tasks,
    pub(crate) folder: tempfile::TempDir,
}

#[derive(Clone)]
struct Registry(Arc<Mutex<RegistryState>>);

#[derive(Clone)]
struct Manager {
    state: Arc<Mutex<ManagerState>>,
    changed: watch::Receiver<u64>,
    tasks: Tasks,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Registry {
    fn state(&self) -> MutexGuard<'_, RegistryState> {
        self.0.lock().unwrap()
    }

    async fn gate(&self) -> Result<(), Status> {
        let (hanging, failing) = {
            let mut state = self.state();
            state.failed += usize::from(state.failing.is_some());
            (state.hanging, state.failing.clone())
        };
        if hanging {
            std::future::pending::<()>().await;
        }
        failing.map_or(Ok(()), Err)
    }
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    Some(time.try_into().unwrap())
}

impl RegistryState {
    fn terms(&self) -> HeartbeatTerms {
        HeartbeatTerms {
            interval: duration(self.interval),
            lost_after: duration(self.interval * 20),
            fence_after: duration(self.fence_after),
        }
    }

    fn worker(&self) -> Worker {
        Worker {
            name: WORKER.into(),
            generation: self.generation,
            revoked_through: self.revoked_through,
            state: self.state.into(),
            capacity: self
                .registrations
                .last()
                .and_then(|last| last.capacity.clone()),
            ..Default::default()
        }
    }

    fn beat(&mut self, request: HeartbeatRequest) -> HeartbeatResponse {
        self.left |= request.leaving;
        let ended: BTreeSet<String> = request
            .held
            .iter()
            .filter(|held| held.phase() == HeldPhase::Ended)
            .map(|held| held.allocation_id.clone())
            .collect();
        self.notices
            .retain(|notice| !ended.contains(&notice.allocation_id));
        self.beats.push((Instant::now(), request));
        HeartbeatResponse {
            terms: Some(self.terms()),
            notices: self.notices.clone(),
            forgotten_allocations: if self.keeps_ended {
                vec![]
            } else {
                ended.into_iter().collect()
            },
            state: self.state.into(),
            forced: self.forced,
            epoch: self.epoch.clone(),
            unknown_allocations: std::mem::take(&mut self.unknown),
        }
    }
}

macro_rules! refuse {
    ($($method:ident($request:ty) -> $answer:ty;)*) => {
        $(fn $method<'a, 'b>(&'a self, _: Request<$request>) -> Answer<'b, $answer>
        where 'a: 'b, Self: 'b {
            Box::pin(async { Err(Status::unimplemented("a fake")) })
        })*
    };
}

impl WorkersService for Registry {
    type WatchWorkersStream = Streamed<WatchWorkersResponse>;
    type WatchAllocationsStream = Streamed<WatchAllocationsResponse>;
    type WatchWorkerEventsStream = Streamed<WatchWorkerEventsResponse>;

    fn register_worker<'a, 'b>(
        &'a self,
        request: Request<RegisterWorkerRequest>,
    ) -> Answer<'b, RegisterWorkerResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.gate().await?;
            let token = request.metadata().get("authorization");
            let token = token.map(|token| token.to_str().unwrap().to_owned());
            let mut state = self.state();
            let request = request.into_inner();
            let again = state.registrations.last().is_some_and(|last| {
                last.boot_id == request.boot_id && gpus(last) == gpus(&request)
            });
            if !again {
                state.generation = state.generation.max(request.last_generation) + 1;
                state.state = WorkerState::Provisioning;
            }
            state.registrations.push(request);
            state.tokens.push(token);
            Ok(Response::new(RegisterWorkerResponse {
                worker: Some(state.worker()),
                credential: "credential-1".into(),
                terms: Some(state.terms()),
                epoch: state.epoch.clone(),
                resume_token: String::new(),
            }))
        })
    }

    fn activate_worker<'a, 'b>(
        &'a self,
        request: Request<ActivateWorkerRequest>,
    ) -> Answer<'b, ActivateWorkerResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.gate().await?;
            let mut state = self.state();
            state.checks = request.into_inner().checks;
            if state
                .checks
                .iter()
                .all(|check| check.status() == CheckStatus::Passed)
            {
                state.state = WorkerState::Active;
            }
            Ok(Response::new(ActivateWorkerResponse {
                worker: Some(state.worker()),
                resume_token: String::new(),
            }))
        })
    }

    fn heartbeat<'a, 'b>(
        &'a self,
        request: Request<HeartbeatRequest>,
    ) -> Answer<'b, HeartbeatResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.gate().await?;
            let mut state = self.state();
            let request = request.into_inner();
            if request.generation != state.generation {
                return Err(fenced());
            }
            Ok(Response::new(state.beat(request)))
        })
    }

    fn drain_worker<'a, 'b>(
        &'a self,
        request: Request<DrainWorkerRequest>,
    ) -> Answer<'b, DrainWorkerResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            self.gate().await?;
            let mut state = self.state();
            state.drains.push(request.into_inner());
            state.state = WorkerState::Draining;
            Ok(Response::new(DrainWorkerResponse::default()))
        })
    }

    refuse! {
        get_worker(GetWorkerRequest) -> GetWorkerResponse;
        list_workers(ListWorkersRequest) -> ListWorkersResponse;
        watch_workers(WatchWorkersRequest) -> Self::WatchWorkersStream;
        update_worker(UpdateWorkerRequest) -> UpdateWorkerResponse;
        resume_worker(ResumeWorkerRequest) -> ResumeWorkerResponse;
        disable_worker(DisableWorkerRequest) -> DisableWorkerResponse;
        enable_worker(EnableWorkerRequest) -> EnableWorkerResponse;
        delete_worker(DeleteWorkerRequest) -> DeleteWorkerResponse;
        report_drain(ReportDrainRequest) -> ReportDrainResponse;
        release_mass_loss(ReleaseMassLossRequest) -> ReleaseMassLossResponse;
        allocate(AllocateRequest) -> AllocateResponse;
        batch_allocate(BatchAllocateRequest) -> BatchAllocateResponse;
        release(ReleaseRequest) -> ReleaseResponse;
        get_allocation(GetAllocationRequest) -> GetAllocationResponse;
        list_allocations(ListAllocationsRequest) -> ListAllocationsResponse;
        watch_allocations(WatchAllocationsRequest) -> Self::WatchAllocationsStream;
        claim_owner(ClaimOwnerRequest) -> ClaimOwnerResponse;
        get_credential_keys(GetCredentialKeysRequest) -> GetCredentialKeysResponse;
        create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenResponse;
        list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse;
        revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse;
        list_worker_events(ListWorkerEventsRequest) -> ListWorkerEventsResponse;
        watch_worker_events(WatchWorkerEventsRequest) -> Self::WatchWorkerEventsStream;
    }
}

/// The accelerators that a machine registers with, by uuid.
pub(crate) fn gpus(request: &RegisterWorkerRequest) -> Vec<&str> {
    let capacity = request.capacity.iter();
    capacity
        .flat_map(|capacity| capacity.gpus.iter().map(|gpu| gpu.uuid.as_str()))
        .collect()
}

pub(crate) fn fenced() -> Status {
    status::error(
        Code::FailedPrecondition,
        ErrorReason::Fenced,
        "a later generation",
    )
    .into()
}

pub(crate) fn reregister() -> Status {
    status::error(
        Code::FailedPrecondition,
        ErrorReason::Reregister,
        "who are you",
    )
    .into()
}

impl AssignmentsService for Manager {
    type WatchAssignmentsStream = Streamed<WatchAssignmentsResponse>;

    fn watch_assignments<'a, 'b>(
        &'a self,
        request: Request<WatchAssignmentsRequest>,
    ) -> Answer<'b, Self::WatchAssignmentsStream>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let request = request.into_inner();
            {
                let mut state = self.state.lock().unwrap();
                if let Some(failing) = &state.failing {
                    return Err(failing.clone());
                }
                state.watches.push(request);
            }
            let (sender, receiver) = mpsc::channel(16);
            self.tasks
                .spawn("fake watch", send_assignments(self.clone(), sender));
            let stream: Self::WatchAssignmentsStream = Box::pin(ReceiverStream::new(receiver));
            Ok(Response::new(stream))
        })
    }

    fn report_replicas<'a, 'b>(
        &'a self,
        request: Request<ReportReplicasRequest>,
    ) -> Answer<'b, ReportReplicasResponse>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let mut state = self.state.lock().unwrap();
            if let Some(failing) = &state.failing {
                return Err(failing.clone());
            }
            let request = request.into_inner();
            let mut answer = ReportReplicasResponse::default();
            for report in &request.reports {
                state
                    .latest
                    .insert(report.attempt_id.clone(), report.clone());
                if report.phase() == AttemptPhase::Ended && !state.keeps_ended {
                    answer.forgotten_attempts.push(report.attempt_id.clone());
                } else if !state.assignments.contains_key(&report.attempt_id) {
                    answer.unknown_attempts.push(report.attempt_id.clone());
                }
            }
            state.reports.push((Some(Instant::now()), request));
            Ok(Response::new(answer))
        })
    }
}

/// Sends all assignments, then each that is different, until the manager fails.
async fn send_assignments(
    manager: Manager,
    sender: mpsc::Sender<Result<WatchAssignmentsResponse, Status>>,
) {
    let mut changed = manager.changed.clone();
    let mut sent: BTreeMap<String, Assignment> = BTreeMap::new();
    loop {
        let (now, failing) = {
            let state = manager.state.lock().unwrap();
            (state.assignments.clone(), state.failing.clone())
        };
        if let Some(failing) = failing {
            let _ = sender.send(Err(failing)).await;
            return;
        }
        let different = now
            .iter()
            .filter(|(id, assignment)| sent.get(*id) != Some(assignment));
        let changes = different
            .map(|(_, put)| AssignmentChange {
                change: Some(Change::Put(put.clone())),
            })
            .collect();
        sent.extend(now);
        let message = WatchAssignmentsResponse {
            changes,
            resume_token: format!("token-{}", sent.len()),
            synced: true,
            epoch: "manager-1".into(),
        };
        if sender.send(Ok(message)).await.is_err() || changed.changed().await.is_err() {
            return;
        }
    }
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let registry = Arc::new(Mutex::new(RegistryState {
            generation: 0,
            revoked_through: 0,
            epoch: "registry-1".into(),
            state: WorkerState::Provisioning,
            interval: Duration::from_millis(100),
            fence_after: Duration::from_secs(60),
            notices: vec![],
            forced: false,
            failing: None,
            failed: 0,
            hanging: false,
            keeps_ended: false,
            unknown: vec![],
            registrations: vec![],
            tokens: vec![],
            beats: vec![],
            checks: vec![],
            drains: vec![],
            left: false,
        }));
        let manager = Arc::new(Mutex::new(ManagerState::default()));
        let changed = watch::Sender::new(0);
        let tasks = Tasks::new(Shutdown::new());
        let fake = Manager {
            state: Arc::clone(&manager),
            changed: changed.subscribe(),
            tasks: tasks.clone(),
        };
        let workers = listen(
            &tasks,
            WorkersServiceServer::new(Registry(Arc::clone(&registry))),
        )
        .await;
        let replicas = listen(&tasks, AssignmentsServiceServer::new(fake)).await;
        Self {
            registry,
            manager,
            changed,
            workers,
            replicas,
            tasks,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, RegistryState> {
        self.registry.lock().unwrap()
    }

    pub(crate) fn manager(&self) -> MutexGuard<'_, ManagerState> {
        self.manager.lock().unwrap()
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            supervisor_command: vec![PROGRAM.into(), "supervise".into()],
            check_interval: Duration::from_millis(100),
            sample_interval: Duration::from_millis(100),
            ..Config::new(
                WORKER,
                self.data(),
                self.workers.clone(),
                self.replicas.clone(),
            )
        }
    }

    /// Changes what the manager wants; agents that watch are told.
    pub(crate) fn assign(&self, assignment: Assignment) {
        self.manager()
            .assignments
            .insert(assignment.attempt_id.clone(), assignment);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Ends every watch with what the manager fails with.
    pub(crate) fn fail_manager(&self, failing: Option<Status>) {
        self.manager().failing = failing;
        self.changed.send_modify(|n| *n += 1);
    }

    pub(crate) fn stop(&self, id: &str) {
        let mut assignment = self.manager().assignments[id].clone();
        assignment.intent = AssignmentIntent::Stop.into();
        assignment.reason = "the test says so".into();
        self.assign(assignment);
    }

    pub(crate) fn report(&self, id: &str) -> AttemptReport {
        self.manager().latest.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn phase(&self, id: &str) -> AttemptPhase {
        self.report(id).phase()
    }

    pub(crate) async fn until_phase(&self, id: &str, phase: AttemptPhase) -> AttemptReport {
        until(&format!("{id} is {phase:?}"), || self.phase(id) == phase).await;
        self.report(id)
    }

    /// The phase in which the last heartbeat told an allocation.
    pub(crate) fn held(&self, id: &str) -> Option<HeldPhase> {
        let state = self.registry();
        let (_, beat) = state.beats.last()?;
        beat.held
            .iter()
            .find(|held| held.allocation_id == id)
            .map(HeldAllocation::phase)
    }

    /// Whether any heartbeat has told an allocation as ended.
    pub(crate) fn named_ended(&self, id: &str) -> bool {
        let is =
            |held: &HeldAllocation| held.allocation_id == id && held.phase() == HeldPhase::Ended;
        self.registry()
            .beats
            .iter()
            .any(|(_, beat)| beat.held.iter().any(is))
    }
}

async fn listen<S>(tasks: &Tasks, service: S) -> Endpoints
where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tasks.spawn("fake", async move {
        let _ = serving.await;
    });
    format!("http://{address}").parse().unwrap()
}

/// An agent in this process.
pub(crate) struct Agent {
    pub(crate) context: Context,
    pub(crate) client: AgentsServiceClient<Channel>,
}

impl Agent {
    pub(crate) async fn start(config: Config) -> Self {
        let context = Context::for_tests("worker-agent");
        let listeners = Listeners::loopback().await.unwrap();
        let endpoint: Endpoints = format!("http://{}", listeners.grpc_address())
            .parse()
            .unwrap();
        let client = AgentsServiceClient::new(context.connector.channel(&endpoint));
        let serving = worker_agent::serve(config, context.clone(), listeners);
        let shutdown = context.shutdown.clone();
        context.tasks.spawn("agent under test", async move {
            if let Err(error) = serving.await {
                shutdown.begin(Cause::failed(format!("{error:#}")));
            }
        });
        Self { context, client }
    }

    pub(crate) async fn about(&mut self) -> GetAgentResponse {
        self.client
            .get_agent(GetAgentRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn stop(&self) -> Arc<Report> {
        self.context
            .shutdown
            .begin(Cause::asked("the test is over"));
        self.context.shutdown.finished().await
    }
}

/// An agent as a program of its own.
pub(crate) struct Program {
    pub(crate) child: std::process::Child,
}

impl Program {
    pub(crate) fn start(fleet: &Fleet, flags: &[&str]) -> Self {
        Self::start_by(std::process::Command::new(PROGRAM), fleet, flags)
    }

    /// One whose disk can be made full, by [`Program::fill_disk`], or is from the start.
    pub(crate) fn start_on_small_disk(fleet: &Fleet, is_full: bool) -> Self {
        let limit = if is_full { "0" } else { "unlimited" };
        let script = format!("trap '' XFSZ; ulimit -S -f {limit}; exec \"$0\" \"$@\"");
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &script, PROGRAM]);
        Self::start_by(shell, fleet, &[])
    }

    /// From now on no file takes anything from this process, or all do again.
    pub(crate) fn fill_disk(&self, is_full: bool) {
        use rustix::process::{Resource, Rlimit, prlimit};
        let limit = Rlimit {
            current: is_full.then_some(0),
            maximum: None,
        };
        let pid = rustix::process::Pid::from_child(&self.child);
        prlimit(Some(pid), Resource::Fsize, limit).unwrap();
    }

    fn start_by(mut command: std::process::Command, fleet: &Fleet, flags: &[&str]) -> Self {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(fleet.folder.path().join("agent.log"))
            .unwrap();
        let child = command
            .args([
                "--name",
                WORKER,
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "off",
            ])
            .arg("--data")
            .arg(fleet.data())
            .args(["--workers-addr", &fleet.workers.to_string()])
            .args(["--replicas-addr", &fleet.replicas.to_string()])
            .args(flags)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let mut status = None;
        until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a shell script as the only replica of a service; its allocation is `a-ID`.
pub(crate) fn assignment(id: &str, script: &str) -> Assignment {
    Assignment {
        attempt_id: id.into(),
        intent: AssignmentIntent::Run.into(),
        allocation_id: format!("a-{id}"),
        fencing_token: "epoch-00000000000000000001".into(),
        replica: "chat/0".into(),
        service: "chat".into(),
        service_uid: "abcdefghijkl".into(),
        run: Some(RunSpec {
            runtime: Some(Runtime::Process(ProcessRuntime {})),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            ..Default::default()
        }),
        stop: Some(StopPolicy {
            grace: duration(Duration::from_secs(5)),
        }),
        probes: Some(Probes {
            ready: Some(exec_probe("exit 0")),
            alive: None,
        }),
        ..Default::default()
    }
}

/// Asks by a shell script, ten times a second.
pub(crate) fn exec_probe(script: &str) -> Probe {
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    Probe {
        check: Some(probe::Check::Command(ExecProbe { command })),
        interval: duration(Duration::from_millis(100)),
        ..Default::default()
    }
}

pub(crate) const FOREVER: &str = "while :; do sleep 0.05; done";

/// Waits for a condition, for 20 s at most.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// Whether anything runs that belongs to an attempt.
pub(crate) fn runs(id: &str) -> bool {
    !worker_agent::machine::processes_with(&format!("MUSTER_ATTEMPT={id}")).is_empty()
}

/// Kills everything that belongs to an attempt, but not its supervisor.
pub(crate) fn kill_all(id: &str) {
    for pid in worker_agent::machine::processes_with(&format!("MUSTER_ATTEMPT={id}")) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Ends what a test has left, so that no test leaves anything behind.
pub(crate) struct Cleared<'a>(pub(crate) &'a [&'a str]);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        for id in self.0 {
            kill_all(id);
        }
    }
}
