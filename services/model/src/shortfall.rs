//! Why a machine does not do: data, so that refusals can be grouped and tested, and words that a
//! user can act on. It decides nothing; it is asked for only after a match was refused.

use crate::constraints::CapacityType;
use crate::gpu::GpuGroup;
use crate::quantity::{MicroUsd, cpu, memory};
use crate::requirements::{Arch, Capacity, GpuRequest, Lack, Requirements, runs, suffices, take};
use std::fmt;

mod gpu;

/// One thing that a machine lacks for a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Shortfall {
    /// No group of accelerators meets one of the alternatives.
    Gpu(Box<GpuShortfall>),
    /// Processors, in thousandths.
    Cpu {
        /// What was asked for.
        needs: u32,
        /// What there is, if it is known.
        has: Option<u32>,
    },
    /// Main memory in MiB.
    Memory {
        /// What was asked for.
        needs: u32,
        /// What there is, if it is known.
        has: Option<u32>,
    },
    /// Disk in MiB.
    Disk {
        /// What was asked for.
        needs: u32,
        /// What there is, if it is known.
        has: Option<u32>,
    },
    /// The instruction set.
    Arch {
        /// What was asked for.
        needs: Arch,
        /// What there is, if it is known.
        has: Option<Arch>,
    },
    /// The backend.
    Backend {
        /// Those asked for.
        any_of: Vec<String>,
        /// The machine's.
        is: Option<String>,
    },
    /// The region.
    Region {
        /// Those asked for.
        any_of: Vec<String>,
        /// The machine's.
        is: Option<String>,
    },
    /// The zone.
    Zone {
        /// Those asked for.
        any_of: Vec<String>,
        /// The machine's.
        is: Option<String>,
    },
    /// A label.
    Label {
        /// Its key.
        key: String,
        /// The value asked for.
        needs: String,
        /// The machine's value.
        is: Option<String>,
    },
    /// On demand or spot.
    CapacityType {
        /// What was asked for.
        needs: CapacityType,
        /// The machine's, if it is known.
        is: Option<CapacityType>,
    },
    /// The price of an hour.
    Price {
        /// The most that was allowed.
        max: MicroUsd,
        /// The machine's, if it is known.
        is: Option<MicroUsd>,
    },
}

/// Why no group of a machine meets one alternative.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuShortfall {
    /// The place of the alternative in the requirements.
    pub alternative: usize,
    /// What was asked for.
    pub needs: GpuRequest,
    /// The first thing that the closest group lacks; none if the machine has no accelerators.
    pub lack: Option<Lack>,
    /// The closest group; where the name or the vendor is wrong, all groups.
    pub has: Vec<GpuGroup>,
}

/// Everything that a machine lacks. Empty only if it lacks nothing.
pub(crate) fn of(needs: &Requirements, has: &Capacity) -> Vec<Shortfall> {
    let mut short: Vec<Shortfall> = Vec::new();
    let gpu_fits = |request| {
        has.gpus
            .iter()
            .any(|group| take(request, group, has.divisible).is_ok())
    };
    if !needs.gpu_any_of.iter().any(gpu_fits) {
        let alternatives = needs.gpu_any_of.iter().enumerate();
        short.extend(
            alternatives.map(|(at, request)| Shortfall::Gpu(Box::new(of_gpu(at, request, has)))),
        );
    }
    if !suffices(needs.cpu_milli, has.cpu_milli) {
        short.push(Shortfall::Cpu {
            needs: needs.cpu_milli,
            has: has.cpu_milli,
        });
    }
    if !suffices(needs.memory_mib, has.memory_mib) {
        short.push(Shortfall::Memory {
            needs: needs.memory_mib,
            has: has.memory_mib,
        });
    }
    if !suffices(needs.disk_mib, has.disk_mib) {
        short.push(Shortfall::Disk {
            needs: needs.disk_mib,
            has: has.disk_mib,
        });
    }
    if let Some(arch) = needs.arch.filter(|_| !runs(needs.arch, has.arch)) {
        short.push(Shortfall::Arch {
            needs: arch,
            has: has.arch,
        });
    }
    short
}

fn of_gpu(alternative: usize, request: &GpuRequest, has: &Capacity) -> GpuShortfall {
    let lacks = has
        .gpus
        .iter()
        .filter_map(|group| Some((take(request, group, has.divisible).err()?, group)));
    let closest = lacks.max_by_key(|(lack, group)| (*lack, group.count));
    let has = match closest {
        Some((Lack::Name | Lack::Vendor, _)) => has.gpus.clone(),
        Some((_, group)) => vec![group.clone()],
        None => Vec::new(),
    };
    GpuShortfall {
        alternative,
        needs: request.clone(),
        lack: closest.map(|(lack, _)| lack),
        has,
    }
}

/// Several shortfalls in one sentence: alternatives of accelerators with "or", the rest with "and".
pub fn sentence(short: &[Shortfall]) -> String {
    let (gpus, others): (Vec<_>, Vec<_>) = short
        .iter()
        .partition(|one| matches!(one, Shortfall::Gpu(_)));
    let words = |all: &[&Shortfall]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut parts = words(&others);
    if !gpus.is_empty() {
        parts.insert(0, words(&gpus).join(", or "));
    }
    parts.join("; ")
}

impl Shortfall {
    /// A word for programs: GPU, CPU, MEMORY, DISK, ARCHITECTURE, BACKEND, REGION, ZONE, LABELS,
    /// CAPACITY_TYPE, PRICE.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Gpu(_) => "GPU",
            Self::Cpu { .. } => "CPU",
            Self::Memory { .. } => "MEMORY",
            Self::Disk { .. } => "DISK",
            Self::Arch { .. } => "ARCHITECTURE",
            Self::Backend { .. } => "BACKEND",
            Self::Region { .. } => "REGION",
            Self::Zone { .. } => "ZONE",
            Self::Label { .. } => "LABELS",
            Self::CapacityType { .. } => "CAPACITY_TYPE",
            Self::Price { .. } => "PRICE",
        }
    }

    /// What is short, in lower case: `gpu`, `cpu`, `memory`, `label`, ...
    pub fn resource(&self) -> &'static str {
        match self {
            Self::Gpu(_) => "gpu",
            Self::Cpu { .. } => "cpu",
            Self::Memory { .. } => "memory",
            Self::Disk { .. } => "disk",
            Self::Arch { .. } => "architecture",
            Self::Backend { .. } => "backend",
            Self::Region { .. } => "region",
            Self::Zone { .. } => "zone",
            Self::Label { .. } => "label",
            Self::CapacityType { .. } => "capacity_type",
            Self::Price { .. } => "price",
        }
    }

    /// What was asked for: `2 GPUs of H100`, `64GB of memory`.
    pub fn requested(&self) -> String {
        match self {
            Self::Gpu(gpu) => gpu.requested(),
            Self::Cpu { needs, .. } => format!("{} processors", cpu::print(*needs)),
            Self::Memory { needs, .. } => format!("{} of memory", memory::print(*needs)),
            Self::Disk { needs, .. } => format!("{} of disk", memory::print(*needs)),
            Self::Arch { needs, .. } => format!("{needs} processors"),
            Self::Backend { any_of, .. } => format!("backend {}", any_of.join(" or ")),
            Self::Region { any_of, .. } => format!("region {}", any_of.join(" or ")),
            Self::Zone { any_of, .. } => format!("zone {}", any_of.join(" or ")),
            Self::Label { key, needs, .. } => format!("label {key}={needs}"),
            Self::CapacityType { needs, .. } => format!("{needs} capacity"),
            Self::Price { max, .. } => format!("a price of at most ${max} an hour"),
        }
    }

    /// What there is: `1`, `8 of A100`, `us-east-1`; `unknown` if that is not known.
    pub fn available(&self) -> String {
        self.known().unwrap_or_else(|| "unknown".to_owned())
    }

    fn known(&self) -> Option<String> {
        match self {
            Self::Gpu(gpu) => Some(gpu.available()),
            Self::Cpu { has, .. } => has.map(cpu::print),
            Self::Memory { has, .. } | Self::Disk { has, .. } => has.map(memory::print),
            Self::Arch { has, .. } => has.map(|arch| arch.to_string()),
            Self::Backend { is, .. } | Self::Region { is, .. } | Self::Zone { is, .. } => {
                is.clone()
            }
            Self::Label {
                key, is: Some(is), ..
            } => Some(format!("{key}={is}")),
            Self::Label { .. } => Some("none of that key".to_owned()),
            Self::CapacityType { is, .. } => is.map(|is| is.to_string()),
            Self::Price { is, .. } => is.map(|price| format!("${price}")),
        }
    }
}

/// `needs 2 GPUs of H100, has 1`; `needs spot capacity, but its capacity type is not known`.
impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Gpu(_) | Self::Cpu { .. } | Self::Memory { .. } | Self::Disk { .. } => "has",
            Self::Arch { .. } | Self::Label { .. } => "has",
            Self::Backend { .. } | Self::Region { .. } | Self::Zone { .. } => "is",
            Self::CapacityType { .. } => "is",
            Self::Price { .. } => "costs",
        };
        let (requested, of_what) = (self.requested(), self.resource().replace('_', " "));
        match self.known() {
            Some(known) => write!(f, "needs {requested}, {verb} {known}"),
            None => write!(f, "needs {requested}, but its {of_what} is not known"),
        }
    }
}

#[cfg(test)]
mod tests;
