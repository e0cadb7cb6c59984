//! What an agent says of its machine when it registers. It decides nothing about placement.

use std::sync::Arc;

use muster_model::constraints::{CapacityType, Labels};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;

use super::common::Common;
use super::gpus::Gpus;
use super::text::Text;

/// What a machine has, where it is and what it costs, as its agent said at registration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its accelerators.
    pub gpus: Gpus,
    /// Processors in thousandths of one.
    pub cpu_milli: u32,
    /// Main memory in MiB.
    pub memory_mib: u32,
    /// Disk in MiB.
    pub disk_mib: u32,
    /// The instruction set, if known.
    pub arch: Option<Arch>,
    /// The agent's labels.
    pub labels: Arc<Labels>,
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
        self.gpus.kinds().any(|kind| kind.simulated)
    }
}

/// Labels as other machines and workers hold them that have the same.
pub fn common_labels(labels: Labels) -> Arc<Labels> {
    static LABELS: Common<Labels> = Common::new();
    LABELS.share(labels)
}
