//! What each call goes through on its way to a handler, outermost first: panics are caught, the
//! call is observed, its caller authorised, its time bounded, its place in the crowd taken. Each
//! layer is a tower service around the next and decides one thing.
//!
//! None of them allocates for a call that is answered at once, but for what the request's
//! extensions take.

pub(crate) mod authorise;
mod clarify;
pub(crate) mod deadline;
pub(crate) mod observe;
pub(crate) mod panic;
mod peer;
pub mod shed;
pub(crate) mod trailers;

#[cfg(test)]
pub(crate) mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::Map;
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tower::Service;

use crate::auth::Access;
use crate::server::method::Entry;
use crate::server::routes::Routes;
use crate::watch;

pub(crate) use peer::Peer;

/// A call on its way in.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) request: Request<Body>,
    /// The method called, or the entry that stands for unknown ones.
    pub(crate) entry: Arc<Entry>,
    pub(crate) peer: Arc<Peer>,
}

/// All layers around the services.
pub(crate) type Stack =
    panic::Catch<observe::Observe<authorise::Authorise<deadline::Deadlines<shed::Shed<Dispatch>>>>>;

/// What the layers make of a response's body.
pub(crate) type StackBody =
    panic::CatchBody<observe::ObservedBody<deadline::TimedBody<shed::PlacedBody<Body>>>>;

/// Puts the layers around `routes`.
pub(crate) fn stack(
    routes: Routes,
    access: Arc<Access>,
    times: deadline::Times,
    load: shed::Load,
) -> Stack {
    let placed = shed::Shed::new(Dispatch(routes), load);
    let timed = deadline::Deadlines::new(placed, times);
    panic::Catch::new(observe::Observe::new(authorise::Authorise::new(
        timed, access,
    )))
}

/// A body that no layer looks at: what health answers with.
pub(crate) fn bare(body: Body) -> StackBody {
    panic::CatchBody::bare(observe::ObservedBody::bare(deadline::TimedBody::bare(
        shed::PlacedBody::bare(body),
    )))
}

type Answer = Result<Response<Body>, Infallible>;

/// The innermost: hands the call to its service, and takes over what a watch has encoded already.
#[derive(Debug, Clone)]
pub(crate) struct Dispatch(Routes);

impl Service<Inbound> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<BoxFuture<Response<Body>, Infallible>, fn(Answer) -> Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let hand_over: fn(Answer) -> Answer =
            |answer| answer.map(watch::hand_over).map(clarify::clarify);
        if inbound.entry.is_served() {
            return self.0.call(inbound.request).map(hand_over);
        }
        let path = inbound.request.uri().path();
        let status = tonic::Status::unimplemented(format!("there is no method {path:?} here"));
        let answer: BoxFuture<_, _> = Box::pin(std::future::ready(Ok(status.into_http())));
        answer.map(hand_over)
    }
}
