//! The worker-registry as its callers see it: over gRPC, on a real store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod lifecycle;
mod support;
