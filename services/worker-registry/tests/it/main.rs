//! The worker-registry as its callers see it: over gRPC, on a real store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod drains;
mod joining;
mod lifecycle;
mod lists;
mod process;
mod refusals;
mod several;
mod support;
mod watches;
