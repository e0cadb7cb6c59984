//! Reads Runpod's GraphQL answers: first what there is (accelerators and places), then, for each
//! place, the price and stock of every number of every accelerator. The secure cloud has data
//! centres for places, the community cloud, whose machines are other people's, countries. Prices are
//! dollars an hour for one accelerator; processors and memory, in GB that are GiB, are of the whole
//! machine. What a place has no price for is not sold there, and is no row.

use std::collections::BTreeSet;

use muster_model::quantity::MicroUsd;
use serde_json::json;

use super::builder::Builder;
use super::intake::Reason;
use super::json::{self, Node, Unexpected};
use super::offer::{Availability, Machine};
use super::rows::{self, Told};

/// Accelerators in one machine that are asked for at most.
const MAX_COUNT: u32 = 16;

/// Places that are asked at most; there are about 40 data centres, and as many countries.
const MAX_PLACES: usize = 250;

/// Which of the two is asked: each has its own machines and prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// Data centres that Runpod vouches for.
    #[default]
    Secure,
    /// Machines of other people.
    Community,
}

impl Cloud {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Secure, Self::Community];

    /// Its name, as it is configured.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Community => "community",
        }
    }

    /// What its places are called.
    pub const fn place(self) -> &'static str {
        match self {
            Self::Secure => "data centre",
            Self::Community => "country",
        }
    }

    /// What Runpod calls the list of its places, with what is asked of each.
    const fn places(self) -> (&'static str, &'static str) {
        match self {
            Self::Secure => ("dataCenters", "{id listed}"),
            Self::Community => ("countryCodes", ""),
        }
    }

    /// What Runpod calls the most accelerators in one machine.
    const fn max_count(self) -> &'static str {
        match self {
            Self::Secure => "maxGpuCountSecureCloud",
            Self::Community => "maxGpuCountCommunityCloud",
        }
    }

    /// What Runpod calls a place in the question for what it sells.
    const fn asked_by(self) -> &'static str {
        match self {
            Self::Secure => "dataCenterId",
            Self::Community => "countryCode",
        }
    }

    /// Whether it is the secure one, in Runpod's words.
    const fn is_secure(self) -> &'static str {
        match self {
            Self::Secure => "true",
            Self::Community => "false",
        }
    }

    /// The name of one of its places, unless nothing is sold there.
    fn place_of(self, node: &Node) -> Option<&str> {
        match self {
            Self::Secure => {
                let is_listed = node.get("listed") != Some(&Node::Bool(false));
                node.get("id")?.text().filter(|_| is_listed)
            }
            Self::Community => node.text(),
        }
    }
}

/// What there is to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The data centres, or countries.
    pub places: Vec<String>,
    /// The most accelerators in one machine.
    pub max_count: u32,
}

/// The question for what there is.
pub fn plan_question(cloud: Cloud) -> String {
    let (count, (places, of_each)) = (cloud.max_count(), cloud.places());
    let query = format!("query{{gpuTypes{{id {count}}} {places}{of_each}}}");
    json!({ "query": query }).to_string()
}

/// Reads what there is.
pub fn plan(text: &[u8], cloud: Cloud) -> Result<Plan, Unexpected> {
    let mut plan = Plan::default();
    let (mut types, mut places) = (false, false);
    json::read(text, "data", &[], |(name, node)| {
        let Some(list) = node.as_ref().and_then(Node::list) else {
            return;
        };
        match name {
            "gpuTypes" => {
                types = true;
                let counts = list
                    .iter()
                    .filter_map(|kind| kind.get(cloud.max_count())?.whole());
                plan.max_count = counts.max().unwrap_or(8).clamp(1, MAX_COUNT);
            }
            _ if name == cloud.places().0 => {
                places = true;
                let names = list.iter().filter_map(|node| cloud.place_of(node));
                // A name of other characters could not be asked for without changing the question.
                let plain = names.filter(|name| {
                    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                    !name.is_empty() && name.bytes().all(is_plain)
                });
                let mut seen = BTreeSet::new();
                let once = plain.filter(|name| seen.insert(*name));
                plan.places = once.take(MAX_PLACES).map(str::to_owned).collect();
            }
            _ => {}
        }
    })?;
    if types && places {
        return Ok(plan);
    }
    let missing = match cloud {
        Cloud::Secure => "gpuTypes and dataCenters",
        Cloud::Community => "gpuTypes and countryCodes",
    };
    Err(Unexpected::NoRows(missing, super::excerpt::excerpt(text)))
}

/// The question for all that one place sells: every number of accelerators has its alias.
pub fn question(cloud: Cloud, place: &str, max_count: u32) -> String {
    let (is_secure, asked_by) = (cloud.is_secure(), cloud.asked_by());
    let mut query = "query{".to_owned();
    for count in 1..=max_count {
        query.push_str(&format!(
            "n{count}:gpuTypes{{id displayName memoryInGb lowestPrice(input:{{gpuCount:{count},\
             secureCloud:{is_secure},{asked_by}:\"{place}\"}}){{minimumBidPrice \
             uninterruptablePrice minVcpu minMemory stockStatus}}}} "
        ));
    }
    query.push('}');
    json!({ "query": query }).to_string()
}

/// Reads what one place sells.
pub fn read(
    builder: &mut Builder,
    text: &[u8],
    cloud: Cloud,
    place: &str,
) -> Result<(), Unexpected> {
    // Runpod tells it of no row, since it is what was asked for.
    let told_by_us = [("secureCloud", cloud.is_secure())];
    json::read(text, "data", &[], |(alias, node)| {
        let at = |number: usize| format!("{place} {alias} {number}");
        let count = alias.strip_prefix('n').and_then(|count| count.parse().ok());
        let list = node.as_ref().and_then(Node::list);
        let (Some(count), Some(list)) = (count, list) else {
            builder.intake.rows = builder.intake.rows.saturating_add(1);
            builder.intake.skip(
                "it is not the list of accelerators that was asked for",
                || at(0),
            );
            return;
        };
        for (number, node) in list.iter().enumerate() {
            match row(node, count, place) {
                Ok(None) => {}
                Ok(Some(told)) => {
                    builder.intake.rows = builder.intake.rows.saturating_add(1);
                    rows::add(builder, &told, node, &told_by_us, || at(number));
                }
                Err(reason) => {
                    builder.intake.rows = builder.intake.rows.saturating_add(1);
                    builder.intake.skip(reason, || at(number));
                }
            }
        }
    })?;
    Ok(())
}

fn row(node: &Node, count: u32, place: &str) -> Result<Option<Told>, Reason> {
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
        regions: vec![(place.to_owned(), availability(sold))],
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
