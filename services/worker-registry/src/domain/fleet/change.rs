//! What a decision leads to: records to put or delete, and records that it rests on.

use std::sync::Arc;

use super::{RequestKey, Spent, Tombstone};
use crate::domain::allocation::{Allocation, OwnerTerm};
use crate::domain::event::Event;
use crate::domain::liveness::Longest;
use crate::domain::text::Text;
use crate::domain::token::JoinToken;
use crate::domain::worker::Worker;

/// A record put or deleted.
#[derive(Clone, Debug)]
pub enum Change {
    /// A worker as it is now.
    Worker(Arc<Worker>),
    /// The worker of this name is deleted.
    WorkerGone(Text),
    /// What is allocated on the worker of this name has changed: the record that orders such changes.
    Room(Text),
    /// That record goes, with its worker.
    RoomGone(Text),
    /// An allocation as it is now.
    Allocation(Arc<Allocation>),
    /// The allocation of this id is gone.
    AllocationGone(Text),
    /// An owner has claimed a term.
    Owner(Text, OwnerTerm),
    /// A join token as it is now.
    Token(Arc<JoinToken>),
    /// The join token of this id has ended.
    TokenGone(Text),
    /// What is left of the worker of this name.
    Tombstone(Text, Tombstone),
    /// What is kept of a call.
    Spent(RequestKey, Spent),
    /// A call is forgotten.
    SpentGone(RequestKey),
    /// Something happened that no other record tells.
    Event(Arc<Event>),
    /// The event of this id is forgotten.
    EventGone(Text),
    /// The longest times handed out.
    Longest(Longest),
}

/// Names a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Of a worker.
    Worker(Text),
    /// That orders what is allocated on a worker.
    Room(Text),
    /// Of an allocation.
    Allocation(Text),
    /// Of an owner's term.
    Owner(Text),
    /// Of a join token.
    Token(Text),
    /// Of a deleted worker.
    Tombstone(Text),
    /// Of a call.
    Spent(RequestKey),
    /// Of an event.
    Event(Text),
    /// Of the longest times.
    Longest,
}

/// What a decision leads to. All of it happens, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// What to write. Each written record must still be as it was, too.
    pub changes: Vec<Change>,
    /// Further records that must still be as they were.
    pub reads: Vec<Key>,
}

impl Draft {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One change.
    pub fn of(change: Change) -> Self {
        Self {
            changes: vec![change],
            reads: Vec::new(),
        }
    }

    /// Adds a change.
    pub fn put(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Adds a record that the decision rests on.
    pub fn rests_on(&mut self, key: Key) {
        self.reads.push(key);
    }
}

impl Change {
    /// The record that it changes.
    pub fn key(&self) -> Key {
        match self {
            Self::Worker(worker) => Key::Worker(worker.name.clone()),
            Self::WorkerGone(name) => Key::Worker(name.clone()),
            Self::Room(name) | Self::RoomGone(name) => Key::Room(name.clone()),
            Self::Allocation(allocation) => Key::Allocation(allocation.id.clone()),
            Self::AllocationGone(id) => Key::Allocation(id.clone()),
            Self::Owner(owner, _) => Key::Owner(owner.clone()),
            Self::Token(token) => Key::Token(token.id.clone()),
            Self::TokenGone(id) => Key::Token(id.clone()),
            Self::Tombstone(name, _) => Key::Tombstone(name.clone()),
            Self::Spent(key, _) | Self::SpentGone(key) => Key::Spent(key.clone()),
            Self::Event(event) => Key::Event(event.id.clone()),
            Self::EventGone(id) => Key::Event(id.clone()),
            Self::Longest(_) => Key::Longest,
        }
    }
}
