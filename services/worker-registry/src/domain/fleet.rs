//! Every record of the registry, as it stands after a row of changes.
//!
//! It decides nothing: it holds records with the revisions that put them, and what follows from them (the
//! allocations and usage of each worker, who spread where, which call made what). Decisions are made on
//! it elsewhere and come back as [`Change`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use rustc_hash::FxHashMap;

use super::allocation::{Allocation, OwnerTerm};
use super::event::Event;
use super::liveness::Longest;
use super::room::{self, Usage};
use super::sorted::Sorted;
use super::text::Text;
use super::token::JoinToken;
use super::worker::Worker;

mod change;
mod spread;

pub use change::{Change, Draft, Key};
pub use spread::Spread;

/// A record with the revision that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held<T> {
    /// The record.
    pub value: T,
    /// The revision that put it.
    pub modified: u64,
}

/// A worker with what is allocated on it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its record.
    pub worker: Arc<Worker>,
    /// The revision that put the record.
    pub modified: u64,
    /// What is or was allocated on it; none if nothing ever was, as on most of a fleet that waits.
    given: Option<Box<Given>>,
}

/// What is allocated on a worker.
#[derive(Clone, Debug, Default)]
struct Given {
    /// The revision of its last change.
    modified: Option<u64>,
    /// In order of id.
    allocations: Vec<Arc<Allocation>>,
    /// What they hold together.
    usage: Usage,
}

impl Entry {
    fn new(worker: &Arc<Worker>, modified: u64) -> Self {
        Self {
            worker: Arc::clone(worker),
            modified,
            given: None,
        }
    }

    /// Its allocations, in order of id.
    pub fn allocations(&self) -> &[Arc<Allocation>] {
        self.given
            .as_deref()
            .map_or(&[], |given| &given.allocations)
    }

    /// What they hold together.
    pub fn usage(&self) -> Usage {
        self.given
            .as_deref()
            .map(|given| given.usage)
            .unwrap_or_default()
    }

    /// The revision of the last change of what is allocated on it; none if nothing ever was.
    pub fn room_modified(&self) -> Option<u64> {
        self.given.as_deref().and_then(|given| given.modified)
    }

    /// Whether nothing is allocated on it that counts.
    pub fn is_empty(&self) -> bool {
        self.usage().allocations == 0
    }

    /// What is allocated on it is put by this revision; by none if its record is gone.
    fn set_room(&mut self, modified: Option<u64>) {
        self.given.get_or_insert_default().modified = modified;
    }

    fn put(&mut self, allocation: &Arc<Allocation>) {
        let given = self.given.get_or_insert_default();
        let ids = |one: &Arc<Allocation>| one.id.cmp(&allocation.id);
        match given.allocations.binary_search_by(ids) {
            Ok(at) => given.allocations[at] = Arc::clone(allocation),
            Err(at) => given.allocations.insert(at, Arc::clone(allocation)),
        }
        self.count();
    }

    fn remove(&mut self, id: &Text) {
        if let Some(given) = &mut self.given {
            given.allocations.retain(|one| one.id != *id);
        }
        self.count();
    }

    /// Counts what is held anew.
    fn count(&mut self) {
        if let Some(given) = &mut self.given {
            let worker = &self.worker;
            given.usage = room::usage(&worker.machine, worker.revoked_through, &given.allocations);
        }
    }

    /// Its allocations that hold room: all but those that force-disabling took.
    pub fn counted(&self) -> impl Iterator<Item = &Arc<Allocation>> {
        let revoked_through = self.worker.revoked_through;
        self.allocations()
            .iter()
            .filter(move |one| !one.is_revoked_through(revoked_through))
    }
}

/// What is left of a deleted worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The last generation, which no successor has again.
    pub generation: u64,
    /// The uid, whose credential opens nothing any more.
    pub uid: Text,
    /// The uids of those of this name that were deleted before, the newest last.
    pub earlier: Vec<Text>,
    /// When it was deleted.
    pub at: SystemTime,
    /// By whom.
    pub actor: Text,
}

impl Tombstone {
    /// Whether a deleted worker had this uid.
    pub fn buries(&self, uid: &Text) -> bool {
        self.uid == *uid || self.earlier.contains(uid)
    }
}

/// The scope of a caller's id for a call: (principal, method, id).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    /// Which call, in one word.
    pub method: &'static str,
    /// Who called.
    pub principal: Text,
    /// The caller's id.
    pub id: Text,
}

/// What is kept of a call after what it made is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// A checksum of what was asked.
    pub body: u64,
    /// What it made: an allocation's or a token's id.
    pub made: Text,
    /// When it may be forgotten.
    pub until: SystemTime,
}

/// Every record.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    workers: Sorted<Entry>,
    allocations: Sorted<Held<Arc<Allocation>>>,
    owners: BTreeMap<Text, Held<OwnerTerm>>,
    tokens: Sorted<Held<Arc<JoinToken>>>,
    tombstones: BTreeMap<Text, Held<Tombstone>>,
    spent: FxHashMap<RequestKey, Held<Spent>>,
    /// The same by when they may be forgotten.
    spent_until: BTreeSet<(SystemTime, RequestKey)>,
    events: BTreeMap<Text, Held<Arc<Event>>>,
    longest: Option<Held<Longest>>,
    /// Allocations by the call that made them.
    requests: FxHashMap<(Text, Text), Text>,
    spread: Spread,
    revision: u64,
}

impl Fleet {
    /// Takes the changes of one revision, in order.
    pub fn apply(&mut self, changes: &[Change], revision: u64) {
        self.revision = revision;
        for change in changes {
            self.apply_one(change, revision);
        }
    }

    /// The revision of the last changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Says that nothing else happened up to `revision`.
    pub fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The worker of that name.
    pub fn worker(&self, name: &str) -> Option<&Entry> {
        self.workers.get(name)
    }

    /// All workers, in order of name.
    pub fn workers(&self) -> impl Iterator<Item = &Entry> {
        self.workers.values()
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// The workers after a name, in order.
    pub fn workers_after(&self, name: &str) -> impl Iterator<Item = &Entry> {
        self.workers.after(name)
    }

    /// The allocation of that id.
    pub fn allocation(&self, id: &str) -> Option<&Arc<Allocation>> {
        self.allocations.get(id).map(|held| &held.value)
    }

    /// All allocations, in order of id.
    pub fn allocations(&self) -> impl Iterator<Item = &Arc<Allocation>> {
        self.allocations.values().map(|held| &held.value)
    }

    /// How many allocations there are.
    pub fn allocation_count(&self) -> usize {
        self.allocations.len()
    }

    /// The allocations after an id, in order.
    pub fn allocations_after(&self, id: &str) -> impl Iterator<Item = &Arc<Allocation>> {
        self.allocations.after(id).map(|held| &held.value)
    }

    /// The allocation that a call made, if it is there.
    pub fn made_by(&self, principal: &Text, id: &Text) -> Option<&Arc<Allocation>> {
        let made = self.requests.get(&(principal.clone(), id.clone()))?;
        self.allocation(made)
    }

    /// The term that an owner has claimed.
    pub fn owner(&self, owner: &str) -> Option<&OwnerTerm> {
        self.owners.get(owner).map(|held| &held.value)
    }

    /// The join token of that id.
    pub fn token(&self, id: &str) -> Option<&Arc<JoinToken>> {
        self.tokens.get(id).map(|held| &held.value)
    }

    /// The join tokens after an id, in order.
    pub fn tokens_after(&self, id: &str) -> impl Iterator<Item = &Arc<JoinToken>> {
        self.tokens.after(id).map(|held| &held.value)
    }

    /// What is left of a deleted worker.
    pub fn tombstone(&self, name: &str) -> Option<&Tombstone> {
        self.tombstones.get(name).map(|held| &held.value)
    }

    /// What is left of all deleted workers, by name.
    pub fn tombstones(&self) -> impl Iterator<Item = (&Text, &Tombstone)> {
        self.tombstones
            .iter()
            .map(|(name, held)| (name, &held.value))
    }

    /// What is kept of a call.
    pub fn spent(&self, key: &RequestKey) -> Option<&Spent> {
        self.spent.get(key).map(|held| &held.value)
    }

    /// The calls whose time was over at `now`.
    pub fn spent_by(&self, now: SystemTime) -> impl Iterator<Item = (&RequestKey, &Spent)> {
        let over = self
            .spent_until
            .iter()
            .take_while(move |(until, _)| *until <= now);
        over.filter_map(|(_, key)| Some((key, self.spent(key)?)))
    }

    /// The calls that are kept until `from` or later, the latest first.
    pub fn spent_from(&self, from: SystemTime) -> impl Iterator<Item = (&RequestKey, &Spent)> {
        let later = self
            .spent_until
            .iter()
            .rev()
            .take_while(move |(until, _)| *until >= from);
        later.filter_map(|(_, key)| Some((key, self.spent(key)?)))
    }

    /// Events that have a record of their own, oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &Arc<Event>> {
        self.events.values().map(|held| &held.value)
    }

    /// The longest times that any agent was handed out.
    pub fn longest(&self) -> Longest {
        let held = self.longest.as_ref();
        held.map(|held| held.value).unwrap_or_default()
    }

    /// How many allocations of a spread key each worker has.
    pub fn spread(&self) -> &Spread {
        &self.spread
    }

    /// The revision that put a record; none if there is none.
    pub fn modified(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Worker(name) => self.worker(name).map(|entry| entry.modified),
            Key::Room(name) => self.worker(name).and_then(Entry::room_modified),
            Key::Allocation(id) => self.allocations.get(id).map(|held| held.modified),
            Key::Owner(owner) => self.owners.get(owner).map(|held| held.modified),
            Key::Token(id) => self.tokens.get(id).map(|held| held.modified),
            Key::Tombstone(name) => self.tombstones.get(name).map(|held| held.modified),
            Key::Spent(key) => self.spent.get(key).map(|held| held.modified),
            Key::Event(id) => self.events.get(id).map(|held| held.modified),
            Key::Longest => self.longest.as_ref().map(|held| held.modified),
        }
    }

    fn apply_one(&mut self, change: &Change, modified: u64) {
        match change {
            Change::Worker(worker) => self.put_worker(worker, modified),
            Change::WorkerGone(name) => drop(self.workers.remove(name)),
            Change::Room(name) => {
                if let Some(entry) = self.workers.get_mut(name) {
                    entry.set_room(Some(modified));
                }
            }
            Change::RoomGone(name) => {
                if let Some(entry) = self.workers.get_mut(name) {
                    entry.set_room(None);
                }
            }
            Change::Allocation(allocation) => self.put_allocation(allocation, modified),
            Change::AllocationGone(id) => self.drop_allocation(id),
            Change::Owner(owner, term) => {
                self.owners
                    .insert(owner.clone(), held(term.clone(), modified));
            }
            Change::Token(token) => {
                self.tokens
                    .insert(&token.id, held(Arc::clone(token), modified));
            }
            Change::TokenGone(id) => drop(self.tokens.remove(id)),
            Change::Tombstone(name, stone) => {
                self.tombstones
                    .insert(name.clone(), held(stone.clone(), modified));
            }
            Change::Spent(key, spent) => {
                self.forget_call(key);
                self.spent_until.insert((spent.until, key.clone()));
                self.spent
                    .insert(key.clone(), held(spent.clone(), modified));
            }
            Change::SpentGone(key) => self.forget_call(key),
            Change::Event(event) => {
                self.events
                    .insert(event.id.clone(), held(Arc::clone(event), modified));
            }
            Change::EventGone(id) => drop(self.events.remove(id)),
            Change::Longest(longest) => self.longest = Some(held(*longest, modified)),
        }
    }

    fn put_worker(&mut self, worker: &Arc<Worker>, modified: u64) {
        let Some(entry) = self.workers.get_mut(&worker.name) else {
            let entry = Entry::new(worker, modified);
            self.workers.insert(&worker.name, entry);
            return;
        };
        let same_room = Arc::ptr_eq(&entry.worker.machine, &worker.machine)
            && entry.worker.revoked_through == worker.revoked_through;
        entry.worker = Arc::clone(worker);
        entry.modified = modified;
        if !same_room {
            entry.count();
        }
    }

    fn put_allocation(&mut self, allocation: &Arc<Allocation>, modified: u64) {
        let record = held(Arc::clone(allocation), modified);
        let before = self.allocations.insert(&allocation.id, record);
        if before.is_none() {
            self.spread.add(&allocation.spread_key, &allocation.worker);
            if let Some(request) = &allocation.request {
                let key = (request.principal.clone(), request.id.clone());
                self.requests.insert(key, allocation.id.clone());
            }
        }
        if let Some(entry) = self.workers.get_mut(&allocation.worker) {
            entry.put(allocation);
        }
    }

    fn forget_call(&mut self, key: &RequestKey) {
        if let Some(known) = self.spent.remove(key) {
            self.spent_until.remove(&(known.value.until, key.clone()));
        }
    }

    fn drop_allocation(&mut self, id: &Text) {
        let Some(Held { value: gone, .. }) = self.allocations.remove(id) else {
            return;
        };
        self.spread.remove(&gone.spread_key, &gone.worker);
        if let Some(request) = &gone.request {
            self.requests
                .remove(&(request.principal.clone(), request.id.clone()));
        }
        if let Some(entry) = self.workers.get_mut(&gone.worker) {
            entry.remove(id);
        }
    }
}

fn held<T>(value: T, modified: u64) -> Held<T> {
    Held { value, modified }
}

#[cfg(test)]
mod tests;
