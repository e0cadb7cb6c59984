//! End-to-end tests, and the bench program that measures what the design promises.

pub mod bench;
pub mod fleet;
