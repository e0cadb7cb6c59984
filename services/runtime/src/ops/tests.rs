//! Requests to a real ops port, over the bytes of HTTP/1.1 and over gRPC.

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_client::HealthClient;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;

use super::*;
use crate::health::Tier;
use crate::health::service::MAX_WATCHES;
use crate::server::{Listeners, Server};
use crate::shutdown::Cause;

struct Running {
    context: Context,
    ops: std::net::SocketAddr,
    grpc: std::net::SocketAddr,
}

impl Running {
    async fn start() -> Self {
        let context = Context::for_tests("sample");
        let listeners = Listeners::loopback().await.unwrap();
        let (grpc, ops) = (listeners.grpc_address(), listeners.ops_address().unwrap());
        context
            .tasks
            .critical("server", Server::new(&context).serve(listeners));
        context.health.until_ready().await;
        Self { context, ops, grpc }
    }

    /// The status code and the body.
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.ops).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (code, body) = self.ask("GET", path).await;
        (code, serde_json::from_str(&body).expect(&body))
    }
}

#[tokio::test]
async fn readiness_and_liveness_are_json_with_their_checks() {
    let running = Running::start().await;
    let store = running.context.health.check("store", Tier::Core);
    let peer = running.context.health.check("peer", Tier::Auxiliary);
    running.context.load.show_queue("commit", || 3);
    store.ok("");
    peer.failed("away");
    for path in ["/readyz", "/ready"] {
        let (code, body) = running.get(path).await;
        assert_eq!((code, &body["status"]), (200, &"degraded".into()), "{body}");
        assert_eq!(body["component"], "sample");
        assert_eq!(body["queues"]["commit"], 3);
        assert_eq!(body["in_flight"], 0);
        let checks = body["checks"].as_array().unwrap();
        let peer = checks.iter().find(|check| check["name"] == "peer").unwrap();
        assert_eq!(
            (&peer["tier"], &peer["status"], &peer["detail"]),
            (&"auxiliary".into(), &"failed".into(), &"away".into())
        );
        assert!(peer["since"].as_str().unwrap().ends_with('Z'));
    }
    store.failed("disk full");
    assert_eq!(running.get("/readyz").await.0, 503);
    for path in ["/livez", "/health"] {
        let (code, body) = running.get(path).await;
        assert_eq!((code, &body["status"]), (200, &"live".into()));
    }
    running.context.health.stalled(Some("no progress for 6 s"));
    assert_eq!(running.get("/livez").await.0, 503);
}

#[tokio::test]
async fn connections_that_ask_nothing_keep_nobody_out() {
    let running = Running::start().await;
    let mut asking = TcpStream::connect(running.ops).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        silent.push(TcpStream::connect(running.ops).await.unwrap());
        // Whoever asks keeps its connection.
        if silent.len() % 100 == 0 {
            let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
            asking.write_all(request).await.unwrap();
            let mut answer = [0; 1024];
            let read = asking.read(&mut answer).await.unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        }
    }
    assert_eq!(running.get("/livez").await.0, 200);
    let mut first = [0];
    let end = silent[0].read(&mut first).await;
    assert!(matches!(end, Ok(0) | Err(_)), "the quietest is closed");
}

#[tokio::test]
async fn metrics_version_and_nothing_else() {
    let running = Running::start().await;
    let (code, text) = running.ask("GET", "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "muster_ready 1.0",
        "muster_live 1.0",
        "muster_check_ok{check=\"startup\",tier=\"core\"} 1.0",
        "muster_in_flight{lane=\"shared\"} 0.0",
        "muster_shed_total{lane=\"vital\"} 0",
        "muster_build_info{component=\"sample\",version=\"0.0.0\",commit=\"\"} 1.0",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let (code, version) = running.get("/version").await;
    assert_eq!((code, &version["version"]), (200, &"0.0.0".into()));
    assert_eq!(running.get("/").await.0, 404);
    assert_eq!(running.ask("POST", "/readyz").await.0, 405);
    let (code, body) = running.ask("HEAD", "/readyz").await;
    assert_eq!((code, body.as_str()), (200, ""));
}

#[tokio::test]
async fn the_health_protocol_is_there_too_and_shares_its_places() {
    let running = Running::start().await;
    let mut on_ops = HealthClient::connect(format!("http://{}", running.ops))
        .await
        .unwrap();
    let mut on_grpc = HealthClient::connect(format!("http://{}", running.grpc))
        .await
        .unwrap();
    let status = on_ops
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status();
    assert_eq!(status, ServingStatus::Serving);
    let mut compressed = on_grpc
        .clone()
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = compressed.check(HealthCheckRequest::default()).await;
    assert_eq!(
        answer.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    let mut open = Vec::new();
    for number in 0..MAX_WATCHES {
        let client = if number % 2 == 0 {
            &mut on_ops
        } else {
            &mut on_grpc
        };
        open.push(client.watch(HealthCheckRequest::default()).await.unwrap());
        if open.len() % 100 == 0 {
            let mut last = open.pop().unwrap().into_inner();
            last.message().await.unwrap();
            open.push(tonic::Response::new(last));
        }
    }
    let refused = on_grpc
        .watch(HealthCheckRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    on_grpc.check(HealthCheckRequest::default()).await.unwrap();
    drop(open);
    let freed = async {
        while on_grpc.watch(HealthCheckRequest::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), freed)
        .await
        .expect("places are given back");
}

#[tokio::test]
async fn it_answers_while_the_rest_stops_and_then_ends() {
    let running = Running::start().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    running
        .context
        .shutdown
        .step(Phase::Loops, "wait", Duration::from_secs(5), || async {
            let _ = wait.await;
        });
    running.context.shutdown.begin(Cause::asked("test"));
    running.context.shutdown.reached(Phase::Loops).await;
    let (code, body) = running.get("/readyz").await;
    assert_eq!((code, &body["status"]), (503, &"not ready".into()));
    assert_eq!(running.get("/livez").await.0, 200);
    go.send(()).unwrap();
    assert!(running.context.shutdown.finished().await.is_clean());
    let gone = async { while TcpStream::connect(running.ops).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .expect("the port is closed");
}
