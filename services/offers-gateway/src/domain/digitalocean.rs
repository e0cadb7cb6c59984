//! Reads DigitalOcean's sizes: price in dollars an hour, memory in MB that are MiB, disk in GB that
//! are GiB, and the regions where a size can be had now. One that is listed in none is told once,
//! without a region, as NO_CAPACITY.

use muster_model::gpu::GpuGroup;

use super::arch;
use super::builder::Builder;
use super::gpu_info::Sizes;
use super::intake::Reason;
use super::json::{Node, Unexpected};
use super::offer::{Availability, Machine};
use super::rows::{self, Told};

/// Reads one page; the link to the next one, if there is one.
pub fn read(builder: &mut Builder, text: &[u8]) -> Result<Option<String>, Unexpected> {
    let rest = rows::read(builder, text, "sizes", &["links"], row)?;
    let next = rest.at(&["links", "pages", "next"]).and_then(Node::text);
    Ok(next.map(str::to_owned))
}

fn row(node: &Node) -> Result<Told, Reason> {
    let gpus = node.get("gpu_info").map_or(Ok(Vec::new()), gpus)?;
    Ok(Told {
        instance_type: rows::name(node, "slug")?,
        machine: Machine {
            arch: arch::of_gpus(&gpus),
            gpus,
            cpu_milli: rows::scaled(node, "vcpus", 1000)?,
            memory_mib: rows::scaled(node, "memory", 1)?,
            disk_mib: rows::scaled(node, "disk", 1024)?,
        },
        on_demand: rows::dollars(node, "price_hourly")?,
        spot: None,
        regions: regions(node)?,
    })
}

fn regions(node: &Node) -> Result<Vec<(String, Availability)>, Reason> {
    let listed = node.get("regions").ok_or("there is no list of regions")?;
    let listed = listed.list().ok_or("regions is no list")?;
    let closed = node.get("available") == Some(&Node::Bool(false));
    let availability = if closed {
        Availability::NoCapacity
    } else {
        Availability::Available
    };
    let named = listed.iter().filter_map(Node::text);
    let regions: Vec<_> = named.map(|name| (name.to_owned(), availability)).collect();
    if regions.len() < listed.len() {
        return Err("a region is no text".into());
    }
    if regions.is_empty() {
        return Ok(vec![(String::new(), Availability::NoCapacity)]);
    }
    Ok(regions)
}

fn gpus(info: &Node) -> Result<Vec<GpuGroup>, Reason> {
    let count = info
        .get("count")
        .and_then(Node::whole)
        .ok_or("gpu_info has no count")?;
    let model = rows::text(info, "model")?;
    let each = vram(info)?.map(|mib| Sizes::default().of_one(model, count, mib));
    Ok(rows::gpus(model, count, each))
}

/// What they say of memory in MiB. Some sizes give it for one accelerator, some for all.
fn vram(info: &Node) -> Result<Option<u32>, Reason> {
    let Some(vram) = info.get("vram") else {
        return Ok(None);
    };
    let unit = vram.get("unit").and_then(Node::text).unwrap_or("gib");
    let by = match unit.to_ascii_lowercase().as_str() {
        "gib" | "gb" => 1024,
        "mib" | "mb" => 1,
        "tib" | "tb" => 1 << 20,
        _ => return Err("vram is in an unknown unit".into()),
    };
    rows::scaled(vram, "amount", by)
}

#[cfg(test)]
mod tests;
