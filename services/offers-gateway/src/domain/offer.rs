//! What is offered: the words for a machine that could be had, and how sure anyone is of it.

use muster_model::constraints::CapacityType;
use muster_model::gpu::GpuGroup;
use muster_model::quantity::MicroUsd;
use muster_model::requirements::{Arch, Capacity};

/// What is known of getting a machine now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Availability {
    /// Nothing: its source lists prices.
    #[default]
    Unknown,
    /// The provider says that it has capacity.
    Available,
    /// The provider said, or a launch found, that it has none.
    NoCapacity,
    /// The account's quota does not allow it.
    NoQuota,
    /// The account has no money left for it.
    NoBalance,
    /// Idle on a worker that we have already.
    Idle,
}

/// Who says how available offers of a backend are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A price list, which knows nothing of capacity.
    Catalog,
    /// The provider's live answer.
    Provider,
    /// A launch that was tried.
    Report,
    /// Our own workers.
    Fleet,
}

impl Availability {
    /// What a source may say: a price list never more than that nothing is known.
    pub fn as_said_by(self, source: Source) -> Self {
        match source {
            Source::Catalog => Self::Unknown,
            Source::Provider | Source::Report | Source::Fleet => self,
        }
    }
}

/// A kind of machine: what it has. Many offers share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Its accelerators.
    pub gpus: Vec<GpuGroup>,
    /// Processors in thousandths of one; none is unknown.
    pub cpu_milli: Option<u32>,
    /// Main memory in MiB.
    pub memory_mib: Option<u32>,
    /// Disk in MiB.
    pub disk_mib: Option<u32>,
    /// The instruction set.
    pub arch: Option<Arch>,
}

impl Machine {
    /// The machine as requirements see it: to be taken whole.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            gpus: self.gpus.clone(),
            divisible: false,
            cpu_milli: self.cpu_milli,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            arch: self.arch,
        }
    }

    /// How many whole accelerators its accelerators amount to, in thousandths: a share of a third
    /// is 333.
    pub fn gpu_milli(&self) -> u64 {
        let milli = |group: &GpuGroup| u64::from(group.count) * u64::from(group.share_milli);
        self.gpus.iter().map(milli).sum()
    }

    /// Memory of all accelerators in MiB; none without any, or if that of any is unknown.
    pub fn gpu_memory_mib(&self) -> Option<u64> {
        let total: u64 = self
            .gpus
            .iter()
            .map(GpuGroup::total_memory_mib)
            .sum::<Option<u64>>()?;
        (total > 0).then_some(total)
    }
}

/// One offer as its source tells it.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The provider's region; empty is none.
    pub region: &'a str,
    /// The provider's zone; empty is none.
    pub zone: &'a str,
    /// The provider's name for the machine.
    pub instance_type: &'a str,
    /// On demand or spot.
    pub capacity_type: CapacityType,
    /// What it has.
    pub machine: &'a Machine,
    /// For the whole machine; none is unknown.
    pub price: Option<MicroUsd>,
    /// Whether it can be had, as far as the source may say so.
    pub availability: Availability,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_list_never_says_available() {
        for said in [
            Availability::Available,
            Availability::NoCapacity,
            Availability::Idle,
        ] {
            assert_eq!(said.as_said_by(Source::Catalog), Availability::Unknown);
            assert_eq!(said.as_said_by(Source::Provider), said);
        }
    }

    #[test]
    fn shares_count_as_parts() {
        let machine = Machine {
            gpus: vec![GpuGroup::observed("A10", 1, None, 333)],
            ..Machine::default()
        };
        assert_eq!(machine.gpu_milli(), 333);
        assert_eq!(machine.gpu_memory_mib(), Some(8 * 1024));
        assert_eq!(Machine::default().gpu_memory_mib(), None);
    }
}
