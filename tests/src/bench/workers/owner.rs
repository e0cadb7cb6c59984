//! An owner of allocations: it takes room, gives it back, and plays the agents that confirm it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use muster_proto::types::v1::{GpuRequest, Int32Range, Requirements};
use muster_proto::workers::v1::allocation_result::Result as Item;
use muster_proto::workers::v1::{
    AllocateRequest, Allocation, AllocationSpec, BatchAllocateRequest, ClaimOwnerRequest,
    OwnerTerm, ReleaseRequest,
};
use prost::Message as _;

use super::super::form::{Form, Script};
use super::super::load::Call;
use super::fleet::{self, Agent, Client};

const OWNER: &str = "bench";
/// Services that allocations are spread by.
const SERVICES: u64 = 1_000;

/// Every machine by its name.
pub(super) type Agents = Arc<BTreeMap<String, Agent>>;

/// Takes one accelerator at a time, or many in one call.
pub(super) struct Owner {
    client: Client,
    agents: Agents,
    /// Unlike those of others on this registry.
    prefix: String,
    next: u64,
    /// In one call; `None` takes them one by one.
    batch: Option<usize>,
    taken: Vec<Taken>,
}

/// What of an answer is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(message, optional, tag = "1")]
    allocation: Option<Taken>,
}

/// Room that is taken: what of an allocation is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Taken {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    worker: String,
}

impl From<Allocation> for Taken {
    fn from(allocation: Allocation) -> Self {
        Self {
            id: allocation.id,
            worker: allocation.worker,
        }
    }
}

impl Owner {
    pub(super) fn new(
        client: Client,
        agents: &Agents,
        prefix: String,
        batch: Option<usize>,
    ) -> Self {
        Self {
            client,
            agents: Arc::clone(agents),
            prefix,
            next: 0,
            batch,
            taken: Vec::new(),
        }
    }

    /// Must be called once, by any of the owners, before anything is taken.
    pub(super) async fn claim(&mut self) -> anyhow::Result<()> {
        let request = ClaimOwnerRequest {
            owner: OWNER.to_owned(),
            owner_term: Some(term()),
        };
        self.client.claim_owner(request).await?;
        Ok(())
    }

    /// Takes one accelerator on `worker`, or on any if that is empty.
    pub(super) async fn take(&mut self, worker: &str) -> anyhow::Result<()> {
        let spec = AllocationSpec {
            worker: worker.to_owned(),
            ..self.next_spec()
        };
        let answer = self.client.allocate(request(spec)).await?.into_inner();
        let allocation = answer
            .allocation
            .context("an answer without an allocation")?;
        self.taken.push(allocation.into());
        Ok(())
    }

    async fn take_many(&mut self, count: usize) -> anyhow::Result<()> {
        let request = BatchAllocateRequest {
            owner: OWNER.to_owned(),
            owner_term: Some(term()),
            specs: (0..count).map(|_| self.next_spec()).collect(),
            all_or_nothing: false,
        };
        let answer = self.client.batch_allocate(request).await?.into_inner();
        for result in answer.results {
            match result.result.context("an empty result")? {
                Item::Allocation(allocation) => self.taken.push(allocation.into()),
                Item::Error(error) => bail!("not allocated: {}", error.message),
            }
        }
        Ok(())
    }

    fn next_spec(&mut self) -> AllocationSpec {
        self.next += 1;
        self.spec(self.next)
    }

    fn spec(&self, number: u64) -> AllocationSpec {
        let gpu = GpuRequest {
            names: vec!["H100".to_owned()],
            count: Some(Int32Range {
                min: Some(1),
                max: Some(1),
            }),
            ..GpuRequest::default()
        };
        AllocationSpec {
            request_id: format!("{}-{number:09}", self.prefix),
            subject: format!("bench/{number:09}"),
            requirements: Some(Requirements {
                gpu_any_of: vec![gpu],
                cpu_milli: 8_000,
                memory_mib: 65_536,
                ..Requirements::default()
            }),
            spread_key: format!("service-{:03}", number % SERVICES),
            ..AllocationSpec::default()
        }
    }

    async fn release(&mut self, id: &str) -> anyhow::Result<()> {
        let request = ReleaseRequest {
            allocation_id: id.to_owned(),
            owner: OWNER.to_owned(),
            owner_term: Some(term()),
            ..ReleaseRequest::default()
        };
        self.client.release(request).await?;
        Ok(())
    }

    /// Gives everything back, and has the agents say that it has ended.
    async fn give_back(&mut self) -> anyhow::Result<()> {
        let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Taken { id, worker } in std::mem::take(&mut self.taken) {
            self.release(&id).await?;
            ended.entry(worker).or_default().push(id);
        }
        for (worker, ids) in ended {
            let agent = self.agents.get(&worker).context("an unknown worker")?;
            fleet::beat(&mut self.client, agent, ids).await?;
        }
        Ok(())
    }
}

impl Call for Owner {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let before = self.taken.len();
        match self.batch {
            Some(count) => self.take_many(count).await?,
            None => self.take("").await?,
        }
        Ok(u64::try_from(self.taken.len() - before)?)
    }

    async fn rest(&mut self) -> anyhow::Result<()> {
        self.give_back().await
    }
}

impl Script for Owner {
    const PATH: &'static str = "/muster.workers.v1.WorkersService/Allocate";

    fn form(&self) -> Form {
        Form::of(|number| request(self.spec(number)))
    }

    fn answered(&mut self, answer: Bytes) -> anyhow::Result<()> {
        let Answer { allocation } = Answer::decode(answer)?;
        let taken = allocation.context("an answer without an allocation")?;
        self.taken.push(taken);
        Ok(())
    }

    async fn rest(&mut self) -> anyhow::Result<()> {
        self.give_back().await
    }
}

fn request(spec: AllocationSpec) -> AllocateRequest {
    AllocateRequest {
        owner: OWNER.to_owned(),
        owner_term: Some(term()),
        spec: Some(spec),
        validate_only: false,
    }
}

fn term() -> OwnerTerm {
    OwnerTerm {
        epoch: "bench".to_owned(),
        revision: 1,
    }
}
