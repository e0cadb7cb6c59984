//! Machines that are not there: what an agent says to the registry, said by the bench.

use anyhow::{Context as _, ensure};
use muster_proto::types::v1::{CpuArchitecture, Gpu, GpuVendor, MachineCapacity};
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_proto::workers::v1::{
    ActivateWorkerRequest, CheckStatus, HeartbeatRequest, HeartbeatResponse, HeartbeatTerms,
    HeldAllocation, HeldPhase, RegisterWorkerRequest, RegisterWorkerResponse, WorkerCheck,
    WorkerState,
};
use tokio::task::JoinSet;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::super::child::Child;
use super::super::connection::Connection;

pub(in crate::bench) type Client = WorkersServiceClient<Connection>;

/// Accelerators of each machine.
pub(super) const GPUS: usize = 8;
/// The longest answer taken, in bytes: a page of 1,000 workers ends at 2 MiB.
const LONGEST: usize = 16 << 20;
/// Connections over which a fleet joins.
const CONNECTIONS: usize = 16;

/// A machine that has registered.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Agent {
    pub(in crate::bench) name: String,
    pub(in crate::bench) generation: i64,
    credential: MetadataValue<Ascii>,
}

pub(in crate::bench) fn client(channel: &Connection) -> Client {
    WorkersServiceClient::new(channel.clone()).max_decoding_message_size(LONGEST)
}

/// Registers a machine.
pub(super) async fn register(
    client: &mut Client,
    name: String,
    zone: String,
) -> anyhow::Result<(Agent, HeartbeatTerms)> {
    let request = registration(name, zone);
    let answer = client.register_worker(request).await?;
    registered(answer.into_inner())
}

/// The registration of a machine with eight H100.
pub(super) fn registration(name: String, zone: String) -> RegisterWorkerRequest {
    RegisterWorkerRequest {
        boot_id: format!("boot-{name}"),
        capacity: Some(capacity(&name)),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_address: "192.0.2.1:7403".to_owned(),
        advertise_host: "192.0.2.1".to_owned(),
        region: "bench".to_owned(),
        zone,
        name,
        ..RegisterWorkerRequest::default()
    }
}

/// What a registration was answered.
pub(super) fn registered(
    answer: RegisterWorkerResponse,
) -> anyhow::Result<(Agent, HeartbeatTerms)> {
    let worker = answer.worker.context("an answer without a worker")?;
    let agent = Agent {
        name: worker.name,
        generation: worker.generation,
        credential: format!("Bearer {}", answer.credential).parse()?,
    };
    Ok((agent, answer.terms.context("an answer without terms")?))
}

fn capacity(name: &str) -> MachineCapacity {
    let gpu = |number| Gpu {
        uuid: format!("GPU-{name}-{number}"),
        name: "H100".to_owned(),
        vendor: GpuVendor::Nvidia.into(),
        memory_mib: 81_920,
        product_name: "NVIDIA H100 80GB HBM3".to_owned(),
        compute_capability: "9.0".to_owned(),
        simulated: false,
    };
    MachineCapacity {
        gpus: (0..GPUS).map(gpu).collect(),
        cpu_milli: 192_000,
        memory_mib: 2_097_152,
        disk_mib: 8_388_608,
        architecture: CpuArchitecture::X8664.into(),
    }
}

/// Says that the machine has passed its checks.
pub(super) async fn activate(client: &mut Client, agent: &Agent) -> anyhow::Result<()> {
    let check = WorkerCheck {
        name: "bench".to_owned(),
        status: CheckStatus::Passed.into(),
        ..WorkerCheck::default()
    };
    let request = agent.request(ActivateWorkerRequest {
        name: agent.name.clone(),
        generation: agent.generation,
        checks: vec![check],
    });
    let answer = client.activate_worker(request).await?.into_inner();
    let state = answer.worker.context("an answer without a worker")?.state();
    ensure!(state == WorkerState::Active, "{} is {state:?}", agent.name);
    Ok(())
}

/// Beats once, and names allocations as ended.
pub(in crate::bench) async fn beat(
    client: &mut Client,
    agent: &Agent,
    ended: Vec<String>,
) -> anyhow::Result<HeartbeatResponse> {
    let held = |allocation_id| HeldAllocation {
        allocation_id,
        phase: HeldPhase::Ended.into(),
        record: None,
    };
    let request = agent.request(HeartbeatRequest {
        name: agent.name.clone(),
        generation: agent.generation,
        held: ended.into_iter().map(held).collect(),
        ..HeartbeatRequest::default()
    });
    Ok(client.heartbeat(request).await?.into_inner())
}

/// Registers and activates so many machines.
pub(in crate::bench) async fn join(registry: &Child, count: usize) -> anyhow::Result<Vec<Agent>> {
    let mut running = JoinSet::new();
    for (number, channel) in registry.connections(CONNECTIONS).await?.iter().enumerate() {
        let mut client = client(channel);
        running.spawn(async move {
            let mut agents = Vec::new();
            for n in (number..count).step_by(CONNECTIONS) {
                let name = format!("worker-{n:06}");
                let (agent, _) = register(&mut client, name, zone(n)).await?;
                activate(&mut client, &agent).await?;
                agents.push(agent);
            }
            anyhow::Ok(agents)
        });
    }
    let mut agents = Vec::with_capacity(count);
    while let Some(joined) = running.join_next().await {
        agents.extend(joined??);
    }
    agents.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(agents)
}

/// Ten zones, in each of which as many of every fifth machine are as of the others.
pub(super) fn zone(number: usize) -> String {
    format!("zone-{}", number / 5 % 10)
}

impl Agent {
    /// A call as this machine.
    pub(in crate::bench) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.credential.clone());
        request
    }
}
