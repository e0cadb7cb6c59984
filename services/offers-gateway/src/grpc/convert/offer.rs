//! Offers in the wire's words.

use muster_model::constraints::CapacityType;
use muster_model::gpu::{GpuGroup, Vendor};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;
use muster_proto::offers::v1 as pb;
use muster_proto::types::v1 as types;

use super::render_time;
use crate::domain::group::Group;
use crate::domain::market::Shelf;
use crate::domain::offer::{Availability, Machine, Source};
use crate::domain::snapshot::RowNumber;
use crate::grpc::wire::RawFields;

/// An offer as it is shown.
pub fn render_offer(shelf: &Shelf, number: RowNumber, raw: RawFields) -> pb::Offer {
    let snapshot = &shelf.snapshot;
    let row = snapshot.row(number);
    let shown = shelf.shown(number, row);
    let id = snapshot.id_of(row);
    let fields = match raw {
        RawFields::Omit => Vec::new(),
        RawFields::Include => snapshot.raw_of(row),
    };
    let mut offer = pb::Offer {
        id: id.render(),
        backend: id.backend.into_owned(),
        region: id.region.into_owned(),
        zone: id.zone.into_owned(),
        instance_type: id.instance_type.into_owned(),
        capacity_type: render_capacity_type(row.capacity_type),
        price: shown.price.map(render_price),
        availability: render_availability(shown.availability),
        availability_source: render_source(shown.source),
        observe_time: Some(render_time(shelf.observed)),
        raw: fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        ..pb::Offer::default()
    };
    render_machine(snapshot.machine(row), &mut offer);
    offer
}

/// Fills in what a machine has.
pub fn render_machine(machine: &Machine, offer: &mut pb::Offer) {
    offer.gpus = machine.gpus.iter().map(render_gpus).collect();
    offer.cpu_milli = machine.cpu_milli.map(int32);
    offer.memory_mib = machine.memory_mib.map(int32);
    offer.disk_mib = machine.disk_mib.map(int32);
    offer.architecture = match machine.arch {
        None => types::CpuArchitecture::Unspecified,
        Some(Arch::X86_64) => types::CpuArchitecture::X8664,
        Some(Arch::Arm64) => types::CpuArchitecture::Arm64,
    }
    .into();
}

fn render_gpus(group: &GpuGroup) -> types::GpuGroup {
    types::GpuGroup {
        name: group.name.as_str().to_owned(),
        vendor: group
            .vendor
            .map_or(types::GpuVendor::Unspecified, render_vendor)
            .into(),
        count: int32(group.count),
        share_milli: int32(group.share_milli),
        memory_mib: group.memory_mib.map_or(0, int32),
    }
}

fn render_vendor(vendor: Vendor) -> types::GpuVendor {
    match vendor {
        Vendor::Nvidia => types::GpuVendor::Nvidia,
        Vendor::Amd => types::GpuVendor::Amd,
        Vendor::Intel => types::GpuVendor::Intel,
        Vendor::Google => types::GpuVendor::Google,
        Vendor::Aws => types::GpuVendor::Aws,
        Vendor::Tenstorrent => types::GpuVendor::Tenstorrent,
        Vendor::Other => types::GpuVendor::Other,
    }
}

/// On demand or spot.
pub fn render_capacity_type(capacity_type: CapacityType) -> i32 {
    match capacity_type {
        CapacityType::OnDemand => types::CapacityType::OnDemand,
        CapacityType::Spot => types::CapacityType::Spot,
    }
    .into()
}

/// A price.
pub fn render_price(price: MicroUsd) -> types::Price {
    types::Price {
        micro_usd_per_hour: price.0,
    }
}

/// Whether an offer can be had.
pub fn render_availability(availability: Availability) -> i32 {
    match availability {
        Availability::Unknown => types::Availability::Unknown,
        Availability::Available => types::Availability::Available,
        Availability::NoCapacity => types::Availability::NoCapacity,
        Availability::NoQuota => types::Availability::NoQuota,
        Availability::NoBalance => types::Availability::NoBalance,
        Availability::Idle => types::Availability::Idle,
    }
    .into()
}

/// Who says so.
pub fn render_source(source: Source) -> i32 {
    match source {
        Source::Catalog => pb::AvailabilitySource::Catalog,
        Source::Provider => pb::AvailabilitySource::Provider,
        Source::Report => pb::AvailabilitySource::Report,
        Source::Fleet => pb::AvailabilitySource::Fleet,
    }
    .into()
}

/// Offers that have something in common.
pub fn render_group(key: String, group: Group) -> pb::OfferGroup {
    pb::OfferGroup {
        key,
        offers: int32(group.offers),
        min_price: group.min_price.map(render_price),
        min_price_per_gpu: group.min_price_per_gpu.map(render_price),
        max_price: group.max_price.map(render_price),
        backends: group.backends.into_iter().collect(),
        regions: int32(group.regions),
    }
}

/// A count on the wire; one beyond what it can hold is its most.
pub(super) fn int32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
