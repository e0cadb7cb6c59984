//! OffersService: every method, each parsed, asked once and rendered.

use std::time::Duration;

use futures_util::stream::BoxStream;
use muster_proto::offers::v1 as pb;
use muster_proto::offers::v1::offers_service_server::OffersService;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::Principal;
use muster_runtime::clock::Clock;
use muster_runtime::deadline::Deadline;
use muster_runtime::page::{self, Asked, Sealer};
use muster_runtime::resume;
use muster_runtime::status::{self, Violations};
use tonic::{Code, Request, Response, Status};

use super::convert;
use super::wire::RawFields;
use crate::board::Board;
use crate::domain::id;
use crate::domain::report::Waited;
use crate::gather::{self, Handles, Patience};
use crate::pages::Pages;

/// The part of a caller's time that is kept for the answer itself.
const MARGIN: Duration = Duration::from_millis(50);

/// How long a call without a deadline may wait for anything.
const NO_DEADLINE: Duration = Duration::from_secs(30);

/// OffersService on a board.
#[derive(Debug)]
pub struct Offers {
    pub(super) board: Board,
    pub(super) handles: Handles,
    pub(super) pages: Pages,
    pub(super) sealer: Sealer,
    pub(super) clock: Clock,
    /// How long a caller waits for one backend at most.
    backend_timeout: Duration,
}

impl Offers {
    /// Answers from `board`.
    pub fn new(
        board: Board,
        handles: Handles,
        sealer: Sealer,
        clock: Clock,
        backend_timeout: Duration,
    ) -> Self {
        Self {
            board,
            handles,
            pages: Pages::default(),
            sealer,
            clock,
            backend_timeout,
        }
    }

    pub(super) fn deadline<T>(&self, request: &Request<T>) -> Deadline {
        Deadline::of(request).unwrap_or_else(|| Deadline::after(NO_DEADLINE))
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
            backend_timeout: asked
                .unwrap_or(self.backend_timeout)
                .min(self.backend_timeout),
            until: Some(deadline.less(MARGIN).instant()),
        }
    }

    pub(super) async fn gather(
        &self,
        asks: impl Fn(&str) -> bool,
        patience: Patience,
    ) -> std::collections::BTreeMap<String, Waited> {
        gather::all(
            &self.board,
            &self.handles.load(),
            asks,
            patience,
            self.clock.now(),
        )
        .await
    }

    async fn not_before(&self, token: &str, deadline: Deadline) -> Result<(), Status> {
        self.board
            .progress()
            .not_before(token, self.board.epoch(), deadline)
            .await
    }

    fn token(&self) -> String {
        resume::token(self.board.epoch(), self.board.state().revision)
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

    async fn get_offer(
        &self,
        request: Request<pb::GetOfferRequest>,
    ) -> Result<Response<pb::GetOfferResponse>, Status> {
        let deadline = self.deadline(&request);
        let request = request.into_inner();
        let parsed = id::parse(&request.id)
            .ok_or_else(|| status::invalid_field("id", "is not the id of an offer"))?;
        self.not_before(&request.not_before, deadline).await?;
        let patience = Patience {
            max_age: None,
            backend_timeout: self.backend_timeout,
            until: Some(deadline.less(MARGIN).instant()),
        };
        let waited = self.gather(|name| name == parsed.backend, patience).await;
        let state = self.board.state();
        let shelf = state.stand.market.shelf(&parsed.backend);
        let found = shelf.and_then(|shelf| Some((shelf, shelf.snapshot.find(&parsed)?)));
        let ((shelf, row), standing) = found
            .zip(state.backend(&parsed.backend))
            .ok_or_else(|| not_found("offer", &request.id))?;
        let raw = if request.include_raw {
            RawFields::Include
        } else {
            RawFields::Omit
        };
        let waited = waited.get(standing.facts.name.as_str());
        Ok(Response::new(pb::GetOfferResponse {
            offer: Some(convert::render_offer(shelf, row, raw)),
            backend: Some(convert::render_report(
                standing,
                waited,
                1,
                self.clock.now(),
            )),
            resume_token: resume::token(self.board.epoch(), state.revision),
        }))
    }

    async fn list_backends(
        &self,
        request: Request<pb::ListBackendsRequest>,
    ) -> Result<Response<pb::ListBackendsResponse>, Status> {
        let deadline = self.deadline(&request);
        let principal = Principal::of(&request);
        let mut request = request.into_inner();
        let mut violations = Violations::new();
        let asked = Asked::take(
            &mut request.page_size,
            &mut request.page_token,
            &mut violations,
        );
        violations.into_result()?;
        let scope = self.sealer.scope("ListBackends", principal.id(), &request);
        let after = scope.open(&asked.token)?;
        self.not_before(&request.not_before, deadline).await?;
        let (state, now) = (self.board.state(), self.clock.now());
        let rest = state.backends.iter().filter(|standing| {
            after
                .as_ref()
                .is_none_or(|after| standing.facts.name.as_bytes() > after.as_ref())
        });
        let rendered = rest.map(|standing| convert::render_backend(standing, now));
        let (backends, more) = page::cut(rendered, asked.size, prost::Message::encoded_len);
        let last = backends.last().filter(|_| more);
        Ok(Response::new(pb::ListBackendsResponse {
            next_page_token: last
                .map(|last| scope.seal(last.name.as_bytes()))
                .unwrap_or_default(),
            backends,
            resume_token: resume::token(self.board.epoch(), state.revision),
        }))
    }

    async fn get_backend(
        &self,
        request: Request<pb::GetBackendRequest>,
    ) -> Result<Response<pb::GetBackendResponse>, Status> {
        let deadline = self.deadline(&request);
        let request = request.into_inner();
        self.not_before(&request.not_before, deadline).await?;
        let state = self.board.state();
        let standing = state
            .backend(&request.name)
            .ok_or_else(|| not_found("backend", &request.name))?;
        Ok(Response::new(pb::GetBackendResponse {
            backend: Some(convert::render_backend(standing, self.clock.now())),
            resume_token: resume::token(self.board.epoch(), state.revision),
        }))
    }

    async fn refresh_backend(
        &self,
        request: Request<pb::RefreshBackendRequest>,
    ) -> Result<Response<pb::RefreshBackendResponse>, Status> {
        let deadline = self.deadline(&request);
        let request = request.into_inner();
        let state = self.board.state();
        let standing = state
            .backend(&request.name)
            .ok_or_else(|| not_found("backend", &request.name))?;
        if let Some(reason) = &standing.facts.disabled {
            let message = format!("backend {} is disabled: {reason}", request.name);
            return Err(status::error(
                Code::FailedPrecondition,
                ErrorReason::BackendDisabled,
                message,
            )
            .into());
        }
        let failed = |why: &str| {
            let message = format!("backend {} was not refreshed: {why}", request.name);
            Status::from(status::error(
                Code::Unavailable,
                ErrorReason::BackendFailed,
                message,
            ))
        };
        if !request.force && !standing.breaker.allows(self.clock.now()) {
            return Err(failed(
                "it failed often and is left alone for a while; force asks all the same",
            ));
        }
        let handle = self
            .handles
            .load()
            .get(&request.name)
            .cloned()
            .ok_or_else(|| not_found("backend", &request.name))?;
        let until = deadline.less(MARGIN).instant();
        match tokio::time::timeout_at(until, handle.refresh(request.force)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return Err(failed(&fault.message)),
            Err(_) => {
                return Err(failed(
                    "no answer in the time that this call has; the refresh goes on",
                ));
            }
        }
        let state = self.board.state();
        let standing = state
            .backend(&request.name)
            .ok_or_else(|| not_found("backend", &request.name))?;
        Ok(Response::new(pb::RefreshBackendResponse {
            backend: Some(convert::render_backend(standing, self.clock.now())),
            resume_token: self.token(),
        }))
    }

    async fn stream_offers(
        &self,
        _: Request<pb::StreamOffersRequest>,
    ) -> Result<Response<Self::StreamOffersStream>, Status> {
        Err(not_implemented())
    }

    async fn watch_offers(
        &self,
        _: Request<pb::WatchOffersRequest>,
    ) -> Result<Response<Self::WatchOffersStream>, Status> {
        Err(not_implemented())
    }

    async fn watch_backends(
        &self,
        _: Request<pb::WatchBackendsRequest>,
    ) -> Result<Response<Self::WatchBackendsStream>, Status> {
        Err(not_implemented())
    }

    async fn report_offer(
        &self,
        _: Request<pb::ReportOfferRequest>,
    ) -> Result<Response<pb::ReportOfferResponse>, Status> {
        Err(not_implemented())
    }
}

fn not_implemented() -> Status {
    status::error(
        Code::Unimplemented,
        ErrorReason::NotImplemented,
        "not served yet",
    )
    .into()
}
