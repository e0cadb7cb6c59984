//! The registry with its store and its loops, under a clock that the tests move.

use std::time::Duration;

use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use muster_runtime::auth::{Principal, Role};
use muster_runtime::context::Context;
use muster_runtime::instances::Instances;
use muster_store::Store;
use tonic::Request;

use super::Registry;
use crate::config::Config;
use crate::grpc::calls;

mod batches;
mod events;
mod expiry;
mod model;
mod order;
mod size;
mod terms;

/// A registry, and what ends it.
pub(super) struct Running {
    pub(super) registry: Registry,
    context: Context,
}

impl Running {
    pub(super) async fn start(config: Config, store: Store) -> Self {
        let context = Context::for_tests("worker-registry");
        // Nobody is reached there.
        let address = ([127, 0, 0, 1], 1).into();
        let instances = Instances::join(&context, &store, address).await.unwrap();
        let registry = Registry::start(config, &context, instances).await.unwrap();
        Self { registry, context }
    }

    /// Ends it as a crash would: nothing is finished.
    pub(super) async fn crash(self) {
        self.context.tasks.cut();
        self.context.tasks.ended().await;
    }
}

pub(super) fn config() -> Config {
    Config {
        insecure_join: true,
        ..Config::default()
    }
}

/// A call of an admin on this machine.
pub(super) fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    Principal::new(Role::Admin, "local").carry(&mut request);
    request
}

pub(super) fn registration(name: &str, boot_id: &str, gpus: usize) -> proto::RegisterWorkerRequest {
    let gpu = |place| types::Gpu {
        uuid: format!("GPU-{name}-{place}"),
        name: "H100".to_owned(),
        ..types::Gpu::default()
    };
    proto::RegisterWorkerRequest {
        name: name.to_owned(),
        boot_id: boot_id.to_owned(),
        capacity: Some(types::MachineCapacity {
            gpus: (0..gpus).map(gpu).collect(),
            cpu_milli: 64_000,
            memory_mib: 512 * 1024,
            disk_mib: 1024 * 1024,
            ..types::MachineCapacity::default()
        }),
        ..proto::RegisterWorkerRequest::default()
    }
}

pub(super) fn ask(request_id: &str, gpus: i32) -> proto::AllocateRequest {
    let gpu = types::GpuRequest {
        names: vec!["H100".to_owned()],
        count: Some(types::Int32Range {
            min: Some(gpus),
            max: Some(gpus),
        }),
        ..types::GpuRequest::default()
    };
    proto::AllocateRequest {
        owner: "replica-manager".to_owned(),
        owner_term: term(),
        spec: Some(proto::AllocationSpec {
            request_id: request_id.to_owned(),
            requirements: Some(types::Requirements {
                gpu_any_of: vec![gpu],
                ..types::Requirements::default()
            }),
            ..proto::AllocationSpec::default()
        }),
        validate_only: false,
    }
}

pub(super) fn term() -> Option<proto::OwnerTerm> {
    Some(proto::OwnerTerm {
        epoch: "1".to_owned(),
        revision: 1,
    })
}

/// Registers a worker whose checks have passed.
pub(super) async fn join(registry: &Registry, name: &str, gpus: usize) {
    let registered = calls::register(registry, call(registration(name, "boot-1", gpus)))
        .await
        .unwrap();
    let request = proto::ActivateWorkerRequest {
        name: name.to_owned(),
        generation: registered.seen.worker.generation.try_into().unwrap(),
        checks: vec![proto::WorkerCheck {
            name: "check".to_owned(),
            status: proto::CheckStatus::Passed.into(),
            ..proto::WorkerCheck::default()
        }],
    };
    calls::activate(registry, call(request)).await.unwrap();
}

/// Lets that much time pass, in steps that the loops notice.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
