//! The agent, its program and its supervisors, with real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod accelerators;
mod cgroups;
mod containers;
mod docker;
mod faults;
mod processes;
mod supervisor;
mod support;
