//! Reads Runpod's GraphQL answers: first what there is (accelerators and data centres), then, for
//! each data centre, the price and stock of every number of every accelerator. Prices are dollars
//! an hour for one accelerator; processors and memory, in GB that are GiB, are of the whole machine.
//! What a data centre has no price for is not sold there, and is no row.

use muster_model::quantity::MicroUsd;
use serde_json::json;

use super::builder::Builder;
use super::intake::Reason;
use super::json::{self, Node, Unexpected};
use super::offer::{Availability, Machine};
use super::rows::{self, Told};

/// Accelerators in one machine that are asked for at most.
const MAX_COUNT: u32 = 16;

/// Data centres that are asked at most; there are about 40.
const MAX_DATA_CENTERS: usize = 200;

/// What there is to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The data centres.
    pub data_centers: Vec<String>,
    /// The most accelerators in one machine.
    pub max_count: u32,
}

/// The question for what there is.
pub fn plan_question() -> String {
    let query = "query{gpuTypes{id maxGpuCountSecureCloud} dataCenters{id listed}}";
    json!({ "query": query }).to_string()
}

/// Reads what there is.
pub fn plan(text: &[u8]) -> Result<Plan, Unexpected> {
    let mut plan = Plan::default();
    let (mut types, mut centers) = (false, false);
    json::read(text, "data", &[], |(name, node)| {
        let Some(list) = node.as_ref().and_then(Node::list) else {
            return;
        };
        match name {
            "gpuTypes" => {
                types = true;
                let counts = list
                    .iter()
                    .filter_map(|kind| kind.get("maxGpuCountSecureCloud")?.whole());
                plan.max_count = counts.max().unwrap_or(8).clamp(1, MAX_COUNT);
            }
            "dataCenters" => {
                centers = true;
                let listed = list
                    .iter()
                    .filter(|center| center.get("listed") != Some(&Node::Bool(false)));
                let ids = listed.filter_map(|center| center.get("id")?.text());
                // A name of other characters could not be asked for without changing the question.
                let plain = ids.filter(|id| {
                    id.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                });
                plan.data_centers = plain.take(MAX_DATA_CENTERS).map(str::to_owned).collect();
            }
            _ => {}
        }
    })?;
    if types && centers {
        Ok(plan)
    } else {
        Err(Unexpected::NoRows(
            "gpuTypes and dataCenters",
            super::excerpt::excerpt(text),
        ))
    }
}

/// The question for all that one data centre sells: every number of accelerators has its alias.
pub fn question(data_center: &str, max_count: u32) -> String {
    let mut query = "query{".to_owned();
    for count in 1..=max_count {
        query.push_str(&format!(
            "n{count}:gpuTypes{{id displayName memoryInGb lowestPrice(input:{{gpuCount:{count},\
             secureCloud:true,dataCenterId:\"{data_center}\"}}){{minimumBidPrice \
             uninterruptablePrice minVcpu minMemory stockStatus}}}} "
        ));
    }
    query.push('}');
    json!({ "query": query }).to_string()
}

/// Reads what one data centre sells.
pub fn read(builder: &mut Builder, text: &[u8], data_center: &str) -> Result<(), Unexpected> {
    json::read(text, "data", &[], |(alias, node)| {
        let place = |number: usize| format!("{data_center} {alias} {number}");
        let count = alias.strip_prefix('n').and_then(|count| count.parse().ok());
        let list = node.as_ref().and_then(Node::list);
        let (Some(count), Some(list)) = (count, list) else {
            builder.intake.rows = builder.intake.rows.saturating_add(1);
            builder.intake.skip(
                "it is not the list of accelerators that was asked for",
                || place(0),
            );
            return;
        };
        for (number, node) in list.iter().enumerate() {
            match row(node, count, data_center) {
                Ok(None) => {}
                Ok(Some(told)) => {
                    builder.intake.rows = builder.intake.rows.saturating_add(1);
                    rows::add(builder, &told, node, || place(number));
                }
                Err(reason) => {
                    builder.intake.rows = builder.intake.rows.saturating_add(1);
                    builder.intake.skip(reason, || place(number));
                }
            }
        }
    })?;
    Ok(())
}

fn row(node: &Node, count: u32, data_center: &str) -> Result<Option<Told>, Reason> {
    let Some(sold) = node.get("lowestPrice") else {
        return Ok(None);
    };
    let all = |name| {
        let each = rows::dollars(sold, name)?.filter(|each| *each > MicroUsd::ZERO);
        Ok::<_, Reason>(each.and_then(|each| each.0.checked_mul(i64::from(count)).map(MicroUsd)))
    };
    let (on_demand, spot) = (all("uninterruptablePrice")?, all("minimumBidPrice")?);
    if on_demand.is_none() && spot.is_none() {
        return Ok(None);
    }
    let id = rows::text(node, "id")?;
    let name = node.get("displayName").and_then(Node::text).unwrap_or(id);
    let gpus = rows::gpus(name, count, rows::scaled(node, "memoryInGb", 1024)?);
    Ok(Some(Told {
        instance_type: format!("{count}x {id}"),
        machine: Machine {
            arch: super::arch::of_gpus(&gpus),
            gpus,
            cpu_milli: rows::scaled(sold, "minVcpu", 1000)?,
            memory_mib: rows::scaled(sold, "minMemory", 1024)?,
            disk_mib: None,
        },
        on_demand,
        spot,
        regions: vec![(data_center.to_owned(), availability(sold))],
    }))
}

/// Stock is High, Medium or Low; without any there is none.
fn availability(sold: &Node) -> Availability {
    let Some(stock) = sold.get("stockStatus") else {
        return Availability::NoCapacity;
    };
    match stock
        .text()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "high" | "medium" | "low" => Availability::Available,
        "none" => Availability::NoCapacity,
        _ => Availability::Unknown,
    }
}

#[cfg(test)]
mod tests;
