//! One trace from the command line through the components to an agent, as a collector in this
//! process receives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_tests::fleet::{self, Process};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

/// The caller's trace, and the span in it that the command line is a child of.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Keeps the spans that it is sent, each with the service that sent it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut kept = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes
                .into_iter()
                .find(|pair| pair.key == "service.name");
            let name = match name
                .and_then(|pair| pair.value)
                .and_then(|value| value.value)
            {
                Some(Value::StringValue(name)) => name,
                other => panic!("no service.name: {other:?}"),
            };
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| (name.clone(), span)));
        }
        drop(kept);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Collector {
    async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::task::spawn(serving);
        address
    }

    /// The spans of the caller's trace so far, by their ids.
    fn trace(&self) -> BTreeMap<String, (String, Span)> {
        let kept = self.0.lock().unwrap();
        let ours = kept.iter().filter(|(_, span)| hex(&span.trace_id) == TRACE);
        ours.map(|(service, span)| (hex(&span.span_id), (service.clone(), span.clone())))
            .collect()
    }

    /// The services that calls went through, from the caller to the span of this id; none if one
    /// in between has not arrived.
    fn way_to(&self, id: &str) -> Option<Vec<String>> {
        let trace = self.trace();
        let mut way = Vec::new();
        let mut id = id.to_owned();
        while id != CALLER {
            let (service, span) = trace.get(&id)?;
            if way.last() != Some(service) {
                way.push(service.clone());
            }
            id = hex(&span.parent_span_id);
        }
        way.reverse();
        Some(way)
    }

    /// Every way through the services that the trace shows.
    fn ways(&self) -> BTreeSet<Vec<String>> {
        let trace = self.trace();
        trace.keys().filter_map(|id| self.way_to(id)).collect()
    }
}

struct Traced {
    folder: tempfile::TempDir,
    endpoint: String,
    running: BTreeMap<&'static str, Process>,
}

impl Traced {
    fn environment(&self) -> [(&str, &str); 2] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ]
    }

    async fn start(&mut self, name: &'static str, args: &[String]) {
        let at: &Path = self.folder.path();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_component"));
        let address = fleet::free_port();
        let process = fleet::start(&program, at, name, address, args, &self.environment()).await;
        self.running.insert(name, process);
    }

    fn url(&self, flag: &str, name: &str) -> String {
        format!("--{flag}=http://{}", self.running[name].address)
    }

    fn muster(&self, args: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_component"));
        let mut command = fleet::command(program, "muster");
        command
            .envs(self.environment())
            .env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"))
            .env("XDG_CONFIG_HOME", self.folder.path())
            .args(args)
            .arg(self.url("offers-addr", "offers-gateway"))
            .arg(self.url("workers-addr", "worker-registry"))
            .arg(self.url("replicas-addr", "replica-manager"));
        command.output().unwrap()
    }
}

async fn traced(endpoint: String) -> Traced {
    let mut stack = Traced {
        folder: tempfile::tempdir().unwrap(),
        endpoint,
        running: BTreeMap::new(),
    };
    stack.start("offers-gateway", &[]).await;
    let memory = "--store=memory:".to_owned();
    let open = "--insecure-join".to_owned();
    stack
        .start("worker-registry", &[memory.clone(), open])
        .await;
    let workers = stack.url("workers-addr", "worker-registry");
    let offers = stack.url("offers-addr", "offers-gateway");
    stack
        .start("replica-manager", &[memory, workers.clone(), offers])
        .await;
    let data = stack.folder.path().join("w1");
    let agent = [
        "--name=w1".to_owned(),
        format!("--data={}", data.display()),
        workers,
        stack.url("replicas-addr", "replica-manager"),
    ];
    stack.start("worker-agent", &agent).await;
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_from_the_command_line_to_every_component() {
    let collector = Collector::default();
    let stack = traced(format!("http://{}", collector.serve().await)).await;
    let spec = stack.folder.path().join("hello.yaml");
    let text = "name: hello\nrun:\n  command: [sh, -c, 'echo hello; sleep 600']\n";
    fs::write(&spec, text).unwrap();
    let spec = spec.display().to_string();
    for args in [
        &["apply", "-f", &spec, "--wait"][..],
        &["explain", "hello"],
        &["logs", "hello"],
        &["rm", "hello", "-y", "--wait"],
    ] {
        let output = stack.muster(args);
        let code = output.status.code();
        assert_eq!(
            code,
            Some(0),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let way = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let wanted = [
        way(&["muster", "replica-manager", "worker-registry"]),
        way(&["muster", "replica-manager", "offers-gateway"]),
        way(&["muster", "replica-manager", "worker-agent"]),
    ];
    let end = Instant::now() + PATIENCE;
    loop {
        let ways = collector.ways();
        if wanted.iter().all(|way| ways.contains(way)) {
            break;
        }
        assert!(Instant::now() < end, "only {ways:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_loses_no_call_and_is_told_by_an_auxiliary_check() {
    let stack = traced("http://127.0.0.1:1".to_owned()).await;
    for _ in 0..5 {
        let output = stack.muster(&["services"]);
        let code = output.status.code();
        assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let ready = stack.running["replica-manager"].get("/readyz");
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        let (_, body) = ready.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let checks = body["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["name"] == "telemetry")
            .unwrap();
        assert_eq!(check["tier"], "auxiliary", "{check}");
        if check["status"] == "failed" {
            break;
        }
        assert!(Instant::now() < end, "{check}");
        sleep(Duration::from_millis(50)).await;
    }
}
