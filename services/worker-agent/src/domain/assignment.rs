//! What the replica-manager wants of one attempt, as far as the agent decides by it. What is to be
//! run, and with what, is not decided here, and stays with the record that it came in.

use std::time::Duration;

use super::ids::{AllocationId, AttemptId, FencingToken};
use super::probe;

/// Whether an attempt is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Start it, and keep it.
    Run,
    /// Stop it, and never start it again.
    Stop,
}

/// An attempt on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether it is meant to run.
    pub intent: Intent,
    /// The room it has.
    pub allocation: AllocationId,
    /// Which of two for one accelerator is the newer.
    pub token: FencingToken,
    /// What has to have ended here before.
    pub replaces: Option<AllocationId>,
    /// Its accelerators, by uuid.
    pub gpus: Vec<String>,
    /// How it is started, watched and stopped.
    pub terms: Terms,
    /// Why it is to be stopped, in words.
    pub reason: String,
}

/// How an attempt is started, watched and stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// From its start until it is ready.
    pub start_timeout: Duration,
    /// Whether it is ready; absent: once it has run for a second.
    pub ready: Option<probe::Terms>,
    /// Whether it is alive; absent: always.
    pub alive: Option<probe::Terms>,
    /// What it is given to stop.
    pub stop_grace: Duration,
}
