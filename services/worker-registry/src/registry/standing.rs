//! How the fleet stands, for Prometheus: workers by state, and drains that run. It is read off the
//! registry whenever it is asked for, and judges nothing.

use std::fmt;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{Inner, Registry};
use crate::domain::fleet::Fleet;
use crate::domain::state::State;

const STATES: [(State, &str); 4] = [
    (State::Provisioning, "PROVISIONING"),
    (State::Active, "ACTIVE"),
    (State::Draining, "DRAINING"),
    (State::Disabled, "DISABLED"),
];

/// The registry whose fleet is read; nothing is told once it is gone.
#[derive(Debug)]
pub(super) struct Standing(pub(super) Weak<Inner>);

/// What is counted of a fleet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    by_state: [u32; STATES.len()],
    drains: u32,
    longest: Duration,
}

impl Counts {
    fn of(fleet: &Fleet, now: SystemTime) -> Self {
        let mut counts = Self::default();
        for entry in fleet.workers() {
            let worker = &entry.worker;
            let place = STATES.iter().position(|(state, _)| *state == worker.state);
            if let Some(count) = place.and_then(|place| counts.by_state.get_mut(place)) {
                *count += 1;
            }
            if let Some(drain) = worker.drain.as_ref().filter(|drain| drain.is_running()) {
                counts.drains += 1;
                let age = now.duration_since(drain.started).unwrap_or_default();
                counts.longest = counts.longest.max(age);
            }
        }
        counts
    }
}

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(registry) = self.0.upgrade().map(Registry) else {
            return Ok(());
        };
        let now = registry.clock.now();
        let counts = Counts::of(&registry.view(), now);
        let help = "Workers by state";
        let mut workers =
            encoder.encode_descriptor("muster_registry_workers", help, None, MetricType::Gauge)?;
        for ((_, name), count) in STATES.iter().zip(counts.by_state) {
            let labels = vec![("state", *name)];
            ConstGauge::new(f64::from(count)).encode(workers.encode_family(&labels)?)?;
        }
        let help = "Drains that run";
        let drains =
            encoder.encode_descriptor("muster_registry_drains", help, None, MetricType::Gauge)?;
        ConstGauge::new(f64::from(counts.drains)).encode(drains)?;
        let longest = encoder.encode_descriptor(
            "muster_registry_longest_drain",
            "How long the oldest drain that runs has run",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        ConstGauge::new(counts.longest.as_secs_f64()).encode(longest)
    }
}
