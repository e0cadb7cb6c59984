//! Offers one by one, streamed, watched, and what launches have taught of them.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use futures_util::stream::BoxStream;
use muster_proto::offers::v1 as pb;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::Principal;
use muster_runtime::shutdown::Phase;
use muster_runtime::status::{self, Violations};
use tonic::{Request, Status};

use super::service::{Offers, not_found};
use super::stream::{Asked, Parts};
use super::watch::{self, Messages, View};
use super::{convert, wire::RawFields};
use crate::board::State;
use crate::domain::group::gpu_names;
use crate::domain::id::{self, OfferId};
use crate::domain::market::Shelf;
use crate::domain::report;
use crate::domain::snapshot::RowNumber;
use crate::gather;
use crate::outcomes::Error;

/// The longest message of a provider that is logged, in characters.
const MAX_MESSAGE: usize = 1024;

/// The longest name of who tells an outcome, in characters.
const MAX_REPORTER: usize = 256;

/// When a caller should try again whose outcome could not be kept.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

impl Offers {
    pub(super) async fn get(
        &self,
        request: Request<pb::GetOfferRequest>,
    ) -> Result<pb::GetOfferResponse, Status> {
        let deadline = Self::deadline(&request);
        let request = request.into_inner();
        let id = parse_id("id", &request.id)?;
        self.not_before(&request.not_before, deadline).await?;
        let waited = self.await_first(&id.backend, deadline).await;
        let state = self.board.state();
        let (shelf, row) = find(&state, &id).ok_or_else(|| not_found("offer", &request.id))?;
        let standing = state
            .backend(&id.backend)
            .ok_or_else(|| not_found("offer", &request.id))?;
        Ok(pb::GetOfferResponse {
            offer: Some(convert::render_offer(
                shelf,
                row,
                raw_fields(request.include_raw),
            )),
            backend: Some(convert::render_report(
                standing,
                report::report(standing, waited.as_ref(), self.clock.now()),
                1,
            )),
            resume_token: self.token(state.revision),
        })
    }

    pub(super) async fn report(
        &self,
        request: Request<pb::ReportOfferRequest>,
    ) -> Result<pb::ReportOfferResponse, Status> {
        let principal = Principal::of(&request);
        let deadline = Self::deadline(&request);
        let request = request.into_inner();
        let mut violations = Violations::new();
        let outcome = convert::parse_outcome(request.outcome, request.price, &mut violations);
        if request.message.chars().count() > MAX_MESSAGE {
            violations.add("message", format!("has more than {MAX_MESSAGE} characters"));
        }
        if request.reporter.chars().count() > MAX_REPORTER {
            violations.add(
                "reporter",
                format!("has more than {MAX_REPORTER} characters"),
            );
        }
        let id = violations.take(
            "offer_id",
            id::parse(&request.offer_id).ok_or("is not the id of an offer"),
        );
        violations.into_result()?;
        let (Some(outcome), Some(id)) = (outcome, id) else {
            return Err(status::internal());
        };
        self.await_first(&id.backend, deadline).await;
        let state = self.board.state();
        let (shelf, row) =
            find(&state, &id).ok_or_else(|| not_found("offer", &request.offer_id))?;
        let gpus = gpu_names(shelf.snapshot.machine(shelf.snapshot.row(row)));
        self.outcomes
            .tell(&request.offer_id, &gpus, outcome)
            .await
            .map_err(untold)?;
        let caller = principal.id();
        // A field called message would take the place of the line's own words.
        let (reporter, said) = (request.reporter, request.message);
        tracing::info!(
            offer = request.offer_id,
            ?outcome,
            caller,
            reporter,
            said,
            "outcome of an offer told"
        );
        self.reported(&id, &request.offer_id)
    }

    fn reported(&self, id: &OfferId<'_>, text: &str) -> Result<pb::ReportOfferResponse, Status> {
        let (state, now) = (self.board.state(), self.clock.now());
        let (shelf, row) = find(&state, id).ok_or_else(|| not_found("offer", text))?;
        Ok(pb::ReportOfferResponse {
            offer: Some(convert::render_offer(shelf, row, RawFields::Omit)),
            expire_time: state.book.expiry(text).map(convert::render_time),
            scope: state.book.scope(id, now).name().to_owned(),
            resume_token: self.token(state.revision),
        })
    }

    pub(super) fn stream(
        &self,
        request: Request<pb::StreamOffersRequest>,
    ) -> Result<BoxStream<'static, Result<pb::StreamOffersResponse, Status>>, Status> {
        let deadline = Self::deadline(&request);
        let request = request.into_inner();
        let state = self.board.state();
        let mut violations = Violations::new();
        let limit = violations.take(
            "limit_per_backend",
            usize::try_from(request.limit_per_backend).map_err(|_| "must not be negative"),
        );
        let known = |name: &str| state.backend(name).is_some();
        let asked = Asked {
            filter: convert::parse_filter(request.filter, known, &mut violations),
            order: convert::parse_order(request.order, &mut violations),
            raw: raw_fields(request.include_raw),
            limit: limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX),
        };
        let patience = self.patience(
            request.max_age,
            request.backend_timeout,
            deadline,
            &mut violations,
        );
        violations.into_result()?;
        let asks = |name: &str| asked.filter.asks(name);
        let (waits, waiting) = gather::waits(
            &self.board,
            &self.handles.load(),
            asks,
            patience,
            self.clock.now(),
        );
        let all = state
            .backends
            .iter()
            .map(|standing| standing.facts.name.clone());
        let ready = all
            .filter(|name| asked.filter.asks(name) && !waiting.contains(name))
            .collect();
        let parts = Parts {
            board: self.board.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            asked,
            ready,
            waits,
            waited: BTreeMap::new(),
            part: None,
            revision: None,
            reports: BTreeMap::new(),
            ended: false,
        };
        Ok(parts.into_stream())
    }

    pub(super) fn watch(&self, request: pb::WatchOffersRequest) -> Result<Messages, Status> {
        let state = self.board.state();
        let mut violations = Violations::new();
        let known = |name: &str| state.backend(name).is_some();
        let filter = convert::parse_filter(request.filter, known, &mut violations);
        violations.into_result()?;
        let view = View {
            filter,
            raw: raw_fields(request.include_raw),
        };
        let stop = self.shutdown.reached(Phase::Drain).boxed();
        watch::watch(
            &self.board,
            view,
            &request.resume_token,
            &self.watchers,
            stop,
        )
    }
}

fn parse_id<'a>(field: &str, id: &'a str) -> Result<OfferId<'a>, Status> {
    id::parse(id).ok_or_else(|| status::invalid_field(field, "is not the id of an offer"))
}

/// An offer that is shown now.
fn find<'a>(state: &'a State, id: &OfferId<'_>) -> Option<(&'a Shelf, RowNumber)> {
    let shelf = state.stand.market.shelf(&id.backend)?;
    Some((shelf, shelf.snapshot.find(id)?))
}

fn raw_fields(include: bool) -> RawFields {
    if include {
        RawFields::Include
    } else {
        RawFields::Omit
    }
}

fn untold(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Store(source) => {
            tracing::warn!(error = %source, "an outcome could not be kept");
            status::unavailable(ErrorReason::StoreUnavailable, message, RETRY).into()
        }
        Error::Contended => status::unavailable(ErrorReason::Overloaded, message, RETRY).into(),
    }
}
