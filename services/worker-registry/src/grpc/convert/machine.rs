//! What a machine has.

use muster_model::gpu::{self, ComputeCapability};
use muster_model::quantity::MicroUsd;
use muster_proto::types::v1 as types;
use muster_runtime::status::Violations;

use super::enums::{known, parse_arch, parse_vendor, render_arch, render_vendor};
use super::{check_text, parse_count, render_count};
use crate::domain::gpus::{Gpu, GpuKind, MAX_UUID};
use crate::domain::machine::Machine;
use crate::domain::text::common;

/// The most accelerators of one machine.
const MAX_GPUS: usize = 256;

/// The longest name of a kind of accelerator, in characters.
const MAX_KIND: usize = 128;

/// Refuses accelerators whose names are too long, which only callers are held to: records were taken before.
pub(crate) fn check_names(
    field: &str,
    capacity: Option<&types::MachineCapacity>,
    violations: &mut Violations,
) {
    let gpus = capacity.iter().flat_map(|capacity| &capacity.gpus);
    for (place, gpu) in gpus.enumerate().take(MAX_GPUS) {
        for (name, text) in [("name", &gpu.name), ("product_name", &gpu.product_name)] {
            if text.len() > MAX_KIND {
                let field = format!("{field}.gpus[{place}].{name}");
                check_text(&field, text, MAX_KIND, violations);
            }
        }
    }
}

/// Takes the parts of a machine that `capacity` tells.
pub(crate) fn parse_machine(
    field: &str,
    capacity: types::MachineCapacity,
    machine: &mut Machine,
    violations: &mut Violations,
) {
    let path = |name: &str| format!("{field}.{name}");
    machine.cpu_milli = parse_count(&path("cpu_milli"), capacity.cpu_milli, violations);
    machine.memory_mib = parse_count(&path("memory_mib"), capacity.memory_mib, violations);
    machine.disk_mib = parse_count(&path("disk_mib"), capacity.disk_mib, violations);
    machine.arch = parse_arch(known(
        &path("architecture"),
        capacity.architecture,
        violations,
    ));
    if capacity.gpus.len() > MAX_GPUS {
        violations.add(path("gpus"), format!("must be at most {MAX_GPUS}"));
        return;
    }
    let mut kinds: Vec<(Option<types::Gpu>, GpuKind)> = Vec::new();
    // Each with the place of its kind.
    let mut gpus = Vec::with_capacity(capacity.gpus.len());
    for (place, mut gpu) in capacity.gpus.into_iter().enumerate() {
        let at = |name: &str| format!("{field}.gpus[{place}].{name}");
        let uuid = std::mem::take(&mut gpu.uuid);
        if uuid.is_empty() || uuid.len() > MAX_UUID {
            violations.add(at("uuid"), format!("must be 1 to {MAX_UUID} characters"));
        }
        // Equal accelerators are read once; what is wrong is told of each.
        let same = kinds
            .iter()
            .position(|(other, _)| other.as_ref() == Some(&gpu));
        gpus.push((uuid, same.unwrap_or(kinds.len())));
        if same.is_none() {
            let mut wrong = Violations::new();
            let kind = parse_kind(&gpu, at, &mut wrong);
            kinds.push((wrong.is_empty().then_some(gpu), kind));
            violations.extend(wrong);
        }
    }
    refuse_repeated(field, &gpus, violations);
    let gpus = gpus.iter().map(|(uuid, kind)| (uuid, &kinds[*kind].1));
    machine.gpus = gpus.collect();
}

/// Refuses accelerators that have the uuid of one before them.
fn refuse_repeated(field: &str, gpus: &[(String, usize)], violations: &mut Violations) {
    let mut uuids: Vec<_> = gpus.iter().map(|(uuid, _)| uuid).zip(0..).collect();
    uuids.sort_unstable();
    for pair in uuids.windows(2) {
        if let [(one, _), (other, place)] = pair
            && one == other
        {
            violations.add(
                format!("{field}.gpus[{place}].uuid"),
                "is the uuid of another accelerator of this machine",
            );
        }
    }
}

/// What accelerators like this one are.
pub(crate) fn parse_kind(
    gpu: &types::Gpu,
    at: impl Fn(&str) -> String,
    violations: &mut Violations,
) -> GpuKind {
    if gpu.name.trim().is_empty() {
        violations.add(at("name"), "must be set");
    }
    if !gpu.compute_capability.is_empty() {
        let capability = gpu.compute_capability.parse::<ComputeCapability>();
        violations.take(&at("compute_capability"), capability);
    }
    let read = parse_count(&at("memory_mib"), gpu.memory_mib, violations);
    let vendor = parse_vendor(known(&at("vendor"), gpu.vendor, violations));
    let (name, memory) = gpu::identify(&gpu.name, Some(read));
    GpuKind {
        vendor: vendor.or_else(|| name.vendor()),
        name,
        memory_mib: memory.unwrap_or(0),
        product_name: common(&gpu.product_name),
        compute_capability: common(&gpu.compute_capability),
        simulated: gpu.simulated,
    }
}

/// What a machine has, as the contract tells it.
pub(crate) fn render_capacity(machine: &Machine) -> types::MachineCapacity {
    types::MachineCapacity {
        gpus: machine.gpus.iter().map(render_gpu).collect(),
        cpu_milli: render_count(machine.cpu_milli),
        memory_mib: render_count(machine.memory_mib),
        disk_mib: render_count(machine.disk_mib),
        architecture: render_arch(machine.arch).into(),
    }
}

fn render_gpu(gpu: Gpu<'_>) -> types::Gpu {
    types::Gpu {
        uuid: gpu.uuid.to_string(),
        name: gpu.kind.name.as_str().to_owned(),
        vendor: render_vendor(gpu.kind.vendor).into(),
        memory_mib: render_count(gpu.kind.memory_mib),
        product_name: gpu.kind.product_name.to_string(),
        compute_capability: gpu.kind.compute_capability.to_string(),
        simulated: gpu.kind.simulated,
    }
}

/// A price; none if it is not known.
pub(crate) fn parse_price(
    field: &str,
    price: Option<types::Price>,
    violations: &mut Violations,
) -> Option<MicroUsd> {
    let price = price?;
    if price.micro_usd_per_hour < 0 {
        violations.add(field, "must not be negative");
    }
    Some(MicroUsd(price.micro_usd_per_hour))
}

/// A price, which may not be known.
pub(crate) fn render_price(price: Option<MicroUsd>) -> Option<types::Price> {
    price.map(|MicroUsd(micro_usd_per_hour)| types::Price { micro_usd_per_hour })
}
