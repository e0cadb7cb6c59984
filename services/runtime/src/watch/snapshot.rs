//! The current state at one instant, as watchers begin with it. Those that begin within the same
//! second share one, and the encodings in it: when a component comes back, all its watchers do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::common::Place;

/// How old a state may be that a watcher begins with; what happened since follows before it is
/// called synced.
const FRESH: Duration = Duration::from_secs(1);

/// The most encoded bytes of a small state.
const SMALL: usize = 8 << 20;

/// What begins with a prefix is shared from so many resources on. Most prefixes have few, and one watcher.
const MANY: usize = 64;

/// The state of a hub at a place.
pub(super) struct Snapshot<T> {
    pub(super) place: Place,
    pub(super) taken: Instant,
    pub(super) resources: Vec<Shared<T>>,
}

impl<T> Snapshot<T> {
    /// Whether a watcher may begin with it at `now`.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.taken) < FRESH
    }
}

/// The last snapshot of a whole state: a small one until it is stale, a large one for as long as a
/// watcher is being sent it.
pub(super) struct Recent<T>(Mutex<Kept<T>>);

struct Kept<T> {
    last: Weak<Snapshot<T>>,
    small: Option<Arc<Snapshot<T>>>,
}

impl<T> Recent<T> {
    pub(super) fn none() -> Self {
        Self(Mutex::new(Kept {
            last: Weak::new(),
            small: None,
        }))
    }

    /// The last one if it is `usable`, else one that is taken now.
    pub(super) fn or_take(
        &self,
        usable: impl FnOnce(&Snapshot<T>) -> bool,
        take: impl FnOnce() -> Snapshot<T>,
    ) -> Arc<Snapshot<T>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = kept.last.upgrade().filter(|snapshot| usable(snapshot)) {
            return snapshot;
        }
        let snapshot = Arc::new(take());
        let size: usize = snapshot.resources.iter().map(Shared::size).sum();
        kept.last = Arc::downgrade(&snapshot);
        kept.small = (size <= SMALL).then(|| Arc::clone(&snapshot));
        snapshot
    }

    /// Lets a stale one go.
    pub(super) fn expire(&self, now: Instant) {
        // Whoever holds the lock is about to replace it.
        let Ok(mut kept) = self.0.try_lock() else {
            return;
        };
        let stale = kept.small.take_if(|snapshot| !snapshot.is_fresh(now));
        drop(kept);
        drop(stale);
    }
}

/// The last snapshots of what begins with a prefix, each for as long as a watcher is being sent it.
pub(super) struct Parts<T>(Mutex<HashMap<String, Weak<Snapshot<T>>>>);

impl<T> Parts<T> {
    pub(super) fn none() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn find(&self, prefix: &str) -> Option<Arc<Snapshot<T>>> {
        self.lock().get(prefix).and_then(Weak::upgrade)
    }

    /// Remembers `snapshot`, if it is worth it, and forgets those that nobody has any more.
    pub(super) fn note(&self, prefix: &str, snapshot: &Arc<Snapshot<T>>) {
        if snapshot.resources.len() < MANY {
            return;
        }
        let mut last = self.lock();
        last.retain(|_, part| part.strong_count() > 0);
        last.insert(prefix.to_owned(), Arc::downgrade(snapshot));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Snapshot<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
