//! What the registry measures of itself.

use std::sync::atomic::AtomicU64;

use muster_runtime::metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The registry's metrics.
pub(crate) struct Metrics {
    /// Decisions made again since a record had changed.
    pub(super) conflicts: Counter,
    /// Seconds for which this registry stood still.
    pub(super) stalled: Counter<f64, AtomicU64>,
    /// Times that a worker became SUSPECT.
    pub(super) suspects: Counter,
    /// Times that a worker became LOST.
    pub(super) lost: Counter,
    /// Workers that mass-loss brakes hold.
    pub(super) braked: Gauge,
}

impl Metrics {
    pub(super) fn new(metrics: &metrics::Metrics) -> Self {
        Self {
            conflicts: metrics.register(
                "muster_registry_conflicts",
                "Decisions made again since a record had changed",
                Counter::default(),
            ),
            stalled: metrics.register_seconds(
                "muster_registry_stalled",
                "Time for which the registry stood still, given back to workers",
                Counter::default(),
            ),
            suspects: metrics.register(
                "muster_registry_workers_suspected",
                "Times that a worker became SUSPECT",
                Counter::default(),
            ),
            lost: metrics.register(
                "muster_registry_workers_lost",
                "Times that a worker became LOST",
                Counter::default(),
            ),
            braked: metrics.register(
                "muster_registry_workers_braked",
                "Silent workers that a mass-loss brake keeps from being declared lost",
                Gauge::default(),
            ),
        }
    }
}
