//! Spans and log lines of calls to a real server, with a collector and a log in memory.

use std::io::Write;
use std::sync::Mutex;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::{GetStatusRequest, ListInstancesRequest};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tonic::Request;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::layers::tests::Running;
use crate::server::Settings;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn identity() -> Identity {
    Identity {
        name: "sample",
        version: "0.0.0",
        instance: "1".into(),
    }
}

/// Keeps spans, or refuses them.
#[derive(Debug, Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<SpanData>>>,
    away: bool,
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if self.away {
            return Err(OTelSdkError::InternalFailure("nobody there".to_owned()));
        }
        self.spans.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Telemetry of this test's thread, with log lines in JSON.
fn start(collector: Option<&Collector>) -> (Telemetry, Log, DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let logs =
        log_layer(LogFormat::Json, move || writer.clone()).with_filter(EnvFilter::new("info"));
    let (traces, export) = match collector {
        Some(collector) => {
            let (layer, export) = export::layer_on(collector.clone(), &identity());
            (Some(layer), Some(export))
        }
        None => (None, None),
    };
    let guard = Registry::default().with(traces).with(logs).set_default();
    (Telemetry { export }, log, guard)
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", header);
    request
}

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
    found.map(|pair| pair.value.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn a_call_is_a_span_in_its_callers_trace() {
    let collector = Collector::default();
    let (telemetry, _, _guard) = start(Some(&collector));
    let running = Running::start(Settings::default()).await;
    let mut client = OpsServiceClient::connect(running.url.clone())
        .await
        .unwrap();
    client
        .get_status(traced(GetStatusRequest {}))
        .await
        .unwrap();
    client
        .list_instances(ListInstancesRequest {})
        .await
        .unwrap();
    let mut health = HealthClient::connect(running.url.clone()).await.unwrap();
    health
        .check(traced(HealthCheckRequest::default()))
        .await
        .unwrap();
    telemetry.end().await.unwrap();
    let spans = collector.spans.lock().unwrap();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(
        names,
        [
            "muster.ops.v1.OpsService/GetStatus",
            "muster.ops.v1.OpsService/ListInstances"
        ],
        "health is not traced"
    );
    assert_eq!(spans[0].span_context.trace_id().to_string(), TRACE);
    assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(spans[0].span_kind, opentelemetry::trace::SpanKind::Server);
    for (key, value) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "muster.ops.v1.OpsService/GetStatus"),
        ("rpc.response.status_code", "OK"),
    ] {
        assert_eq!(attribute(&spans[0], key), value, "{key}");
    }
}

#[tokio::test]
async fn log_lines_of_a_call_name_its_trace_with_and_without_a_collector() {
    for collector in [None, Some(Collector::default())] {
        let (_telemetry, log, _guard) = start(collector.as_ref());
        let running = Running::start(Settings::default()).await;
        let mut client = OpsServiceClient::connect(running.url.clone())
            .await
            .unwrap();
        let request = muster_proto::ops::v1::SetMaintenanceRequest {
            on: true,
            reason: "panic".to_owned(),
        };
        client.set_maintenance(traced(request)).await.unwrap_err();
        let text = log.text();
        let line = text
            .lines()
            .find(|line| line.contains("call failed"))
            .expect(&text);
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
        assert_eq!(
            (&line["level"], &line["code"]),
            (&"WARN".into(), &"INTERNAL".into())
        );
    }
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_and_stops_nothing() {
    let collector = Collector {
        away: true,
        ..Collector::default()
    };
    let (telemetry, _, _guard) = start(Some(&collector));
    let Running { context, url, .. } = Running::start(Settings::default()).await;
    telemetry.attach(&context);
    let mut client = OpsServiceClient::connect(url).await.unwrap();
    client.get_status(GetStatusRequest {}).await.unwrap();
    let export = telemetry.export.clone().unwrap();
    let flush = export.provider.clone();
    task::spawn_blocking(move || flush.force_flush())
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        export
            .deliveries
            .verdict()
            .unwrap_err()
            .contains("nobody there")
    );
    assert!(
        context
            .metrics
            .render()
            .unwrap()
            .contains("muster_spans_lost_total 1")
    );
    assert!(context.health.is_ready());
}
