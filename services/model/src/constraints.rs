//! Decides whether a workload may be placed somewhere: backend, region, zone, labels, capacity
//! type and price. Which workers to avoid is the caller's own list.

use crate::quantity::MicroUsd;
use crate::shortfall::Shortfall;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// How firmly a machine is ours once we have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityType {
    /// Ours until we give it back.
    OnDemand,
    /// The provider may take it back at any time.
    Spot,
}

/// Why a text is no [`CapacityType`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no capacity type: write on-demand or spot")]
pub struct CapacityTypeError(String);

/// Where a workload may be placed. All that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Constraints {
    /// Any of these backends; empty is any.
    pub backends: Vec<String>,
    /// Any of these regions; empty is any.
    pub regions: Vec<String>,
    /// Any of these zones; empty is any.
    pub zones: Vec<String>,
    /// Labels that must be carried with exactly these values.
    pub labels: Labels,
    /// On demand or spot; none is either.
    pub capacity_type: Option<CapacityType>,
    /// The most that an hour may cost; none is no bound.
    pub max_price: Option<MicroUsd>,
}

/// Where a machine is and what it costs. What is not known is none, and meets no constraint.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The backend.
    pub backend: Option<&'a str>,
    /// The region.
    pub region: Option<&'a str>,
    /// The zone.
    pub zone: Option<&'a str>,
    /// The labels that count.
    pub labels: &'a Labels,
    /// On demand or spot.
    pub capacity_type: Option<CapacityType>,
    /// The price of an hour.
    pub price: Option<MicroUsd>,
}

/// Whether a workload may be placed there. Allocates nothing.
pub fn admits(constraints: &Constraints, place: &Place<'_>) -> bool {
    one_of(&constraints.backends, place.backend)
        && one_of(&constraints.regions, place.region)
        && one_of(&constraints.zones, place.zone)
        && is_type(constraints.capacity_type, place.capacity_type)
        && affords(constraints.max_price, place.price)
        && constraints
            .labels
            .iter()
            .all(|(key, value)| place.labels.get(key) == Some(value))
}

/// Whether a workload may be placed there, or everything that stands against it.
pub fn check(constraints: &Constraints, place: &Place<'_>) -> Result<(), Vec<Shortfall>> {
    if admits(constraints, place) {
        Ok(())
    } else {
        Err(against(constraints, place))
    }
}

fn against(constraints: &Constraints, place: &Place<'_>) -> Vec<Shortfall> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let mut short = Vec::new();
    if !one_of(&constraints.backends, place.backend) {
        short.push(Shortfall::Backend {
            any_of: constraints.backends.clone(),
            is: owned(place.backend),
        });
    }
    if !one_of(&constraints.regions, place.region) {
        short.push(Shortfall::Region {
            any_of: constraints.regions.clone(),
            is: owned(place.region),
        });
    }
    if !one_of(&constraints.zones, place.zone) {
        short.push(Shortfall::Zone {
            any_of: constraints.zones.clone(),
            is: owned(place.zone),
        });
    }
    if let Some(needs) = constraints
        .capacity_type
        .filter(|_| !is_type(constraints.capacity_type, place.capacity_type))
    {
        short.push(Shortfall::CapacityType {
            needs,
            is: place.capacity_type,
        });
    }
    if let Some(max) = constraints
        .max_price
        .filter(|_| !affords(constraints.max_price, place.price))
    {
        short.push(Shortfall::Price {
            max,
            is: place.price,
        });
    }
    let missing = constraints
        .labels
        .iter()
        .filter(|(key, value)| place.labels.get(*key) != Some(*value));
    short.extend(missing.map(|(key, value)| Shortfall::Label {
        key: key.clone(),
        needs: value.clone(),
        is: place.labels.get(key).cloned(),
    }));
    short
}

fn one_of(any_of: &[String], is: Option<&str>) -> bool {
    any_of.is_empty() || is.is_some_and(|is| any_of.iter().any(|one| one == is))
}

fn is_type(needs: Option<CapacityType>, is: Option<CapacityType>) -> bool {
    needs.is_none() || needs == is
}

fn affords(max: Option<MicroUsd>, price: Option<MicroUsd>) -> bool {
    max.is_none_or(|max| price.is_some_and(|price| price <= max))
}

impl CapacityType {
    /// The word that people write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }
}

impl FromStr for CapacityType {
    type Err = CapacityTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "on-demand" | "ondemand" => Ok(Self::OnDemand),
            "spot" => Ok(Self::Spot),
            _ => Err(CapacityTypeError(text.to_owned())),
        }
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
