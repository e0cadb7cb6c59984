//! Where a connection's calls enter: hyper hands each request over here. Health goes straight to its
//! service, past authorisation, limits, logs and traces; everything else goes through the layers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
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
