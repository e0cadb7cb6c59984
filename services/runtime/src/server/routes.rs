//! Which gRPC service a path belongs to: one hash lookup and one call, where tonic's own routes
//! would match patterns and box once more. An unknown service is UNIMPLEMENTED.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use rustc_hash::FxHashMap;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

/// What a generated tonic server is.
pub trait GrpcService:
    Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    > + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A service whose type is forgotten.
trait Erased: Send + Sync {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible>;
}

impl<S: GrpcService> Erased for S {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        // Generated servers are always ready.
        Service::call(&mut self.clone(), request)
    }
}

/// The services of one server. Cheap to clone once built.
#[derive(Clone, Default)]
pub(crate) struct Routes(Arc<FxHashMap<&'static str, Box<dyn Erased>>>);

impl Routes {
    pub(crate) fn builder() -> Builder {
        Builder(FxHashMap::default())
    }

    pub(crate) fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        let service = service_of(request.uri().path());
        if let Some(found) = self.0.get(service) {
            return found.call(request);
        }
        let message = format!("there is no service {service:?} here");
        Box::pin(async move { Ok(tonic::Status::unimplemented(message).into_http()) })
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Routes({} services)", self.0.len())
    }
}

pub(crate) struct Builder(FxHashMap<&'static str, Box<dyn Erased>>);

impl fmt::Debug for Builder {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Builder({} services)", self.0.len())
    }
}

impl Builder {
    pub(crate) fn add<S: GrpcService>(&mut self, service: S) {
        self.0.insert(S::NAME, Box::new(service));
    }

    pub(crate) fn build(self) -> Routes {
        Routes(Arc::new(self.0))
    }
}

/// The service in a path like `/package.Service/Method`; empty if the path is not of that form.
pub(crate) fn service_of(path: &str) -> &str {
    path.strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .map_or("", |(service, _)| service)
}
