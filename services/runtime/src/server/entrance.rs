//! Where a connection's calls enter: hyper hands each request over here. Health goes straight to its
//! service, past authorisation, limits, logs and traces; everything else goes through the layers. What does not say
//! that it is gRPC goes nowhere.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tower::Service as _;

use super::Serving;
use super::whole::Whole;
use crate::layers::{self, Inbound, Peer, Stack, StackBody};
use crate::server::HEALTH;
use crate::server::routes::service_of;

/// The entrance of one connection.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    serving: Arc<Serving>,
    peer: Arc<Peer>,
}

impl Entrance {
    /// For `address` with a certificate for `sans`; its open streams end with `last_call`.
    pub(super) fn new(
        serving: &Arc<Serving>,
        address: SocketAddr,
        sans: Vec<String>,
        last_call: CancellationToken,
    ) -> Self {
        Self {
            serving: Arc::clone(serving),
            peer: Arc::new(Peer::new(address, sans, last_call)),
        }
    }

    /// Whom it is for.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl hyper::service::Service<Request<Incoming>> for Entrance {
    type Response = Response<StackBody>;
    type Error = Infallible;
    type Future = Passage;

    fn call(&self, request: Request<Incoming>) -> Passage {
        let serving = &self.serving;
        let patience = serving.settings.keepalive_timeout;
        if !is_grpc(request.headers()) {
            // Read off as it is dropped.
            drop(Whole::new(request.into_body(), patience, None));
            return Passage::Straight {
                answer: Box::pin(std::future::ready(Ok(not_grpc()))),
            };
        }
        let path = request.uri().path();
        if service_of(path) == HEALTH {
            let request = request.map(|body| Body::new(Whole::new(body, patience, None)));
            return Passage::Straight {
                answer: serving.routes.call(request),
            };
        }
        let entry = Arc::clone(serving.methods.find(path));
        let room = entry.takes_one().then_some(&serving.room);
        let request = request.map(|body| Body::new(Whole::new(body, patience, room)));
        let inbound = Inbound {
            request,
            entry,
            peer: Arc::clone(&self.peer),
        };
        // The layers are always ready.
        Passage::Layered {
            answer: serving.stack.clone().call(inbound),
        }
    }
}

/// What gRPC calls what it sends, alone or before the name of an encoding.
const GRPC: &[u8] = b"application/grpc";

/// Whether a request says that it is gRPC. A page in a browser can have its browser send what is not said to be, with
/// the certificate of whoever sits there, to any address that the browser reaches; to say so it has to ask first.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let parts = kind.and_then(|kind| kind.split_at_checked(GRPC.len()));
    parts.is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
    })
}

/// As the protocol answers what is none of it.
fn not_grpc() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

pin_project! {
    /// A call under way.
    #[project = PassageProjection]
    pub(super) enum Passage {
        Straight { answer: BoxFuture<Response<Body>, Infallible> },
        Layered { #[pin] answer: <Stack as tower::Service<Inbound>>::Future },
    }
}

impl Future for Passage {
    type Output = Result<Response<StackBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            PassageProjection::Straight { answer } => answer
                .as_mut()
                .poll(context)
                .map_ok(|response| response.map(layers::bare)),
            PassageProjection::Layered { answer } => answer.poll(context),
        }
    }
}
