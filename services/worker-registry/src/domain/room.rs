//! What is free on a worker, given what is allocated on it.
//!
//! It decides what counts as given away. An allocation and the one that takes over its room share it: the
//! machine holds both until the agent has named the old one ended, so their accelerators and ports count
//! once each, and of their amounts the larger.

use std::sync::Arc;

use muster_model::requirements::Capacity;

use super::allocation::{Allocation, Amounts};
use super::gpus::GpuKind;
use super::machine::Machine;
use super::text::Text;

/// What is given away on a worker, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocations that hold room, or hold it together with one that replaces them.
    pub allocations: u32,
    /// Accelerators.
    pub gpus: u32,
    /// Everything else.
    pub amounts: Amounts,
}

/// What is free on a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// As requirements are matched with: each kind of accelerator is a group.
    pub capacity: Capacity,
    /// The free accelerators of each group, as places in the machine's list.
    pub free_gpus: Vec<Vec<usize>>,
    /// Accelerators of any kind that are free.
    pub gpus: u32,
    /// Host ports in use, sorted.
    pub busy_ports: Vec<u16>,
}

/// What is given away by `allocations`, all those of a worker.
pub fn usage(machine: &Machine, revoked_through: u64, allocations: &[Arc<Allocation>]) -> Usage {
    let counted = || counted(revoked_through, allocations);
    let gpus = machine
        .gpus
        .iter()
        .filter(|gpu| is_busy(gpu.uuid, counted()))
        .count();
    Usage {
        allocations: number(counted().count()),
        gpus: number(gpus),
        amounts: amounts(revoked_through, allocations, None),
    }
}

/// What is free beside `allocations`, all those of a worker; `without` is the one whose room is taken
/// over, which counts as free.
pub fn free(
    machine: &Machine,
    revoked_through: u64,
    allocations: &[Arc<Allocation>],
    without: Option<&Text>,
) -> Room {
    let counted = || {
        counted(revoked_through, allocations)
            .filter(move |one| without.is_none_or(|id| one.id != *id))
    };
    let mut groups: Vec<(&GpuKind, Vec<usize>)> = Vec::new();
    for (place, gpu) in machine.gpus.iter().enumerate() {
        let at = groups.iter().position(|(kind, _)| is_same(kind, gpu.kind));
        let at = at.unwrap_or_else(|| {
            groups.push((gpu.kind, Vec::new()));
            groups.len() - 1
        });
        if !is_busy(gpu.uuid, counted()) {
            groups[at].1.push(place);
        }
    }
    let given = amounts(revoked_through, allocations, without);
    let mut busy_ports: Vec<u16> = counted()
        .flat_map(|one| one.host_ports.iter().copied())
        .collect();
    busy_ports.sort_unstable();
    Room {
        capacity: Capacity {
            gpus: groups
                .iter()
                .map(|(kind, free)| kind.group(number(free.len())))
                .collect(),
            divisible: true,
            cpu_milli: Some(machine.cpu_milli.saturating_sub(given.cpu_milli)),
            memory_mib: Some(machine.memory_mib.saturating_sub(given.memory_mib)),
            disk_mib: Some(machine.disk_mib.saturating_sub(given.disk_mib)),
            arch: machine.arch,
        },
        gpus: number(groups.iter().map(|(_, free)| free.len()).sum()),
        free_gpus: groups.into_iter().map(|(_, free)| free).collect(),
        busy_ports,
    }
}

/// Those that hold room: force-disabling has taken the others'.
fn counted(
    revoked_through: u64,
    allocations: &[Arc<Allocation>],
) -> impl Iterator<Item = &Arc<Allocation>> {
    allocations
        .iter()
        .filter(move |one| !one.is_revoked_through(revoked_through))
}

/// The amounts given: of each chain of replacements the largest of each kind.
fn amounts(
    revoked_through: u64,
    allocations: &[Arc<Allocation>],
    without: Option<&Text>,
) -> Amounts {
    let is_replaced = |id: &Text| {
        counted(revoked_through, allocations).any(|other| other.replaces.as_ref() == Some(id))
    };
    let heads = counted(revoked_through, allocations).filter(|one| !is_replaced(&one.id));
    heads.fold(Amounts::default(), |sum, head| {
        let mut largest = Amounts::default();
        let mut link = Some(head);
        // A chain is never longer than the list, so this ends even if records made a circle.
        for _ in 0..allocations.len() {
            let Some(one) = link else { break };
            if without.is_none_or(|id| one.id != *id) {
                largest = largest.max(one.amounts);
            }
            let before = one.replaces.as_ref();
            link = before
                .and_then(|id| counted(revoked_through, allocations).find(|one| one.id == *id));
        }
        sum.plus(largest)
    })
}

fn is_busy<'a>(uuid: &str, mut by: impl Iterator<Item = &'a Arc<Allocation>>) -> bool {
    by.any(|one| one.has_gpu(uuid))
}

/// Whether two kinds can be given in one allocation: the driver's product name does not matter.
fn is_same(one: &GpuKind, other: &GpuKind) -> bool {
    std::ptr::eq(one, other)
        || (one.name == other.name
            && one.vendor == other.vendor
            && one.memory_mib == other.memory_mib)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
