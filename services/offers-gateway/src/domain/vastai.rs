//! Reads Vast.ai's market: each offer is one machine of someone, with an id of its own, and is
//! gone when it is rented. Money is dollars an hour, storage dollars a GB and month of 30 days;
//! what they write as MB and GB are MiB and GiB. The price that is told includes the storage of
//! the whole disk that the machine offers, on demand and spot.

use muster_model::gpu::GpuGroup;
use muster_model::quantity::MicroUsd;

use super::arch;
use super::builder::Builder;
use super::intake::Reason;
use super::json::{Node, Unexpected};
use super::offer::{Availability, Machine};
use super::rows::{self, Told};
use super::skypilot::tidy_region;

/// Hours in the month that storage is priced by.
const MONTH: u64 = 30 * 24;

/// How far a page goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Offers in it.
    pub offers: u32,
    /// The highest `dph_total` in it: dollars an hour by which pages are ordered.
    pub last: Option<f64>,
}

/// The question for offers that cost at least `from` dollars an hour, cheapest first.
pub fn question(from: Option<f64>, limit: u32) -> String {
    let mut question = serde_json::json!({
        "rentable": {"eq": true},
        "rented": {"eq": false},
        "order": [["dph_total", "asc"]],
        "limit": limit,
    });
    if let Some(from) = from {
        question["dph_total"] = serde_json::json!({"gte": from});
    }
    question.to_string()
}

/// Reads one page.
pub fn read(builder: &mut Builder, text: &[u8]) -> Result<Page, Unexpected> {
    let mut page = Page::default();
    rows::read(builder, text, "offers", &[], |node| {
        page.offers = page.offers.saturating_add(1);
        let total = node.get("dph_total").and_then(Node::number);
        page.last = match (page.last, total) {
            (Some(last), Some(total)) => Some(last.max(total)),
            (last, total) => total.or(last),
        };
        row(node)
    })?;
    Ok(page)
}

fn row(node: &Node) -> Result<Told, Reason> {
    let gpus = gpus(node)?;
    let disk = node.get("disk_space");
    let storage = match (rows::dollars(node, "storage_cost")?, disk) {
        (Some(each), Some(disk)) => storage(each, disk).ok_or("storage_cost is too large")?,
        (None, Some(_)) => return Err("there is no storage_cost".into()),
        (_, None) => MicroUsd::ZERO,
    };
    let with_storage = |price: MicroUsd| price.0.checked_add(storage.0).map(MicroUsd);
    let priced = |name| {
        let price = rows::dollars(node, name)?.filter(|price| *price > MicroUsd::ZERO);
        Ok::<_, Reason>(price.and_then(with_storage))
    };
    let arch = node.get("cpu_arch").and_then(Node::text);
    let arch = arch.and_then(|arch| arch.parse().ok());
    let region = node
        .get("geolocation")
        .and_then(Node::text)
        .unwrap_or_default();
    Ok(Told {
        instance_type: rows::name(node, "id")?,
        on_demand: priced("dph_base")?,
        spot: priced("min_bid")?,
        machine: Machine {
            arch: arch.or_else(|| arch::of_gpus(&gpus)),
            gpus,
            cpu_milli: rows::scaled(node, "cpu_cores_effective", 1000)?,
            memory_mib: memory(node)?,
            disk_mib: rows::scaled(node, "disk_space", 1024)?,
        },
        regions: vec![(tidy_region(region), availability(node))],
    })
}

fn gpus(node: &Node) -> Result<Vec<GpuGroup>, Reason> {
    let count = node.get("num_gpus").and_then(Node::whole);
    match count.ok_or("num_gpus is no whole number")? {
        0 => Ok(Vec::new()),
        count => {
            let each = rows::scaled(node, "gpu_ram", 1)?;
            Ok(rows::gpus(rows::text(node, "gpu_name")?, count, each))
        }
    }
}

/// The part of the host's memory that comes with the offer's part of its processors.
fn memory(node: &Node) -> Result<Option<u32>, Reason> {
    let Some(whole) = rows::scaled(node, "cpu_ram", 1)? else {
        return Ok(None);
    };
    let had = rows::scaled(node, "cpu_cores_effective", 1000)?;
    let all = rows::scaled(node, "cpu_cores", 1000)?;
    let part = match (had, all) {
        (Some(had), Some(all)) if had < all => u64::from(whole) * u64::from(had) / u64::from(all),
        _ => u64::from(whole),
    };
    Ok(u32::try_from(part).ok())
}

/// An hour of a disk of so many GB, at a price for a GB and month.
fn storage(each: MicroUsd, disk: &Node) -> Option<MicroUsd> {
    let gb_milli = u64::from(disk.scaled(1000)?);
    let month_milli = each.0.checked_mul(i64::try_from(gb_milli).ok()?)?;
    MicroUsd(month_milli).per(MONTH * 1000)
}

/// What is rentable and not rented can be had now; one that says neither says nothing.
fn availability(node: &Node) -> Availability {
    match (node.get("rentable"), node.get("rented")) {
        (Some(Node::Bool(false)), _) | (_, Some(Node::Bool(true))) => Availability::NoCapacity,
        (Some(Node::Bool(true)), _) => Availability::Available,
        _ => Availability::Unknown,
    }
}

#[cfg(test)]
mod tests;
