//! The replica-manager as its callers see it: over gRPC, on a real store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod instances;
mod lifecycle;
mod planner;
mod restarts;
mod support;
mod viewing;
