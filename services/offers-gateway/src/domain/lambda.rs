//! Reads Lambda's instance types: each with its price in cents an hour for the whole machine, its
//! accelerators in the words of its description, and the regions that have capacity for it now. A
//! type that no region has capacity for is told once, without a region, as NO_CAPACITY.

use muster_model::gpu::GpuGroup;

use super::arch;
use super::builder::Builder;
use super::intake::Reason;
use super::json::{Node, Unexpected};
use super::offer::{Availability, Machine};
use super::rows::{self, Told};

/// Reads the answer.
pub fn read(builder: &mut Builder, text: &[u8]) -> Result<(), Unexpected> {
    rows::read(builder, text, "data", &[], row).map(|_| ())
}

fn row(node: &Node) -> Result<Told, Reason> {
    let kind = node
        .get("instance_type")
        .ok_or("there is no instance_type")?;
    let specs = kind.get("specs").ok_or("there are no specs")?;
    let gpus = gpus(kind, specs)?;
    let cents = kind.get("price_cents_per_hour").ok_or("no price")?;
    let cents = cents
        .dollars()
        .ok_or("price_cents_per_hour is no number of a sensible size")?;
    Ok(Told {
        instance_type: rows::name(kind, "name")?,
        machine: Machine {
            arch: arch::of_gpus(&gpus),
            gpus,
            cpu_milli: rows::scaled(specs, "vcpus", 1000)?,
            memory_mib: rows::scaled(specs, "memory_gib", 1024)?,
            disk_mib: rows::scaled(specs, "storage_gib", 1024)?,
        },
        on_demand: cents.per(100),
        spot: None,
        regions: regions(node)?,
    })
}

fn regions(node: &Node) -> Result<Vec<(String, Availability)>, Reason> {
    let listed = node.get("regions_with_capacity_available");
    let listed = listed.ok_or("there is no regions_with_capacity_available")?;
    let listed = listed
        .list()
        .ok_or("regions_with_capacity_available is no list")?;
    let names = listed.iter().map(|region| rows::name(region, "name"));
    let available = names.map(|name| name.map(|name| (name, Availability::Available)));
    let regions: Vec<_> = available.collect::<Result<_, _>>()?;
    if regions.is_empty() {
        return Ok(vec![(String::new(), Availability::NoCapacity)]);
    }
    Ok(regions)
}

fn gpus(kind: &Node, specs: &Node) -> Result<Vec<GpuGroup>, Reason> {
    if specs.get("gpus").and_then(Node::whole) == Some(0) {
        return Ok(Vec::new());
    }
    let description = rows::text(kind, "description")?;
    let (count, name, each_gib) =
        described(description).ok_or("the description names no accelerators")?;
    if name.split(' ').next() == Some("CPU") {
        return Ok(Vec::new());
    }
    Ok(rows::gpus(
        name,
        count,
        each_gib.and_then(|gib| gib.checked_mul(1024)),
    ))
}

/// Takes `8x H100 (80 GB SXM5)` apart: 8, H100 and 80.
fn described(text: &str) -> Option<(u32, &str, Option<u32>)> {
    let (count, rest) = text.split_once('x')?;
    let (name, size) = rest.split_once('(').unwrap_or((rest, ""));
    let amount = size.trim_start();
    let digits = amount
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(amount.len());
    let unit = amount[digits..].trim_start();
    let is_size = unit.starts_with("GB") || unit.starts_with("GiB");
    let each_gib = if is_size {
        amount[..digits].parse().ok()
    } else {
        None
    };
    let name = name.trim();
    (!name.is_empty()).then_some((count.trim().parse().ok()?, name, each_gib))
}

#[cfg(test)]
mod tests;
