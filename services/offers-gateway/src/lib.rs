//! The `offers-gateway` package: laid out, filled by the commits that follow.
pub mod domain;
