//! What callers ask for, checked. Every fault is noted with its field; nothing is guessed.

use muster_model::constraints::CapacityType;
use muster_model::gpu::{self, Vendor};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::{
    Arch, Bounds, GpuRequest, MAX_ALTERNATIVES, MAX_NAMES, Requirements,
};
use muster_proto::offers::v1 as pb;
use muster_proto::types::v1 as types;
use muster_runtime::status::Violations;

use crate::domain::group::By;
use crate::domain::offer::Availability;
use crate::domain::outcome::Outcome;
use crate::domain::query::{Direction, Filter, Key, Order};

/// Names, regions and the like in one filter at most.
const MAX_VALUES: usize = 1000;

/// What to look for. `known` tells which backends there are.
pub fn parse_filter(
    filter: Option<pb::OfferFilter>,
    known: impl Fn(&str) -> bool,
    violations: &mut Violations,
) -> Filter {
    let Some(filter) = filter else {
        return Filter::default();
    };
    for (at, backend) in filter
        .backends
        .iter()
        .enumerate()
        .filter(|(_, backend)| !known(backend))
    {
        violations.add(
            format!("filter.backends[{at}]"),
            format!("names no backend that is configured: {backend:?}"),
        );
    }
    let lists = [
        ("filter.backends", &filter.backends),
        ("filter.regions", &filter.regions),
        ("filter.zones", &filter.zones),
        ("filter.instance_types", &filter.instance_types),
    ];
    for (field, _) in lists.iter().filter(|(_, values)| values.len() > MAX_VALUES) {
        violations.add(*field, format!("has more than {MAX_VALUES} values"));
    }
    let price = |field: &str, price: Option<types::Price>, violations: &mut Violations| {
        let price = price?.micro_usd_per_hour;
        violations.take(
            field,
            (price >= 0)
                .then_some(MicroUsd(price))
                .ok_or("must not be negative"),
        )
    };
    let min_price = price("filter.min_price", filter.min_price, violations);
    let max_price = price("filter.max_price", filter.max_price, violations);
    if min_price.zip(max_price).is_some_and(|(min, max)| min > max) {
        violations.add("filter.min_price", "is above max_price");
    }
    Filter {
        requirements: parse_requirements(filter.requirements, violations),
        capacity_type: parse_capacity_type(
            "filter.capacity_type",
            filter.capacity_type,
            violations,
        ),
        min_price,
        max_price,
        availabilities: parse_availabilities(&filter.availabilities, violations),
        backends: filter.backends,
        regions: filter.regions,
        zones: filter.zones,
        instance_types: filter.instance_types,
    }
}

fn parse_requirements(
    needs: Option<types::Requirements>,
    violations: &mut Violations,
) -> Requirements {
    let Some(needs) = needs else {
        return Requirements::default();
    };
    let path = |field: &str| format!("filter.requirements.{field}");
    let arch = match types::CpuArchitecture::try_from(needs.architecture) {
        Ok(types::CpuArchitecture::Unspecified) => None,
        Ok(types::CpuArchitecture::X8664) => Some(Arch::X86_64),
        Ok(types::CpuArchitecture::Arm64) => Some(Arch::Arm64),
        Err(_) => unknown_value(path("architecture"), needs.architecture, violations),
    };
    if needs.gpu_any_of.len() > MAX_ALTERNATIVES {
        let message = format!("has more than {MAX_ALTERNATIVES} alternatives");
        violations.add(path("gpu_any_of"), message);
    }
    let requests = needs.gpu_any_of.iter().take(MAX_ALTERNATIVES).enumerate();
    let gpu_any_of = requests
        .map(|(at, request)| parse_gpu(&path(&format!("gpu_any_of[{at}]")), request, violations));
    Requirements {
        gpu_any_of: gpu_any_of.collect(),
        cpu_milli: amount(&path("cpu_milli"), needs.cpu_milli, violations),
        memory_mib: amount(&path("memory_mib"), needs.memory_mib, violations),
        disk_mib: amount(&path("disk_mib"), needs.disk_mib, violations),
        arch,
    }
}

fn parse_gpu(path: &str, request: &types::GpuRequest, violations: &mut Violations) -> GpuRequest {
    let field = |name: &str| format!("{path}.{name}");
    if request.names.iter().any(|name| name.trim().is_empty()) {
        violations.add(field("names"), "must not hold an empty name");
    }
    if request.names.len() > MAX_NAMES {
        violations.add(field("names"), format!("has more than {MAX_NAMES} names"));
    }
    let capability = (!request.min_compute_capability.is_empty())
        .then(|| request.min_compute_capability.parse());
    let share = match request.share_milli {
        0 => None,
        share @ 1..=999 => u32::try_from(share).ok(),
        _ => {
            violations.add(
                field("share_milli"),
                "must be from 1 to 999, or 0 for whole ones",
            );
            None
        }
    };
    let parsed = GpuRequest {
        names: request
            .names
            .iter()
            .take(MAX_NAMES)
            .map(|name| gpu::canonical(name))
            .collect(),
        vendor: parse_vendor(field("vendor"), request.vendor, violations),
        count: range(field("count"), request.count, violations),
        memory_mib: range(field("memory_mib"), request.memory_mib, violations),
        total_memory_mib: range(
            field("total_memory_mib"),
            request.total_memory_mib,
            violations,
        ),
        share_milli: share,
        min_compute_capability: capability
            .and_then(|parsed| violations.take(&field("min_compute_capability"), parsed)),
    };
    parsed.with_sized_names()
}

fn parse_vendor(field: String, vendor: i32, violations: &mut Violations) -> Option<Vendor> {
    match types::GpuVendor::try_from(vendor) {
        Ok(types::GpuVendor::Unspecified) => None,
        Ok(types::GpuVendor::Nvidia) => Some(Vendor::Nvidia),
        Ok(types::GpuVendor::Amd) => Some(Vendor::Amd),
        Ok(types::GpuVendor::Intel) => Some(Vendor::Intel),
        Ok(types::GpuVendor::Google) => Some(Vendor::Google),
        Ok(types::GpuVendor::Aws) => Some(Vendor::Aws),
        Ok(types::GpuVendor::Tenstorrent) => Some(Vendor::Tenstorrent),
        Ok(types::GpuVendor::Other) => Some(Vendor::Other),
        Err(_) => unknown_value(field, vendor, violations),
    }
}

fn parse_capacity_type(
    field: &str,
    capacity_type: i32,
    violations: &mut Violations,
) -> Option<CapacityType> {
    match types::CapacityType::try_from(capacity_type) {
        Ok(types::CapacityType::Unspecified) => None,
        Ok(types::CapacityType::OnDemand) => Some(CapacityType::OnDemand),
        Ok(types::CapacityType::Spot) => Some(CapacityType::Spot),
        Err(_) => unknown_value(field, capacity_type, violations),
    }
}

/// Any of these; one that is unspecified means any at all.
fn parse_availabilities(availabilities: &[i32], violations: &mut Violations) -> Vec<Availability> {
    let mut parsed = Vec::with_capacity(availabilities.len());
    let mut any = false;
    for (at, availability) in availabilities.iter().enumerate() {
        parsed.push(match types::Availability::try_from(*availability) {
            Ok(types::Availability::Unspecified) => {
                any = true;
                continue;
            }
            Ok(types::Availability::Unknown) => Availability::Unknown,
            Ok(types::Availability::Available) => Availability::Available,
            Ok(types::Availability::NoCapacity) => Availability::NoCapacity,
            Ok(types::Availability::NoQuota) => Availability::NoQuota,
            Ok(types::Availability::NoBalance) => Availability::NoBalance,
            Ok(types::Availability::Idle) => Availability::Idle,
            Err(_) => {
                let _: Option<()> = unknown_value(
                    format!("filter.availabilities[{at}]"),
                    *availability,
                    violations,
                );
                continue;
            }
        });
    }
    if any { Vec::new() } else { parsed }
}

/// The order of an answer.
pub fn parse_order(order: Option<pb::OfferOrder>, violations: &mut Violations) -> Order {
    let Some(order) = order else {
        return Order::default();
    };
    let key = match pb::OfferOrderKey::try_from(order.key) {
        Ok(pb::OfferOrderKey::Unspecified | pb::OfferOrderKey::Price) => Key::Price,
        Ok(pb::OfferOrderKey::PricePerGpu) => Key::PricePerGpu,
        Ok(pb::OfferOrderKey::PricePerGpuGib) => Key::PricePerGpuGib,
        Ok(pb::OfferOrderKey::Memory) => Key::Memory,
        Ok(pb::OfferOrderKey::Age) => Key::Age,
        Err(_) => unknown_value("order.key", order.key, violations).unwrap_or_default(),
    };
    let direction = if order.descending {
        Direction::Descending
    } else {
        Direction::Ascending
    };
    Order { key, direction }
}

/// What an answer is grouped by; none if it is not.
pub fn parse_group_by(group_by: i32, violations: &mut Violations) -> Option<By> {
    match pb::OfferGroupBy::try_from(group_by) {
        Ok(pb::OfferGroupBy::Unspecified) => None,
        Ok(pb::OfferGroupBy::Gpu) => Some(By::Gpu),
        Ok(pb::OfferGroupBy::Backend) => Some(By::Backend),
        Ok(pb::OfferGroupBy::Region) => Some(By::Region),
        Err(_) => unknown_value("group_by", group_by, violations),
    }
}

/// What came of an offer; a price is told with PRICE_CHANGED and with nothing else.
pub fn parse_outcome(
    outcome: i32,
    price: Option<types::Price>,
    violations: &mut Violations,
) -> Option<Outcome> {
    let price = price.map(|price| MicroUsd(price.micro_usd_per_hour));
    if price.is_some_and(|price| price < MicroUsd::ZERO) {
        violations.add("price", "must not be negative");
    }
    let parsed = match pb::OfferOutcome::try_from(outcome) {
        Ok(pb::OfferOutcome::Unspecified) => {
            violations.add("outcome", "is required");
            None
        }
        Ok(pb::OfferOutcome::NoCapacity) => Some(Outcome::NoCapacity),
        Ok(pb::OfferOutcome::NoQuota) => Some(Outcome::NoQuota),
        Ok(pb::OfferOutcome::PriceChanged) => Some(Outcome::PriceChanged(price)),
        Ok(pb::OfferOutcome::Launched) => Some(Outcome::Launched),
        Err(_) => unknown_value("outcome", outcome, violations),
    };
    if price.is_some() && parsed.is_some_and(|outcome| !matches!(outcome, Outcome::PriceChanged(_)))
    {
        violations.add("price", "is only told with PRICE_CHANGED");
    }
    parsed
}

fn range(field: String, range: Option<types::Int32Range>, violations: &mut Violations) -> Bounds {
    let Some(range) = range else {
        return Bounds::ANY;
    };
    let bound = |name: &str, bound: Option<i32>, violations: &mut Violations| {
        let parsed = u32::try_from(bound?).map_err(|_| "must not be negative");
        violations.take(&format!("{field}.{name}"), parsed)
    };
    let bounds = Bounds {
        min: bound("min", range.min, violations),
        max: bound("max", range.max, violations),
    };
    if bounds
        .min
        .zip(bounds.max)
        .is_some_and(|(min, max)| min > max)
    {
        violations.add(field, "has a min above its max");
    }
    bounds
}

fn amount(field: &str, amount: i32, violations: &mut Violations) -> u32 {
    violations
        .take(
            field,
            u32::try_from(amount).map_err(|_| "must not be negative"),
        )
        .unwrap_or_default()
}

fn unknown_value<T>(
    field: impl Into<String>,
    value: i32,
    violations: &mut Violations,
) -> Option<T> {
    violations.add(field, format!("has no value {value}"));
    None
}
