//! Decisions on a store of several instances. The book shows what the store shows, and nothing beyond it: a
//! decision is committed on the condition that what it rests on is still so, and made again where it is not.
//!
//! Decisions of this instance about the same records wait for each other here, so that only those of other
//! instances conflict. What was committed reaches book, view and watchers by the store's watch, as does what
//! others commit, all in the store's one order.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use muster_runtime::deadline::Deadline;
use muster_store::{
    Batch, Condition, Error as StoreError, Leadership, MAX_RECORDS, Outcome, Revision, TERM_KEY,
    Transaction, Watch,
};
use tokio::sync::Notify;
use tracing::{error, warn};

use super::commit::{named, transaction};
use super::{At, Error, Registry, load};
use crate::domain::book::Book;
use crate::domain::decide::{Decision, Refused};
use crate::domain::fleet::{Change, Key};
use crate::domain::text::Text;
use crate::record::{self, Unreadable};

/// Decisions under way at most: what a cluster works on at once, with some to spare.
pub(super) const IN_FLIGHT: usize = 64;

/// How often a decision is made again after conflicts with other instances. One of those that conflict
/// wins each time, so that with a few instances this is as good as never used up.
const TRIES: usize = 64;

/// How long what is committed may take to be shown here: the store shows it already.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// The records that decisions under way rest on or change.
#[derive(Default)]
pub(super) struct Claims {
    keys: Mutex<BTreeSet<Key>>,
    freed: Notify,
}

/// Some records, claimed until this is dropped.
struct Claim<'a> {
    claims: &'a Claims,
    keys: Vec<Key>,
}

impl Claims {
    /// Claims all of them, or none where one is claimed already.
    fn claim(&self, keys: Vec<Key>) -> Option<Claim<'_>> {
        let mut claimed = self.lock();
        if keys.iter().any(|key| claimed.contains(key)) {
            return None;
        }
        claimed.extend(keys.iter().cloned());
        Some(Claim { claims: self, keys })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claimed = self.claims.lock();
        for key in &self.keys {
            claimed.remove(key);
        }
        drop(claimed);
        self.claims.freed.notify_waiters();
    }
}

/// Who decides, which says how new it has to be what a decision without a change rests on.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// A caller, who takes it for done: it is what the store has.
    Caller,
    /// An agent's beat, which comes again.
    Beat,
    /// The leader, which looks again by itself. Nothing is written once its leadership has ended.
    Leader(&'a Leadership),
}

/// A decision that is ready to be committed.
struct Ready<'a, T> {
    answer: T,
    transaction: Transaction,
    _claim: Claim<'a>,
}

/// What a decision came to.
enum Made<'a, T> {
    Nothing(T),
    Ready(Ready<'a, T>),
}

impl Registry {
    /// Decides, and answers once what was decided is shown here.
    pub(super) async fn decide_shared<T>(
        &self,
        by: By<'_>,
        make: impl Fn(&Book, SystemTime) -> Result<Decision<T>, Refused>,
    ) -> Result<At<T>, Error> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| Error::Stopping)?;
        let mut in_step = !matches!(by, By::Caller);
        for _ in 0..TRIES {
            let ready = match self.make_ready(&make).await {
                Ok(Made::Ready(ready)) => ready,
                // Nothing is written by which the store would tell that this instance is behind.
                Ok(Made::Nothing(_)) | Err(Error::Refused(_)) if !in_step => {
                    self.in_step().await?;
                    in_step = true;
                    continue;
                }
                Ok(Made::Nothing(value)) => {
                    let revision = self.progress.current();
                    return Ok(At { value, revision });
                }
                Err(error) => return Err(error),
            };
            let transaction = match by {
                By::Leader(lead) => lead.fence(ready.transaction),
                By::Caller | By::Beat => ready.transaction,
            };
            match self.store.commit(transaction).await? {
                Outcome::Committed(Revision(revision)) => {
                    self.shown(revision).await?;
                    let value = ready.answer;
                    return Ok(At { value, revision });
                }
                Outcome::Conflict { key, .. } if &*key == TERM_KEY => {
                    return Err(Error::NotLeading);
                }
                Outcome::Conflict { .. } => {
                    self.metrics.conflicts.inc();
                    self.shown(self.store.revision().await?.0).await?;
                }
            }
        }
        Err(Error::Contended)
    }

    /// Makes a decision once none under way is about the same records.
    async fn make_ready<T>(
        &self,
        make: impl Fn(&Book, SystemTime) -> Result<Decision<T>, Refused>,
    ) -> Result<Made<'_, T>, Error> {
        loop {
            let freed = self.claims.freed.notified();
            tokio::pin!(freed);
            // Before the look, so that it is woken by what is freed since.
            freed.as_mut().enable();
            {
                let mut desk = self.desk();
                if let Some(error) = &desk.failed {
                    return Err(error.clone().into());
                }
                let Decision { draft, answer } = make(&desk.book, self.clock.now())?;
                if draft.changes.is_empty() {
                    return Ok(Made::Nothing(answer));
                }
                if let Some(claim) = self.claims.claim(named(&draft)) {
                    let transaction = transaction(desk.book.fleet(), &draft);
                    desk.book.hand_out();
                    return Ok(Made::Ready(Ready {
                        answer,
                        transaction,
                        _claim: claim,
                    }));
                }
            }
            freed.await;
        }
    }

    /// Of allocations that are not shown here those that are not in the store either, which this instance may be
    /// behind: it asks, and answers none of them where it cannot.
    pub(crate) async fn gone(&self, ids: Vec<Text>) -> BTreeSet<Text> {
        let mut gone = BTreeSet::new();
        for part in ids.chunks(MAX_RECORDS) {
            let keys = part.iter().cloned().map(Key::Allocation);
            let absent = keys.fold(Transaction::new(), |absent, key| {
                absent.when(record::key_of(&key), Condition::Absent)
            });
            if let Ok(Outcome::Committed(_)) = self.store.commit(absent).await {
                gone.extend(part.iter().cloned());
            }
        }
        gone
    }

    /// Waits until this instance shows all that the store had when this was called.
    pub(crate) async fn in_step(&self) -> Result<(), Error> {
        let look = async {
            let Revision(revision) = self.store.in_step().await?;
            self.shown(revision).await
        };
        self.barrier.pass(look).await
    }

    /// Waits until this instance shows a revision that its store shows.
    async fn shown(&self, revision: u64) -> Result<(), Error> {
        let deadline = Deadline::after(SHOWN_WITHIN);
        let shown = self.progress.reach(revision, deadline).await;
        shown.map_err(|behind| Error::Store(StoreError::Unavailable(behind.to_string())))
    }

    /// Follows the store after a revision until `stopped`, or until it ends. It ends by itself where it
    /// cannot go on, which stops the process.
    pub(super) async fn follow_store(&self, after: u64, stopped: impl Future<Output = ()>) {
        let following = async {
            let mut after = after;
            while let Some(again) = self.follow_from(after).await {
                after = again;
            }
        };
        tokio::select! {
            biased;
            () = stopped => {}
            () = following => {}
        }
    }

    /// Follows the store after a revision. Answers from where to go on after what was missed was read as a
    /// whole; nothing where it cannot go on.
    async fn follow_from(&self, after: u64) -> Option<u64> {
        let missed = match self.store.watch("", Revision(after)).await {
            Ok(watch) => self.follow_watch(watch).await,
            Err(error) => Missed::Store(error),
        };
        if !matches!(missed, Missed::Store(StoreError::Compacted { .. })) {
            return self.stand_still(missed).await;
        }
        warn!("fell behind the store's history; all records are read anew");
        match load::fleet(&self.store).await {
            Ok(fleet) => {
                let revision = fleet.revision();
                self.desk().book.replace(fleet.clone(), revision + 1);
                self.show_all(fleet);
                Some(revision)
            }
            Err(error) => {
                error!(%error, "the records cannot be read anew");
                None
            }
        }
    }

    async fn follow_watch(&self, mut watch: Watch) -> Missed {
        loop {
            match watch.next().await {
                Ok(batch) => {
                    if let Err(error) = self.take(&batch) {
                        return Missed::Unreadable(error);
                    }
                }
                Err(error) => return Missed::Store(error),
            }
        }
    }

    /// Decides nothing more. A store that has ended ends the process by itself.
    async fn stand_still(&self, missed: Missed) -> Option<u64> {
        match missed {
            Missed::Store(error) => {
                self.desk().failed = Some(error);
                std::future::pending().await
            }
            Missed::Unreadable(error) => {
                error!(%error, "another instance has written what cannot be read here");
                None
            }
        }
    }

    /// Takes what one revision changed into book and view, and tells watchers.
    fn take(&self, batch: &Batch) -> Result<(), Unreadable> {
        let changes = changes(batch)?;
        self.desk().book.follow(&changes, batch.revision.0);
        self.show(vec![(batch.revision.0, changes)]);
        Ok(())
    }
}

/// Why the watch ended.
enum Missed {
    Store(StoreError),
    Unreadable(Unreadable),
}

/// What a batch says of the fleet, in an order in which it can be taken: workers come before what is on them.
fn changes(batch: &Batch) -> Result<Vec<Change>, Unreadable> {
    let mut changes = Vec::with_capacity(batch.changes.len());
    for one in &batch.changes {
        changes.extend(match &one.after {
            Some(record) => record::read(&one.key, &record.value)?,
            None => record::gone(&one.key),
        });
    }
    changes.sort_by_key(|change| match change {
        Change::Worker(_) => 0,
        Change::WorkerGone(_) => 2,
        Change::Room(_)
        | Change::RoomGone(_)
        | Change::Allocation(_)
        | Change::AllocationGone(_)
        | Change::Owner(..)
        | Change::Token(_)
        | Change::TokenGone(_)
        | Change::Tombstone(..)
        | Change::Spent(..)
        | Change::SpentGone(_)
        | Change::Event(_)
        | Change::EventGone(_)
        | Change::Longest(_) => 1,
    });
    Ok(changes)
}
