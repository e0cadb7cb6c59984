//! The agent of one machine: it registers the machine, runs the replicas that are assigned to it,
//! and says truthfully how they are. It never decides what should run, and no loss of it, or of
//! whom it talks to, stops a replica.

pub mod attempt_dir;
pub mod domain;
pub mod files;
pub mod log;
pub mod machine;
pub mod supervisor;
