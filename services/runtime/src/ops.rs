//! The ops port: health, metrics and version over HTTP, and the health protocol in plaintext, for
//! probes that carry no certificate. Read only, and never anything else. All of it is answered from
//! memory: no check runs because someone asks.

mod answer;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::task::{AbortHandle, JoinSet};
use tonic::body::Body;

use crate::context::Context;
use crate::health::service::HealthService;
use crate::health::stall::Pulse;
use crate::server::routes::{Routes, service_of};
use crate::server::{HEALTH, Io, Listener};
use crate::shutdown::{Cause, Phase};

/// Connections at once; probes and scrapers need few. Of more, the one that has been quiet longest gives
/// way: whoever only holds connections keeps no probe out.
const MAX_CONNECTIONS: usize = 256;

/// Streams of the health protocol at once on one connection: all of a process's Watches.
const MAX_STREAMS: u32 = 1000;

/// For a request's headers to arrive, and for how long a connection may idle between requests.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);

/// After an accept that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the ops port answers from.
#[derive(Debug, Clone)]
struct Ops {
    context: Context,
    health: Routes,
    /// Counts what is asked, on all connections.
    asked: Arc<AtomicU64>,
    /// The count when its connection was opened or last asked.
    last: Arc<AtomicU64>,
}

/// Serves the ops port of `context` on `listener` once gRPC is served, and listens to the pulse of the event loop that
/// the component runs on, until the shutdown is all but over, so that who asks sees it stop. Runs
/// best on another thread than the component.
pub(crate) async fn serve(context: Context, listener: Listener, pulse: Pulse) {
    let ended = context.shutdown.reached(Phase::Telemetry);
    let health = context.health.clone();
    tokio::select! {
        () = ended => {}
        () = pulse.listen(health) => {}
        () = accept(context, listener) => {}
    }
}

/// Accepts for ever, once the component serves: nobody reaches one that may not start. Connections are cut
/// when this is dropped.
async fn accept(context: Context, listener: Listener) {
    context.bound.wait().await;
    let address = listener.address();
    let mut listener = match listener.listen() {
        Ok(listener) => listener,
        Err(error) => {
            let cause = format!("cannot listen on {address}: {error}");
            return context.shutdown.begin(Cause::failed(cause));
        }
    };
    let mut health = Routes::builder();
    health.add(HealthService::server(&context.health, &context.shutdown));
    let ops = Ops {
        health: health.build(),
        context,
        asked: Arc::default(),
        last: Arc::default(),
    };
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((io, _)) => connections.open(ops.clone(), io),
            Err(error) => {
                tracing::warn!(%error, "ops connection not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The open connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// Each with the count when it last asked.
    open: Vec<(AbortHandle, Arc<AtomicU64>)>,
}

impl Connections {
    fn open(&mut self, mut ops: Ops, io: Box<dyn Io>) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            self.close_quietest();
        }
        ops.last = Arc::default();
        ops.note();
        let last = Arc::clone(&ops.last);
        let task = self.tasks.spawn(serve_connection(ops, io));
        self.open.push((task, last));
    }

    fn close_quietest(&mut self) {
        let quietest = self.open.iter().enumerate();
        let quietest = quietest.min_by_key(|(_, (_, last))| last.load(Ordering::Relaxed));
        if let Some((place, _)) = quietest {
            let (task, _) = self.open.swap_remove(place);
            task.abort();
        }
    }
}

async fn serve_connection(ops: Ops, io: Box<dyn Io>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(HEADERS_WITHIN)
        .keep_alive_timeout(HEADERS_WITHIN);
    if let Err(error) = builder.serve_connection(TokioIo::new(io), ops).await {
        tracing::debug!(error, "ops connection ended");
    }
}

impl hyper::service::Service<Request<Incoming>> for Ops {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.note();
        if service_of(request.uri().path()) == HEALTH {
            return self.health.call(request.map(Body::new));
        }
        let response = self.answer(request.method(), request.uri().path());
        Box::pin(std::future::ready(Ok(response)))
    }
}

impl Ops {
    /// Its connection asks now.
    fn note(&self) {
        let now = self.asked.fetch_add(1, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return answer::error(StatusCode::METHOD_NOT_ALLOWED, "the ops port is read only");
        }
        match path {
            "/livez" | "/health" => answer::live(&self.context),
            "/readyz" | "/ready" => answer::ready(&self.context),
            "/metrics" => answer::metrics(&self.context),
            "/version" => answer::version(&self.context),
            _ => answer::error(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz, /metrics and /version",
            ),
        }
    }
}
