//! What generated clients call through.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument as _;

use super::body::ResponseBody;
use super::call::{self, Plan};
use super::link::Link;
use super::observe::{CallMetrics, Observation};
use super::pool::Pool;
use super::retry::Budget;
use super::trace;
use super::transport::Dialer;
use super::{Credential, Endpoints, Options};
use crate::backoff;

/// Calls to one component, at one or several endpoints. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) budget: Budget,
    pub(super) options: Arc<Options>,
    credential: Credential,
    metrics: Option<CallMetrics>,
    endpoints: Endpoints,
    /// Counts what is to be jittered apart.
    sequence: AtomicU64,
}

impl Shared {
    /// Another seed at each call.
    pub(super) fn next_seed(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }
}

impl Channel {
    pub(super) fn new(
        endpoints: &Endpoints,
        dialer: &Dialer,
        credential: Credential,
        metrics: Option<CallMetrics>,
        options: Arc<Options>,
    ) -> Self {
        let drawn = || getrandom::u64().unwrap_or_else(|_| backoff::seed(&endpoints.to_string()));
        let seed = options.seed.unwrap_or_else(drawn);
        let link = |endpoint: &super::Endpoint| {
            Arc::new(Link::new(
                endpoint.clone(),
                dialer.clone(),
                Arc::clone(&options),
            ))
        };
        let first = usize::try_from(seed >> 48).unwrap_or(0);
        Self {
            shared: Arc::new(Shared {
                pool: Pool::new(endpoints.iter().map(link).collect(), first),
                budget: Budget::full(Instant::now()),
                options,
                credential,
                metrics,
                endpoints: endpoints.clone(),
                sequence: AtomicU64::new(seed),
            }),
        }
    }

    /// Where its calls go.
    pub fn endpoints(&self) -> &Endpoints {
        &self.shared.endpoints
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let plan = Plan::of(&request, &shared, Instant::now());
        let observation = Observation::start(&request, shared.metrics.clone());
        call::introduce(
            &mut request,
            &shared.options.user_agent,
            shared.credential.header(),
        );
        trace::inject(observation.span(), request.headers_mut());
        let span = observation.span().clone();
        let work = async move { call::make(&shared, plan, request, observation).await };
        Box::pin(work.instrument(span))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.shared.endpoints)
    }
}
