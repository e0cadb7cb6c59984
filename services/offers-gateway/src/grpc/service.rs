//! OffersService: what its methods share, and where each is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::BoxStream;
use muster_proto::offers::v1 as pb;
use muster_proto::offers::v1::offers_service_server::OffersService;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::clock::Clock;
use muster_runtime::deadline::Deadline;
use muster_runtime::page::Sealer;
use muster_runtime::resume;
use muster_runtime::shutdown::Shutdown;
use muster_runtime::status::{self, Violations};
use tonic::{Code, Request, Response, Status};

use super::convert;
use crate::board::Board;
use crate::config::Timeouts;
use crate::domain::report::Waited;
use crate::gather::{self, Handles, Patience};
use crate::metrics::Metrics;
use crate::outcomes::Outcomes;
use crate::pages::Pages;

/// The part of a caller's time that is kept for the answer itself.
const MARGIN: Duration = Duration::from_millis(50);

/// How long a call without a deadline may wait for anything.
const NO_DEADLINE: Duration = Duration::from_secs(30);

/// What OffersService answers from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// How backends stand and what is on offer.
    pub board: Board,
    /// How refreshes are asked for.
    pub handles: Handles,
    /// What launches have taught.
    pub outcomes: Outcomes,
    /// Where what answers lack is counted.
    pub metrics: Metrics,
    /// Seals page tokens.
    pub sealer: Sealer,
    /// Tells the time.
    pub clock: Clock,
    /// Ends watches.
    pub shutdown: Shutdown,
    /// How long callers wait for one backend.
    pub timeouts: Arc<ArcSwap<Timeouts>>,
}

/// OffersService.
#[derive(Debug)]
pub struct Offers {
    pub(super) board: Board,
    pub(super) handles: Handles,
    pub(super) outcomes: Outcomes,
    pub(super) metrics: Metrics,
    pub(super) pages: Pages,
    pub(super) sealer: Sealer,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
    pub(super) watchers: Arc<AtomicUsize>,
    timeouts: Arc<ArcSwap<Timeouts>>,
}

impl Offers {
    /// Answers from `parts`.
    pub fn new(parts: Parts) -> Self {
        Self {
            board: parts.board,
            handles: parts.handles,
            outcomes: parts.outcomes,
            metrics: parts.metrics,
            pages: Pages::default(),
            sealer: parts.sealer,
            clock: parts.clock,
            shutdown: parts.shutdown,
            watchers: Arc::default(),
            timeouts: parts.timeouts,
        }
    }

    /// By when a call must be answered.
    pub(super) fn deadline<T>(request: &Request<T>) -> Deadline {
        Deadline::of(request).unwrap_or_else(|| Deadline::after(NO_DEADLINE))
    }

    /// When whatever a call waits for must be over.
    pub(super) fn until(deadline: Deadline) -> tokio::time::Instant {
        deadline.less(MARGIN).instant()
    }

    pub(super) fn patience(
        &self,
        max_age: Option<prost_types::Duration>,
        backend_timeout: Option<prost_types::Duration>,
        deadline: Deadline,
        violations: &mut Violations,
    ) -> Patience {
        let asked = convert::parse_duration("backend_timeout", backend_timeout, violations);
        Patience {
            max_age: convert::parse_duration("max_age", max_age, violations),
            backend_timeout: self.timeouts.load().of(asked),
            until: Some(Self::until(deadline)),
        }
    }

    pub(super) async fn gather(
        &self,
        asks: impl Fn(&str) -> bool,
        patience: Patience,
    ) -> BTreeMap<String, Waited> {
        gather::all(
            &self.board,
            &self.handles.load(),
            asks,
            patience,
            self.clock.now(),
        )
        .await
    }

    /// Waits for one backend's first refresh, if that is under way.
    pub(super) async fn await_first(&self, backend: &str, deadline: Deadline) -> Option<Waited> {
        let mut none = Violations::new();
        let patience = self.patience(None, None, deadline, &mut none);
        self.gather(|name| name == backend, patience)
            .await
            .remove(backend)
    }

    pub(super) async fn not_before(&self, token: &str, deadline: Deadline) -> Result<(), Status> {
        self.board
            .progress()
            .not_before(token, self.board.epoch(), deadline)
            .await
    }

    pub(super) fn token(&self, revision: u64) -> String {
        resume::token(self.board.epoch(), revision)
    }
}

pub(super) fn not_found(what: &str, name: &str) -> Status {
    let message = format!("there is no {what} {name:?}");
    status::error(Code::NotFound, ErrorReason::ResourceNotFound, message)
        .metadata(what, name)
        .into_status()
}

#[tonic::async_trait]
impl OffersService for Offers {
    type StreamOffersStream = BoxStream<'static, Result<pb::StreamOffersResponse, Status>>;
    type WatchOffersStream = BoxStream<'static, Result<pb::WatchOffersResponse, Status>>;
    type WatchBackendsStream = BoxStream<'static, Result<pb::WatchBackendsResponse, Status>>;

    async fn list_offers(
        &self,
        request: Request<pb::ListOffersRequest>,
    ) -> Result<Response<pb::ListOffersResponse>, Status> {
        let page = self.list(request).await?;
        let message = page.into_message().map_err(|error| {
            tracing::error!(%error, "a page of offers does not decode");
            status::internal()
        })?;
        Ok(Response::new(message))
    }

    async fn stream_offers(
        &self,
        request: Request<pb::StreamOffersRequest>,
    ) -> Result<Response<Self::StreamOffersStream>, Status> {
        self.stream(request).map(Response::new)
    }

    async fn watch_offers(
        &self,
        request: Request<pb::WatchOffersRequest>,
    ) -> Result<Response<Self::WatchOffersStream>, Status> {
        self.watch(request.into_inner()).map(Response::new)
    }

    async fn get_offer(
        &self,
        request: Request<pb::GetOfferRequest>,
    ) -> Result<Response<pb::GetOfferResponse>, Status> {
        self.get(request).await.map(Response::new)
    }

    async fn list_backends(
        &self,
        request: Request<pb::ListBackendsRequest>,
    ) -> Result<Response<pb::ListBackendsResponse>, Status> {
        self.list_all_backends(request).await.map(Response::new)
    }

    async fn watch_backends(
        &self,
        request: Request<pb::WatchBackendsRequest>,
    ) -> Result<Response<Self::WatchBackendsStream>, Status> {
        self.watch_all_backends(&request.into_inner())
            .map(Response::new)
    }

    async fn get_backend(
        &self,
        request: Request<pb::GetBackendRequest>,
    ) -> Result<Response<pb::GetBackendResponse>, Status> {
        self.get_one_backend(request).await.map(Response::new)
    }

    async fn refresh_backend(
        &self,
        request: Request<pb::RefreshBackendRequest>,
    ) -> Result<Response<pb::RefreshBackendResponse>, Status> {
        self.refresh(request).await.map(Response::new)
    }

    async fn report_offer(
        &self,
        request: Request<pb::ReportOfferRequest>,
    ) -> Result<Response<pb::ReportOfferResponse>, Status> {
        self.report(request).await.map(Response::new)
    }
}
