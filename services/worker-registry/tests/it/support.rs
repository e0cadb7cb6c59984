//! A registry on port 0, and callers of it.

use std::net::SocketAddr;
use std::time::Duration;

use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::context::Context;
use muster_runtime::server::Listeners;
use muster_runtime::shutdown::Cause;
use muster_runtime::status::Details;
use muster_store::Store;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use worker_registry::Config;

pub(crate) type Client = WorkersServiceClient<Channel>;

/// A running registry.
pub(crate) struct Registry {
    pub(crate) context: Context,
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
}

/// Settings under which tests are quick and nobody is lost by accident.
pub(crate) fn config() -> Config {
    let mut config = Config {
        insecure_join: true,
        ..Config::default()
    };
    config.rules.interval = Duration::from_millis(200);
    config
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::with(config(), Store::memory()).await
    }

    pub(crate) async fn with(config: Config, store: Store) -> Self {
        let context = Context::for_tests("worker-registry");
        let listeners = Listeners::loopback().await.unwrap();
        let address = listeners.grpc_address();
        let serving = worker_registry::serve(config, context.clone(), store.clone(), listeners);
        let _running = context
            .tasks
            .spawn("registry", async move { serving.await.unwrap() });
        context.health.until_ready().await;
        Self {
            context,
            address,
            store,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Client::new(endpoint.connect().await.unwrap())
    }

    /// Stops it; the store stays open.
    pub(crate) async fn stop(self) -> Store {
        self.context
            .shutdown
            .begin(Cause::asked("the test is over"));
        let report = self.context.shutdown.finished().await;
        assert!(report.is_clean(), "{report:?}");
        self.store
    }
}

/// Eight simulated H100s.
pub(crate) fn capacity(name: &str, gpus: usize) -> types::MachineCapacity {
    let gpu = |place| types::Gpu {
        uuid: format!("GPU-{name}-{place}"),
        name: "H100".to_owned(),
        memory_mib: 81_559,
        product_name: "NVIDIA H100 80GB HBM3".to_owned(),
        compute_capability: "9.0".to_owned(),
        simulated: true,
        ..types::Gpu::default()
    };
    types::MachineCapacity {
        gpus: (0..gpus).map(gpu).collect(),
        cpu_milli: 64_000,
        memory_mib: 512 * 1024,
        disk_mib: 1024 * 1024,
        architecture: types::CpuArchitecture::X8664.into(),
    }
}

pub(crate) fn registration(name: &str, boot_id: &str) -> proto::RegisterWorkerRequest {
    proto::RegisterWorkerRequest {
        name: name.to_owned(),
        boot_id: boot_id.to_owned(),
        capacity: Some(capacity(name, 8)),
        region: "eu".to_owned(),
        ..proto::RegisterWorkerRequest::default()
    }
}

pub(crate) fn passed() -> Vec<proto::WorkerCheck> {
    vec![proto::WorkerCheck {
        name: "gpu-inventory".to_owned(),
        status: proto::CheckStatus::Passed.into(),
        ..proto::WorkerCheck::default()
    }]
}

/// A worker that speaks for itself.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) generation: i64,
}

impl Agent {
    pub(crate) fn new(name: &str, generation: i64) -> Self {
        Self {
            name: name.to_owned(),
            generation,
        }
    }

    /// Registers and activates a worker of eight accelerators.
    pub(crate) async fn join(client: &mut Client, name: &str) -> Self {
        let answer = client
            .register_worker(registration(name, "boot-1"))
            .await
            .unwrap()
            .into_inner();
        let agent = Self::new(name, answer.worker.unwrap().generation);
        agent.activate(client).await.unwrap();
        agent
    }

    pub(crate) async fn activate(&self, client: &mut Client) -> Result<proto::Worker, Status> {
        let request = proto::ActivateWorkerRequest {
            name: self.name.clone(),
            generation: self.generation,
            checks: passed(),
        };
        let answer = client.activate_worker(request).await?;
        Ok(answer.into_inner().worker.unwrap())
    }

    /// Beats, naming allocations with how far they have come.
    pub(crate) async fn beat(
        &self,
        client: &mut Client,
        held: &[(&str, proto::HeldPhase)],
    ) -> Result<proto::HeartbeatResponse, Status> {
        let held = held.iter().map(|(id, phase)| proto::HeldAllocation {
            allocation_id: (*id).to_owned(),
            phase: (*phase).into(),
            record: None,
        });
        let request = proto::HeartbeatRequest {
            name: self.name.clone(),
            generation: self.generation,
            held: held.collect(),
            ..proto::HeartbeatRequest::default()
        };
        client.heartbeat(request).await.map(Response::into_inner)
    }
}

pub(crate) const OWNER: &str = "replica-manager";

pub(crate) fn term(revision: i64) -> Option<proto::OwnerTerm> {
    Some(proto::OwnerTerm {
        epoch: "000000000001-00000001".to_owned(),
        revision,
    })
}

/// Asks for so many H100s.
pub(crate) fn ask(request_id: &str, gpus: i32) -> proto::AllocateRequest {
    proto::AllocateRequest {
        owner: OWNER.to_owned(),
        owner_term: term(1),
        spec: Some(spec(request_id, gpus)),
        validate_only: false,
    }
}

pub(crate) fn spec(request_id: &str, gpus: i32) -> proto::AllocationSpec {
    let gpu = types::GpuRequest {
        names: vec!["H100".to_owned()],
        count: Some(types::Int32Range {
            min: Some(gpus),
            max: Some(gpus),
        }),
        ..types::GpuRequest::default()
    };
    proto::AllocationSpec {
        request_id: request_id.to_owned(),
        subject: format!("chat/{request_id}"),
        requirements: Some(types::Requirements {
            gpu_any_of: if gpus > 0 { vec![gpu] } else { Vec::new() },
            cpu_milli: 1000,
            memory_mib: 1024,
            ..types::Requirements::default()
        }),
        ..proto::AllocationSpec::default()
    }
}

pub(crate) async fn allocate(
    client: &mut Client,
    request_id: &str,
    gpus: i32,
) -> Result<proto::Allocation, Status> {
    let answer = client.allocate(ask(request_id, gpus)).await?;
    Ok(answer.into_inner().allocation.unwrap())
}

pub(crate) async fn release(
    client: &mut Client,
    id: &str,
) -> Result<Option<proto::Allocation>, Status> {
    let request = proto::ReleaseRequest {
        allocation_id: id.to_owned(),
        owner: OWNER.to_owned(),
        owner_term: term(1),
        reason: "no longer wanted".to_owned(),
        ..proto::ReleaseRequest::default()
    };
    Ok(client.release(request).await?.into_inner().allocation)
}

pub(crate) async fn get(client: &mut Client, name: &str) -> Result<proto::Worker, Status> {
    let request = proto::GetWorkerRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    Ok(client
        .get_worker(request)
        .await?
        .into_inner()
        .worker
        .unwrap())
}

/// The reason of a failed call, as the contract names it.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    Details::of(&result.unwrap_err()).reason
}

/// Waits until `test` says yes, at most ten seconds.
pub(crate) async fn until(what: &str, test: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !test().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
