//! What an agent says of its machine when it registers. It decides nothing about placement.

use std::sync::Arc;

use muster_model::constraints::{CapacityType, Labels};
use muster_model::gpu::{GpuGroup, GpuName, Vendor, WHOLE};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;

use super::text::Text;

/// One accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The vendor's identifier, unique in the fleet.
    pub uuid: Text,
    /// What it is; equal ones share it.
    pub kind: Arc<GpuKind>,
}

/// What equal accelerators have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuKind {
    /// The canonical name.
    pub name: GpuName,
    /// Who makes it.
    pub vendor: Option<Vendor>,
    /// Nominal memory in MiB; 0 is unknown.
    pub memory_mib: u32,
    /// The product name as the driver says it.
    pub product_name: Text,
    /// CUDA compute capability; empty is unknown.
    pub compute_capability: Text,
    /// Declared, not real.
    pub simulated: bool,
}

impl GpuKind {
    /// `count` of this kind, as requirements are matched with.
    pub fn group(&self, count: u32) -> GpuGroup {
        GpuGroup {
            name: self.name.clone(),
            vendor: self.vendor,
            count,
            memory_mib: (self.memory_mib > 0).then_some(self.memory_mib),
            share_milli: WHOLE,
        }
    }
}

/// What a machine has, where it is and what it costs, as its agent said at registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Accelerators, in the agent's order.
    pub gpus: Vec<Gpu>,
    /// Processors in thousandths of one.
    pub cpu_milli: u32,
    /// Main memory in MiB.
    pub memory_mib: u32,
    /// Disk in MiB.
    pub disk_mib: u32,
    /// The instruction set, if known.
    pub arch: Option<Arch>,
    /// The agent's labels.
    pub labels: Labels,
    /// On demand or spot, if known.
    pub capacity_type: Option<CapacityType>,
    /// The price of an hour, if known.
    pub price: Option<MicroUsd>,
    /// The cloud; empty is our own.
    pub backend: Text,
    /// The region; empty is none.
    pub region: Text,
    /// The zone; empty is none.
    pub zone: Text,
    /// The agent's version.
    pub agent_version: Text,
    /// Where the agent serves, HOST:PORT; empty if it cannot be called.
    pub agent_address: Text,
    /// The host under which its replicas are reached.
    pub advertise_host: Text,
}

impl Machine {
    /// Whether any accelerator was declared and is not real.
    pub fn is_simulated(&self) -> bool {
        self.gpus.iter().any(|gpu| gpu.kind.simulated)
    }
}
