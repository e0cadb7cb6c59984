//! Wakes watchers when there is something for them. A watcher of one prefix is not woken for
//! another's changes: with one watcher for each of 100,000 machines, a change to one of them must
//! not wake the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What several watchers wait for. It counts, so that nothing is missed between two looks.
#[derive(Default)]
pub(super) struct Bell {
    rung: AtomicU64,
    waiting: Notify,
    /// For the last rings of a prefix's bell: the revision up to which nothing had concerned the
    /// prefix since the ring before.
    quiet_until: Mutex<VecDeque<u64>>,
}

/// Rings remembered. Who has missed more has to search the history for what it missed.
const REMEMBERED: usize = 32;

impl Bell {
    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Rings for something after `quiet_until`.
    fn ring_after(&self, quiet_until: u64) {
        let mut remembered = self.remembered();
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(quiet_until);
        drop(remembered);
        self.ring();
    }

    /// How often it has been rung.
    pub(super) fn count(&self) -> u64 {
        self.rung.load(Ordering::Acquire)
    }

    /// The revision up to which nothing concerns the watcher that has heard `heard` rings, if that
    /// is remembered. Asked while nothing rings.
    pub(super) fn quiet_until(&self, heard: u64) -> Option<u64> {
        let remembered = self.remembered();
        let missed = usize::try_from(self.count().checked_sub(heard)?).ok()?;
        remembered
            .get(remembered.len().checked_sub(missed)?)
            .copied()
    }

    /// Waits until it has been rung more often than `heard`.
    pub(super) async fn after(&self, heard: u64) {
        loop {
            let mut rung = pin!(self.waiting.notified());
            rung.as_mut().enable();
            if self.count() != heard {
                return;
            }
            rung.await;
        }
    }

    fn remembered(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.quiet_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bells of a hub.
#[derive(Default)]
pub(super) struct Bells {
    /// Of those who watch every key.
    everyone: Arc<Bell>,
    by_prefix: Mutex<Prefixes>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Prefixes {
    bells: HashMap<Arc<str>, (Arc<Bell>, usize)>,
    /// How many prefixes have each length: a key is looked up once for each.
    lengths: BTreeMap<usize, usize>,
}

impl Bells {
    /// The bell for keys that begin with `prefix`. To be left with [`Bells::leave`].
    pub(super) fn join(&self, prefix: &str) -> Arc<Bell> {
        if prefix.is_empty() {
            return Arc::clone(&self.everyone);
        }
        let mut prefixes = self.prefixes();
        if let Some((bell, watchers)) = prefixes.bells.get_mut(prefix) {
            *watchers += 1;
            return Arc::clone(bell);
        }
        let bell = Arc::<Bell>::default();
        prefixes.bells.insert(prefix.into(), (Arc::clone(&bell), 1));
        *prefixes.lengths.entry(prefix.len()).or_default() += 1;
        bell
    }

    pub(super) fn leave(&self, prefix: &str) {
        let mut prefixes = self.prefixes();
        let Some((_, watchers)) = prefixes.bells.get_mut(prefix) else {
            return;
        };
        *watchers -= 1;
        if *watchers > 0 {
            return;
        }
        prefixes.bells.remove(prefix);
        if let Some(same) = prefixes.lengths.get_mut(&prefix.len()) {
            *same -= 1;
            if *same == 0 {
                prefixes.lengths.remove(&prefix.len());
            }
        }
    }

    /// Rings for those who watch a prefix of one of `keys`, which change after revision
    /// `quiet_until`.
    pub(super) fn ring_for<'a>(&self, keys: impl Iterator<Item = &'a str>, quiet_until: u64) {
        let prefixes = self.prefixes();
        if prefixes.bells.is_empty() {
            return;
        }
        for key in keys {
            let prefixes_of_key = prefixes.lengths.keys().map_while(|length| {
                // A length within a character is no prefix of this key.
                (*length <= key.len()).then(|| key.get(..*length))
            });
            for prefix in prefixes_of_key.flatten() {
                if let Some((bell, _)) = prefixes.bells.get(prefix) {
                    bell.ring_after(quiet_until);
                }
            }
        }
    }

    /// Rings for those who watch everything.
    pub(super) fn ring_for_everyone(&self) {
        self.everyone.ring();
    }

    /// Rings for all.
    pub(super) fn ring_all(&self) {
        self.everyone.ring();
        for (bell, _) in self.prefixes().bells.values() {
            // About no revision: who has not heard it searches the history.
            bell.remembered().clear();
            bell.ring();
        }
    }

    /// Rings for all, for the last time.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ring_all();
    }

    pub(super) fn are_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn prefixes(&self) -> MutexGuard<'_, Prefixes> {
        self.by_prefix
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Bells {
    /// How many prefixes are known.
    pub(super) fn prefix_count(&self) -> (usize, usize) {
        let prefixes = self.prefixes();
        (prefixes.bells.len(), prefixes.lengths.values().sum())
    }
}
