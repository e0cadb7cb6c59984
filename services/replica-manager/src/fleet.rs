//! What is known of the workers, in memory: told by the registry's watch, read by plans. It judges
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::domain::time::Time;
use crate::domain::world::{Drain, Liveness, Position, Worker, WorkerState};
use crate::registry::calls::Owner;

/// The workers as they were last told. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fleet(Arc<RwLock<Inner>>);

#[derive(Debug)]
pub(crate) struct Inner {
    workers: BTreeMap<String, Worker>,
    /// What else is known of them.
    traits: BTreeMap<String, Traits>,
    complete: bool,
    /// The term of ours as new as which all of it is at least.
    term: Option<Owner>,
    /// How far they have been told.
    pub(crate) position: Position,
    /// Grows with each change that may have made room; never 0.
    pub(crate) room: u64,
}

/// What plans do not read of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Unlike its name, never used again; empty if it is not known.
    pub(crate) uid: String,
    /// A hash of what placements are judged by: its labels, price and capacity.
    pub(crate) offered: u64,
}

impl Inner {
    /// The workers by name, once all have been told.
    pub(crate) fn workers(&self) -> Option<&BTreeMap<String, Worker>> {
        self.complete.then_some(&self.workers)
    }

    /// The same for whoever acts in this term: not before they have been told as they were when the registry took
    /// it. An earlier leader has acted by what came before that.
    pub(crate) fn workers_in(&self, term: &Owner) -> Option<&BTreeMap<String, Worker>> {
        self.workers().filter(|_| self.term.as_ref() == Some(term))
    }
}

impl Fleet {
    /// Nothing is known yet at `start`. Records keep counts of room, so it is also where those of this start
    /// begin: none is one of an earlier start, or of another instance.
    pub(crate) fn new(start: Time) -> Self {
        let nanos = start.since(Time::default()).as_nanos();
        Self(Arc::new(RwLock::new(Inner {
            workers: BTreeMap::new(),
            traits: BTreeMap::new(),
            complete: false,
            term: None,
            position: Position::default(),
            room: u64::try_from(nanos).unwrap_or(u64::MAX >> 1).max(1),
        })))
    }

    /// The view, for one plan. Must not be held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_worker<T>(&self, name: &str, read: impl FnOnce(Option<&Worker>) -> T) -> T {
        read(self.read().workers.get(name))
    }

    /// Whether this is the worker of that name, as far as that is known.
    pub(crate) fn is_it(&self, name: &str, uid: &str) -> bool {
        let inner = self.read();
        let known = inner.traits.get(name);
        known.is_none_or(|known| known.uid.is_empty() || known.uid == uid)
    }

    /// The workers that are being emptied.
    pub(crate) fn draining(&self) -> BTreeMap<String, (Drain, Liveness)> {
        let inner = self.read();
        let draining = inner.workers.iter();
        let draining = draining.filter(|(_, worker)| worker.state == WorkerState::Draining);
        let terms = |worker: &Worker| Some((worker.drain?, worker.liveness));
        draining
            .filter_map(|(name, worker)| Some((name.clone(), terms(worker)?)))
            .collect()
    }

    /// A worker is as told now. The answer says whether anything of it changed, and whether that may
    /// have made room.
    pub(crate) fn put(&self, name: &str, worker: Worker, traits: Traits) -> Told {
        let mut inner = self.write();
        let before = inner.workers.get(name);
        let known = inner.traits.get(name);
        if before == Some(&worker) && known == Some(&traits) {
            return Told::Nothing;
        }
        let was_open = before.is_some_and(Worker::placeable);
        let offers_other = known.is_none_or(|known| known.offered != traits.offered);
        let opens = worker.placeable() && (!was_open || offers_other);
        inner.workers.insert(name.to_owned(), worker);
        inner.traits.insert(name.to_owned(), traits);
        if opens {
            inner.room += 1;
            Told::Room
        } else {
            Told::Change
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Told {
        let mut inner = self.write();
        inner.traits.remove(name);
        match inner.workers.remove(name) {
            Some(_) => Told::Change,
            None => Told::Nothing,
        }
    }

    /// All workers have been told, as they are at this position: those not in `seen` are gone. The names of the
    /// gone.
    pub(crate) fn complete(&self, seen: &BTreeSet<String>, position: Position) -> Vec<String> {
        let mut inner = self.write();
        inner.complete = true;
        // At once: by the position that was known before, what a restored registry does not know is deleted.
        inner.position = position;
        let gone = inner.workers.keys().filter(|name| !seen.contains(*name));
        let gone: Vec<String> = gone.cloned().collect();
        for name in &gone {
            inner.workers.remove(name);
            inner.traits.remove(name);
        }
        gone
    }

    /// Every change up to this position has been told.
    pub(crate) fn reached(&self, position: Position) {
        self.write().position = position;
    }

    /// What is known is as new as this term of ours. Whether that is news.
    pub(crate) fn reached_term(&self, term: Owner) -> bool {
        let before = self.write().term.replace(term.clone());
        before != Some(term)
    }

    /// Something may have made room that no worker's record shows.
    pub(crate) fn room_freed(&self) {
        self.write().room += 1;
    }
}

/// What came of telling a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was known already.
    Nothing,
    /// Something of it is new.
    Change,
    /// It takes work now, and did not, or has something else to offer.
    Room,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_has_newly_to_offer_is_room_if_it_takes_work() {
        let fleet = Fleet::new(Time::default());
        let offering = |state, offered| {
            let uid = String::new();
            fleet.put("w1", Worker::in_state(state), Traits { uid, offered })
        };
        assert_eq!(offering(WorkerState::Provisioning, 1), Told::Change);
        assert_eq!(offering(WorkerState::Active, 1), Told::Room);
        assert_eq!(offering(WorkerState::Active, 1), Told::Nothing);
        let before = fleet.read().room;
        assert_eq!(offering(WorkerState::Active, 2), Told::Room);
        assert!(fleet.read().room > before);
        assert_eq!(offering(WorkerState::Draining, 3), Told::Change);
    }
}
