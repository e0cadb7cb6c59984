//! What a hub's handles and watchers share: the state, the history and the bells. One short lock
//! guards the first two; nobody holds it while filtering, rendering or sending.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::bell::{Bell, Bells};
use super::history::{Change, Commit, Compacted, History};
use super::observed::{Entry, Observed};
use super::seat::Seats;
use super::shared::Held;
use super::snapshot::{Parts, Recent, Snapshot};
use super::{Options, Resource, Update};

/// How long a watcher of everything lets changes gather before it takes the next, for each such
/// watcher there is: with 1,000 of them each sends at most 20 messages a second, whatever the rate
/// of changes.
const PACE_PER_WATCHER: Duration = Duration::from_micros(50);

/// The longest that changes gather.
const MAX_PACE: Duration = Duration::from_millis(100);

/// Timers are no finer than this, so a shorter pace is none.
const MIN_PACE: Duration = Duration::from_millis(1);

pub(super) struct Common<T> {
    pub(super) epoch: String,
    pub(super) options: Options,
    pub(super) bells: Bells,
    pub(super) seats: Seats,
    inner: RwLock<Inner<T>>,
    pub(super) recent: Recent<T>,
    parts: Parts<T>,
}

pub(super) struct Inner<T> {
    pub(super) state: BTreeMap<Arc<str>, Held<T>>,
    pub(super) history: History<T>,
    pub(super) observed: Observed<T>,
    /// Counts resets; a watcher of an earlier one has lost its place.
    pub(super) era: u64,
}

/// A watcher's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) era: u64,
    /// Everything durable up to this revision is taken.
    pub(super) revision: u64,
    /// Everything in memory up to this is taken.
    pub(super) observed: u64,
}

/// What a watcher finds after its place.
pub(super) struct Reading<T> {
    pub(super) commits: Vec<Arc<Commit<T>>>,
    pub(super) observed: Vec<(u64, Entry<T>)>,
    /// The newest revision, if `commits` go up to it.
    pub(super) newest: Option<u64>,
}

/// The watcher has lost its place.
pub(super) enum Lost {
    Compacted(Compacted),
    Reset,
}

impl<T: Resource> Common<T> {
    pub(super) fn new(
        epoch: String,
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
            epoch,
            options,
            bells: Bells::default(),
            seats: Seats::default(),
            inner: RwLock::new(inner),
            recent: Recent::none(),
            parts: Parts::none(),
        }
    }
}

impl<T> Common<T> {
    /// A state to begin with, of the keys that begin with `prefix`; at most a second old.
    pub(super) fn snapshot(&self, prefix: &str, now: Instant) -> Arc<Snapshot<T>> {
        let usable = |snapshot: &Snapshot<T>| {
            snapshot.is_fresh(now) && self.read_after(snapshot.place, 1).is_ok()
        };
        let take = || self.take_snapshot(prefix, now);
        if prefix.is_empty() {
            return self.recent.or_take(usable, take);
        }
        // Of many prefixes each has little, which none waits for the others to take.
        if let Some(snapshot) = self.parts.find(prefix).filter(|part| usable(part)) {
            return snapshot;
        }
        let snapshot = Arc::new(take());
        self.parts.note(prefix, &snapshot);
        snapshot
    }

    fn take_snapshot(&self, prefix: &str, now: Instant) -> Snapshot<T> {
        let inner = self.read();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let in_range = inner.state.range::<str, _>(from);
        let with_prefix = in_range.take_while(|(key, _)| key.starts_with(prefix));
        let held: Vec<_> = with_prefix.map(|(_, held)| held.clone()).collect();
        let place = inner.newest();
        drop(inner);
        let resources = held.into_iter().map(Held::share).collect();
        Snapshot {
            place,
            taken: now,
            resources,
        }
    }

    /// Up to about `limit` durable changes after `place`; and, if those are all, up to `limit`
    /// in-memory ones.
    pub(super) fn read_after(&self, place: Place, limit: usize) -> Result<Reading<T>, Lost> {
        let inner = self.read();
        if inner.era != place.era {
            return Err(Lost::Reset);
        }
        let later = inner
            .history
            .after(place.revision, limit)
            .map_err(Lost::Compacted)?;
        let observed = match later.complete {
            true => inner.observed.after(place.observed, limit),
            false => Vec::new(),
        };
        let newest = later.complete.then(|| inner.history.revision());
        Ok(Reading {
            commits: later.commits,
            observed,
            newest,
        })
    }

    /// Moves the `place` of a watcher that has heard `heard` rings of `bell` past what does not
    /// concern it; whether that is everything.
    pub(super) fn skip(&self, bell: &Bell, heard: u64, place: &mut Place) -> bool {
        // Changes are rung for under this lock.
        let inner = self.read();
        if inner.era != place.era {
            return false;
        }
        if bell.count() == heard {
            *place = inner.newest();
            return true;
        }
        let quiet_until = bell.quiet_until(heard).unwrap_or(0);
        place.revision = place.revision.max(quiet_until);
        false
    }

    pub(super) fn newest(&self) -> Place {
        self.read().newest()
    }

    /// How long the watchers of everything, so many as they are, let changes gather.
    pub(super) fn pace(&self) -> Duration {
        let watchers = u32::try_from(self.seats.of_everything()).unwrap_or(u32::MAX);
        let pace = PACE_PER_WATCHER.saturating_mul(watchers).min(MAX_PACE);
        if pace < MIN_PACE {
            Duration::ZERO
        } else {
            pace
        }
    }

    // A panic while the lock is held can come only from a resource's own code, before anything
    // was changed halfway; the state stays usable.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn newest(&self) -> Place {
        Place {
            era: self.era,
            revision: self.history.revision(),
            observed: self.observed.last(),
        }
    }

    /// Takes the first resource out of the state.
    pub(super) fn forget_first(&mut self) -> Option<Held<T>> {
        let (key, held) = self.state.pop_first()?;
        self.observed.forget(&key);
        Some(held)
    }
}

impl<T: Resource> Inner<T> {
    /// Takes one update into the state. `None` if it changes nothing.
    pub(super) fn apply(&mut self, update: Update<T>) -> Option<Change<T>> {
        let Update { key, value } = update;
        let after = value.map(Held::new);
        let before = match &after {
            Some(held) => self.state.insert(Arc::clone(&key), held.clone()),
            None => self.state.remove(&key),
        };
        self.observed.forget(&key);
        let changes = before.is_some() || after.is_some();
        let (before, after) = (before.map(Held::share), after.map(Held::share));
        changes.then_some(Change { key, before, after })
    }
}

impl<T> Reading<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.observed.is_empty()
    }
}

pub(super) fn sized<T: Resource>(
    state: impl IntoIterator<Item = (Arc<str>, Arc<T>)>,
) -> BTreeMap<Arc<str>, Held<T>> {
    state
        .into_iter()
        .map(|(key, resource)| (key, Held::new(resource)))
        .collect()
}
