//! One HTTP/2 connection: opened within a time, shared by all calls, cut when it is given up.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;

use super::failure::{self, ConnectFailed};
use super::transport::Dialer;
use super::{Endpoint, Options};

/// What one call may receive before it reads: enough for a full message.
const STREAM_WINDOW: u32 = 2 << 20;

/// What all calls together may: several that do not read must not stop the others.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The longest that a connection goes without a ping.
const MAX_KEEPALIVE: Duration = Duration::from_secs(600);

/// How often connections to one endpoint are pinged: as configured, until the endpoint says that
/// this is too often. Servers in other languages allow one ping in five minutes by default, and
/// close the connection of a client that exceeds it.
#[derive(Debug)]
pub(super) struct Keepalive(Mutex<Duration>);

impl Keepalive {
    pub(super) fn new(interval: Duration) -> Self {
        Self(Mutex::new(interval))
    }

    pub(super) fn interval(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Half as often from the next connection on.
    fn ease(&self) {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *interval = MAX_KEEPALIVE.min(*interval * 2).max(*interval);
    }
}

/// A handle to an open connection. Clones share it; it closes once all are dropped and their calls
/// have ended.
#[derive(Clone)]
pub(super) struct Connection {
    endpoint: Endpoint,
    sender: SendRequest<Body>,
    cut: Arc<Notify>,
}

/// A request that brought no answer.
pub(super) struct SendFailed {
    pub(super) status: Status,
    /// The request, if nothing of it has left.
    pub(super) unsent: Option<Request<Body>>,
}

impl Connection {
    pub(super) async fn open(
        endpoint: &Endpoint,
        dialer: &Dialer,
        options: &Options,
        keepalive: &Arc<Keepalive>,
    ) -> Result<Self, ConnectFailed> {
        let failed = |reason: String| ConnectFailed {
            endpoint: endpoint.clone(),
            reason,
        };
        let opening = async {
            let io = dialer
                .dial(endpoint)
                .await
                .map_err(|error| failed(chain(&error)))?;
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(keepalive.interval())
                .keep_alive_timeout(options.keepalive_timeout)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(TokioIo::new(io));
            handshake.await.map_err(|error| failed(chain(&error)))
        };
        let limit = options.connect_timeout;
        let (sender, driver) = timeout(limit, opening)
            .await
            .map_err(|_| failed(format!("no answer within {limit:?}")))??;
        let cut = Arc::new(Notify::new());
        let is_cut = Arc::clone(&cut);
        let keepalive = Arc::clone(keepalive);
        // The driver lives as long as the connection and belongs to its handles, not to a
        // component: it ends when they are dropped, or when it is cut.
        TokioExecutor::new().execute(async move {
            tokio::select! {
                ended = driver => {
                    if let Err(error) = ended {
                        tracing::debug!(error = chain(&error), "connection ended");
                        if failure::is_about_pings(&error) {
                            keepalive.ease();
                        }
                    }
                }
                () = is_cut.notified() => {}
            }
        });
        Ok(Self {
            endpoint: endpoint.clone(),
            sender,
            cut,
        })
    }

    /// Whether it takes no further calls.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed() || !self.sender.is_ready()
    }

    /// Whether both are handles to one connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cut, &other.cut)
    }

    /// Ends it at once; its open calls fail.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendFailed> {
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut failed| SendFailed {
                unsent: failed.take_message(),
                status: failure::broken(&self.endpoint, failed.error()),
            })
    }
}

/// Without retries and deadlines, for the one call that decides about the connection itself.
impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        super::link::set_origin(&self.endpoint, &mut request);
        let mut connection = self.clone();
        Box::pin(async move {
            let mut response = connection
                .send(request)
                .await
                .map_err(|failed| failed.status)?;
            failure::drop_malformed_details(response.headers_mut());
            Ok(response)
        })
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
