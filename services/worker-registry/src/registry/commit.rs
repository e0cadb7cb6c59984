//! Making decisions durable, in the order in which they were made.
//!
//! A decision is handed to the store while the desk is still locked, so the store judges in the same
//! order. One task waits for what comes of them, shows it, and only then lets callers be answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Polling, Poll, Waker};

use futures_util::FutureExt as _;
use muster_store::{
    Condition, Error as StoreError, Outcome as StoreOutcome, Revision, Transaction,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{error, warn};

use super::{Desk, Error, Order, Registry, load};
use crate::domain::fleet::{Change, Draft, Fleet, Key};
use crate::record;

/// Decisions taken from the queue at once.
const GROUP: usize = 512;

type Commit = Pin<Box<dyn Future<Output = Result<StoreOutcome, StoreError>> + Send>>;

/// A decision under way to the disk.
pub(super) struct Flight {
    /// None waits only for those before it.
    commit: Option<Commit>,
    changes: Vec<Change>,
    /// The revision that the book gave it.
    expected: u64,
    done: oneshot::Sender<Result<Outcome, StoreError>>,
    _permit: OwnedSemaphorePermit,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// It is durable and shown, at this revision.
    Durable(u64),
    /// It was made on records that were not so; it has to be made again.
    Again,
}

/// The end of a flight.
pub(super) enum Pending {
    Now(u64),
    Later(oneshot::Receiver<Result<Outcome, StoreError>>),
}

impl Pending {
    pub(super) async fn landed(self) -> Result<Outcome, Error> {
        match self {
            Self::Now(revision) => Ok(Outcome::Durable(revision)),
            Self::Later(done) => Ok(done.await.map_err(|_| Error::Stopping)??),
        }
    }
}

impl Registry {
    /// Takes a decision into the book and hands it to the store. The desk stays locked meanwhile, which
    /// is what keeps both in one order.
    pub(super) fn launch(
        &self,
        desk: &mut Desk,
        draft: Draft,
        permit: OwnedSemaphorePermit,
    ) -> Result<Pending, Error> {
        if draft.changes.is_empty() && self.is_settled() {
            return Ok(Pending::Now(self.progress.current()));
        }
        let (done, landed) = oneshot::channel();
        let mut flight = Flight {
            commit: None,
            expected: desk.book.fleet().revision(),
            changes: Vec::new(),
            done,
            _permit: permit,
        };
        if !draft.changes.is_empty() {
            let transaction = transaction(desk.book.fleet(), &draft);
            // Before the book takes it: one that is refused would leave all that follows at other revisions
            // than their ids say.
            transaction.check_size()?;
            flight.expected = desk.book.take(&draft.changes);
            flight.changes = draft.changes;
            flight.commit = Some(self.hand_over(transaction));
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        // The queue has room for every permit there is.
        self.queue.try_send(flight).map_err(|_| Error::Stopping)?;
        Ok(Pending::Later(landed))
    }

    /// Polls the commit once, which queues it in the store.
    fn hand_over(&self, transaction: Transaction) -> Commit {
        let store = self.store.clone();
        // Unconstrained, since a budget that is used up would let it come back without having queued.
        let commit = tokio::task::unconstrained(async move { store.commit(transaction).await });
        let mut commit: Commit = Box::pin(commit);
        let mut polling = Polling::from_waker(Waker::noop());
        match commit.as_mut().poll(&mut polling) {
            Poll::Pending => commit,
            Poll::Ready(outcome) => Box::pin(std::future::ready(outcome)),
        }
    }

    /// Lands every flight, in order, until the registry stops and none is left.
    pub(super) async fn commit_all(
        &self,
        mut flights: mpsc::Receiver<Flight>,
        stopped: impl Future<Output = ()>,
    ) {
        tokio::pin!(stopped);
        let mut group = Vec::with_capacity(GROUP);
        loop {
            tokio::select! {
                biased;
                count = flights.recv_many(&mut group, GROUP) => {
                    if count == 0 {
                        return;
                    }
                }
                () = &mut stopped => return,
            }
            self.land(&mut group).await;
            self.put_in_order().await;
        }
    }

    /// Waits for the first, takes along those that are durable as well by then, and shows them together.
    async fn land(&self, group: &mut Vec<Flight>) {
        let mut flights = group.drain(..).peekable();
        while let Some(mut first) = flights.next() {
            let outcome = match &mut first.commit {
                Some(commit) => commit.await.map(Some),
                None => Ok(None),
            };
            let mut landed = vec![(first, outcome)];
            while let Some(next) = flights.peek_mut() {
                let outcome = match &mut next.commit {
                    Some(commit) => match commit.now_or_never() {
                        Some(outcome) => outcome.map(Some),
                        None => break,
                    },
                    None => Ok(None),
                };
                landed.extend(flights.next().map(|flight| (flight, outcome)));
            }
            self.settle(landed);
        }
    }

    /// Shows what is durable and answers the callers.
    fn settle(&self, landed: Vec<(Flight, Result<Option<StoreOutcome>, StoreError>)>) {
        let mut shown = Vec::with_capacity(landed.len());
        let mut answers = Vec::with_capacity(landed.len());
        let count = landed.len();
        for (flight, outcome) in landed {
            let answer = match outcome {
                // It rests on what was decided before it, of which not all is so.
                Ok(None) if self.desk().order != Order::Kept => Ok(Outcome::Again),
                Ok(None) => Ok(Outcome::Durable(flight.expected)),
                Ok(Some(StoreOutcome::Committed(Revision(revision)))) => {
                    if revision != flight.expected {
                        self.shift();
                    }
                    shown.push((revision, flight.changes));
                    Ok(Outcome::Durable(revision))
                }
                Ok(Some(StoreOutcome::Conflict { key, .. })) => {
                    warn!(%key, "a decision rested on a record that has changed; it is made again");
                    self.metrics.conflicts.inc();
                    self.note_conflict();
                    Ok(Outcome::Again)
                }
                Err(error) => {
                    self.disorder(&error);
                    Err(error)
                }
            };
            answers.push((flight.done, answer, flight._permit));
        }
        self.show(shown);
        self.in_flight.fetch_sub(count, Ordering::AcqRel);
        for (done, answer, _permit) in answers {
            // A caller that is gone needs no answer.
            let _ = done.send(answer);
        }
    }

    /// Stops decisions until the book has the revisions of what is shown.
    fn shift(&self) {
        let mut desk = self.desk();
        if desk.order == Order::Kept {
            desk.order = Order::Shifted;
        }
    }

    /// Whoever rests on a revision that has shifted conflicts by that. Whatever else is behind it comes up when
    /// it is decided again.
    fn note_conflict(&self) {
        let mut desk = self.desk();
        if desk.order == Order::Kept {
            desk.order = Order::Lost;
        }
    }

    /// Stops decisions until the book is read anew; for ever if the store has failed.
    fn disorder(&self, error: &StoreError) {
        let mut desk = self.desk();
        desk.order = Order::Lost;
        if let StoreError::Failed(_) | StoreError::Closed = error {
            desk.failed = Some(error.clone());
        }
    }

    /// Takes up what is shown, or reads the book anew, once nothing is under way.
    async fn put_in_order(&self) {
        let order = self.desk().order;
        if !self.is_settled() || order == Order::Kept {
            return;
        }
        if order == Order::Shifted {
            let fleet = self.view().clone();
            let next = fleet.revision() + 1;
            self.desk().book.replace(fleet, next);
        } else if self.desk().failed.is_none() {
            match load::fleet(&self.store).await {
                Ok(fleet) => {
                    let next = fleet.revision() + 1;
                    self.show_all(fleet.clone());
                    self.desk().book.replace(fleet, next);
                }
                Err(failure) => {
                    error!(error = %failure, "the records cannot be read anew");
                    self.desk().failed = Some(StoreError::Unavailable(failure.to_string()));
                }
            }
        }
        self.desk().order = Order::Kept;
        self.desk_cleared.notify_waiters();
    }
}

/// The records that a draft changes or rests on, each once.
pub(super) fn named(draft: &Draft) -> Vec<Key> {
    let mut named: Vec<Key> = Vec::with_capacity(draft.changes.len() + draft.reads.len());
    let changed = draft.changes.iter().map(Change::key);
    for key in changed.chain(draft.reads.iter().cloned()) {
        if !named.contains(&key) {
            named.push(key);
        }
    }
    named
}

/// The draft as a transaction: every record that it changes or rests on must be as the book has it.
pub(super) fn transaction(fleet: &Fleet, draft: &Draft) -> Transaction {
    let named = named(draft);
    let keys: Vec<Arc<str>> = named.iter().map(|key| record::key_of(key).into()).collect();
    let mut transaction = Transaction::new();
    for (key, text) in named.iter().zip(&keys) {
        let condition = match fleet.modified(key) {
            Some(revision) => Condition::ModifiedAt(Revision(revision)),
            None => Condition::Absent,
        };
        transaction = transaction.when(Arc::clone(text), condition);
    }
    for change in &draft.changes {
        let changed = change.key();
        let same = named.iter().zip(&keys).find(|(key, _)| **key == changed);
        let Some((_, text)) = same else { continue };
        let text = Arc::clone(text);
        transaction = match record::value_of(change) {
            Some(value) => transaction.put(text, value),
            None => transaction.delete(text),
        };
    }
    transaction
}
