//! Sees each call of ours from its start to the end of its answer: as a span where traces are
//! wanted, and as a metric. It changes nothing about a call.

use std::sync::Arc;

use http::{HeaderMap, Request};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::{Span, field, info_span};

use crate::metrics::Metrics;
use crate::status::code_name;

/// Upper bounds in seconds.
const BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc_system_name: &'static str,
    rpc_method: Arc<str>,
    rpc_response_status_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    rpc_method: Arc<str>,
}

/// The metrics of a component's own calls.
#[derive(Debug, Clone)]
pub(super) struct CallMetrics {
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    retries: Family<RetryLabels, Counter>,
}

impl CallMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        Self {
            durations: metrics.register_seconds(
                "rpc_client_call_duration",
                "How long calls to others took, tries and the whole answer included",
                durations,
            ),
            retries: metrics.register(
                "rpc_client_retries",
                "Calls to others that were made again",
                Family::default(),
            ),
        }
    }
}

/// One call while it runs. Dropped before its end, it was given up by its caller.
#[derive(Debug)]
pub(super) struct Observation {
    method: Arc<str>,
    started: Instant,
    span: Span,
    metrics: Option<CallMetrics>,
    ended: bool,
}

impl Observation {
    pub(super) fn start(request: &Request<Body>, metrics: Option<CallMetrics>) -> Self {
        let method: Arc<str> = request.uri().path().trim_start_matches('/').into();
        // By OpenTelemetry's conventions for RPC clients.
        let span = info_span!(
            "call",
            otel.name = &*method,
            otel.kind = "client",
            otel.status_code = field::Empty,
            rpc.system.name = "grpc",
            rpc.method = &*method,
            rpc.response.status_code = field::Empty,
        );
        Self {
            method,
            started: Instant::now(),
            span,
            metrics,
            ended: false,
        }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// The call is made once more.
    pub(super) fn retried(&self) {
        if let Some(metrics) = &self.metrics {
            let labels = RetryLabels {
                rpc_method: Arc::clone(&self.method),
            };
            metrics.retries.get_or_create(&labels).inc();
        }
    }

    /// The call has ended so.
    pub(super) fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.span
            .record("rpc.response.status_code", code_name(code));
        if code != Code::Ok {
            self.span.record("otel.status_code", "ERROR");
        }
        if let Some(metrics) = &self.metrics {
            let labels = Labels {
                rpc_system_name: "grpc",
                rpc_method: Arc::clone(&self.method),
                rpc_response_status_code: code_name(code),
            };
            let took = self.started.elapsed().as_secs_f64();
            metrics.durations.get_or_create(&labels).observe(took);
        }
    }

    /// The call has ended if these headers or trailers say how.
    pub(super) fn end_if_said(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.end(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}
