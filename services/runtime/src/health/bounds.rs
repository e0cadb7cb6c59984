//! What a call of the health protocol may take of us. Everyone may make one, whoever they are and however many
//! calls there are, so its request is small, nothing else of it is kept, and it has to come in time: in less the
//! more others wait for theirs. A probe whose request has come is answered, whatever the crowd.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Request, Response, Uri};
use muster_proto::types::v1::ErrorReason;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

use crate::server::routes::GrpcService;
use crate::status;

/// The longest request: a service's name.
pub(super) const LARGEST_REQUEST: usize = 1024;

/// For a request to come.
const WITHIN: Duration = Duration::from_secs(5);

/// So many calls that wait for their requests are a crowd: probes send theirs with the call.
const CROWD: usize = 1000;

/// For a request to come in a crowd.
const WITHIN_IN_A_CROWD: Duration = Duration::from_millis(250);

/// The most calls that wait; each takes some 12 KiB.
const MOST: usize = 10_000;

/// The header that names a request's compression.
const ENCODING: &str = "grpc-encoding";

/// What a compression's name may take, which a refusal repeats.
const LONGEST_ENCODING: usize = 32;

/// The methods there are, and one that is none.
static PATHS: LazyLock<[Uri; 4]> = LazyLock::new(|| {
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/",
    ]
    .map(Uri::from_static)
});

/// The health service `S` within its bounds.
#[derive(Debug, Clone)]
pub(crate) struct Bounded<S> {
    inner: S,
    /// Calls that wait for their requests, on all ports together.
    waiting: Arc<AtomicUsize>,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, waiting: &Arc<AtomicUsize>) -> Self {
        let waiting = Arc::clone(waiting);
        Self { inner, waiting }
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: GrpcService> Service<Request<Body>> for Bounded<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Call {
            answer: self.inner.call(stripped(request)),
            crowd: Arc::clone(&self.waiting),
            waits: None,
        })
    }
}

/// The request without what its caller may make large and nobody reads.
fn stripped(request: Request<Body>) -> Request<Body> {
    let (parts, body) = request.into_parts();
    let [.., none] = &*PATHS;
    let known = PATHS.iter().find(|uri| uri.path() == parts.uri.path());
    let mut stripped = Request::new(body);
    *stripped.uri_mut() = known.unwrap_or(none).clone();
    if let Some(encoding) = parts.headers.get(ENCODING) {
        let short = encoding.as_bytes().get(..LONGEST_ENCODING);
        // A copy, since what was received is kept whole for as long as any of it is.
        if let Ok(copy) = HeaderValue::from_bytes(short.unwrap_or(encoding.as_bytes())) {
            stripped.headers_mut().insert(ENCODING, copy);
        }
    }
    stripped
}

/// A call until it is answered, which it is as soon as its request has come.
struct Call {
    answer: BoxFuture<Response<Body>, Infallible>,
    crowd: Arc<AtomicUsize>,
    waits: Option<Waiting>,
}

impl Future for Call {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answered) = self.answer.as_mut().poll(context) {
            return Poll::Ready(answered);
        }
        let Self { crowd, waits, .. } = &mut *self;
        if waits.is_none() {
            *waits = Waiting::among(crowd);
        }
        let Some(waiting) = waits else {
            return Poll::Ready(Ok(crowded().into_http()));
        };
        ready!(waiting.until.as_mut().poll(context));
        Poll::Ready(Ok(late().into_http()))
    }
}

/// A call's place among those that wait for their requests; given back when dropped.
struct Waiting {
    crowd: Arc<AtomicUsize>,
    until: Pin<Box<Sleep>>,
}

impl Waiting {
    fn among(crowd: &Arc<AtomicUsize>) -> Option<Self> {
        let before = crowd.fetch_add(1, Ordering::Relaxed);
        let patience = if before < CROWD {
            WITHIN
        } else {
            WITHIN_IN_A_CROWD
        };
        let waiting = Self {
            crowd: Arc::clone(crowd),
            until: Box::pin(sleep(patience)),
        };
        (before < MOST).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.crowd.fetch_sub(1, Ordering::Relaxed);
    }
}

fn crowded() -> Status {
    const MESSAGE: &str = "too many calls wait for their requests to come";
    status::unavailable(ErrorReason::Overloaded, MESSAGE, WITHIN_IN_A_CROWD).into_status()
}

fn late() -> Status {
    status::deadline_exceeded("the request did not come in time")
}

#[cfg(test)]
mod tests;
