//! Our own machines: asks the worker-registry for the workers that work may be placed on. What of
//! them is idle is decided elsewhere. It lists them anew each time: what has been given away or back
//! meanwhile is then right, however much of it there was, and nothing has to be resumed.

use std::time::Duration;

use muster_model::constraints::CapacityType;
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;
use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as pb;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::connect::{Channel, Connector, Endpoints};
use muster_runtime::deadline::Deadline;
use tonic::Request;

use super::{Failure, Fetched, Offers, called};
use crate::domain::builder::Builder;
use crate::domain::fleet::{Amounts, Worker};
use crate::domain::offer::Source;

/// Workers of one page: the most that the registry gives.
const PAGE: i32 = 1000;

/// Pages at most: ten times the largest fleet that a registry is made for.
const MAX_PAGES: usize = 1000;

/// The worker-registry.
#[derive(Debug)]
pub(super) struct Fleet {
    registry: Endpoints,
    client: WorkersServiceClient<Channel>,
    within: Duration,
}

impl Fleet {
    /// Each fetch may take so long. Nothing is called yet.
    pub(super) fn new(registry: &Endpoints, connector: &Connector, within: Duration) -> Self {
        Self {
            registry: registry.clone(),
            client: WorkersServiceClient::new(connector.channel(registry)),
            within,
        }
    }

    pub(super) async fn fetch(&self, backend: &str) -> Result<Fetched, Failure> {
        let deadline = Deadline::after(self.within);
        let mut offers = Builder::new(backend, Source::Fleet);
        let mut list = pb::ListWorkersRequest {
            filter: Some(placeable()),
            page_size: PAGE,
            ..Default::default()
        };
        for _ in 0..MAX_PAGES {
            let mut request = Request::new(list.clone());
            deadline.carry(&mut request);
            let page = self.client.clone().list_workers(request).await;
            let page = page
                .map_err(|status| called("the worker-registry", &self.registry, &status))?
                .into_inner();
            for worker in page.workers {
                parse(worker).offer(&mut offers);
            }
            if page.next_page_token.is_empty() {
                return Ok(Fetched::Offers(Box::new(Offers {
                    snapshot: offers.finish(),
                    validator: String::new(),
                    live_capacity: true,
                })));
            }
            list.page_token = page.next_page_token;
        }
        Err(Failure::lasting(
            "the worker-registry's list of workers does not end",
        ))
    }
}

/// Those that the registry would place something on.
fn placeable() -> pb::WorkerFilter {
    pb::WorkerFilter {
        states: vec![pb::WorkerState::Active.into()],
        livenesses: vec![pb::WorkerLiveness::Alive.into()],
        ..Default::default()
    }
}

fn parse(worker: pb::Worker) -> Worker {
    let capacity = worker.capacity.unwrap_or_default();
    let usage = worker.usage.unwrap_or_default();
    let capacity_type = match types::CapacityType::try_from(worker.capacity_type) {
        Ok(types::CapacityType::Spot) => Some(CapacityType::Spot),
        Ok(types::CapacityType::OnDemand) => Some(CapacityType::OnDemand),
        Ok(types::CapacityType::Unspecified) | Err(_) => None,
    };
    let arch = match types::CpuArchitecture::try_from(capacity.architecture) {
        Ok(types::CpuArchitecture::X8664) => Some(Arch::X86_64),
        Ok(types::CpuArchitecture::Arm64) => Some(Arch::Arm64),
        Ok(types::CpuArchitecture::Unspecified) | Err(_) => None,
    };
    let gpus = capacity.gpus.into_iter();
    let gpus: Vec<_> = gpus
        .map(|gpu| {
            (
                gpu.name,
                Some(amount(gpu.memory_mib)).filter(|mib| *mib > 0),
            )
        })
        .collect();
    Worker {
        name: worker.name,
        region: worker.region,
        zone: worker.zone,
        capacity_type,
        price: worker
            .price
            .map(|price| MicroUsd(price.micro_usd_per_hour.max(0))),
        arch,
        simulated: worker.simulated,
        has: Amounts {
            gpus: u32::try_from(gpus.len()).unwrap_or(u32::MAX),
            cpu_milli: amount(capacity.cpu_milli),
            memory_mib: amount(capacity.memory_mib),
            disk_mib: amount(capacity.disk_mib),
        },
        given: Amounts {
            gpus: amount(usage.gpus),
            cpu_milli: amount(usage.cpu_milli),
            memory_mib: amount(usage.memory_mib),
            disk_mib: amount(usage.disk_mib),
        },
        gpus,
    }
}

/// A registry counts nothing below zero.
fn amount(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}
