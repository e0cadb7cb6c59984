//! Muster as a whole, mostly with every part a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods
)]

mod applying;
mod architecture;
mod certificates;
mod failures;
mod faults;
mod flags;
mod following;
#[cfg(feature = "etcd")]
mod instances;
mod metrics;
mod restore;
mod roles;
mod scaling;
mod shaken;
mod shutdown;
mod story;
mod trace;
mod watching;
