//! StreamOffers: each backend's part as it comes, then a summary. A backend that is late holds back
//! nothing but its own part. What is sent is rendered a message at a time, as the caller reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{StreamExt as _, stream};
use muster_proto::offers::v1 as pb;
use muster_proto::offers::v1::stream_offers_response::Message;
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
use crate::domain::selection::{Hit, select};
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
    /// The part that is being sent.
    pub(super) part: Option<Part>,
    /// The oldest revision that a part was taken from: a watch from there misses nothing.
    pub(super) revision: Option<u64>,
    /// What each backend contributed.
    pub(super) reports: BTreeMap<String, pb::BackendReport>,
    pub(super) ended: bool,
}

/// One backend's part that is being sent.
pub(super) struct Part {
    state: Arc<State>,
    report: pb::BackendReport,
    rest: std::vec::IntoIter<Hit>,
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
            if let Some(part) = &mut self.part {
                let message = part.cut(self.asked.raw);
                if message.last {
                    self.part = None;
                }
                return Some(response(Message::Part(message)));
            }
            if let Some(backend) = self.ready.pop_front() {
                self.part = self.take(&backend);
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

    /// The part of one backend as it is now; none if it is gone.
    fn take(&mut self, backend: &str) -> Option<Part> {
        let state = self.board.state();
        let standing = state.backend(backend)?;
        let revision = state.stand.revision;
        self.revision = Some(self.revision.map_or(revision, |first| first.min(revision)));
        let filter = Filter {
            backends: vec![backend.to_owned()],
            ..self.asked.filter.clone()
        };
        let mut selection = select(&state.stand.market, &filter, self.asked.order);
        let matched = u32::try_from(selection.hits.len()).unwrap_or(u32::MAX);
        let report = report::report(standing, self.waited.get(backend), self.clock.now());
        self.metrics.left_out(standing, &report);
        let report = convert::render_report(standing, report, matched);
        self.reports.insert(backend.to_owned(), report.clone());
        selection.hits.truncate(self.asked.limit);
        Some(Part {
            report,
            rest: selection.hits.into_iter(),
            state,
        })
    }

    fn summary(&mut self) -> pb::StreamOffersResponse {
        let backends: Vec<_> = std::mem::take(&mut self.reports).into_values().collect();
        let total = backends.iter().fold(0i32, |sum, report| {
            sum.saturating_add(report.offers_matched)
        });
        let revision = self.revision;
        let revision = revision.unwrap_or_else(|| self.board.state().stand.revision);
        let resume_token = resume::token(self.board.epoch(), revision);
        let summary = pb::OffersSummary {
            backends,
            total_size: total,
            resume_token,
        };
        response(Message::Summary(summary))
    }
}

impl Part {
    /// The next message.
    fn cut(&mut self, raw: RawFields) -> pb::OffersPart {
        let mut budget = Budget::new(MAX_SIZE);
        let mut offers = Vec::new();
        while let Some(hit) = self.rest.as_slice().first() {
            let shelf = &self.state.stand.market.shelves()[hit.shelf as usize];
            let offer = convert::render_offer(shelf, hit.row, raw);
            if !budget.admit(offer.encoded_len()) {
                break;
            }
            offers.push(offer);
            self.rest.next();
        }
        pb::OffersPart {
            report: Some(self.report.clone()),
            offers,
            last: self.rest.as_slice().is_empty(),
        }
    }
}

fn response(message: Message) -> pb::StreamOffersResponse {
    pb::StreamOffersResponse {
        message: Some(message),
    }
}
