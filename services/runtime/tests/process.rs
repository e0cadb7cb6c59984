//! The process from outside: how it starts, what it refuses, how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use sha2::{Digest as _, Sha256};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

const PATIENCE: Duration = Duration::from_secs(20);

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent()).unwrap();
    folder.join("examples/sample")
}

fn sample(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .env("MUSTER_LOG", "json")
        .env("MUSTER_LAME_DUCK", "0s")
        .env("MUSTER_LISTEN", "127.0.0.1:0")
        .env("MUSTER_OPS_LISTEN", "127.0.0.1:0")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended(args: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = sample(args).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// A collector of spans, which keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans;
        self.0.lock().unwrap().extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A process that has said where it is.
struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    address: SocketAddr,
    ops: SocketAddr,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        Self::spawn(&mut sample(args))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        // Made first, so that the process ends with this whatever goes wrong below.
        let mut running = Self {
            child,
            log,
            address: nowhere,
            ops: nowhere,
        };
        let mut line = String::new();
        while !line.contains("\"starting\"") {
            line.clear();
            assert_ne!(running.log.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |field: &str| line[field].as_str().unwrap().parse().unwrap();
        (running.address, running.ops) = (address("address"), address("ops"));
        running
    }

    /// The status code of a GET on the ops port; `None` while nobody answers.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.ops).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer))
    }

    fn until(&self, path: &str, wanted: u16) -> Duration {
        let begun = Instant::now();
        while self.get(path).is_none_or(|(code, _)| code != wanted) {
            assert!(begun.elapsed() < PATIENCE, "{path} is never {wanted}");
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn end(mut self) -> (ExitStatus, String, Duration) {
        let begun = Instant::now();
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log, begun.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_starts_soon_serves_and_ends_as_asked() {
    let begun = Instant::now();
    let running = Running::start(&[]);
    running.until("/readyz", 200);
    let started = begun.elapsed();
    let (_, metrics) = running.get("/metrics").unwrap();
    let memory = metrics
        .lines()
        .find(|line| line.starts_with("process_resident_memory_bytes"));
    println!("ready after {started:?}, {}", memory.unwrap());
    assert!(started < Duration::from_secs(2), "{started:?}");
    assert_eq!(running.get("/livez").unwrap().0, 200);
    TcpStream::connect(running.address).unwrap();
    running.signal("TERM");
    let (status, log, _) = running.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("shutdown done") && log.contains("SIGTERM"),
        "{log}"
    );
}

#[test]
fn the_end_of_its_terminal_is_an_end_as_asked() {
    let running = Running::start(&[]);
    running.until("/readyz", 200);
    running.signal("HUP");
    let (status, log, _) = running.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("shutdown done") && log.contains("SIGHUP"),
        "{log}"
    );
}

#[test]
fn bad_usage_exits_2_with_words_and_nothing_bound() {
    for (args, words) in [
        (&["--listen", "0.0.0.0:0"][..], "--insecure"),
        (
            &["--listen", "0.0.0.0:0", "--tls", "required"],
            "would be an admin",
        ),
        (&["--tls", "required"], "--tls-cert"),
        (&["--tls-cert", "x"], "--tls is off"),
        (&["--cert", "x"], "go together"),
        (&["--threads", "0"], "--threads"),
        (&["--default-deadline", "5"], "write it like 30s"),
        (&["--log-filter", "=="], "log-filter"),
        (&["--data", "/nowhere"], "no folder"),
        (&["--config", "/nowhere"], "/nowhere"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let (code, stderr) = ended(args);
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert!(!stderr.contains("\"starting\""), "{args:?}: {stderr}");
    }
}

#[test]
fn the_settings_are_printed_and_that_is_all() {
    let output = sample(&["--print-config"])
        .env("MUSTER_THREADS", "3")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("threads = \"3\"  # environment"), "{text}");
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["listen"].as_str(), Some("127.0.0.1:0"));
}

#[test]
fn a_variable_that_is_empty_is_as_one_that_is_not_set() {
    let mut command = sample(&["--print-config"]);
    for name in [
        "THREADS",
        "LOG",
        "TLS",
        "TLS_CERT",
        "INSECURE",
        "CONFIG",
        "LAME_DUCK",
    ] {
        command.env(format!("MUSTER_{name}"), "");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{:?}", output.stderr);
    assert!(text.contains("threads = \"2\"  # default"), "{text}");
    assert!(text.contains("# tls_cert is not set"), "{text}");
    // What is given on the command line is meant.
    assert_eq!(ended(&["--print-config", "--log="]).0, 2);
}

#[test]
fn beyond_loopback_it_serves_if_that_is_spelled_out() {
    let running = Running::start(&["--listen", "0.0.0.0:0", "--insecure"]);
    running.until("/readyz", 200);
    running.signal("INT");
    assert_eq!(running.end().0.code(), Some(0));
}

#[test]
fn a_taken_port_exits_1_with_its_name() {
    let running = Running::start(&[]);
    for flag in ["--listen", "--ops-listen"] {
        let taken = if flag == "--listen" {
            running.address
        } else {
            running.ops
        };
        let (code, stderr) = ended(&[flag, &taken.to_string()]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(&taken.to_string()), "{stderr}");
    }
}

#[test]
fn nobody_reaches_it_before_it_has_all_that_it_serves_from() {
    let mut running = Running::start(&["--misbehave", "never"]);
    for address in [running.address, running.ops] {
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    running.signal("TERM");
    let status = running.child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_component_that_fails_ends_or_panics_exits_1_and_says_why() {
    for (how, words) in [
        ("fail", "as told"),
        ("end", "without being asked"),
        ("panic", "task panic: panicked: as told"),
    ] {
        let (code, stderr) = ended(&["--misbehave", how]);
        assert_eq!(code, 1, "{how}: {stderr}");
        assert!(stderr.contains(words), "{how}: {stderr}");
    }
}

#[test]
fn a_second_signal_ends_a_hanging_shutdown_and_the_next_start_knows() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let running = Running::start(&["--hang", "--data", data]);
    running.until("/readyz", 200);
    running.signal("TERM");
    running.until("/readyz", 503);
    assert_eq!(running.get("/livez").unwrap().0, 200);
    running.signal("TERM");
    let (status, log, took) = running.end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let next = Running::start(&["--data", data]);
    next.until("/readyz", 200);
    let (_, metrics) = next.get("/metrics").unwrap();
    let step =
        "muster_last_shutdown_step_seconds{phase=\"step-down\",step=\"hang\",outcome=\"skipped\"}";
    assert!(metrics.contains(step), "{metrics}");
    next.signal("KILL");
    next.end();
    let last = Running::start(&["--data", data]);
    last.until("/readyz", 200);
    assert!(
        last.get("/metrics")
            .unwrap()
            .1
            .contains("muster_last_shutdown_clean 0")
    );
}

#[test]
fn with_every_thread_stuck_it_is_not_live_and_still_ends() {
    let running = Running::start(&[
        "--misbehave",
        "block",
        "--threads",
        "1",
        "--shutdown-timeout",
        "100ms",
    ]);
    let stalled = running.until("/livez", 503);
    println!("stalled seen after {stalled:?}");
    running.signal("TERM");
    let (status, log, took) = running.end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("shutdown itself is stuck"), "{log}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// A call that is nobody's, in a trace, which is traced and answered UNIMPLEMENTED.
async fn traced_call(address: SocketAddr) {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let mut client = tonic::client::Grpc::new(channel.unwrap().connect().await.unwrap());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(());
    let header = format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", header);
    let path = http::uri::PathAndQuery::from_static("/no.Service/Call");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let status = client.unary(request, path, codec).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_reach_the_collector_before_the_process_ends() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tokio::spawn(served);
    let running = Running::spawn(sample(&[]).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    running.until("/readyz", 200);
    traced_call(running.address).await;
    running.signal("TERM");
    let (status, log, _) = tokio::task::spawn_blocking(|| running.end()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("traces ok"), "{log}");
    let received = collector.0.lock().unwrap();
    let names: Vec<_> = received[0]
        .resource
        .iter()
        .flat_map(|resource| &resource.attributes)
        .collect();
    assert!(format!("{names:?}").contains("sample"), "{names:?}");
    let spans: Vec<_> = received
        .iter()
        .flat_map(|one| &one.scope_spans)
        .flat_map(|one| &one.spans)
        .collect();
    assert_eq!(spans.len(), 1);
    let trace: String = spans[0]
        .trace_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!((spans[0].name.as_str(), trace.as_str()), ("_OTHER", TRACE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_degrades_and_delays_nothing() {
    let running =
        Running::spawn(sample(&[]).env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"));
    running.until("/readyz", 200);
    traced_call(running.address).await;
    running.signal("TERM");
    let (status, log, took) = tokio::task::spawn_blocking(|| running.end()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// The settings of a process whose caller `name` shows that as its token.
fn lets_in(name: &str) -> String {
    let token = Sha256::digest(name);
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[auth]]\nname = {name:?}\nrole = \"viewer\"\ntoken_sha256 = {token:?}\n")
}

/// What comes of asking with `token` for what only who is known is told.
fn asked_with(running: &Running, token: &str) -> tonic::Code {
    running.until("/readyz", 200);
    let url = format!("http://{}", running.address);
    let asked = async {
        let channel = tonic::transport::Endpoint::from_shared(url).unwrap();
        let mut client = ServerReflectionClient::new(channel.connect().await.unwrap());
        let mut request = tonic::Request::new(tokio_stream::iter([ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        }]));
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        let answer = client.server_reflection_info(request).await;
        answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(asked)
}

impl Running {
    /// Has the settings read again, and waits until that came to `outcome` for the `times`th time.
    fn reads_again(&self, outcome: &str, times: u32) {
        self.signal("HUP");
        let line = format!("muster_config_reloads_total{{outcome=\"{outcome}\"}} {times}");
        self.until_metric(&line);
    }

    fn until_metric(&self, line: &str) {
        let begun = Instant::now();
        while !self.get("/metrics").unwrap().1.contains(line) {
            assert!(begun.elapsed() < PATIENCE, "never {line}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn who_may_call_is_read_again_at_sighup() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, lets_in("old")).unwrap();
    let running = Running::start(&["--config", file.path().to_str().unwrap()]);
    assert_eq!(asked_with(&running, "old"), tonic::Code::Ok);
    assert_eq!(asked_with(&running, "new"), tonic::Code::Unauthenticated);
    std::fs::write(&file, lets_in("new") + &lets_in("newer")).unwrap();
    running.reads_again("taken", 1);
    assert_eq!(asked_with(&running, "old"), tonic::Code::Unauthenticated);
    assert_eq!(asked_with(&running, "new"), tonic::Code::Ok);
    std::fs::write(&file, lets_in("newer")).unwrap();
    running.reads_again("taken", 2);
    assert_eq!(asked_with(&running, "new"), tonic::Code::Unauthenticated);
    assert_eq!(asked_with(&running, "newer"), tonic::Code::Ok);
    running.signal("TERM");
    let (status, log, _) = running.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("viewer:old") && !log.contains("take a restart"),
        "{log}"
    );
    let token = lets_in("old");
    let token = token.rsplit('"').nth(1).unwrap();
    assert!(!log.contains(token), "{log}");
}

#[test]
fn a_file_that_cannot_be_taken_changes_nothing_and_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sample.toml");
    std::fs::write(&file, lets_in("old")).unwrap();
    let running = Running::start(&["--config", file.to_str().unwrap()]);
    let new = lets_in("new");
    let open = "listen = \"0.0.0.0:0\"\n";
    let mut refused = 0;
    for (text, words) in [
        (Some(new.replace("viewer", "king")), "unknown role"),
        (Some(new[..new.len() - 10].to_owned()), "not TOML"),
        (Some(format!("{new}{new}")), "same proof"),
        (Some(format!("colour = 1\n{new}")), "colour"),
        (
            Some(format!("max_in_flight = \"many\"\n{new}")),
            "line 1: max_in_flight: invalid digit",
        ),
        (Some(format!("data = \"/nowhere\"\n{new}")), "no folder"),
        (
            Some(format!("{open}tls = \"required\"\n{new}")),
            "--tls needs",
        ),
        (Some(String::new()), "no [[auth]] entry"),
        (None, "No such file"),
    ] {
        match text {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        refused += 1;
        running.reads_again("refused", refused);
        assert_eq!(asked_with(&running, "old"), tonic::Code::Ok, "{words}");
        assert_eq!(
            asked_with(&running, "new"),
            tonic::Code::Unauthenticated,
            "{words}"
        );
        let (_, health) = running.get("/readyz").unwrap();
        assert!(health.contains(words), "{words}: {health}");
    }
    std::fs::write(&file, new).unwrap();
    running.reads_again("taken", 1);
    assert_eq!(asked_with(&running, "new"), tonic::Code::Ok);
    running.until_metric("muster_check_ok{check=\"configuration\",tier=\"auxiliary\"} 1");
    running.signal("TERM");
    let (_, log, _) = running.end();
    let lines = log
        .lines()
        .filter(|line| line.contains("configuration refused"));
    assert_eq!(u32::try_from(lines.count()).unwrap(), refused, "{log}");
}

#[test]
fn what_takes_a_restart_is_named_whenever_it_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, lets_in("old")).unwrap();
    let running = Running::start(&["--config", file.path().to_str().unwrap()]);
    let flags = "max_in_flight = 77\nhang = false\n";
    std::fs::write(&file, format!("{flags}{}", lets_in("new"))).unwrap();
    running.reads_again("taken", 1);
    running.reads_again("taken", 2);
    assert_eq!(
        asked_with(&running, "new"),
        tonic::Code::Ok,
        "the rest is taken"
    );
    running.signal("TERM");
    let (_, log, _) = running.end();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("take a restart"))
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    for line in lines {
        assert!(line.contains(r#"[\"max_in_flight\"]"#), "{line}");
    }
}
