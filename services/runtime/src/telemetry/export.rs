//! The way of spans to the collector, and whether they arrive, about which OpenTelemetry itself
//! keeps silent.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use prometheus_client::metrics::counter::Counter;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::{BoxedLayer, Export, inbound};
use crate::context::Identity;
use crate::metrics::Metrics;

/// Where the environment names the collector, the more special variable first.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Targets below the exporter itself, whose spans would breed spans.
const OWN_TARGETS: [&str; 7] = [
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "rustls",
    "tonic",
    "tower",
];

/// Whether the environment names a collector.
pub(super) fn is_wanted() -> bool {
    let mut names = ENDPOINTS.iter();
    names.any(|name| env::var(name).is_ok_and(|endpoint| !endpoint.is_empty()))
}

/// The layer that exports spans, if the environment names a collector. The error is in words.
pub(super) fn start<S>(identity: &Identity) -> Option<Result<(BoxedLayer<S>, Export), String>>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    if !is_wanted() {
        return None;
    }
    let otlp = match Otlp::builder().with_tonic().build() {
        Ok(otlp) => otlp,
        Err(error) => return Some(Err(error.to_string())),
    };
    Some(Ok(layer_on(otlp, identity)))
}

/// The layer that hands spans to `exporter`.
pub(super) fn layer_on<S, E>(exporter: E, identity: &Identity) -> (BoxedLayer<S>, Export)
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    E: SpanExporter + 'static,
{
    let deliveries = Arc::new(Deliveries::default());
    let counted = Counted {
        inner: exporter,
        deliveries: Arc::clone(&deliveries),
    };
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(identity))
        .with_batch_exporter(counted)
        .build();
    let tracer = provider.tracer("muster");
    let wanted = OWN_TARGETS
        .iter()
        .fold(Targets::new(), |targets, own| {
            targets.with_target(*own, LevelFilter::OFF)
        })
        .with_default(LevelFilter::INFO)
        .with_target(inbound::TARGET, LevelFilter::DEBUG);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_filter(wanted);
    (
        layer.boxed(),
        Export {
            provider,
            deliveries,
        },
    )
}

fn resource(identity: &Identity) -> Resource {
    Resource::builder()
        .with_service_name(identity.name)
        .with_attributes([
            KeyValue::new("service.namespace", "muster"),
            KeyValue::new("service.version", identity.version),
            KeyValue::new("service.instance.id", identity.instance.to_string()),
        ])
        .build()
}

/// What became of the spans that were sent off.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    sent: Counter<u64, AtomicU64>,
    lost: Counter<u64, AtomicU64>,
    batches: AtomicU64,
    /// Why the last batch was lost; `None` if it arrived.
    trouble: Mutex<Option<String>>,
}

impl Deliveries {
    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register(
            "muster_spans_sent",
            "Spans that the collector took",
            self.sent.clone(),
        );
        metrics.register(
            "muster_spans_lost",
            "Spans that the collector did not take",
            self.lost.clone(),
        );
    }

    /// Whether spans arrive, for a health check.
    pub(super) fn verdict(&self) -> Result<String, String> {
        if let Some(trouble) = self.trouble().clone() {
            return Err(trouble);
        }
        let batches = self.batches.load(Ordering::Relaxed);
        Ok(if batches == 0 {
            "no span yet".to_owned()
        } else {
            String::new()
        })
    }

    fn note(&self, spans: u64, outcome: &OTelSdkResult) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(()) => self.sent.inc_by(spans),
            Err(_) => self.lost.inc_by(spans),
        };
        *self.trouble() = outcome.as_ref().err().map(ToString::to_string);
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exporter whose deliveries are counted.
#[derive(Debug)]
struct Counted<E> {
    inner: E,
    deliveries: Arc<Deliveries>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let outcome = self.inner.export(batch).await;
        self.deliveries.note(spans, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
