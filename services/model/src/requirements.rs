//! Decides whether a machine has what a workload needs. The gateway asks it of offers and the
//! registry of workers, so that both always give the same answer.
//!
//! It never decides where a workload may be ([`constraints`](crate::constraints)), nor which of
//! several machines is best.

mod arch;
mod bounds;

pub use arch::{Arch, ArchError};
pub use bounds::Bounds;

use std::collections::HashSet;

use crate::gpu::{self, ComputeCapability, GpuGroup, GpuName, Vendor, WHOLE};
use crate::shortfall::{self, Shortfall};

/// The most alternatives that a caller may name: each is tried on every machine.
pub const MAX_ALTERNATIVES: usize = 32;

/// The most names that a caller may give one alternative: several times all names of the table.
pub const MAX_NAMES: usize = 100;

/// One way to satisfy a need for accelerators. All that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GpuRequest {
    /// Any of these will do; empty is any.
    pub names: Vec<GpuName>,
    /// Who must make it; none is anyone.
    pub vendor: Option<Vendor>,
    /// How many: at least 1. A worker gives as few as will do.
    pub count: Bounds,
    /// Memory of each in MiB.
    pub memory_mib: Bounds,
    /// Memory of all together in MiB.
    pub total_memory_mib: Bounds,
    /// Asks for a share in thousandths (1 to 999): a larger share will do, a whole accelerator
    /// will not. None asks for whole ones.
    pub share_milli: Option<u32>,
    /// The least CUDA compute capability.
    pub min_compute_capability: Option<ComputeCapability>,
}

/// What a workload needs of one machine. Zero asks for nothing of the kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Alternatives in order of preference; one has to be met. Empty needs no accelerator.
    pub gpu_any_of: Vec<GpuRequest>,
    /// Processors in thousandths of one.
    pub cpu_milli: u32,
    /// Main memory in MiB.
    pub memory_mib: u32,
    /// Disk in MiB.
    pub disk_mib: u32,
    /// The instruction set; none is any.
    pub arch: Option<Arch>,
}

/// What an offer or a worker has. What is not known is none, and meets no need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Accelerators, by kind.
    pub gpus: Vec<GpuGroup>,
    /// Whether a part of it can be had: a worker (what is free of it) gives the accelerators asked
    /// for and keeps the rest; an offer is taken whole, so its counts must lie within the bounds.
    pub divisible: bool,
    /// Processors in thousandths of one.
    pub cpu_milli: Option<u32>,
    /// Main memory in MiB.
    pub memory_mib: Option<u32>,
    /// Disk in MiB.
    pub disk_mib: Option<u32>,
    /// The instruction set.
    pub arch: Option<Arch>,
}

/// How a machine meets a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fit {
    /// Which accelerators; none if none were asked for.
    pub gpu: Option<GpuFit>,
}

/// Which accelerators of a machine meet a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpuFit {
    /// The place of the alternative in `gpu_any_of`.
    pub alternative: usize,
    /// The place of the group in `gpus`.
    pub group: usize,
    /// How many of the group are taken.
    pub count: u32,
}

/// What a group of accelerators lacks for a request, in the order in which it is looked at: of
/// several groups the one that comes furthest is the closest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lack {
    /// It has another name.
    Name,
    /// Another vendor makes it.
    Vendor,
    /// It is a share and whole ones are asked for, or the reverse, or the share is too small.
    Share,
    /// Its compute capability is too low or not known.
    ComputeCapability,
    /// The memory of each is out of bounds or not known.
    Memory,
    /// There are too few of it; or too many, where all have to be taken.
    Count,
    /// The memory of all together is out of bounds or not known.
    TotalMemory,
}

/// Matches a need with a machine: how it is met, or everything that is short.
pub fn matches(needs: &Requirements, has: &Capacity) -> Result<Fit, Vec<Shortfall>> {
    fit(needs, has).ok_or_else(|| shortfall::of(needs, has))
}

/// Whether [`matches()`] would say yes. Allocates nothing.
pub fn fits(needs: &Requirements, has: &Capacity) -> bool {
    fit(needs, has).is_some()
}

/// How a machine meets a need, if it does: the first alternative that any group meets, and of
/// its groups the first. Allocates nothing.
pub fn fit(needs: &Requirements, has: &Capacity) -> Option<Fit> {
    if !(suffices(needs.cpu_milli, has.cpu_milli)
        && suffices(needs.memory_mib, has.memory_mib)
        && suffices(needs.disk_mib, has.disk_mib)
        && runs(needs.arch, has.arch))
    {
        return None;
    }
    if needs.gpu_any_of.is_empty() {
        return Some(Fit { gpu: None });
    }
    let mut alternatives = needs.gpu_any_of.iter().enumerate();
    let gpu = alternatives.find_map(|(alternative, request)| {
        let mut groups = has.gpus.iter().enumerate();
        groups.find_map(|(group, gpus)| {
            let count = take(request, gpus, has.divisible).ok()?;
            Some(GpuFit {
                alternative,
                group,
                count,
            })
        })
    });
    gpu.map(|gpu| Fit { gpu: Some(gpu) })
}

/// How many of a group meet a request, or the first thing that it lacks.
pub fn take(request: &GpuRequest, group: &GpuGroup, divisible: bool) -> Result<u32, Lack> {
    require(
        request.names.is_empty() || request.names.iter().any(|name| name.covers(&group.name)),
        Lack::Name,
    )?;
    require(
        request
            .vendor
            .is_none_or(|vendor| group.vendor == Some(vendor)),
        Lack::Vendor,
    )?;
    require(
        share_suffices(request.share_milli, group.share_milli),
        Lack::Share,
    )?;
    let capability = || group.name.compute_capability();
    require(
        request
            .min_compute_capability
            .is_none_or(|least| capability().is_some_and(|has| has >= least)),
        Lack::ComputeCapability,
    )?;
    require(
        request.memory_mib.admit(group.memory_mib.map(u64::from)),
        Lack::Memory,
    )?;
    let count = if divisible {
        least_that_do(request, group)
    } else {
        group.count
    };
    require(
        count <= group.count && request.at_least_one().contains(u64::from(count)),
        Lack::Count,
    )?;
    let total = group
        .memory_mib
        .map(|each| u64::from(each) * u64::from(count));
    require(request.total_memory_mib.admit(total), Lack::TotalMemory)?;
    Ok(count)
}

/// Whether there is as much as is needed; what is not known does not suffice.
pub(crate) fn suffices(needs: u32, has: Option<u32>) -> bool {
    needs == 0 || has.is_some_and(|has| has >= needs)
}

/// Whether the instruction set is the one that is needed.
pub(crate) fn runs(needs: Option<Arch>, has: Option<Arch>) -> bool {
    needs.is_none() || needs == has
}

fn share_suffices(asked: Option<u32>, has: u32) -> bool {
    match asked {
        Some(share) => (share..WHOLE).contains(&has),
        None => has == WHOLE,
    }
}

/// The least number that the request's count and total memory ask for.
fn least_that_do(request: &GpuRequest, group: &GpuGroup) -> u32 {
    let by_count = request.at_least_one().min.unwrap_or(1);
    let by_memory = request.total_memory_mib.min.zip(group.memory_mib);
    let by_memory = by_memory.map_or(0, |(total, each)| total.div_ceil(each.max(1)));
    // More than there are is no way to meet a total: then the total is what is short.
    by_count.max(
        by_memory
            .min(request.count.max.unwrap_or(u32::MAX))
            .min(group.count),
    )
}

fn require(holds: bool, lack: Lack) -> Result<(), Lack> {
    if holds { Ok(()) } else { Err(lack) }
}

impl GpuRequest {
    /// At least one accelerator of a name in any dialect.
    pub fn named(name: &str) -> Self {
        Self {
            names: vec![gpu::canonical(name)],
            ..Self::default()
        }
    }

    /// The same request with its names made exact by its bounds of memory: `A100` with 80 GB
    /// each asks for `A100-80GB`. Without bounds nothing changes.
    pub fn with_sized_names(mut self) -> Self {
        if !self.memory_mib.is_any() {
            let within = |size: u32| self.memory_mib.contains(u64::from(size));
            let sized = self.names.iter().flat_map(|name| gpu::sized(name, within));
            let mut known = HashSet::with_capacity(self.names.len());
            self.names = sized.filter(|name| known.insert(name.clone())).collect();
        }
        self
    }

    /// The bounds of the count, where none is less than one.
    pub(crate) fn at_least_one(&self) -> Bounds {
        Bounds {
            min: Some(self.count.min.unwrap_or(1).max(1)),
            max: self.count.max,
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
