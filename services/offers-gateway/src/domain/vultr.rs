//! Reads Vultr's plans: price in dollars an hour, or else a month of 730 hours; memory in MB that
//! are MiB, disk in GB that are GiB. Where accelerators are shared, a plan has a part of the memory
//! of one. Bare-metal plans name their accelerators in nothing but their ids.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::gpu::{self, GpuGroup, WHOLE};
use muster_model::quantity::MicroUsd;

use super::arch;
use super::builder::Builder;
use super::intake::Reason;
use super::json::{self, Node, Unexpected};
use super::offer::{Availability, Machine};
use super::rows::{self, Told};

/// Hours in the month that plans are priced by.
const MONTH: u64 = 730;

/// Plans of virtual machines, or of whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plans {
    /// Virtual machines.
    Shared,
    /// Bare metal.
    Metal,
}

/// Which plans a region has capacity for now; none if it does not say.
pub type Capacity = BTreeMap<String, Option<BTreeSet<String>>>;

impl Plans {
    /// The member of an answer that lists them.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Shared => "plans",
            Self::Metal => "plans_metal",
        }
    }
}

/// The regions that a page names, added to `regions`; the link to the next page, if there is one.
pub fn regions(
    text: &[u8],
    plans: Plans,
    regions: &mut BTreeSet<String>,
) -> Result<Option<String>, Unexpected> {
    let rest = json::read(text, plans.member(), &["meta"], |(_, node)| {
        let listed = node.as_ref().map_or(Vec::new(), locations);
        regions.extend(listed.into_iter().map(str::to_owned));
    })?;
    let next = rest.at(&["meta", "links", "next"]).and_then(Node::text);
    Ok(next.map(str::to_owned))
}

/// The plans that a region has capacity for.
pub fn available(text: &[u8]) -> Result<BTreeSet<String>, Unexpected> {
    let mut plans = BTreeSet::new();
    json::read(text, "available_plans", &[], |(_, node)| {
        plans.extend(node.as_ref().and_then(Node::text).map(str::to_owned));
    })?;
    Ok(plans)
}

/// Reads one page.
pub fn read(
    builder: &mut Builder,
    text: &[u8],
    plans: Plans,
    capacity: &Capacity,
) -> Result<(), Unexpected> {
    rows::read(builder, text, plans.member(), &[], |node| {
        row(node, plans, capacity)
    })
    .map(|_| ())
}

fn row(node: &Node, plans: Plans, capacity: &Capacity) -> Result<Told, Reason> {
    if node.get("deploy_ondemand") == Some(&Node::Bool(false)) {
        return Err("it is not sold on demand".into());
    }
    let id = rows::name(node, "id")?;
    let gpus = match plans {
        Plans::Shared => of_shared(node)?,
        Plans::Metal => of_metal(&id)?,
    };
    let cpus = match plans {
        Plans::Shared => "vcpu_count",
        Plans::Metal => "cpu_threads",
    };
    let hourly = rows::dollars(node, "hourly_cost")?.filter(|price| *price > MicroUsd::ZERO);
    let monthly = rows::dollars(node, "monthly_cost")?.and_then(|price| price.per(MONTH));
    Ok(Told {
        machine: Machine {
            arch: arch::of_gpus(&gpus),
            gpus,
            cpu_milli: rows::scaled(node, cpus, 1000)?,
            memory_mib: rows::scaled(node, "ram", 1)?,
            disk_mib: rows::scaled(node, "disk", 1024)?,
        },
        on_demand: hourly.or(monthly),
        spot: None,
        regions: placed(&id, node, capacity),
        instance_type: id,
    })
}

/// Where a plan is, and whether it can be had there. One that is listed nowhere cannot be had.
fn placed(id: &str, node: &Node, capacity: &Capacity) -> Vec<(String, Availability)> {
    let listed = locations(node);
    if listed.is_empty() {
        return vec![(String::new(), Availability::NoCapacity)];
    }
    let at = |region: &str| match capacity.get(region) {
        Some(Some(plans)) if plans.contains(id) => Availability::Available,
        Some(Some(_)) => Availability::NoCapacity,
        Some(None) | None => Availability::Unknown,
    };
    listed
        .into_iter()
        .map(|region| (region.to_owned(), at(region)))
        .collect()
}

/// Some plans list an empty text among their locations.
fn locations(node: &Node) -> Vec<&str> {
    let listed = node.get("locations").and_then(Node::list);
    listed
        .unwrap_or_default()
        .iter()
        .filter_map(Node::text)
        .collect()
}

fn of_shared(node: &Node) -> Result<Vec<GpuGroup>, Reason> {
    let Some(name) = node.get("gpu_type").and_then(Node::text) else {
        let kind = node.get("type").and_then(Node::text).unwrap_or_default();
        if ["vcg", "vdm"].contains(&kind) {
            return Err("a plan with accelerators that does not say which".into());
        }
        return Ok(Vec::new());
    };
    let name = card(name);
    let (_, whole) = gpu::identify(name, None);
    let all = rows::scaled(node, "gpu_vram_gb", 1024)?.filter(|mib| *mib > 0);
    match (all, whole) {
        (None, _) => Err("gpu_vram_gb is missing".into()),
        // Of a card that is not known, the best guess is that there is one.
        (Some(all), None) => Ok(rows::gpus(name, 1, Some(all))),
        (Some(all), Some(whole)) => group(name, all, whole),
    }
}

/// A part of one card, or a number of whole ones.
fn group(name: &str, all: u32, whole: u32) -> Result<Vec<GpuGroup>, Reason> {
    if all < whole {
        let share = u64::from(all) * u64::from(WHOLE) / u64::from(whole);
        let share = u32::try_from(share).unwrap_or(WHOLE).max(1);
        return Ok(vec![GpuGroup::observed(name, 1, Some(whole), share)]);
    }
    // Cards are sold by round sizes: 1,536 GB are eight of 192 GB, of which 180 can be used.
    let count = all / whole;
    let off = u64::from(all).abs_diff(u64::from(whole) * u64::from(count));
    if off * 8 > u64::from(all) {
        return Err("gpu_vram_gb is no multiple of what the accelerator has".into());
    }
    Ok(rows::gpus(name, count, Some(all / count.max(1))))
}

/// Vultr's cards by name: its A100 all have 80 GB.
fn card(name: &str) -> &str {
    let bare = name.split_once('_').map_or(name, |(_, bare)| bare);
    if bare.eq_ignore_ascii_case("A100") {
        "A100-80GB"
    } else {
        bare
    }
}

/// Accelerators by a bare-metal plan's id: `vbm-112c-2048gb-8-h100-gpu` has eight, and
/// `vbm-72c-480gb-gh200-gpu` one.
fn of_metal(id: &str) -> Result<Vec<GpuGroup>, Reason> {
    let Some(machine) = id.strip_suffix("-gpu") else {
        return Ok(Vec::new());
    };
    let mut parts = machine.rsplit('-');
    let name = parts.next().filter(|name| !name.is_empty());
    let count = parts
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    match name {
        Some(name) if count > 0 => Ok(rows::gpus(card(name), count, None)),
        _ => Err("a plan with accelerators that does not say which".into()),
    }
}

#[cfg(test)]
mod tests;
