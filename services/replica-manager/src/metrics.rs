//! What the manager tells of its services and of itself, for Prometheus. It is told; it judges nothing.

use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

/// The manager's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    passes: Histogram,
}

/// From a single replica to thousands of them, in seconds.
const PASS_BUCKETS: [f64; 9] = [
    0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.01, 0.1,
];

impl Metrics {
    pub(crate) fn new(registry: &muster_runtime::metrics::Metrics) -> Self {
        let passes = Histogram::new(PASS_BUCKETS);
        let help = "Time to plan for one service";
        Self {
            passes: registry.register_seconds("muster_planner_pass_duration", help, passes),
        }
    }

    /// A plan was made that began then.
    pub(crate) fn passed(&self, started: Instant) {
        self.passes.observe(started.elapsed().as_secs_f64());
    }
}
