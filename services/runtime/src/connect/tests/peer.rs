//! A scripted server for tests: every method answers by a closure, and each call is remembered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use http::{HeaderMap, Request, Response};
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::{HealthCheckRequest, HealthCheckResponse};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_prost::ProstCodec;

pub(super) type Answers = BoxStream<'static, Result<String, Status>>;

/// What a method does. The second argument counts the calls of this method, from 0.
pub(super) type Script =
    Arc<dyn Fn(&str, usize) -> BoxFuture<'static, Result<Answers, Status>> + Send + Sync>;

#[derive(Clone)]
pub(super) struct Peer {
    script: Script,
    calls: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    pub(super) serving: Arc<AtomicBool>,
    pub(super) checks: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
}

/// A running peer; stops gracefully when dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Running {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One answer, as a script gives it.
pub(super) fn one(answer: impl Into<String>) -> Result<Answers, Status> {
    let answer = answer.into();
    Ok(stream::once(async move { Ok(answer) }).boxed())
}

impl Peer {
    pub(super) fn new<F, R>(script: F) -> Self
    where
        F: Fn(&str, usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Answers, Status>> + Send + 'static,
    {
        Self {
            script: Arc::new(move |method, count| Box::pin(script(method, count))),
            calls: Arc::default(),
            serving: Arc::new(AtomicBool::new(true)),
            checks: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// Answers everything with `answer`.
    pub(super) fn saying(answer: &'static str) -> Self {
        Self::new(move |_, _| async move { one(answer) })
    }

    pub(super) async fn start(&self) -> Running {
        self.start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn start_at(&self, address: SocketAddr) -> Running {
        self.serve(Server::builder(), address).await
    }

    pub(super) async fn start_tls(&self, identity: Identity) -> Running {
        let config = ServerTlsConfig::new().identity(identity);
        let server = Server::builder().tls_config(config).unwrap();
        self.serve(server, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn serve(&self, server: Server, address: SocketAddr) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let connections = Arc::clone(&self.connections);
        let incoming = TcpListenerStream::new(listener).inspect(move |_| {
            connections.fetch_add(1, Ordering::Relaxed);
        });
        let service = Both(self.clone());
        super::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server
                .serve_with_incoming_shutdown(service, incoming, stopped)
                .await
                .unwrap();
        });
        Running {
            address,
            _stop: stop,
        }
    }

    /// Serves whatever comes, for as long as the test runs.
    pub(super) fn serve_on<I>(&self, incoming: I)
    where
        I: tokio_stream::Stream<Item = tokio::io::DuplexStream> + Send + 'static,
    {
        let incoming = incoming.map(Ok::<_, Infallible>);
        let service = Both(self.clone());
        super::spawn(async move {
            Server::builder()
                .serve_with_incoming(service, incoming)
                .await
                .unwrap();
        });
    }

    /// The methods called, in order.
    pub(super) fn methods(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .map(|(method, _)| method.clone())
            .collect()
    }

    /// The value of a header of the last call.
    pub(super) fn last_header(&self, name: &str) -> Option<String> {
        let calls = self.calls.lock().unwrap();
        let (_, headers) = calls.last()?;
        Some(headers.get(name)?.to_str().unwrap().to_owned())
    }
}

/// The peer with its health protocol.
#[derive(Clone)]
struct Both(Peer);

impl tower::Service<Request<Body>> for Both {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = self.0.clone();
        Box::pin(async move {
            if request.uri().path() == "/grpc.health.v1.Health/Check" {
                let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                return Ok(tonic::server::Grpc::new(codec)
                    .unary(HealthOf(peer), request)
                    .await);
            }
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            if method == "Malformed" {
                return Ok(malformed());
            }
            let headers = request.headers().clone();
            let codec = ProstCodec::<String, String>::default();
            let script = Scripted {
                peer,
                method,
                headers,
            };
            Ok(tonic::server::Grpc::new(codec)
                .server_streaming(script, request)
                .await)
        })
    }
}

/// A status that tonic cannot read without panicking.
fn malformed() -> Response<Body> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "9")
        .header("grpc-message", "badly said")
        .header("grpc-status-details-bin", "%%%not base64%%%")
        .body(Body::default())
        .unwrap()
}

struct HealthOf(Peer);

impl tonic::server::UnaryService<HealthCheckRequest> for HealthOf {
    type Response = HealthCheckResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, _: tonic::Request<HealthCheckRequest>) -> Self::Future {
        self.0.checks.fetch_add(1, Ordering::Relaxed);
        let status = match self.0.serving.load(Ordering::Relaxed) {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        let answer = HealthCheckResponse {
            status: status.into(),
        };
        Box::pin(async move { Ok(tonic::Response::new(answer)) })
    }
}

struct Scripted {
    peer: Peer,
    method: String,
    headers: HeaderMap,
}

impl tonic::server::ServerStreamingService<String> for Scripted {
    type Response = String;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, _: tonic::Request<String>) -> Self::Future {
        let count = {
            let mut calls = self.peer.calls.lock().unwrap();
            calls.push((self.method.clone(), self.headers.clone()));
            calls
                .iter()
                .filter(|(method, _)| *method == self.method)
                .count()
                - 1
        };
        let answer = (self.peer.script)(&self.method, count);
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}
