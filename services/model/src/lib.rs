//! What every part of Muster knows, and nothing that needs a network, a clock or a disk.
//!
//! In reading order:
//! - [`gpu`]: the one table of accelerators, and the names by which the world calls them;
//! - [`quantity`]: memory, durations, money and processors, parsed and printed;
//! - [`requirements`]: what a workload needs, what a machine has, and the one function that matches them;
//! - [`constraints`]: where a workload may be placed;
//! - [`shortfall`]: why a machine does not do, as data and in words;
//! - [`gpu_syntax`]: the `H100:80GB:2` that people write;
//! - [`name`]: names of resources, replicas and labels;
//! - [`suggest`]: "did you mean".

pub mod constraints;
pub mod gpu;
pub mod gpu_syntax;
pub mod name;
pub mod quantity;
pub mod requirements;
pub mod shortfall;
pub mod suggest;
