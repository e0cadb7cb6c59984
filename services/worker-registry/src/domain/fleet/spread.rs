//! Who spreads where: how many allocations of a key each worker has.

use std::collections::{BTreeMap, HashMap};

use crate::domain::text::Text;

/// Allocations by spread key and worker.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// Of many keys, each of which has few workers.
    keys: HashMap<Text, BTreeMap<Text, u32>>,
}

impl Spread {
    /// How many allocations of `key` the worker has.
    pub fn count(&self, key: &str, worker: &str) -> u32 {
        self.keys
            .get(key)
            .and_then(|workers| workers.get(worker))
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn add(&mut self, key: &Text, worker: &Text) {
        if !key.is_empty() {
            let workers = self.keys.entry(key.clone()).or_default();
            *workers.entry(worker.clone()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, key: &Text, worker: &Text) {
        let Some(workers) = self.keys.get_mut(key) else {
            return;
        };
        if let Some(count) = workers.get_mut(worker) {
            *count -= 1;
            if *count == 0 {
                workers.remove(worker);
            }
        }
        if workers.is_empty() {
            self.keys.remove(key);
        }
    }
}
