//! The agent of one machine: it registers the machine, runs the replicas that are assigned to it,
//! and says truthfully how they are. It never decides what should run, and no loss of it, or of
//! whom it talks to, stops a replica.

mod accelerators;
mod agent;
pub mod attempt_dir;
pub mod cgroup;
mod checks;
mod claims;
pub mod config;
pub mod data_dir;
pub mod domain;
mod engine;
pub mod files;
pub mod grpc;
mod http;
pub mod inventory;
mod janitor;
pub mod ledger;
pub mod log;
pub mod machine;
mod manager;
mod measures;
mod minder;
pub mod plan;
mod prober;
mod program;
pub mod prometheus;
pub mod record;
mod registry;
mod sampler;
mod serve;
mod shared;
mod standing;
pub mod supervisor;
mod terminate;
mod view;

pub use program::{Program, main};
pub use serve::serve;
