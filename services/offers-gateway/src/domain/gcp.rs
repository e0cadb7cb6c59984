//! Completes Google's accelerator rows. Google prices an accelerator and the machine that carries
//! it apart; nobody can rent one without the other, so an offer is the two together, at the sum,
//! in one zone. Which machine takes which accelerator is Google's published rule, kept here as a
//! table. A row that cannot be completed is not an offer.

use std::collections::BTreeMap;

use muster_model::quantity::MicroUsd;

use super::skypilot::{Accelerator, Row, Skip};

/// What a machine type is, among the rows without accelerators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A machine like any other.
    Plain,
    /// It carries accelerators that other rows price.
    Host {
        /// Whether it can also be had without any.
        sold_alone: bool,
    },
}

/// Families whose machines come with accelerators only.
const BUILT_IN: [&str; 7] = ["a2-", "a3-", "a4-", "a4x-", "g2-", "g4-", "ct"];

/// What a machine type is.
pub fn role(instance_type: &str) -> Role {
    if attachable(instance_type) {
        return Role::Host { sold_alone: true };
    }
    let built_in = BUILT_IN
        .iter()
        .any(|family| instance_type.starts_with(family));
    // Amazon's g2.2xlarge and its like have a dot where Google's have a dash.
    if built_in && !instance_type.contains('.') && instance_type.contains("gpu")
        || is_g(instance_type)
    {
        return Role::Host { sold_alone: false };
    }
    Role::Plain
}

fn is_g(instance_type: &str) -> bool {
    ["g2-standard-", "g4-standard-"]
        .iter()
        .any(|family| instance_type.starts_with(family))
}

/// General-purpose N1 machines take accelerators; the shared-core, memory-optimized and TPU ones
/// do not.
fn attachable(instance_type: &str) -> bool {
    let families = ["n1-standard-", "n1-highmem-", "n1-highcpu-"];
    let size = families
        .iter()
        .find_map(|family| instance_type.strip_prefix(family));
    size.is_some_and(|size| !size.is_empty() && size.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Which machines take an accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Carrier {
    /// These, each of which has exactly this many.
    BuiltIn(Vec<String>),
    /// N1 machines up to these thousandths of a processor, and MiB.
    Attached { cpu_milli: u32, memory_mib: u32 },
}

/// The most processors and GiB of an N1 machine with so many of an accelerator.
const ATTACHED: [(&str, u32, u32, u32); 16] = [
    ("T4", 1, 48, 312),
    ("T4", 2, 48, 312),
    ("T4", 4, 96, 624),
    ("P4", 1, 24, 156),
    ("P4", 2, 48, 312),
    ("P4", 4, 96, 624),
    ("V100", 1, 12, 78),
    ("V100", 2, 24, 156),
    ("V100", 4, 48, 312),
    ("V100", 8, 96, 624),
    ("P100", 1, 16, 104),
    ("P100", 2, 32, 208),
    ("P100", 4, 96, 624),
    ("K80", 1, 8, 52),
    ("K80", 2, 16, 104),
    ("K80", 4, 32, 208),
];

/// Which machines take `count` of an accelerator, by Google's name for it.
fn carrier(name: &str, count: u32) -> Option<Carrier> {
    let built_in = |types: &[&str]| {
        Some(Carrier::BuiltIn(
            types.iter().map(|name| (*name).to_owned()).collect(),
        ))
    };
    match (name, count) {
        ("A100", 16) => built_in(&["a2-megagpu-16g"]),
        ("A100", _) => Some(Carrier::BuiltIn(vec![format!("a2-highgpu-{count}g")])),
        ("A100-80GB", _) => Some(Carrier::BuiltIn(vec![format!("a2-ultragpu-{count}g")])),
        ("H100", 8) => built_in(&["a3-highgpu-8g", "a3-edgegpu-8g", "a3-edgegpu-8g-nolssd"]),
        ("H100", _) => Some(Carrier::BuiltIn(vec![format!("a3-highgpu-{count}g")])),
        ("H100-MEGA", 8) => built_in(&["a3-megagpu-8g"]),
        ("H200", 8) => built_in(&["a3-ultragpu-8g", "a3-ultragpu-8g-nolssd"]),
        ("B200", 8) => built_in(&["a4-highgpu-8g"]),
        ("GB200", 4) => built_in(&["a4x-highgpu-4g"]),
        ("L4", 1) => built_in(&[
            "g2-standard-4",
            "g2-standard-8",
            "g2-standard-12",
            "g2-standard-16",
            "g2-standard-32",
        ]),
        ("L4", 2) => built_in(&["g2-standard-24"]),
        ("L4", 4) => built_in(&["g2-standard-48"]),
        ("L4", 8) => built_in(&["g2-standard-96"]),
        _ => ATTACHED
            .iter()
            .find(|(known, number, ..)| (*known, *number) == (name, count))
            .map(|(_, _, cpus, memory_gib)| Carrier::Attached {
                cpu_milli: cpus * 1000,
                memory_mib: memory_gib * 1024,
            }),
    }
}

impl Carrier {
    fn takes(&self, host: &Row) -> bool {
        match self {
            Self::BuiltIn(types) => types.contains(&host.instance_type),
            Self::Attached {
                cpu_milli,
                memory_mib,
            } => {
                attachable(&host.instance_type)
                    && host
                        .machine
                        .cpu_milli
                        .is_some_and(|cpus| cpus <= *cpu_milli)
                    && host
                        .machine
                        .memory_mib
                        .is_some_and(|memory| memory <= *memory_mib)
            }
        }
    }
}

/// The machines that carry accelerators, by region and zone.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    by_zone: BTreeMap<(String, String), Vec<Row>>,
}

impl Hosts {
    /// Adds a machine; one that its zone has already stands for both.
    pub(super) fn add(&mut self, host: Row) {
        let hosts = self
            .by_zone
            .entry((host.region.clone(), host.zone.clone()))
            .or_default();
        if !hosts
            .iter()
            .any(|known| known.instance_type == host.instance_type)
        {
            hosts.push(host);
        }
    }

    /// The whole machines that an accelerator row makes, or why it makes none.
    pub(super) fn complete(&self, held: &Accelerator) -> Result<Vec<Row>, Skip> {
        let carrier = carrier(&held.name, held.count)
            .ok_or("no instance type, and no known machine carries it")?;
        let hosts = self
            .by_zone
            .get(&(held.row.region.clone(), held.row.zone.clone()));
        let hosts: Vec<&Row> = hosts
            .into_iter()
            .flatten()
            .filter(|host| carrier.takes(host))
            .collect();
        if hosts.is_empty() {
            return Err("no machine in its zone carries it".into());
        }
        let whole: Vec<Row> = hosts
            .into_iter()
            .filter_map(|host| join(held, host, &carrier))
            .collect();
        if whole.is_empty() {
            Err("the machine that carries it has no price".into())
        } else {
            Ok(whole)
        }
    }
}

/// An accelerator in a machine, if at least one of the two prices is known of both.
fn join(held: &Accelerator, host: &Row, carrier: &Carrier) -> Option<Row> {
    let price = sum(held.row.price, host.price);
    let spot_price = sum(held.row.spot_price, host.spot_price);
    price.or(spot_price)?;
    let instance_type = match carrier {
        Carrier::BuiltIn(_) => host.instance_type.clone(),
        Carrier::Attached { .. } => format!("{}+{}x{}", host.instance_type, held.name, held.count),
    };
    let mut whole = Row {
        instance_type,
        price,
        spot_price,
        raw: held.row.raw,
        ..host.clone()
    };
    whole.machine.gpus.clone_from(&held.row.machine.gpus);
    Some(whole)
}

fn sum(accelerator: Option<MicroUsd>, host: Option<MicroUsd>) -> Option<MicroUsd> {
    accelerator?.0.checked_add(host?.0).map(MicroUsd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for host in [
            "a2-highgpu-1g",
            "a3-edgegpu-8g-nolssd",
            "a4-highgpu-8g",
            "a2-megagpu-16g",
            "g2-standard-4",
        ] {
            assert_eq!(role(host), Role::Host { sold_alone: false }, "{host}");
        }
        for host in ["n1-standard-8", "n1-highcpu-96"] {
            assert_eq!(role(host), Role::Host { sold_alone: true }, "{host}");
        }
        for plain in [
            "n1-megamem-96",
            "n1-340-48-tpu",
            "n1-ultramem-40",
            "e2-small",
            "Standard_A1_v2",
            "g2.2xlarge",
            "n1-standard-",
            "a2",
        ] {
            assert_eq!(role(plain), Role::Plain, "{plain}");
        }
    }

    #[test]
    fn accelerators_have_the_machines_that_google_says() {
        let built_in = |name, count| match carrier(name, count) {
            Some(Carrier::BuiltIn(types)) => types.join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(built_in("A100", 16), "a2-megagpu-16g");
        assert_eq!(built_in("A100-80GB", 4), "a2-ultragpu-4g");
        assert_eq!(built_in("H100", 1), "a3-highgpu-1g");
        assert_eq!(built_in("H100-MEGA", 8), "a3-megagpu-8g");
        assert_eq!(built_in("L4", 2), "g2-standard-24");
        assert_eq!(
            carrier("T4", 2),
            Some(Carrier::Attached {
                cpu_milli: 48_000,
                memory_mib: 312 * 1024
            })
        );
        assert_eq!(carrier("T4", 3), None);
        assert_eq!(carrier("Unheard-Of", 1), None);
    }
}
