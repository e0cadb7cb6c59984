//! Where a connection's calls enter: hyper hands each request over here, and it goes through the
//! layers to its service.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::codegen::BoxFuture;

use super::Serving;
use super::routes::Routes;

/// The entrance of one connection.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    routes: Routes,
}

impl Entrance {
    pub(super) fn new(serving: &Arc<Serving>, _peer: SocketAddr) -> Self {
        Self {
            routes: serving.routes.clone(),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Entrance {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.routes.call(request.map(Body::new))
    }
}
