//! A worker-registry that is played: workers with a number of slots, allocations, owner terms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1::workers_service_server::{WorkersService, WorkersServiceServer};
use muster_proto::workers::v1::*;
use muster_runtime::connect::Endpoints;
use muster_runtime::resume;
use muster_runtime::status;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

/// Of its store.
const EPOCH: &str = "e1";

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    workers: BTreeMap<String, (Worker, usize)>,
    allocations: BTreeMap<String, Allocation>,
    /// What each request id asked for, and got.
    by_request: BTreeMap<String, (AllocationSpec, String)>,
    /// Workers that are no more.
    deleted: Vec<Worker>,
    /// Room is given, and the answer lost.
    lose_answers: bool,
    /// Allocations that nobody can release.
    kept: BTreeSet<String>,
    /// No release is answered.
    holds_releases: bool,
    release_calls: usize,
    term: Option<OwnerTerm>,
    next: u64,
    freed: u64,
    pub(crate) down: bool,
    drains: Vec<ReportDrainRequest>,
    allocate_calls: u64,
    /// Terms that were claimed, in order.
    claims: Vec<OwnerTerm>,
    stale_calls: u64,
    /// Revisions besides those of rooms and deletions.
    passed: u64,
    /// The workers, and the revision, that are shown to whoever watches, where that instance is behind.
    shown: Option<(Vec<Worker>, u64)>,
    /// Watches of workers that were begun.
    watches: u64,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        }))
    }

    /// Serves on a free port.
    pub(crate) async fn serve(&self) -> Endpoints {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(WorkersServiceServer::new(self.clone()))
            .serve_with_incoming(incoming);
        #[allow(
            clippy::disallowed_methods,
            reason = "a played peer has no runtime of ours"
        )]
        tokio::spawn(server);
        format!("http://{address}").parse().unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn touch(&self) {
        self.0.changed.send_modify(|n| *n += 1);
    }

    pub(crate) fn add_worker(&self, name: &str, slots: usize, agent_address: &str) {
        let worker = Worker {
            name: name.to_owned(),
            generation: 1,
            state: WorkerState::Active.into(),
            liveness: WorkerLiveness::Alive.into(),
            agent_address: agent_address.to_owned(),
            ..Worker::default()
        };
        self.state()
            .workers
            .insert(name.to_owned(), (worker, slots));
        self.touch();
    }

    pub(crate) fn set(&self, name: &str, change: impl FnOnce(&mut Worker)) {
        change(&mut self.state().workers.get_mut(name).unwrap().0);
        self.touch();
    }

    /// Deletes a worker, with what was on it.
    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.state();
        state.allocations.retain(|_, room| room.worker != name);
        let (worker, _) = state.workers.remove(name).unwrap();
        state.deleted.push(worker);
        state.next += 1;
        drop(state);
        self.touch();
    }

    /// Deletes a worker, with what was on it, and registers one by its name that has no room. Nobody hears of the
    /// first.
    pub(crate) fn replace(&self, name: &str) {
        let mut state = self.state();
        state.allocations.retain(|_, room| room.worker != name);
        let (worker, slots) = state.workers.get_mut(name).unwrap();
        worker.revoked_through = worker.generation;
        worker.generation += 1;
        *slots = 0;
        drop(state);
        self.touch();
    }

    /// Whoever watches the workers is told what they are now, whatever they become, until [`Self::catch_up`].
    pub(crate) fn fall_behind(&self) {
        let mut state = self.state();
        state.shown = Some(state.told());
        state.passed += 1;
    }

    /// Whoever watches the workers is told what they have become.
    pub(crate) fn catch_up(&self) {
        self.state().shown = None;
        self.touch();
    }

    /// How many watches of the workers were begun.
    pub(crate) fn watches(&self) -> u64 {
        self.state().watches
    }

    /// From now on room is given and nobody hears of it, or no longer.
    pub(crate) fn lose_answers(&self, lose: bool) {
        self.state().lose_answers = lose;
    }

    /// Nobody can release this allocation.
    pub(crate) fn keep(&self, id: &str) {
        self.state().kept.insert(id.to_owned());
    }

    /// From now on no release is answered, or each again.
    pub(crate) fn hold_releases(&self, hold: bool) {
        self.state().holds_releases = hold;
    }

    pub(crate) fn release_calls(&self) -> usize {
        self.state().release_calls
    }

    /// An allocation ends without its owner's doing.
    pub(crate) fn take_back(&self, id: &str) {
        self.state().allocations.remove(id);
    }

    pub(crate) fn drain(&self, name: &str) {
        self.set(name, |worker| {
            worker.state = WorkerState::Draining.into();
            worker.drain = Some(Drain {
                max_parallel: 1,
                ..Drain::default()
            });
        });
    }

    pub(crate) fn allocations(&self) -> Vec<Allocation> {
        self.state().allocations.values().cloned().collect()
    }

    pub(crate) fn allocate_calls(&self) -> u64 {
        self.state().allocate_calls
    }

    /// Terms that were claimed, in order, each once.
    pub(crate) fn claims(&self) -> Vec<OwnerTerm> {
        let mut claims = self.state().claims.clone();
        claims.dedup();
        claims
    }

    /// Calls refused as STALE_OWNER.
    pub(crate) fn stale_calls(&self) -> u64 {
        self.state().stale_calls
    }

    /// An instance that nobody here plays claims a term far above every other.
    pub(crate) fn usurp(&self) {
        let mut state = self.state();
        let term = state.term.as_mut().unwrap();
        term.revision += 1_000_000;
    }

    pub(crate) fn drains(&self) -> Vec<ReportDrainRequest> {
        self.state().drains.clone()
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Holds room under a request id as if an answer had been lost.
    pub(crate) fn plant(&self, id: &str, attempt: &str, epoch: &str) {
        let allocation = Allocation {
            id: id.to_owned(),
            worker: "w1".to_owned(),
            worker_generation: 1,
            state: AllocationState::Held.into(),
            owner: "replica-manager".to_owned(),
            owner_term: Some(OwnerTerm {
                epoch: epoch.to_owned(),
                revision: 1,
            }),
            attributes: [("attempt_id".to_owned(), attempt.to_owned())].into(),
            ..Allocation::default()
        };
        self.state().allocations.insert(id.to_owned(), allocation);
    }

    fn up(&self) -> Result<(), Status> {
        if self.state().down {
            return Err(Status::unavailable("played: away"));
        }
        Ok(())
    }
}

fn refusal(code: Code, reason: ErrorReason, message: &str) -> Status {
    status::error(code, reason, message).into_status()
}

fn stale() -> Status {
    let code = Code::FailedPrecondition;
    refusal(code, ErrorReason::StaleOwner, "played: another leads")
}

impl State {
    fn revision(&self) -> u64 {
        self.next + self.passed
    }

    /// The workers, and the revision that they are of.
    fn told(&self) -> (Vec<Worker>, u64) {
        let workers = self.workers.values().map(|(worker, _)| worker.clone());
        (workers.collect(), self.revision())
    }

    fn check_term(&mut self, term: Option<&OwnerTerm>) -> Result<(), Status> {
        let key = |t: &OwnerTerm| (t.epoch.clone(), t.revision);
        let (term, claimed) = (key(term.unwrap()), self.term.as_ref().map(key));
        let claimed = claimed.expect("a term that was not claimed");
        assert!(term <= claimed, "{term:?} was not claimed, {claimed:?} was");
        if term < claimed {
            self.stale_calls += 1;
            return Err(stale());
        }
        Ok(())
    }

    /// The open worker with the least on it.
    fn pick(&self, spec: &AllocationSpec) -> Result<String, Status> {
        let taken = |state: &Self, worker: &str| {
            state
                .allocations
                .values()
                .filter(|a| a.worker == worker && a.id != spec.replaces)
                .count()
        };
        let mut best: Option<(usize, String)> = None;
        for (name, (worker, slots)) in &self.workers {
            let open = worker.state == i32::from(WorkerState::Active)
                && (worker.liveness == i32::from(WorkerLiveness::Alive));
            let wanted = (spec.worker.is_empty() || spec.worker == *name)
                && !spec.avoid_workers.contains(name)
                && !spec.avoid_regions.contains(&worker.region);
            let used = taken(self, name);
            if open
                && wanted
                && used < *slots
                && best.as_ref().is_none_or(|(least, _)| used < *least)
            {
                best = Some((used, name.clone()));
            }
        }
        best.map(|(_, worker)| worker).ok_or_else(|| {
            refusal(
                Code::ResourceExhausted,
                ErrorReason::NoCapacity,
                "played: no room",
            )
        })
    }

    fn allocate(
        &mut self,
        spec: &AllocationSpec,
        owner: &AllocateRequest,
    ) -> Result<Allocation, Status> {
        if let Some((asked, id)) = self.by_request.get(&spec.request_id) {
            if asked != spec {
                return Err(refusal(
                    Code::InvalidArgument,
                    ErrorReason::RequestIdReused,
                    "played: the request id was used before with another request",
                ));
            }
            return self.allocations.get(id).cloned().ok_or_else(|| {
                refusal(
                    Code::FailedPrecondition,
                    ErrorReason::AlreadyReleased,
                    "released",
                )
            });
        }
        let worker = self.pick(spec)?;
        if !spec.replaces.is_empty() {
            self.allocations.remove(&spec.replaces);
        }
        self.next += 1;
        let allocation = Allocation {
            id: format!("a-{}", self.next),
            worker: worker.clone(),
            worker_generation: self.workers[&worker].0.generation,
            state: AllocationState::Held.into(),
            owner: owner.owner.clone(),
            owner_term: owner.owner_term.clone(),
            subject: spec.subject.clone(),
            fencing_token: format!("{EPOCH}-{:020}", self.next),
            replaces: spec.replaces.clone(),
            attributes: spec.attributes.clone(),
            ..Allocation::default()
        };
        let got = (spec.clone(), allocation.id.clone());
        self.by_request.insert(spec.request_id.clone(), got);
        self.allocations
            .insert(allocation.id.clone(), allocation.clone());
        Ok(allocation)
    }
}

macro_rules! not_played {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        // What async_trait makes of an async fn: it does not look into macros.
        $(fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> std::pin::Pin<
            Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>,
        >
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not played")) })
        })*
    };
}

#[tonic::async_trait]
impl WorkersService for Registry {
    type WatchWorkersStream = Stream<WatchWorkersResponse>;
    type WatchAllocationsStream = Stream<WatchAllocationsResponse>;
    type WatchWorkerEventsStream = Stream<WatchWorkerEventsResponse>;

    async fn claim_owner(
        &self,
        request: Request<ClaimOwnerRequest>,
    ) -> Result<Response<ClaimOwnerResponse>, Status> {
        self.up()?;
        let term = request.into_inner().owner_term.unwrap();
        let mut state = self.state();
        let key = |t: &OwnerTerm| (t.epoch.clone(), t.revision);
        if state
            .term
            .as_ref()
            .is_some_and(|held| key(held) > key(&term))
        {
            state.stale_calls += 1;
            return Err(stale());
        }
        state.claims.push(term.clone());
        state.term = Some(term);
        Ok(Response::new(ClaimOwnerResponse {
            epoch: EPOCH.to_owned(),
            resume_token: resume::token(EPOCH, state.revision()),
            ..ClaimOwnerResponse::default()
        }))
    }

    async fn watch_workers(
        &self,
        _: Request<WatchWorkersRequest>,
    ) -> Result<Response<Self::WatchWorkersStream>, Status> {
        self.up()?;
        self.state().watches += 1;
        let registry = self.clone();
        let changed = tokio_stream::wrappers::WatchStream::new(self.0.changed.subscribe());
        let stream = changed.map(move |_| {
            registry.up()?;
            let state = registry.state();
            let (known, revision) = state.shown.clone().unwrap_or_else(|| state.told());
            let known = known.into_iter().map(worker_change::Change::Put);
            let deleted = state.deleted.iter().cloned();
            let changes = known.chain(deleted.map(worker_change::Change::Deleted));
            let changes = changes.map(|change| WorkerChange {
                change: Some(change),
            });
            Ok(WatchWorkersResponse {
                changes: changes.collect(),
                resume_token: resume::token(EPOCH, revision),
                synced: true,
            })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        self.up()?;
        let asked = request.into_inner();
        let mut state = self.state();
        state.allocate_calls += 1;
        let spec = asked.spec.clone().unwrap();
        if asked.validate_only {
            let refusals = vec![Refusal {
                reason: "GPU".to_owned(),
                message: "played".to_owned(),
                count: 1,
                ..Refusal::default()
            }];
            return Ok(Response::new(AllocateResponse {
                refusals,
                ..AllocateResponse::default()
            }));
        }
        state.check_term(asked.owner_term.as_ref())?;
        let answer = state.allocate(&spec, &asked);
        if state.lose_answers {
            return Err(Status::unavailable("played: the answer is lost"));
        }
        Ok(Response::new(AllocateResponse {
            allocation: Some(answer?),
            ..AllocateResponse::default()
        }))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        self.up()?;
        self.state().release_calls += 1;
        while self.state().holds_releases {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let asked = request.into_inner();
        let mut state = self.state();
        state.check_term(asked.owner_term.as_ref())?;
        if state.kept.contains(&asked.allocation_id) {
            return Err(Status::failed_precondition("played: it is kept"));
        }
        state.allocations.remove(&asked.allocation_id);
        state.freed += 1;
        drop(state);
        self.touch();
        Ok(Response::new(ReleaseResponse::default()))
    }

    async fn list_allocations(
        &self,
        _: Request<ListAllocationsRequest>,
    ) -> Result<Response<ListAllocationsResponse>, Status> {
        self.up()?;
        Ok(Response::new(ListAllocationsResponse {
            allocations: self.allocations(),
            ..ListAllocationsResponse::default()
        }))
    }

    async fn watch_allocations(
        &self,
        _: Request<WatchAllocationsRequest>,
    ) -> Result<Response<Self::WatchAllocationsStream>, Status> {
        self.up()?;
        let registry = self.clone();
        let changed = tokio_stream::wrappers::WatchStream::new(self.0.changed.subscribe());
        let mut seen = self.state().freed;
        let stream = changed.map(move |_| {
            let freed = registry.state().freed;
            let fresh = freed > seen;
            seen = freed;
            let gone = AllocationChange {
                change: Some(allocation_change::Change::Deleted(Allocation::default())),
            };
            Ok(WatchAllocationsResponse {
                changes: if fresh { vec![gone] } else { Vec::new() },
                resume_token: "t".to_owned(),
                synced: true,
            })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn report_drain(
        &self,
        request: Request<ReportDrainRequest>,
    ) -> Result<Response<ReportDrainResponse>, Status> {
        self.up()?;
        self.state().drains.push(request.into_inner());
        Ok(Response::new(ReportDrainResponse {}))
    }

    async fn watch_worker_events(
        &self,
        _: Request<WatchWorkerEventsRequest>,
    ) -> Result<Response<Self::WatchWorkerEventsStream>, Status> {
        Err(Status::unimplemented("not played"))
    }

    not_played! {
        register_worker(RegisterWorkerRequest) -> RegisterWorkerResponse;
        activate_worker(ActivateWorkerRequest) -> ActivateWorkerResponse;
        heartbeat(HeartbeatRequest) -> HeartbeatResponse;
        get_worker(GetWorkerRequest) -> GetWorkerResponse;
        list_workers(ListWorkersRequest) -> ListWorkersResponse;
        update_worker(UpdateWorkerRequest) -> UpdateWorkerResponse;
        drain_worker(DrainWorkerRequest) -> DrainWorkerResponse;
        resume_worker(ResumeWorkerRequest) -> ResumeWorkerResponse;
        disable_worker(DisableWorkerRequest) -> DisableWorkerResponse;
        enable_worker(EnableWorkerRequest) -> EnableWorkerResponse;
        delete_worker(DeleteWorkerRequest) -> DeleteWorkerResponse;
        release_mass_loss(ReleaseMassLossRequest) -> ReleaseMassLossResponse;
        batch_allocate(BatchAllocateRequest) -> BatchAllocateResponse;
        get_allocation(GetAllocationRequest) -> GetAllocationResponse;
        get_credential_keys(GetCredentialKeysRequest) -> GetCredentialKeysResponse;
        create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenResponse;
        list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse;
        revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse;
        list_worker_events(ListWorkerEventsRequest) -> ListWorkerEventsResponse;
    }
}
