//! The metrics of a server's connections.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Metrics;

/// What is counted of connections.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    open: Gauge,
    refused: Counter,
    failed: Counter,
    aged: Counter,
}

impl Connections {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            open: metrics.register("muster_connections", "Open connections", Gauge::default()),
            refused: metrics.register(
                "muster_connections_refused",
                "Connections closed at once because too many were open",
                Counter::default(),
            ),
            failed: metrics.register(
                "muster_connections_failed",
                "Connections that never came to HTTP/2: no handshake, a bad certificate, or noise",
                Counter::default(),
            ),
            aged: metrics.register(
                "muster_connections_aged",
                "Connections asked to go because they were too old",
                Counter::default(),
            ),
        }
    }

    /// Counts one more open connection until dropped.
    pub(super) fn opened(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn aged(&self) {
        self.aged.inc();
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }
}

/// An open connection.
pub(super) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
