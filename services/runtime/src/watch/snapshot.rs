//! The current state at one instant, as watchers begin with it. Those that begin within the same
//! second share one, and the encodings in it: when a component comes back, all its watchers do.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::common::Place;

/// How old a state may be that a watcher begins with; what happened since follows before it is
/// called synced.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// The state of a hub at a place.
pub(super) struct Snapshot<T> {
    pub(super) place: Place,
    pub(super) taken: Instant,
    pub(super) resources: Vec<Shared<T>>,
}

/// The last snapshot of a whole state, for as long as a watcher is being sent it.
pub(super) struct Recent<T>(Mutex<Weak<Snapshot<T>>>);

impl<T> Recent<T> {
    pub(super) fn none() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The last one if it is `usable`, else one that is taken now.
    pub(super) fn or_take(
        &self,
        usable: impl FnOnce(&Snapshot<T>) -> bool,
        take: impl FnOnce() -> Snapshot<T>,
    ) -> Arc<Snapshot<T>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = recent.upgrade().filter(|snapshot| usable(snapshot)) {
            return snapshot;
        }
        let snapshot = Arc::new(take());
        *recent = Arc::downgrade(&snapshot);
        snapshot
    }
}
