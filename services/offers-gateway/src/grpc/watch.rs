//! WatchOffers: what is on offer now, then every change, in order, each once. A watcher pulls from
//! the shared history at its own pace; one that falls too far behind is cut off, and slows nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use muster_proto::offers::v1 as pb;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::backoff;
use muster_runtime::page::{Budget, MAX_SIZE};
use muster_runtime::{resume, status};
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::convert;
use super::wire::RawFields;
use crate::board::{Board, State};
use crate::domain::market::Shelf;
use crate::domain::query::Filter;
use crate::domain::selection::{matching_rows, meets};
use crate::domain::snapshot::RowNumber;
use crate::history::Step;

/// A watcher hears something after so long at the latest; the contract says 30 s.
const BOOKMARK: Duration = Duration::from_secs(25);

/// How long a watcher may take to read what was there at the start.
const STATE_WITHIN: Duration = Duration::from_secs(600);

/// How far behind a watcher may fall.
const MAX_LAG: Duration = Duration::from_secs(30);

/// Watchers at once: each may hold offers of the past.
const MAX_WATCHERS: usize = 1_000;

/// Changed offers that are looked through at once, before others have their turn.
const MAX_LOOKS: usize = 10_000;

/// When those whose watch ended with the process should come back: between this and twice this.
const RETRY: Duration = Duration::from_millis(500);

/// The messages of a watch.
pub(super) type Messages = BoxStream<'static, Result<pb::WatchOffersResponse, Status>>;

/// What a watcher sees.
pub(super) struct View {
    pub(super) filter: Filter,
    pub(super) raw: RawFields,
}

struct Watcher {
    board: Board,
    view: View,
    stop: BoxFuture<'static, ()>,
    changed: watch::Receiver<u64>,
    stage: Stage,
    /// Everything up to this revision is queued.
    position: u64,
    queue: VecDeque<pb::WatchOffersResponse>,
    bookmark_at: Instant,
    /// It has had everything that there was.
    synced: bool,
    ended: bool,
    seat: Seat,
}

/// Whether a message ends what was to be told at its revision.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Complete {
    Yes,
    No,
}

enum Stage {
    /// It is being sent what was there at the start.
    State(Box<Start>),
    /// It is being told of one change.
    Step(Box<Rest>),
    /// It has been told of every change so far.
    Changes,
}

/// What of one change is still to be told.
struct Rest {
    step: Arc<Step>,
    pair: usize,
    row: usize,
    /// Found, and not sent yet.
    changes: Vec<pb::OfferChange>,
    budget: Budget,
}

/// How much of what was there at the start is sent.
struct Start {
    state: Arc<State>,
    shelf: usize,
    rows: std::vec::IntoIter<RowNumber>,
    until: Instant,
}

/// A watch of `view`, from a token or from what is there now, until `stop` resolves.
pub(super) fn watch(
    board: &Board,
    view: View,
    token: &str,
    watchers: &Arc<AtomicUsize>,
    stop: BoxFuture<'static, ()>,
) -> Result<Messages, Status> {
    let from = resume::revision_of("resume_token", token, board.epoch())?;
    let seat = Seat::take(watchers)?;
    let changed = board.changed();
    let state = board.state();
    if let Some(from) = from {
        let known = from <= state.revision && board.step_after(from).is_ok();
        known.then_some(()).ok_or_else(|| history_changed(from))?;
    }
    let now = Instant::now();
    let start = Start {
        state: Arc::clone(&state),
        shelf: 0,
        rows: Vec::new().into_iter(),
        until: now + STATE_WITHIN,
    };
    let watcher = Watcher {
        board: board.clone(),
        view,
        stop,
        changed,
        position: from.unwrap_or(state.revision),
        stage: if from.is_some() {
            Stage::Changes
        } else {
            Stage::State(Box::new(start))
        },
        queue: VecDeque::new(),
        bookmark_at: now + BOOKMARK,
        synced: false,
        ended: false,
        seat,
    };
    Ok(watcher.into_stream())
}

impl Watcher {
    fn into_stream(self) -> Messages {
        stream::unfold(self, |mut watcher| async move {
            if watcher.ended {
                return None;
            }
            let message = watcher.next().await;
            watcher.ended = message.is_err();
            if message
                .as_ref()
                .is_ok_and(|message| !message.resume_token.is_empty())
            {
                watcher.bookmark_at =
                    Instant::now() + BOOKMARK.mul_f64(1.0 - 0.2 * watcher.seat.unit(1));
            }
            Some((message, watcher))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<pb::WatchOffersResponse, Status> {
        loop {
            if futures_util::poll!(&mut self.stop).is_ready() {
                return Err(self.seat.shutting_down());
            }
            if let Some(message) = self.queue.pop_front() {
                return Ok(message);
            }
            match &mut self.stage {
                Stage::State(start) => {
                    if Instant::now() > start.until {
                        return Err(too_slow());
                    }
                    let (changes, complete) = start.chunk(&self.view);
                    if complete == Complete::Yes {
                        self.stage = Stage::Changes;
                        self.synced = true;
                    }
                    self.enqueue(changes, complete);
                }
                Stage::Step(rest) => match rest.chunk(&self.view) {
                    Looked::Some(changes) if changes.is_empty() => {}
                    Looked::Some(changes) => self.enqueue(changes, Complete::No),
                    Looked::Rest(changes) => {
                        self.stage = Stage::Changes;
                        if !changes.is_empty() {
                            self.enqueue(changes, Complete::Yes);
                        }
                    }
                },
                Stage::Changes => self.changes().await?,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Goes on to the next change, or queues a bookmark, or waits for either.
    async fn changes(&mut self) -> Result<(), Status> {
        let newest = *self.changed.borrow_and_update();
        let step = self
            .board
            .step_after(self.position)
            .map_err(|_| too_slow())?;
        if let Some(step) = step {
            if self.synced && step.at.elapsed() > MAX_LAG {
                return Err(too_slow());
            }
            self.position = step.revision;
            self.synced |= self
                .board
                .step_after(step.revision)
                .is_ok_and(|next| next.is_none());
            step.work_out().await;
            self.stage = Stage::Step(Box::new(Rest {
                step,
                pair: 0,
                row: 0,
                changes: Vec::new(),
                budget: Budget::new(MAX_SIZE),
            }));
            return Ok(());
        }
        self.position = newest.max(self.position);
        if Instant::now() >= self.bookmark_at || !self.synced {
            self.synced = true;
            self.enqueue(Vec::new(), Complete::Yes);
            return Ok(());
        }
        tokio::select! {
            () = &mut self.stop => return Err(self.seat.shutting_down()),
            _ = self.changed.changed() => {}
            () = sleep_until(self.bookmark_at) => {}
        }
        Ok(())
    }

    fn enqueue(&mut self, changes: Vec<pb::OfferChange>, complete: Complete) {
        let resume_token = match complete {
            Complete::Yes => resume::token(self.board.epoch(), self.position),
            Complete::No => String::new(),
        };
        self.queue.push_back(pb::WatchOffersResponse {
            changes,
            resume_token,
            synced: self.synced,
        });
    }
}

impl View {
    /// What a watcher is told of an offer that changed; none if it is none of its own.
    fn change(
        &self,
        before: Option<(RowNumber, &Shelf)>,
        after: Option<(RowNumber, &Shelf)>,
    ) -> Option<pb::OfferChange> {
        let seen = |offer: &(RowNumber, &Shelf)| meets(offer.1, offer.0, &self.filter);
        let render =
            |(row, shelf): (RowNumber, &Shelf)| convert::render_offer(shelf, row, self.raw);
        let put = || {
            after
                .filter(seen)
                .map(|offer| pb::offer_change::Change::Put(render(offer)))
        };
        let deleted = || {
            before
                .filter(seen)
                .map(|offer| pb::offer_change::Change::Deleted(render(offer)))
        };
        put().or_else(deleted).map(|change| pb::OfferChange {
            change: Some(change),
        })
    }
}

/// What came of looking through a part of one change.
enum Looked {
    /// These are a message, or none of this part is told; there is more.
    Some(Vec<pb::OfferChange>),
    /// These are the last.
    Rest(Vec<pb::OfferChange>),
}

impl Rest {
    /// Looks until a message is full, through so many rows at most.
    fn chunk(&mut self, view: &View) -> Looked {
        for _ in 0..MAX_LOOKS {
            let Some((pair, rows)) = self.step.changes_at(self.pair) else {
                return Looked::Rest(std::mem::take(&mut self.changes));
            };
            let Some(row) = rows.get(self.row) else {
                (self.pair, self.row) = (self.pair + 1, 0);
                continue;
            };
            self.row += 1;
            if row.only_raw && view.raw == RawFields::Omit {
                continue;
            }
            let before = row.before.zip(pair.before.as_deref());
            let after = row.after.zip(pair.after.as_deref());
            let Some(change) = view.change(before, after) else {
                continue;
            };
            if self.budget.admit(change.encoded_len()) {
                self.changes.push(change);
                continue;
            }
            self.budget = Budget::new(MAX_SIZE);
            self.budget.admit(change.encoded_len());
            return Looked::Some(std::mem::replace(&mut self.changes, vec![change]));
        }
        Looked::Some(Vec::new())
    }
}

impl Start {
    /// The next changes, and whether they are the last.
    fn chunk(&mut self, view: &View) -> (Vec<pb::OfferChange>, Complete) {
        let mut budget = Budget::new(MAX_SIZE);
        let mut changes = Vec::new();
        let shelves = self.state.stand.market.shelves();
        loop {
            let Some(row) = self.rows.as_slice().first().copied() else {
                let Some(shelf) = shelves.get(self.shelf) else {
                    return (changes, Complete::Yes);
                };
                self.shelf += 1;
                if view.filter.asks(shelf.backend()) {
                    self.rows = matching_rows(shelf, &view.filter).into_iter();
                }
                continue;
            };
            // The shelf before the place is the one whose rows are being sent.
            let shelf = &shelves[self.shelf - 1];
            let put = pb::offer_change::Change::Put(convert::render_offer(shelf, row, view.raw));
            let change = pb::OfferChange { change: Some(put) };
            if !budget.admit(change.encoded_len()) {
                return (changes, Complete::No);
            }
            self.rows.next();
            changes.push(change);
        }
    }
}

/// A watcher's place among the counted ones; given back when dropped.
struct Seat {
    watchers: Arc<AtomicUsize>,
    number: u64,
}

impl Seat {
    fn take(watchers: &Arc<AtomicUsize>) -> Result<Self, Status> {
        let taken = watchers.fetch_add(1, Ordering::Relaxed);
        let seat = Self {
            watchers: Arc::clone(watchers),
            number: taken as u64,
        };
        if taken < MAX_WATCHERS {
            return Ok(seat);
        }
        let message = format!("{taken} watches of offers are open, as many as are allowed");
        Err(status::error(
            Code::ResourceExhausted,
            ErrorReason::TooManyWatches,
            message,
        )
        .into())
    }

    /// A number from 0 to 1 of this watcher's own.
    fn unit(&self, index: u64) -> f64 {
        backoff::unit(self.number, index)
    }

    fn shutting_down(&self) -> Status {
        let message = "the process is stopping; resume after the delay";
        status::unavailable(
            ErrorReason::ShuttingDown,
            message,
            RETRY.mul_f64(1.0 + self.unit(0)),
        )
        .into()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_slow() -> Status {
    let message =
        format!("the watcher was more than {MAX_LAG:?} behind; resume from its last resume_token");
    status::error(
        Code::ResourceExhausted,
        ErrorReason::WatcherTooSlow,
        message,
    )
    .into()
}

fn history_changed(revision: u64) -> Status {
    let message = format!("revision {revision} is no longer kept; list again");
    status::error(Code::OutOfRange, ErrorReason::HistoryChanged, message).into()
}
