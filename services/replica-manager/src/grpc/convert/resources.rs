//! What a replica needs of its machine, and where it may be.

use muster_model::constraints::{CapacityType, Constraints};
use muster_model::gpu::{self, Vendor};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::{Arch, Bounds, GpuRequest, Requirements};
use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1 as types;
use muster_runtime::status::Violations;

use super::{known, natural};
use crate::domain::spec::Placement;

pub(crate) fn parse_requirements(
    path: &str,
    needs: &types::Requirements,
    faults: &mut Violations,
) -> Requirements {
    let architecture = known(needs.architecture, &format!("{path}.architecture"), faults);
    let at = |field: &str| format!("{path}.{field}");
    Requirements {
        cpu_milli: natural(needs.cpu_milli, &at("cpu_milli"), faults),
        memory_mib: natural(needs.memory_mib, &at("memory_mib"), faults),
        disk_mib: natural(needs.disk_mib, &at("disk_mib"), faults),
        arch: match architecture {
            types::CpuArchitecture::Unspecified => None,
            types::CpuArchitecture::X8664 => Some(Arch::X86_64),
            types::CpuArchitecture::Arm64 => Some(Arch::Arm64),
        },
        gpu_any_of: needs
            .gpu_any_of
            .iter()
            .enumerate()
            .map(|(index, request)| {
                parse_gpu(&at(&format!("gpu_any_of[{index}]")), request, faults)
            })
            .collect(),
    }
}

fn parse_gpu(path: &str, request: &types::GpuRequest, faults: &mut Violations) -> GpuRequest {
    let at = |field: &str| format!("{path}.{field}");
    let vendor = known(request.vendor, &at("vendor"), faults);
    let share = natural(request.share_milli, &at("share_milli"), faults);
    if share >= 1000 {
        faults.add(at("share_milli"), format!("must be 0 to 999, not {share}"));
    }
    let capability = request.min_compute_capability.as_str();
    let capability = (!capability.is_empty()).then(|| capability.parse());
    let capability = capability.and_then(|c| faults.take(&at("min_compute_capability"), c));
    if request.names.iter().any(String::is_empty) {
        faults.add(at("names"), "must not hold an empty name");
    }
    GpuRequest {
        names: request
            .names
            .iter()
            .map(|name| gpu::canonical(name))
            .collect(),
        vendor: parse_vendor(vendor),
        count: parse_bounds(request.count, &at("count"), faults),
        memory_mib: parse_bounds(request.memory_mib, &at("memory_mib"), faults),
        total_memory_mib: parse_bounds(request.total_memory_mib, &at("total_memory_mib"), faults),
        share_milli: (share > 0).then_some(share),
        min_compute_capability: capability,
    }
}

fn parse_vendor(vendor: types::GpuVendor) -> Option<Vendor> {
    match vendor {
        types::GpuVendor::Unspecified => None,
        types::GpuVendor::Nvidia => Some(Vendor::Nvidia),
        types::GpuVendor::Amd => Some(Vendor::Amd),
        types::GpuVendor::Intel => Some(Vendor::Intel),
        types::GpuVendor::Google => Some(Vendor::Google),
        types::GpuVendor::Aws => Some(Vendor::Aws),
        types::GpuVendor::Tenstorrent => Some(Vendor::Tenstorrent),
        types::GpuVendor::Other => Some(Vendor::Other),
    }
}

fn parse_bounds(range: Option<types::Int32Range>, path: &str, faults: &mut Violations) -> Bounds {
    let range = range.unwrap_or_default();
    let min = range
        .min
        .map(|min| natural(min, &format!("{path}.min"), faults));
    let max = range
        .max
        .map(|max| natural(max, &format!("{path}.max"), faults));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        faults.add(path, format!("begins above its end: {min} to {max}"));
    }
    Bounds { min, max }
}

pub(crate) fn render_requirements(needs: &Requirements) -> types::Requirements {
    types::Requirements {
        gpu_any_of: needs.gpu_any_of.iter().map(render_gpu).collect(),
        cpu_milli: signed(needs.cpu_milli),
        memory_mib: signed(needs.memory_mib),
        disk_mib: signed(needs.disk_mib),
        architecture: match needs.arch {
            None => types::CpuArchitecture::Unspecified,
            Some(Arch::X86_64) => types::CpuArchitecture::X8664,
            Some(Arch::Arm64) => types::CpuArchitecture::Arm64,
        }
        .into(),
    }
}

fn render_gpu(request: &GpuRequest) -> types::GpuRequest {
    types::GpuRequest {
        names: request.names.iter().map(ToString::to_string).collect(),
        vendor: render_vendor(request.vendor).into(),
        count: render_bounds(request.count),
        memory_mib: render_bounds(request.memory_mib),
        total_memory_mib: render_bounds(request.total_memory_mib),
        share_milli: signed(request.share_milli.unwrap_or(0)),
        min_compute_capability: request
            .min_compute_capability
            .map_or_else(String::new, |capability| capability.to_string()),
    }
}

fn render_vendor(vendor: Option<Vendor>) -> types::GpuVendor {
    match vendor {
        None => types::GpuVendor::Unspecified,
        Some(Vendor::Nvidia) => types::GpuVendor::Nvidia,
        Some(Vendor::Amd) => types::GpuVendor::Amd,
        Some(Vendor::Intel) => types::GpuVendor::Intel,
        Some(Vendor::Google) => types::GpuVendor::Google,
        Some(Vendor::Aws) => types::GpuVendor::Aws,
        Some(Vendor::Tenstorrent) => types::GpuVendor::Tenstorrent,
        Some(Vendor::Other) => types::GpuVendor::Other,
    }
}

fn render_bounds(bounds: Bounds) -> Option<types::Int32Range> {
    (!bounds.is_any()).then(|| types::Int32Range {
        min: bounds.min.map(signed),
        max: bounds.max.map(signed),
    })
}

pub(crate) fn parse_placement(
    path: &str,
    placement: wire::Placement,
    faults: &mut Violations,
) -> Placement {
    let spread: wire::Spread = known(placement.spread, &format!("{path}.spread"), faults);
    let spot: wire::SpotPolicy = known(placement.spot, &format!("{path}.spot"), faults);
    let max_price = placement
        .max_price
        .map(|price| MicroUsd(price.micro_usd_per_hour));
    if max_price.is_some_and(|price| price < MicroUsd::ZERO) {
        faults.add(format!("{path}.max_price"), "must not be negative");
    }
    Placement {
        constraints: Constraints {
            backends: placement.backends,
            regions: placement.regions,
            zones: placement.zones,
            labels: placement.labels,
            capacity_type: match spot {
                wire::SpotPolicy::Unspecified | wire::SpotPolicy::Auto => None,
                wire::SpotPolicy::Spot => Some(CapacityType::Spot),
                wire::SpotPolicy::OnDemand => Some(CapacityType::OnDemand),
            },
            max_price,
        },
        packed: spread == wire::Spread::None,
    }
}

pub(crate) fn render_placement(placement: &Placement) -> wire::Placement {
    let constraints = &placement.constraints;
    wire::Placement {
        regions: constraints.regions.clone(),
        zones: constraints.zones.clone(),
        backends: constraints.backends.clone(),
        labels: constraints.labels.clone(),
        spread: match placement.packed {
            true => wire::Spread::None,
            false => wire::Spread::Worker,
        }
        .into(),
        spot: match constraints.capacity_type {
            None => wire::SpotPolicy::Auto,
            Some(CapacityType::Spot) => wire::SpotPolicy::Spot,
            Some(CapacityType::OnDemand) => wire::SpotPolicy::OnDemand,
        }
        .into(),
        max_price: constraints.max_price.map(render_price),
    }
}

/// The constraints as the registry takes them.
pub(crate) fn render_constraints(constraints: &Constraints) -> types::PlacementConstraints {
    types::PlacementConstraints {
        labels: constraints.labels.clone(),
        backends: constraints.backends.clone(),
        regions: constraints.regions.clone(),
        zones: constraints.zones.clone(),
        capacity_type: render_capacity_type(constraints.capacity_type).into(),
        max_price: constraints.max_price.map(render_price),
    }
}

pub(crate) fn render_capacity_type(capacity_type: Option<CapacityType>) -> types::CapacityType {
    match capacity_type {
        None => types::CapacityType::Unspecified,
        Some(CapacityType::Spot) => types::CapacityType::Spot,
        Some(CapacityType::OnDemand) => types::CapacityType::OnDemand,
    }
}

pub(crate) fn render_price(price: MicroUsd) -> types::Price {
    types::Price {
        micro_usd_per_hour: price.0,
    }
}

fn signed(value: u32) -> i32 {
    super::count(value)
}
