//! The shared side of a hub: the state, the history and the wake-up. One short lock guards them;
//! nobody holds it while filtering, rendering or sending.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::history::{Change, Commit, Compacted, History};
use super::observed::{Entry, Observed};
use super::seat::{Seat, Seats};
use super::shared::Held;
use super::snapshot::{FRESH, Recent, Snapshot};
use super::subscription::Subscription;
use super::{Filter, Messages, Options, Resource, Update};
use crate::resume;

/// How long a watcher lets changes gather before it takes the next, for each watcher there is:
/// with 1,000 of them each sends at most 20 messages a second, whatever the rate of changes.
const PACE_PER_WATCHER: Duration = Duration::from_micros(50);

/// The longest that changes gather.
const MAX_PACE: Duration = Duration::from_millis(100);

/// Timers are no finer than this, so a shorter pace is none.
const MIN_PACE: Duration = Duration::from_millis(1);

/// Tells watchers of every change to one kind of resource. A cheap handle.
pub struct Hub<T> {
    common: Arc<Common<T>>,
}

pub(super) struct Common<T> {
    pub(super) epoch: String,
    pub(super) options: Options,
    inner: RwLock<Inner<T>>,
    /// Whether the hub is closed; touched at each change.
    wake: watch::Sender<bool>,
    pub(super) seats: Seats,
    recent: Recent<T>,
}

struct Inner<T> {
    state: BTreeMap<Arc<str>, Held<T>>,
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
            common: Arc::new(Common {
                epoch: epoch.into(),
                options,
                inner: RwLock::new(inner),
                wake: watch::Sender::new(false),
                seats: Seats::default(),
                recent: Recent::none(),
            }),
        }
    }

    /// Publishes all changes of one revision. Revisions come in order; one that is not above the
    /// last is ignored (`false`), so that a follower may repeat itself. A revision without changes
    /// moves tokens on.
    pub fn publish(&self, revision: u64, updates: impl IntoIterator<Item = Update<T>>) -> bool {
        let mut inner = self.common.write();
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
        let forgotten = inner.history.push(commit, &self.common.options);
        drop(inner);
        // Freed after the lock: the last handle to a resource may be among them.
        drop(forgotten);
        self.common.wake();
        true
    }

    /// Publishes new in-memory facts about the resource under `key`: `change` is given its newest
    /// state, and answers the state with the new facts, or `None` to leave it. Without effect if
    /// there is no such resource. `change` must not call back into the hub.
    pub fn observe(&self, key: &str, change: impl FnOnce(&T) -> Option<T>) -> bool {
        let mut inner = self.common.write();
        let Some((key, before)) = inner.state.get_key_value(key) else {
            return false;
        };
        let Some(after) = change(before.resource()) else {
            return false;
        };
        let (key, before) = (Arc::clone(key), before.clone());
        let after = Held::new(Arc::new(after));
        inner.state.insert(Arc::clone(&key), after.clone());
        inner.observed.set(key, before.share(), after.share());
        drop(inner);
        self.common.wake();
        true
    }

    /// Starts over from another state, after whoever follows the store has lost its place there.
    /// All watchers are ended with OUT_OF_RANGE (HISTORY_CHANGED).
    pub fn reset(&self, revision: u64, state: impl IntoIterator<Item = (Arc<str>, Arc<T>)>) {
        let fresh = sized(state);
        let mut inner = self.common.write();
        let old = std::mem::replace(&mut inner.state, fresh);
        let history = std::mem::replace(&mut inner.history, History::new(revision));
        inner.observed = Observed::new();
        inner.era += 1;
        drop(inner);
        drop((old, history));
        self.common.wake();
    }

    /// A watch: from `resume_token`, or, if that is empty, from the current state. Fails with
    /// INVALID_ARGUMENT (no token), OUT_OF_RANGE (of another history, or compacted) or
    /// RESOURCE_EXHAUSTED (too many watchers).
    pub fn watch(&self, resume_token: &str, filter: Filter<T>) -> Result<Messages<T>, Status> {
        let from = resume::revision_of("resume_token", resume_token, &self.common.epoch)?;
        if self.common.is_closed() {
            return Err(super::subscription::shutting_down(0));
        }
        let seat = Seat::take(&self.common)?;
        Subscription::open(seat, from, filter).map(Subscription::into_stream)
    }

    /// Ends every watch with UNAVAILABLE and RetryInfo, and refuses new ones so.
    pub fn close(&self) {
        self.common.wake.send_replace(true);
    }

    /// The newest revision published.
    pub fn revision(&self) -> u64 {
        self.common.read().history.revision()
    }

    /// The resume token of the newest revision published.
    pub fn resume_token(&self) -> String {
        resume::token(&self.common.epoch, self.revision())
    }

    /// Open watches.
    pub fn watchers(&self) -> usize {
        self.common.seats.taken()
    }
}

impl<T> Clone for Hub<T> {
    fn clone(&self) -> Self {
        Self {
            common: Arc::clone(&self.common),
        }
    }
}

impl<T> std::fmt::Debug for Hub<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("epoch", &self.common.epoch)
            .finish_non_exhaustive()
    }
}

impl<T: Resource> Inner<T> {
    /// Takes one update into the state. `None` if it changes nothing.
    fn apply(&mut self, update: Update<T>) -> Option<Change<T>> {
        let Update { key, value } = update;
        let after = value.map(Held::new);
        let before = match &after {
            Some(item) => self.state.insert(Arc::clone(&key), item.clone()),
            None => self.state.remove(&key),
        };
        self.observed.forget(&key);
        let changes = before.is_some() || after.is_some();
        changes.then(|| Change {
            key,
            before: before.map(Held::share),
            after: after.map(Held::share),
        })
    }
}

fn sized<T: Resource>(
    state: impl IntoIterator<Item = (Arc<str>, Arc<T>)>,
) -> BTreeMap<Arc<str>, Held<T>> {
    state
        .into_iter()
        .map(|(key, resource)| (key, Held::new(resource)))
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

/// The watcher has lost its place.
pub(super) enum Lost {
    Compacted(Compacted),
    Reset,
}

impl<T> Common<T> {
    /// A state to begin with, of the keys that begin with `prefix`; at most [`FRESH`] old.
    pub(super) fn snapshot(&self, prefix: &str, now: Instant) -> Arc<Snapshot<T>> {
        if !prefix.is_empty() {
            return Arc::new(self.take_snapshot(prefix, now));
        }
        let usable = |snapshot: &Snapshot<T>| {
            let fresh = now.saturating_duration_since(snapshot.taken) < FRESH;
            fresh
                && self
                    .read_after(snapshot.era, snapshot.revision, u64::MAX, 1)
                    .is_ok()
        };
        self.recent
            .or_take(usable, || self.take_snapshot(prefix, now))
    }

    fn take_snapshot(&self, prefix: &str, now: Instant) -> Snapshot<T> {
        let inner = self.read();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let in_range = inner.state.range::<str, _>(from);
        let with_prefix = in_range.take_while(|(key, _)| key.starts_with(prefix));
        let held: Vec<_> = with_prefix.map(|(_, held)| held.clone()).collect();
        let (revision, observed) = (inner.history.revision(), inner.observed.last());
        let era = inner.era;
        drop(inner);
        let resources = held.into_iter().map(Held::share).collect();
        Snapshot {
            revision,
            observed,
            era,
            taken: now,
            resources,
        }
    }

    /// Whether nothing has happened since `snapshot`.
    pub(super) fn is_current(&self, snapshot: &Snapshot<T>) -> bool {
        let inner = self.read();
        inner.era == snapshot.era
            && inner.history.revision() == snapshot.revision
            && inner.observed.last() == snapshot.observed
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
        let watchers = u32::try_from(self.seats.taken()).unwrap_or(u32::MAX);
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
