//! What is meant by each field that a user leaves out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Update;
use crate::domain::failure::policy::{Exhausted, Growth, Retry};

/// `start.timeout`.
pub const START_TIMEOUT: Duration = Duration::from_secs(600);
/// `stop.grace`.
pub const STOP_GRACE: Duration = Duration::from_secs(30);
/// `probes.*.interval`.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// `probes.*.timeout`.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// `probes.*.successes`.
pub const PROBE_SUCCESSES: u32 = 1;
/// `probes.*.failures`.
pub const PROBE_FAILURES: u32 = 3;
/// `scaling.up_delay`.
pub const UP_DELAY: Duration = Duration::from_secs(30);
/// `scaling.down_delay`.
pub const DOWN_DELAY: Duration = Duration::from_secs(300);
/// `retry.backoff`, if it is given and empty.
pub const GROWTH: Growth = Growth {
    factor: 2.0,
    max: Duration::from_secs(300),
    jitter: 0.2,
};
/// `update`.
pub const UPDATE: Update = Update {
    max_surge: 1,
    max_unavailable: 0,
    min_ready: Duration::from_secs(10),
    progress_deadline: Duration::from_secs(600),
};

/// `retry`, if it is given and empty.
#[must_use]
pub fn retry() -> Retry {
    Retry {
        interval: Duration::from_secs(30),
        max_duration: Duration::from_secs(3600),
        max_attempts: None,
        growth: None,
        stable: Duration::from_secs(120),
        classes: BTreeMap::new(),
        stages: Vec::new(),
        exhausted: Exhausted::Replica,
    }
}
