//! Offers as backends in other languages send them. Whatever makes no sense is a reason to skip the
//! offer, never to guess.

use muster_model::constraints::CapacityType;
use muster_model::gpu::{GpuGroup, WHOLE};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;
use muster_proto::backend::v1 as pb;
use muster_proto::types::v1 as types;

use crate::domain::builder::check_name;
use crate::domain::offer::{Availability, Draft, Machine};

/// Why an offer cannot be used.
pub(super) type Reason = &'static str;

/// Kinds of accelerators of one machine at most.
const MAX_GROUPS: usize = 16;

/// Accelerators of one machine at most.
const MAX_GPUS: i32 = 4096;

/// Fields of the provider at most, and the longest name of one in bytes.
const MAX_RAW: usize = 64;
const MAX_RAW_NAME: usize = 128;

/// The highest price: a million dollars an hour.
const MAX_PRICE: i64 = 1_000_000_000_000;

/// An offer that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendOffer {
    machine: Machine,
    capacity_type: CapacityType,
    price: Option<MicroUsd>,
    availability: Availability,
}

impl BackendOffer {
    /// The offer with the names in which it was sent.
    pub fn draft<'a>(&'a self, sent: &'a pb::BackendOffer) -> Draft<'a> {
        Draft {
            region: &sent.region,
            zone: &sent.zone,
            instance_type: &sent.instance_type,
            capacity_type: self.capacity_type,
            machine: &self.machine,
            price: self.price,
            availability: self.availability,
        }
    }
}

/// An offer of a backend, or why it cannot be used.
pub fn parse_backend_offer(offer: &pb::BackendOffer) -> Result<BackendOffer, Reason> {
    if offer.instance_type.trim().is_empty() {
        return Err("no instance_type");
    }
    for name in [&offer.region, &offer.zone, &offer.instance_type] {
        check_name(name)?;
    }
    if offer.raw.len() > MAX_RAW || offer.raw.keys().any(|key| key.len() > MAX_RAW_NAME) {
        return Err("too many raw fields, or one with too long a name");
    }
    if offer.gpus.len() > MAX_GROUPS {
        return Err("too many kinds of gpus");
    }
    let gpus = offer.gpus.iter().map(parse_gpus);
    let machine = Machine {
        gpus: gpus.collect::<Result<_, _>>()?,
        cpu_milli: amount(offer.cpu_milli, "a negative cpu_milli")?,
        memory_mib: amount(offer.memory_mib, "a negative memory_mib")?,
        disk_mib: amount(offer.disk_mib, "a negative disk_mib")?,
        arch: parse_arch(offer.architecture)?,
    };
    Ok(BackendOffer {
        machine,
        capacity_type: parse_capacity_type(offer.capacity_type)?,
        price: offer.price.map(parse_price).transpose()?,
        availability: parse_availability(offer.availability)?,
    })
}

fn parse_gpus(group: &types::GpuGroup) -> Result<GpuGroup, Reason> {
    if group.name.trim().is_empty() {
        return Err("gpus without a name");
    }
    check_name(&group.name)?;
    if types::GpuVendor::try_from(group.vendor).is_err() {
        return Err("an unknown vendor of gpus");
    }
    if !(1..=MAX_GPUS).contains(&group.count) {
        return Err("a count of gpus that is not from 1 to 4096");
    }
    let share = match group.share_milli {
        0 => WHOLE,
        share @ 1..=1000 => share.unsigned_abs(),
        _ => return Err("a share_milli that is not from 0 to 1000"),
    };
    let memory = amount(Some(group.memory_mib), "a negative memory_mib of gpus")?;
    // It is that of the share, where names are told apart by that of a whole one.
    let whole = memory
        .filter(|mib| *mib > 0)
        .map(|mib| u64::from(mib) * u64::from(WHOLE) / u64::from(share));
    let whole = whole.map(|mib| u32::try_from(mib).unwrap_or(u32::MAX));
    let count = group.count.unsigned_abs();
    Ok(GpuGroup::observed(&group.name, count, whole, share))
}

fn amount(amount: Option<i32>, negative: Reason) -> Result<Option<u32>, Reason> {
    let amount = amount.map(u32::try_from).transpose();
    amount.map_err(|_| negative)
}

fn parse_price(price: types::Price) -> Result<MicroUsd, Reason> {
    let price = price.micro_usd_per_hour;
    if (0..=MAX_PRICE).contains(&price) {
        Ok(MicroUsd(price))
    } else {
        Err("a price that is negative, or above a million dollars an hour")
    }
}

fn parse_arch(arch: i32) -> Result<Option<Arch>, Reason> {
    match types::CpuArchitecture::try_from(arch) {
        Ok(types::CpuArchitecture::Unspecified) => Ok(None),
        Ok(types::CpuArchitecture::X8664) => Ok(Some(Arch::X86_64)),
        Ok(types::CpuArchitecture::Arm64) => Ok(Some(Arch::Arm64)),
        Err(_) => Err("an unknown architecture"),
    }
}

fn parse_capacity_type(capacity_type: i32) -> Result<CapacityType, Reason> {
    match types::CapacityType::try_from(capacity_type) {
        Ok(types::CapacityType::Unspecified | types::CapacityType::OnDemand) => {
            Ok(CapacityType::OnDemand)
        }
        Ok(types::CapacityType::Spot) => Ok(CapacityType::Spot),
        Err(_) => Err("an unknown capacity_type"),
    }
}

fn parse_availability(availability: i32) -> Result<Availability, Reason> {
    match types::Availability::try_from(availability) {
        Ok(types::Availability::Unspecified | types::Availability::Unknown) => {
            Ok(Availability::Unknown)
        }
        Ok(types::Availability::Available) => Ok(Availability::Available),
        Ok(types::Availability::NoCapacity) => Ok(Availability::NoCapacity),
        Ok(types::Availability::NoQuota) => Ok(Availability::NoQuota),
        Ok(types::Availability::NoBalance) => Ok(Availability::NoBalance),
        Ok(types::Availability::Idle) => {
            Err("availability IDLE, which is said of our workers alone")
        }
        Err(_) => Err("an unknown availability"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> pb::BackendOffer {
        pb::BackendOffer {
            region: "eu".to_owned(),
            instance_type: "big".to_owned(),
            gpus: vec![types::GpuGroup {
                name: "h100-sxm".to_owned(),
                count: 8,
                ..Default::default()
            }],
            cpu_milli: Some(96_000),
            price: Some(types::Price {
                micro_usd_per_hour: 5,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn an_offer_that_makes_sense_is_taken_as_it_is() {
        let parsed = parse_backend_offer(&offer()).unwrap();
        assert_eq!(parsed.capacity_type, CapacityType::OnDemand);
        assert_eq!(parsed.availability, Availability::Unknown);
        assert_eq!(parsed.price, Some(MicroUsd(5)));
        let gpus = &parsed.machine.gpus[0];
        assert_eq!(
            (gpus.name.as_str(), gpus.count, gpus.share_milli),
            ("H100", 8, 1000)
        );
        let sent = offer();
        assert_eq!(parsed.draft(&sent).instance_type, "big");
    }

    #[test]
    fn the_memory_of_a_share_is_that_of_the_share() {
        let mut sixth = offer();
        sixth.gpus[0] = types::GpuGroup {
            name: "A10".to_owned(),
            count: 1,
            share_milli: 167,
            memory_mib: 4096,
            ..Default::default()
        };
        let parsed = parse_backend_offer(&sixth).unwrap();
        assert_eq!(parsed.machine.gpus[0].memory_mib, Some(4096));
    }

    fn price(offer: &mut pb::BackendOffer, micro_usd_per_hour: i64) {
        offer.price = Some(types::Price { micro_usd_per_hour });
    }

    #[test]
    fn what_makes_no_sense_is_a_reason_to_skip_the_offer() {
        type Spoil = fn(&mut pb::BackendOffer);
        let cases: &[(Spoil, &str)] = &[
            (
                |offer| offer.instance_type = " ".to_owned(),
                "no instance_type",
            ),
            (|offer| offer.zone = "z".repeat(257), "256 bytes"),
            (
                |offer| offer.region = "e\nu".to_owned(),
                "control character",
            ),
            (|offer| offer.capacity_type = 77, "unknown capacity_type"),
            (|offer| offer.architecture = -1, "unknown architecture"),
            (|offer| offer.availability = 99, "unknown availability"),
            (
                |offer| offer.availability = types::Availability::Idle.into(),
                "IDLE",
            ),
            (|offer| offer.cpu_milli = Some(-1), "negative cpu_milli"),
            (
                |offer| offer.memory_mib = Some(i32::MIN),
                "negative memory_mib",
            ),
            (|offer| offer.disk_mib = Some(-5), "negative disk_mib"),
            (|offer| price(offer, -1), "price"),
            (|offer| price(offer, i64::MAX), "price"),
            (|offer| offer.gpus[0].count = 0, "count of gpus"),
            (|offer| offer.gpus[0].count = -8, "count of gpus"),
            (|offer| offer.gpus[0].count = i32::MAX, "count of gpus"),
            (|offer| offer.gpus[0].vendor = 1000, "vendor"),
            (|offer| offer.gpus[0].share_milli = 1001, "share_milli"),
            (|offer| offer.gpus[0].memory_mib = -1, "memory_mib of gpus"),
            (|offer| offer.gpus[0].name.clear(), "without a name"),
            (
                |offer| offer.gpus = vec![offer.gpus[0].clone(); 17],
                "too many kinds",
            ),
            (
                |offer| offer.raw = (0..65).map(|n| (n.to_string(), String::new())).collect(),
                "raw fields",
            ),
        ];
        for (spoil, expected) in cases {
            let mut spoiled = offer();
            spoil(&mut spoiled);
            let reason = parse_backend_offer(&spoiled).unwrap_err();
            assert!(reason.contains(expected), "{reason} for {expected}");
        }
    }
}
