//! The `replica-manager`: which replicas must run, and what to do when they do not.

pub mod domain;
