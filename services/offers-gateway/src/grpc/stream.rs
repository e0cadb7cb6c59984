//! StreamOffers: each backend's part as it comes, then a summary. A backend that is late holds back
//! nothing but its own part.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{StreamExt as _, stream};
use muster_proto::offers::v1 as pb;
use muster_runtime::clock::Clock;
use muster_runtime::page::{Budget, MAX_SIZE};
use muster_runtime::resume;
use prost::Message as _;
use tonic::Status;

use super::convert;
use super::wire::RawFields;
use crate::board::{Board, State};
use crate::domain::query::{Filter, Order};
use crate::domain::report::{self, Waited};
use crate::domain::selection::select;
use crate::gather::Arrived;
use crate::metrics::Metrics;

/// What is asked for, checked.
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) order: Order,
    pub(super) raw: RawFields,
    /// Offers of each backend at most.
    pub(super) limit: usize,
}

/// A stream that is under way.
pub(super) struct Parts {
    pub(super) board: Board,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) asked: Asked,
    /// Backends that are not waited for, or no longer.
    pub(super) ready: VecDeque<String>,
    pub(super) waits: FuturesUnordered<BoxFuture<'static, Arrived>>,
    pub(super) waited: BTreeMap<String, Waited>,
    /// Messages of the part that is being sent.
    pub(super) queue: VecDeque<pb::StreamOffersResponse>,
    /// What each backend contributed.
    pub(super) reports: BTreeMap<String, pb::BackendReport>,
    pub(super) ended: bool,
}

impl Parts {
    pub(super) fn into_stream(
        self,
    ) -> BoxStream<'static, Result<pb::StreamOffersResponse, Status>> {
        stream::unfold(self, |mut parts| async move {
            let message = parts.next().await?;
            Some((Ok(message), parts))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<pb::StreamOffersResponse> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Some(message);
            }
            if let Some(backend) = self.ready.pop_front() {
                let state = self.board.state();
                self.part(&state, &backend);
            } else if let Some((backend, waited)) = self.waits.next().await {
                self.waited
                    .extend(waited.map(|waited| (backend.clone(), waited)));
                self.ready.push_back(backend);
            } else if self.ended {
                return None;
            } else {
                self.ended = true;
                return Some(self.summary());
            }
        }
    }

    /// Queues the part of one backend, in as many messages as it takes.
    fn part(&mut self, state: &Arc<State>, backend: &str) {
        let Some(standing) = state.backend(backend) else {
            return;
        };
        let filter = Filter {
            backends: vec![backend.to_owned()],
            ..self.asked.filter.clone()
        };
        let selection = select(&state.stand.market, &filter, self.asked.order);
        let matched = u32::try_from(selection.hits.len()).unwrap_or(u32::MAX);
        let report = report::report(standing, self.waited.get(backend), self.clock.now());
        self.metrics.left_out(standing, &report);
        let report = convert::render_report(standing, report, matched);
        self.reports.insert(backend.to_owned(), report.clone());
        let mut budget = Budget::new(MAX_SIZE);
        let mut offers = Vec::new();
        for hit in selection.hits.iter().take(self.asked.limit) {
            let shelf = &state.stand.market.shelves()[hit.shelf as usize];
            let offer = convert::render_offer(shelf, hit.row, self.asked.raw);
            if !budget.admit(offer.encoded_len()) {
                self.queue
                    .push_back(part(&report, std::mem::take(&mut offers), false));
                budget = Budget::new(MAX_SIZE);
                budget.admit(offer.encoded_len());
            }
            offers.push(offer);
        }
        self.queue.push_back(part(&report, offers, true));
    }

    fn summary(&mut self) -> pb::StreamOffersResponse {
        let backends: Vec<_> = std::mem::take(&mut self.reports).into_values().collect();
        let total = backends.iter().fold(0i32, |sum, report| {
            sum.saturating_add(report.offers_matched)
        });
        let resume_token = resume::token(self.board.epoch(), self.board.state().stand.revision);
        let summary = pb::OffersSummary {
            backends,
            total_size: total,
            resume_token,
        };
        pb::StreamOffersResponse {
            message: Some(pb::stream_offers_response::Message::Summary(summary)),
        }
    }
}

fn part(
    report: &pb::BackendReport,
    offers: Vec<pb::Offer>,
    last: bool,
) -> pb::StreamOffersResponse {
    let part = pb::OffersPart {
        report: Some(report.clone()),
        offers,
        last,
    };
    pb::StreamOffersResponse {
        message: Some(pb::stream_offers_response::Message::Part(part)),
    }
}
