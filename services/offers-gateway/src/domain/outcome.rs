//! What launches have taught: which offers could not be had, and how far that reaches.

use muster_model::quantity::MicroUsd;

/// What came of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider had no capacity.
    NoCapacity,
    /// The account's quota did not allow it.
    NoQuota,
    /// The provider asked another price, if it is known.
    PriceChanged(Option<MicroUsd>),
    /// The machine was launched.
    Launched,
}
