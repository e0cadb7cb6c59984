//! What a component does with a hub: publish, observe, reset, close, and open watches.

use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;
use tonic::Status;

use super::common::{Common, Inner, sized};
use super::history::{Commit, History};
use super::observed::Observed;
use super::seat::Seat;
use super::shared::Held;
use super::subscription::Subscription;
use super::{Filter, Messages, Options, Resource, Update};
use crate::resume;

/// Tells watchers of every change to one kind of resource. A cheap handle.
pub struct Hub<T> {
    common: Arc<Common<T>>,
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
        Self {
            common: Arc::new(Common::new(epoch.into(), revision, state, options)),
        }
    }

    /// Publishes all changes of one revision. Revisions come in order; one that is not above the
    /// last is ignored (`false`), so that a follower may repeat itself. A revision without changes
    /// moves tokens on.
    pub fn publish(&self, revision: u64, updates: impl IntoIterator<Item = Update<T>>) -> bool {
        let common = &self.common;
        let mut inner = common.write();
        if revision <= inner.history.revision() {
            return false;
        }
        let changes = updates
            .into_iter()
            .filter_map(|update| inner.apply(update))
            .collect();
        let now = Instant::now();
        let commit = Commit {
            revision,
            changes,
            at: now,
        };
        if commit.changes.is_empty() {
            inner.history.advance(revision);
            return true;
        }
        // Under the lock, so that a watcher that reads a newer revision has heard its bell.
        let keys = commit.changes.iter().map(|change| &*change.key);
        common.bells.ring_for(keys, inner.history.revision());
        let forgotten = inner.history.push(commit, &common.options);
        drop(inner);
        // Freed after the lock: the last handle to a resource may be among them.
        drop(forgotten);
        common.recent.expire(now);
        common.bells.ring_for_everyone();
        true
    }

    /// Publishes new in-memory facts about the resource under `key`: `change` is given its newest
    /// state, and answers the state with the new facts, or `None` to leave it. Without effect if
    /// there is no such resource. `change` must not call back into the hub.
    pub fn observe(&self, key: &str, change: impl FnOnce(&T) -> Option<T>) -> bool {
        let common = &self.common;
        let mut inner = common.write();
        let Some((known, before)) = inner.state.get_key_value(key) else {
            return false;
        };
        let Some(after) = change(before.resource()) else {
            return false;
        };
        let (known, before) = (Arc::clone(known), before.clone());
        let after = Held::new(Arc::new(after));
        inner.state.insert(Arc::clone(&known), after.clone());
        inner.observed.set(known, before.share(), after.share());
        common
            .bells
            .ring_for(std::iter::once(key), inner.history.revision());
        drop(inner);
        common.bells.ring_for_everyone();
        true
    }

    /// Publishes what is in memory of every resource as new, to whoever goes on from before a restart: what was
    /// in memory then is not known any more.
    pub fn tell_anew(&self) {
        let mut inner = self.common.write();
        let Inner {
            state, observed, ..
        } = &mut *inner;
        for (key, held) in &*state {
            // Two of them: each keeps the encoding of its own event.
            let (before, after) = (held.clone().share(), held.clone().share());
            observed.set(Arc::clone(key), before, after);
        }
        // Under the lock, as in `publish`.
        self.common.bells.ring_all();
    }

    /// Drops the first resources, in order of key, until `count` are left. Watchers are not told that they are
    /// gone: who begins to watch is not shown them any more. What they were stays in the history.
    pub fn keep_last(&self, count: usize) {
        let mut inner = self.common.write();
        let excess = inner.state.len().saturating_sub(count);
        let forgotten: Vec<_> = (0..excess).map_while(|_| inner.forget_first()).collect();
        drop(inner);
        // Freed after the lock: the last handle to a resource may be among them.
        drop(forgotten);
    }

    /// The resources whose keys come after `key`, in order, of which `test` holds, and `most` of them. `test`
    /// must not call back into the hub.
    pub fn after(&self, key: &str, test: impl Fn(&T) -> bool, most: usize) -> Vec<Arc<T>> {
        let inner = self.common.read();
        let later = (Bound::Excluded(key), Bound::Unbounded);
        let later = inner.state.range::<str, _>(later).map(|(_, held)| held);
        let found = later.filter(|held| test(held.resource())).take(most);
        found.map(Held::handle).collect()
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
        self.common.bells.ring_all();
    }

    /// A watch: from `resume_token`, or, if that is empty, from the current state. Fails with
    /// INVALID_ARGUMENT (no token), OUT_OF_RANGE (of another history, or compacted),
    /// RESOURCE_EXHAUSTED (too many watchers) or UNAVAILABLE (closed).
    pub fn watch(&self, resume_token: &str, filter: Filter<T>) -> Result<Messages<T>, Status> {
        let from = resume::revision_of("resume_token", resume_token, &self.common.epoch)?;
        let seat = Seat::take(&self.common, filter.key_prefix())?;
        Subscription::open(seat, from, filter).map(Subscription::into_stream)
    }

    /// Ends every watch with UNAVAILABLE and RetryInfo, and refuses new ones so.
    pub fn close(&self) {
        self.common.bells.close();
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

#[cfg(test)]
impl<T> Hub<T> {
    /// How many prefixes are watched.
    pub(super) fn prefixes(&self) -> (usize, usize) {
        self.common.bells.prefix_count()
    }
}
