//! The latest in-memory facts of each resource that has any newer than its last durable change,
//! in the order they came. Bounded by the number of resources: a newer one replaces the older.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Shared;

/// One resource with new facts.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) key: Arc<str>,
    pub(super) before: Shared<T>,
    pub(super) after: Shared<T>,
    /// The place of `before`: whoever has read up to there has seen exactly that.
    pub(super) previous: u64,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            before: self.before.clone(),
            after: self.after.clone(),
            previous: self.previous,
        }
    }
}

/// Places are counted from 1, over all keys.
#[derive(Debug)]
pub(super) struct Observed<T> {
    last: u64,
    entries: BTreeMap<u64, Entry<T>>,
    places: HashMap<Arc<str>, u64>,
}

impl<T> Observed<T> {
    pub(super) fn new() -> Self {
        Self {
            last: 0,
            entries: BTreeMap::new(),
            places: HashMap::new(),
        }
    }

    /// The place of the newest entry ever made.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// `key` went from `before` to `after`.
    pub(super) fn set(&mut self, key: Arc<str>, before: Shared<T>, after: Shared<T>) {
        self.last += 1;
        let previous = self.places.insert(Arc::clone(&key), self.last).unwrap_or(0);
        self.entries.remove(&previous);
        self.entries.insert(
            self.last,
            Entry {
                key,
                before,
                after,
                previous,
            },
        );
    }

    /// A durable change of `key` carries its facts from now on.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some(place) = self.places.remove(key) {
            self.entries.remove(&place);
        }
    }

    /// The entries after `place`, at most `limit`, each with its place.
    pub(super) fn after(&self, place: u64, limit: usize) -> Vec<(u64, Entry<T>)> {
        let later = self.entries.range(place.saturating_add(1)..);
        later
            .take(limit)
            .map(|(place, entry)| (*place, entry.clone()))
            .collect()
    }
}
