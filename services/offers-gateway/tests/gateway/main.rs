//! The gateway as its callers meet it: over the network, with real tasks, files and sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod catalogs;
mod faults;
mod fleet;
mod kinds;
mod list;
mod live;
mod markets;
mod provider;
mod proxies;
mod questions;
mod reload;
mod services;
mod support;
