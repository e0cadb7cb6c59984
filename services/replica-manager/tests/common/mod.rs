//! A manager under test: the real one on port 0 over a store of the test's, with a registry and agents
//! that are played.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

pub mod agent;
pub mod registry;
pub mod sandbox;
pub mod several;
