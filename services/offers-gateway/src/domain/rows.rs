//! From the rows of a provider's answer to offers: what all live kinds have in common. A row that
//! cannot be used is counted with its reason and its place, and costs nothing but itself.

use muster_model::constraints::CapacityType;
use muster_model::gpu::{GpuGroup, WHOLE};
use muster_model::quantity::MicroUsd;

use super::builder::{Added, Builder};
use super::intake::Reason;
use super::json::{self, Node, Unexpected};
use super::offer::{Availability, Draft, Machine};

/// What one row offers.
#[derive(Debug)]
pub struct Told {
    /// The provider's name for the machine.
    pub instance_type: String,
    /// What it has.
    pub machine: Machine,
    /// For the whole machine, on demand.
    pub on_demand: Option<MicroUsd>,
    /// The same, as spot.
    pub spot: Option<MicroUsd>,
    /// Where it is, and whether it can be had there.
    pub regions: Vec<(String, Availability)>,
}

/// Reads an answer: each element of its member `rows` is told by `row`, its members in `keep` are
/// returned.
pub fn read(
    builder: &mut Builder,
    text: &[u8],
    rows: &'static str,
    keep: &[&str],
    mut row: impl FnMut(&Node) -> Result<Told, Reason>,
) -> Result<Node, Unexpected> {
    json::read(text, rows, keep, |(place, node)| {
        builder.intake.rows = builder.intake.rows.saturating_add(1);
        let place = || format!("{rows} {place}");
        let Some(node) = node else {
            builder.intake.skip("the row is larger than is read", place);
            return;
        };
        match row(&node) {
            Ok(told) => add(builder, &told, &node, &[], place),
            Err(reason) => builder.intake.skip(reason, place),
        }
    })
}

/// Adds what one row offers in all its regions. `more` are fields of the provider's that do not
/// stand in the row.
pub fn add(
    builder: &mut Builder,
    told: &Told,
    node: &Node,
    more: &[(&str, &str)],
    place: impl FnOnce() -> String,
) {
    let fields = node.fields();
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let raw = builder.raw(fields.chain(more.iter().copied()));
    let mut added: Option<Added> = None;
    for (region, availability) in &told.regions {
        let draft = Draft {
            region,
            zone: "",
            instance_type: &told.instance_type,
            capacity_type: CapacityType::OnDemand,
            machine: &told.machine,
            price: None,
            availability: *availability,
        };
        let (on_demand, spot) = (priced(told.on_demand), priced(told.spot));
        let here = builder.add_priced(&draft, on_demand, spot, raw);
        added = added.max(here);
    }
    builder.tally(added, place);
}

/// A price of 0 is no offer.
fn priced(price: Option<MicroUsd>) -> Option<MicroUsd> {
    price.filter(|price| *price > MicroUsd::ZERO)
}

/// The text of a member that every row has to have.
pub fn text<'a>(node: &'a Node, name: &'static str) -> Result<&'a str, Reason> {
    let value = node.get(name);
    let value = value.ok_or_else(|| Reason::from(format!("there is no {name}")))?;
    value
        .text()
        .ok_or_else(|| format!("{name} is no text").into())
}

/// A member that names something, which may be a number; every row has to have it.
pub fn name(node: &Node, name: &'static str) -> Result<String, Reason> {
    match node.get(name) {
        Some(Node::Number(number)) => Ok(number.to_string()),
        _ => text(node, name).map(str::to_owned),
    }
}

/// A member that is a number, times `by`; none if there is none.
pub fn scaled(node: &Node, name: &'static str, by: u32) -> Result<Option<u32>, Reason> {
    let Some(value) = node.get(name) else {
        return Ok(None);
    };
    let scaled = value.scaled(by);
    scaled.map(Some).ok_or_else(|| not_a_number(name))
}

/// A member that is an amount of dollars; none if there is none.
pub fn dollars(node: &Node, name: &'static str) -> Result<Option<MicroUsd>, Reason> {
    let Some(value) = node.get(name) else {
        return Ok(None);
    };
    value.dollars().map(Some).ok_or_else(|| not_a_number(name))
}

/// The accelerators of a machine with `count` whole ones of a name.
pub fn gpus(name: &str, count: u32, each_mib: Option<u32>) -> Vec<GpuGroup> {
    if count == 0 {
        return Vec::new();
    }
    vec![GpuGroup::observed(name, count, each_mib, WHOLE)]
}

fn not_a_number(name: &'static str) -> Reason {
    format!("{name} is no number of a sensible size").into()
}
