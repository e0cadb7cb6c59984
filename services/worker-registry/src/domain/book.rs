//! What decisions look at: the fleet as it will be once everything decided so far is durable, the workers
//! that take work, and the few facts that are in memory only.
//!
//! It decides which workers take work. It never waits for anything to be durable: whoever answers a
//! caller does.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet::{Change, Entry, Fleet};
use super::placement::Index;
use super::state::State;
use super::text::{Text, each_once};

/// What decisions look at.
#[derive(Clone, Debug)]
pub struct Book {
    fleet: Fleet,
    index: Index,
    /// Workers that are SUSPECT: they keep what they have and get nothing new.
    suspects: BTreeSet<Text>,
    /// Allocations that their agents have named ended while their owners still hold them, each with the
    /// generation whose word it was: a later one may have been told to run it.
    ended: BTreeMap<Text, u64>,
    epoch: Text,
    next: u64,
    /// Of this instance among several on one store; none if it is alone.
    instance: Option<Text>,
    /// Drafts handed out so far, which ids of several instances hold.
    drafts: u64,
}

impl Book {
    /// The book of a fleet in this epoch, whose next transaction is expected to have the revision `next`.
    pub fn new(fleet: Fleet, epoch: Text, next: u64) -> Self {
        let mut book = Self {
            fleet: Fleet::default(),
            index: Index::default(),
            suspects: BTreeSet::new(),
            ended: BTreeMap::new(),
            epoch,
            next,
            instance: None,
            drafts: 0,
        };
        book.replace(fleet, next);
        book
    }

    /// The same of one of several instances on a store, which has this name among them: the expected
    /// revision is then a guess that others may come before, and only a lower bound.
    #[must_use]
    pub fn shared_by(mut self, instance: Text) -> Self {
        self.instance = Some(instance);
        self
    }

    /// Whether others decide about the same records.
    pub fn is_shared(&self) -> bool {
        self.instance.is_some()
    }

    /// What keeps ids apart that several decisions, here or at other instances, make at one revision;
    /// empty where there is one decision at a revision.
    pub fn mark(&self) -> String {
        let mark = |instance: &Text| format!("{:x}{instance}", self.drafts);
        self.instance.as_ref().map(mark).unwrap_or_default()
    }

    /// A draft is handed to the store: the next one has another mark.
    pub fn hand_out(&mut self) {
        self.drafts += 1;
    }

    /// Takes what the store has shown.
    pub fn follow(&mut self, changes: &[Change], revision: u64) {
        self.next = revision;
        self.take(changes);
    }

    /// Starts over from another fleet; what is in memory only stays.
    pub fn replace(&mut self, fleet: Fleet, next: u64) {
        self.fleet = fleet;
        self.next = next;
        self.index = Index::default();
        let names: Vec<_> = self
            .fleet
            .workers()
            .map(|entry| entry.worker.name.clone())
            .collect();
        for name in names {
            self.refresh(&name);
        }
        let fleet = &self.fleet;
        self.ended.retain(|id, _| fleet.allocation(id).is_some());
    }

    /// The records.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The workers that take work.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The epoch of the store.
    pub fn epoch(&self) -> &Text {
        &self.epoch
    }

    /// The revision that the next transaction is expected to have. No two decisions have the same, until the
    /// book is [replaced](Self::replace).
    pub fn next_revision(&self) -> u64 {
        self.next
    }

    /// Takes what was decided as if it were durable, at the expected revision, which is returned.
    pub fn take(&mut self, changes: &[Change]) -> u64 {
        let revision = self.next;
        self.next += 1;
        self.fleet.apply(changes, revision);
        for name in touched(changes, &self.fleet) {
            self.refresh(&name);
        }
        for change in changes {
            if let Change::AllocationGone(id) = change {
                self.ended.remove(id);
            }
        }
        revision
    }

    /// Notes that a worker is SUSPECT, or is not any more.
    pub fn set_suspect(&mut self, name: &Text, suspect: bool) {
        let changed = match suspect {
            true => self.suspects.insert(name.clone()),
            false => self.suspects.remove(name),
        };
        if changed {
            self.refresh(name);
        }
    }

    /// Notes that an agent of this generation has named an allocation ended that its owner still holds.
    pub fn note_ended(&mut self, id: &Text, generation: u64) {
        if self.fleet.allocation(id).is_some() {
            let noted = self.ended.entry(id.clone()).or_default();
            *noted = generation.max(*noted);
        }
    }

    /// Whether its worker's agent, of the current generation, has named the allocation ended. One that has left
    /// had named all of its own, which is known after a restart and at every instance.
    pub fn is_ended(&self, id: &Text) -> bool {
        let allocation = self.fleet.allocation(id);
        let entry = allocation.and_then(|one| self.fleet.worker(&one.worker));
        entry.is_some_and(|Entry { worker, .. }| {
            worker.has_left() || self.ended.get(id) == Some(&worker.generation)
        })
    }

    fn refresh(&mut self, name: &Text) {
        let entry = self
            .fleet
            .worker(name)
            .filter(|entry| self.takes_work(entry));
        self.index.refresh(name, entry);
    }

    fn takes_work(&self, entry: &Entry) -> bool {
        let worker = &entry.worker;
        worker.state == State::Active
            && worker.is_expected()
            && worker.epoch == self.epoch
            && !self.suspects.contains(&worker.name)
    }
}

/// The workers whose place in the index may have changed.
fn touched(changes: &[Change], fleet: &Fleet) -> Vec<Text> {
    let names = changes.iter().filter_map(|change| match change {
        Change::Worker(worker) => Some(worker.name.clone()),
        Change::WorkerGone(name) | Change::Room(name) => Some(name.clone()),
        Change::Allocation(allocation) => Some(allocation.worker.clone()),
        // Its worker's room is changed with it.
        Change::AllocationGone(_)
        | Change::RoomGone(_)
        | Change::Owner(..)
        | Change::Token(_)
        | Change::TokenGone(_)
        | Change::Tombstone(..)
        | Change::Spent(..)
        | Change::SpentGone(_)
        | Change::Event(_)
        | Change::EventGone(_)
        | Change::Longest(_) => None,
    });
    let names = names.filter(|name| {
        fleet.worker(name).is_some()
            || changes
                .iter()
                .any(|change| matches!(change, Change::WorkerGone(gone) if gone == name))
    });
    each_once(names.collect())
}
