//! The shared side of a hub: the state, the history and the wake-up. One short lock guards them;
//! nobody holds it while filtering, rendering or sending.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::history::{Change, Commit, Compacted, History, Item};
use super::observed::{Entry, Observed};
use super::subscription::Subscription;
use super::{Filter, Messages, Options, Resource, Update};
use crate::resume;
use crate::status;

/// How long a watcher lets changes gather before it takes the next, for each watcher there is:
/// with 1,000 of them each sends at most 20 messages a second, whatever the rate of changes.
const PACE_PER_WATCHER: Duration = Duration::from_micros(50);

/// The longest that changes gather.
const MAX_PACE: Duration = Duration::from_millis(100);

/// Timers are no finer than this, so a shorter pace is none.
const MIN_PACE: Duration = Duration::from_millis(1);

/// Tells watchers of every change to one kind of resource. A cheap handle.
pub struct Hub<T> {
    shared: Arc<Shared<T>>,
}

pub(super) struct Shared<T> {
    pub(super) epoch: String,
    pub(super) options: Options,
    inner: RwLock<Inner<T>>,
    /// Whether the hub is closed; touched at each change.
    wake: watch::Sender<bool>,
    watchers: AtomicUsize,
    next_watcher: AtomicU64,
}

struct Inner<T> {
    state: BTreeMap<Arc<str>, Item<T>>,
    history: History<T>,
    observed: Observed<T>,
    /// Counts resets; a watcher of an earlier one has lost its place.
    era: u64,
}

impl<T: Resource> Hub<T> {
    /// A hub whose current state, at `revision` of `epoch`, is `state`. Older revisions cannot be
    /// resumed.
    pub fn new(
        epoch: impl Into<String>,
        revision: u64,
        state: impl IntoIterator<Item = (Arc<str>, Arc<T>)>,
        options: Options,
    ) -> Self {
        let inner = Inner {
            state: sized(state),
            history: History::new(revision),
            observed: Observed::new(),
            era: 0,
        };
        Self {
            shared: Arc::new(Shared {
                epoch: epoch.into(),
                options,
                inner: RwLock::new(inner),
                wake: watch::Sender::new(false),
                watchers: AtomicUsize::new(0),
                next_watcher: AtomicU64::new(0),
            }),
        }
    }

    /// Publishes all changes of one revision. Revisions come in order; one that is not above the
    /// last is ignored (`false`), so that a follower may repeat itself. A revision without changes
    /// moves tokens on.
    pub fn publish(&self, revision: u64, updates: impl IntoIterator<Item = Update<T>>) -> bool {
        let mut inner = self.shared.write();
        if revision <= inner.history.revision() {
            return false;
        }
        let changes: Vec<_> = updates
            .into_iter()
            .filter_map(|update| inner.apply(update))
            .collect();
        if changes.is_empty() {
            inner.history.advance(revision);
            return true;
        }
        let commit = Commit {
            revision,
            changes,
            at: Instant::now(),
        };
        let forgotten = inner.history.push(commit, &self.shared.options);
        drop(inner);
        // Freed after the lock: the last handle to a resource may be among them.
        drop(forgotten);
        self.shared.wake();
        true
    }

    /// Publishes new in-memory facts about the resource under `key`: `change` is given its newest
    /// state, and answers the state with the new facts, or `None` to leave it. Without effect if
    /// there is no such resource. `change` must not call back into the hub.
    pub fn observe(&self, key: &str, change: impl FnOnce(&T) -> Option<T>) -> bool {
        let mut inner = self.shared.write();
        let Some((key, before)) = inner.state.get_key_value(key) else {
            return false;
        };
        let Some(after) = change(&before.resource) else {
            return false;
        };
        let (key, before, after) = (Arc::clone(key), before.clone(), Item::new(Arc::new(after)));
        inner.state.insert(Arc::clone(&key), after.clone());
        inner.observed.set(key, before, after);
        drop(inner);
        self.shared.wake();
        true
    }

    /// Starts over from another state, after whoever follows the store has lost its place there.
    /// All watchers are ended with OUT_OF_RANGE (HISTORY_CHANGED).
    pub fn reset(&self, revision: u64, state: impl IntoIterator<Item = (Arc<str>, Arc<T>)>) {
        let fresh = sized(state);
        let mut inner = self.shared.write();
        let old = std::mem::replace(&mut inner.state, fresh);
        let history = std::mem::replace(&mut inner.history, History::new(revision));
        inner.observed = Observed::new();
        inner.era += 1;
        drop(inner);
        drop((old, history));
        self.shared.wake();
    }

    /// A watch: from `resume_token`, or, if that is empty, from the current state. Fails with
    /// INVALID_ARGUMENT (no token), OUT_OF_RANGE (of another history, or compacted) or
    /// RESOURCE_EXHAUSTED (too many watchers).
    pub fn watch(&self, resume_token: &str, filter: Filter<T>) -> Result<Messages<T>, Status> {
        let from = resume::revision_of("resume_token", resume_token, &self.shared.epoch)?;
        if self.shared.is_closed() {
            return Err(super::subscription::shutting_down(0));
        }
        let seat = Seat::take(&self.shared)?;
        Subscription::open(seat, from, filter).map(Subscription::into_stream)
    }

    /// Ends every watch with UNAVAILABLE and RetryInfo, and refuses new ones so.
    pub fn close(&self) {
        self.shared.wake.send_replace(true);
    }

    /// The newest revision published.
    pub fn revision(&self) -> u64 {
        self.shared.read().history.revision()
    }

    /// The resume token of the newest revision published.
    pub fn resume_token(&self) -> String {
        resume::token(&self.shared.epoch, self.revision())
    }

    /// Open watches.
    pub fn watchers(&self) -> usize {
        self.shared.watchers.load(Ordering::Relaxed)
    }
}

impl<T> Clone for Hub<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> std::fmt::Debug for Hub<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("epoch", &self.shared.epoch)
            .finish_non_exhaustive()
    }
}

impl<T: Resource> Inner<T> {
    /// Takes one update into the state. `None` if it changes nothing.
    fn apply(&mut self, update: Update<T>) -> Option<Change<T>> {
        let Update { key, value } = update;
        let after = value.map(Item::new);
        let before = match &after {
            Some(item) => self.state.insert(Arc::clone(&key), item.clone()),
            None => self.state.remove(&key),
        };
        self.observed.forget(&key);
        let changes = before.is_some() || after.is_some();
        changes.then_some(Change { key, before, after })
    }
}

fn sized<T: Resource>(
    state: impl IntoIterator<Item = (Arc<str>, Arc<T>)>,
) -> BTreeMap<Arc<str>, Item<T>> {
    state
        .into_iter()
        .map(|(key, resource)| (key, Item::new(resource)))
        .collect()
}

/// What a watcher finds at one instant.
pub(super) struct Reading<T> {
    pub(super) commits: Vec<Arc<Commit<T>>>,
    pub(super) observed: Vec<(u64, Entry<T>)>,
    /// The newest revision, if `commits` go up to it.
    pub(super) newest: Option<u64>,
}

impl<T> Reading<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.observed.is_empty()
    }
}

/// The current state at one instant.
pub(super) struct Snapshot<T> {
    pub(super) revision: u64,
    pub(super) observed: u64,
    pub(super) era: u64,
    pub(super) resources: Vec<Item<T>>,
}

impl<T> Snapshot<T> {
    /// Where a watcher stands that has everything up to `revision` already.
    pub(super) fn empty(revision: u64, era: u64) -> Self {
        Self {
            revision,
            observed: 0,
            era,
            resources: Vec::new(),
        }
    }
}

/// The watcher has lost its place.
pub(super) enum Lost {
    Compacted(Compacted),
    Reset,
}

impl<T> Shared<T> {
    pub(super) fn snapshot(&self, prefix: &str) -> Snapshot<T> {
        let inner = self.read();
        let from = (
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        );
        Snapshot {
            revision: inner.history.revision(),
            observed: inner.observed.last(),
            era: inner.era,
            resources: inner
                .state
                .range::<str, _>(from)
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(_, item)| item.clone())
                .collect(),
        }
    }

    pub(super) fn era(&self) -> u64 {
        self.read().era
    }

    /// Up to about `limit` durable changes after `revision`; and, if those are all, up to `limit`
    /// in-memory ones after the place `observed`.
    pub(super) fn read_after(
        &self,
        era: u64,
        revision: u64,
        observed: u64,
        limit: usize,
    ) -> Result<Reading<T>, Lost> {
        let inner = self.read();
        if inner.era != era {
            return Err(Lost::Reset);
        }
        let later = inner
            .history
            .after(revision, limit)
            .map_err(Lost::Compacted)?;
        let observed = match later.complete {
            true => inner.observed.after(observed, limit),
            false => Vec::new(),
        };
        Ok(Reading {
            newest: later.complete.then(|| inner.history.revision()),
            commits: later.commits,
            observed,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.wake.borrow()
    }

    pub(super) fn listen(&self) -> watch::Receiver<bool> {
        self.wake.subscribe()
    }

    /// How long the watchers, so many as they are, let changes gather.
    pub(super) fn pace(&self) -> Duration {
        let watchers = u32::try_from(self.watchers.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let pace = PACE_PER_WATCHER.saturating_mul(watchers).min(MAX_PACE);
        if pace < MIN_PACE {
            Duration::ZERO
        } else {
            pace
        }
    }

    fn wake(&self) {
        if self.wake.receiver_count() > 0 {
            self.wake.send_modify(|_| {});
        }
    }

    // A panic while the lock is held can come only from a resource's own code, before anything
    // was changed halfway; the state stays usable.
    fn read(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watcher's place among the counted ones; given back when dropped.
pub(super) struct Seat<T> {
    pub(super) shared: Arc<Shared<T>>,
    pub(super) number: u64,
}

impl<T> Seat<T> {
    fn take(shared: &Arc<Shared<T>>) -> Result<Self, Status> {
        let taken = shared.watchers.fetch_add(1, Ordering::Relaxed);
        let number = shared.next_watcher.fetch_add(1, Ordering::Relaxed);
        let seat = Self {
            shared: Arc::clone(shared),
            number,
        };
        if taken < shared.options.max_watchers {
            return Ok(seat);
        }
        let message = format!("{taken} watches are open, as many as are allowed");
        Err(status::error(
            Code::ResourceExhausted,
            ErrorReason::TooManyWatches,
            message,
        )
        .into())
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.shared.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}
