//! A question for offers, checked and in our own words.

use muster_model::constraints::CapacityType;
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Requirements;

use super::offer::Availability;

/// What to look for. All that is set must hold; the default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these backends; empty is all.
    pub backends: Vec<String>,
    /// Any of these regions; empty is any.
    pub regions: Vec<String>,
    /// Any of these zones; empty is any.
    pub zones: Vec<String>,
    /// Any of these instance types; empty is any.
    pub instance_types: Vec<String>,
    /// What the machine must have.
    pub requirements: Requirements,
    /// On demand or spot; none is either.
    pub capacity_type: Option<CapacityType>,
    /// The least price; an unknown one does not meet it.
    pub min_price: Option<MicroUsd>,
    /// The most; an unknown one does not meet it.
    pub max_price: Option<MicroUsd>,
    /// Any of these; empty is any.
    pub availabilities: Vec<Availability>,
}

/// What offers are ordered by. Ties fall back to price, then id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Key {
    /// The whole machine's price.
    #[default]
    Price,
    /// Price over the number of accelerators, a share counted as its part.
    PricePerGpu,
    /// Price over the accelerators' memory.
    PricePerGpuGib,
    /// Main memory.
    Memory,
    /// Time since the backend was read.
    Age,
}

/// From the least to the most, or the reverse. What is unknown stays last in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The least first.
    #[default]
    Ascending,
    /// The most first.
    Descending,
}

/// An order of offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Order {
    /// By what.
    pub key: Key,
    /// Which way.
    pub direction: Direction,
}

impl Filter {
    /// Whether a backend is asked.
    pub fn asks(&self, backend: &str) -> bool {
        self.backends.is_empty() || self.backends.iter().any(|asked| asked == backend)
    }

    /// Whether a price is in the range.
    pub fn affords(&self, price: Option<MicroUsd>) -> bool {
        let above = self
            .min_price
            .is_none_or(|min| price.is_some_and(|price| price >= min));
        above
            && self
                .max_price
                .is_none_or(|max| price.is_some_and(|price| price <= max))
    }
}
