//! What the agent decides, without a clock, a file or a network: how attempts live and end, what
//! is asked of whom, and until when. Times are given in: the wall time for what is told to others,
//! time since the machine's boot for what is waited for.

use std::time::{Duration, SystemTime};

pub mod accelerators;
pub mod assignment;
pub mod attempt;
pub mod end;
pub mod holdings;
pub mod ids;
pub mod lease;
pub mod ports;
pub mod probe;

/// The time, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For people and other machines.
    pub wall: SystemTime,
    /// Since the machine's boot: never goes backwards.
    pub boot: Duration,
}
