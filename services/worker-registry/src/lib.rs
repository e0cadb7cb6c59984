//! The worker-registry: what machines there are, what state they are in, and what may run on them.

pub mod domain;
