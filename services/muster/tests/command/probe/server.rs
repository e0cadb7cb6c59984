//! Servers to be probed, each on a thread of its own until it is dropped.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use muster_proto::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    server::NamedService,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::Router},
};

/// Answers by the name of the service that is asked about.
struct Answers;

#[tonic::async_trait]
impl Health for Answers {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match request.get_ref().service.as_str() {
            "" | "well" => ServingStatus::Serving,
            "unwell" => ServingStatus::NotServing,
            "strange" => ServingStatus::Unknown,
            "broken" => return Err(Status::internal("broken")),
            "echo" => return Err(Status::aborted(heard(&request))),
            "slow" => std::future::pending().await,
            _ => return Err(Status::not_found("unknown service")),
        };
        let status = status.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("not listed"))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not watched"))
    }
}

/// What was sent with a call.
fn heard(request: &Request<HealthCheckRequest>) -> String {
    let headers = request.metadata();
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("?").to_owned())
    };
    let raw = headers
        .get_bin("x-raw-bin")
        .map(|value| value.to_bytes().unwrap());
    format!(
        "agent={} x-key={} x-raw-bin={} grpc-timeout={} encoding={} authority={}",
        text("user-agent").unwrap_or_default(),
        text("x-key").unwrap_or_default(),
        raw.map(|raw| String::from_utf8(raw.to_vec()).unwrap())
            .unwrap_or_default(),
        text("grpc-timeout").unwrap_or_default(),
        text("x-encoding").unwrap_or_default(),
        text("x-authority").unwrap_or_default(),
    )
}

/// Shows a handler what tonic keeps from it.
#[derive(Clone)]
struct Show<S>(S);

impl<S: tower::Service<http::Request<B>>, B> tower::Service<http::Request<B>> for Show<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        let authority = request
            .uri()
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let headers = request.headers_mut();
        if let Some(encoding) = headers.get("grpc-encoding").cloned() {
            headers.insert("x-encoding", encoding);
        }
        headers.insert("x-authority", authority.parse().unwrap());
        self.0.call(request)
    }
}

impl<S: NamedService> NamedService for Show<S> {
    const NAME: &'static str = S::NAME;
}

/// A server that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) addr: String,
    _runtime: Runtime,
}

impl Running {
    pub(crate) fn plain() -> Self {
        Self::start(|mut server| health(&mut server))
    }

    /// A gRPC server that knows nothing of health.
    pub(crate) fn without_health() -> Self {
        Self::start(|mut server| server.add_routes(tonic::service::Routes::default()))
    }

    /// One for these names, which asks for certificates of `clients` if there is such an authority.
    pub(crate) fn tls(authority: &Authority, names: &[&str], clients: Option<&Authority>) -> Self {
        let (certificate, key) = authority.sign("server", names);
        let read = |path: &str| std::fs::read(path).unwrap();
        let mut tls =
            ServerTlsConfig::new().identity(Identity::from_pem(read(&certificate), read(&key)));
        if let Some(clients) = clients {
            tls = tls.client_ca_root(Certificate::from_pem(read(&clients.file())));
        }
        Self::start(|server| health(&mut server.tls_config(tls).unwrap()))
    }

    /// One on a socket in the file system.
    pub(crate) fn unix(path: &Path) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(async { UnixListener::bind(path).unwrap() });
        let incoming = UnixListenerStream::new(listener);
        let served = health(&mut Server::builder()).serve_with_incoming(incoming);
        runtime.spawn(served);
        Self {
            addr: path.display().to_string(),
            _runtime: runtime,
        }
    }

    fn start(build: impl FnOnce(Server) -> Router) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let served = build(Server::builder()).serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(served);
        Self {
            addr: addr.to_string(),
            _runtime: runtime,
        }
    }
}

fn health(server: &mut Server) -> Router {
    let answers = HealthServer::new(Answers)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    server.add_service(Show(answers))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A port where every connection is told `words`, whatever it says.
pub(crate) fn speaking(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A caller that has gone is none of our business.
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(words.as_bytes());
        }
    });
    addr
}

/// An authority that signs certificates into a folder.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    /// The file of its own certificate.
    pub(crate) fn file(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    /// The files of a certificate for `names`, and of its key.
    pub(crate) fn sign(&self, file: &str, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |kind: &str, text: String| {
            let path = self.path(&format!("{file}.{kind}"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        (
            write("crt", certificate.pem()),
            write("key", key.serialize_pem()),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
