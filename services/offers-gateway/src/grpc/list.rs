//! ListOffers: which offers, of what, on which page. Pages of one list come from one stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use muster_proto::offers::v1 as pb;
use muster_runtime::auth::Principal;
use muster_runtime::deadline::Deadline;
use muster_runtime::page::{Asked, Budget, Scope, TokenError};
use muster_runtime::status::Violations;
use prost::Message as _;
use tonic::{Request, Status};

use super::codec::Page;
use super::convert;
use super::service::Offers;
use super::wire::{self, RawFields, Writer};
use crate::board::{Stand, State};
use crate::domain::group::{self, By};
use crate::domain::query::{Filter, Key, Order};
use crate::domain::report::{self, Waited};
use crate::domain::selection::{Selection, select};
use crate::gather::Patience;
use crate::pages::Question;

/// The field of an answer that holds an offer.
const OFFERS: u32 = 1;

/// A question that was checked.
struct Query {
    filter: Filter,
    order: Order,
    group_by: Option<By>,
    raw: RawFields,
    patience: Patience,
    /// What is remembered of it: filter and order as they came.
    asked: Vec<u8>,
}

/// Where a list goes on.
struct Place {
    stand: Arc<Stand>,
    at: usize,
}

impl Offers {
    /// A page of offers.
    pub(super) async fn list(
        &self,
        request: Request<pb::ListOffersRequest>,
    ) -> Result<Page, Status> {
        let deadline = Self::deadline(&request);
        let principal = Principal::of(&request);
        let mut request = request.into_inner();
        let mut violations = Violations::new();
        let asked = Asked::take(
            &mut request.page_size,
            &mut request.page_token,
            &mut violations,
        );
        let scope = self.sealer.scope("ListOffers", principal.id(), &request);
        let state = self.board.state();
        let query = self.parse(request, &state, deadline, violations).await?;
        let cursor = scope.open(&asked.token)?;
        let waited = match cursor {
            Some(_) => BTreeMap::new(),
            None => {
                self.gather(|name| query.filter.asks(name), query.patience)
                    .await
            }
        };
        let state = self.board.state();
        let place = match cursor {
            Some(cursor) => self.resume(&cursor)?,
            None => Place {
                stand: Arc::clone(&state.stand),
                at: 0,
            },
        };
        let selection = self.select(&place.stand, &query);
        let now = self.clock.now();
        let mut page = match query.group_by {
            Some(by) => grouped(&place.stand, &selection, by),
            None => self.page(&place, &selection, &query, &scope, asked.size),
        };
        page.rest.total_size = i32::try_from(selection.hits.len()).unwrap_or(i32::MAX);
        page.rest.backends = self.reports(
            &state,
            &place.stand,
            &selection,
            &query.filter,
            &waited,
            now,
        );
        page.rest.resume_token = self.token(place.stand.revision);
        Ok(page)
    }

    async fn parse(
        &self,
        request: pb::ListOffersRequest,
        state: &State,
        deadline: Deadline,
        mut violations: Violations,
    ) -> Result<Query, Status> {
        let asked = pb::ListOffersRequest {
            filter: request.filter.clone(),
            order: request.order,
            ..Default::default()
        };
        let known = |name: &str| state.backend(name).is_some();
        let query = Query {
            filter: convert::parse_filter(request.filter, known, &mut violations),
            order: convert::parse_order(request.order, &mut violations),
            group_by: convert::parse_group_by(request.group_by, &mut violations),
            raw: if request.include_raw {
                RawFields::Include
            } else {
                RawFields::Omit
            },
            patience: self.patience(
                request.max_age,
                request.backend_timeout,
                deadline,
                &mut violations,
            ),
            asked: asked.encode_to_vec(),
        };
        violations.into_result()?;
        self.not_before(&request.not_before, deadline).await?;
        Ok(query)
    }

    fn resume(&self, cursor: &Bytes) -> Result<Place, TokenError> {
        let (revision, at) = read_cursor(cursor).ok_or(TokenError::Mismatch)?;
        let stand = self.pages.find(revision).ok_or(TokenError::Expired)?;
        Ok(Place { stand, at })
    }

    fn select(&self, stand: &Stand, query: &Query) -> Arc<Selection> {
        // Age is the one order that changes when offers are read again and are the same.
        let revision = if query.order.key == Key::Age {
            stand.revision
        } else {
            stand.content
        };
        let question = Question {
            revision,
            asked: query.asked.clone(),
        };
        if let Some(known) = self.pages.recall(&question) {
            return known;
        }
        let selection = Arc::new(select(&stand.market, &query.filter, query.order));
        self.pages.remember(question, &selection);
        selection
    }

    fn page(
        &self,
        place: &Place,
        selection: &Selection,
        query: &Query,
        scope: &Scope<'_>,
        size: usize,
    ) -> Page {
        let stand = &place.stand;
        let writers: Vec<Writer<'_>> = std::iter::zip(stand.market.shelves(), &stand.tables)
            .map(|(shelf, tables)| Writer::new(shelf, tables, query.raw))
            .collect();
        let mut budget = Budget::new(size);
        let mut offers = Vec::with_capacity(size.min(selection.hits.len()) * 192);
        let mut one = Vec::with_capacity(256);
        let mut next = place.at;
        for hit in selection.hits.iter().skip(place.at) {
            one.clear();
            writers[hit.shelf as usize].write(hit.row, &mut one);
            if !budget.admit(one.len()) {
                break;
            }
            wire::put_bytes(OFFERS, &one, &mut offers);
            next += 1;
        }
        let mut rest = pb::ListOffersResponse::default();
        if next < selection.hits.len() {
            self.pages.keep(stand);
            rest.next_page_token = scope.seal(&write_cursor(stand.revision, next));
        }
        Page {
            offers: offers.into(),
            rest,
        }
    }

    /// What the answer says of each backend that was asked.
    fn reports(
        &self,
        state: &State,
        stand: &Stand,
        selection: &Selection,
        filter: &Filter,
        waited: &BTreeMap<String, Waited>,
        now: SystemTime,
    ) -> Vec<pb::BackendReport> {
        let asked = state
            .backends
            .iter()
            .filter(|standing| filter.asks(&standing.facts.name));
        let report = asked.map(|standing| {
            let name = &standing.facts.name;
            let at = stand
                .market
                .shelves()
                .binary_search_by(|shelf| shelf.backend().cmp(name));
            let matched = at
                .ok()
                .and_then(|at| selection.matched.get(at))
                .copied()
                .unwrap_or_default();
            let report = report::report(standing, waited.get(name), now);
            self.metrics.left_out(standing, &report);
            convert::render_report(standing, report, matched)
        });
        report.collect()
    }
}

fn grouped(stand: &Stand, selection: &Selection, by: By) -> Page {
    let groups = group::group(&stand.market, selection, by);
    let groups = groups
        .into_iter()
        .map(|(key, group)| convert::render_group(key, group))
        .collect();
    Page {
        offers: Bytes::new(),
        rest: pb::ListOffersResponse {
            groups,
            ..Default::default()
        },
    }
}

fn write_cursor(revision: u64, at: usize) -> [u8; 16] {
    let mut cursor = [0; 16];
    cursor[..8].copy_from_slice(&revision.to_be_bytes());
    cursor[8..].copy_from_slice(&(at as u64).to_be_bytes());
    cursor
}

fn read_cursor(cursor: &[u8]) -> Option<(u64, usize)> {
    let (revision, at) = cursor.split_first_chunk::<8>()?;
    let at = u64::from_be_bytes(at.try_into().ok()?);
    Some((u64::from_be_bytes(*revision), usize::try_from(at).ok()?))
}
