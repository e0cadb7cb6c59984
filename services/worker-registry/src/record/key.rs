//! The keys of records.

use super::{Change, Key, RequestKey, Text};

/// The secret from which the store's signing key and the secrets of join tokens come.
pub(crate) const SECRET: &str = "secrets/registry";

const WORKERS: &str = "workers/";
const ROOMS: &str = "rooms/";
const ALLOCATIONS: &str = "allocations/";
const OWNERS: &str = "owners/";
const TOKENS: &str = "join-tokens/";
const TOMBSTONES: &str = "tombstones/";
const CALLS: &str = "calls/";
const EVENTS: &str = "events/";
/// Also of the longest silence, which came later.
const LONGEST: &str = "longest-fence";

/// The calls whose ids are kept.
const METHODS: [&str; 2] = ["allocate", "create-join-token"];

/// The key of a record.
pub(crate) fn key_of(key: &Key) -> String {
    match key {
        Key::Worker(name) => [WORKERS, name].concat(),
        Key::Room(name) => [ROOMS, name].concat(),
        Key::Allocation(id) => [ALLOCATIONS, id].concat(),
        Key::Owner(owner) => [OWNERS, owner].concat(),
        Key::Token(id) => [TOKENS, id].concat(),
        Key::Tombstone(name) => [TOMBSTONES, name].concat(),
        // A length keeps apart what no separator could: both may hold any character.
        Key::Spent(RequestKey {
            method,
            principal,
            id,
        }) => {
            format!("{CALLS}{method}/{}/{principal}{id}", principal.len())
        }
        Key::Event(id) => [EVENTS, id].concat(),
        Key::Longest => LONGEST.to_owned(),
    }
}

/// A key that was read, with what its value does not say.
#[derive(Debug)]
pub(super) enum Parsed {
    Worker,
    Room(Text),
    Allocation,
    Owner(Text),
    Token,
    Tombstone(Text),
    Spent(RequestKey),
    Event,
    Longest,
}

impl Parsed {
    /// The parts of a key; none if it is not one of the fleet's.
    pub(super) fn of(key: &str) -> Option<Self> {
        if key == LONGEST {
            return Some(Self::Longest);
        }
        let (kind, rest) = key.split_at(key.find('/')? + 1);
        match kind {
            WORKERS => Some(Self::Worker),
            ROOMS => Some(Self::Room(rest.into())),
            ALLOCATIONS => Some(Self::Allocation),
            OWNERS => Some(Self::Owner(rest.into())),
            TOKENS => Some(Self::Token),
            TOMBSTONES => Some(Self::Tombstone(rest.into())),
            CALLS => call(rest).map(Self::Spent),
            EVENTS => Some(Self::Event),
            _ => None,
        }
    }
}

/// What the deletion of a record says; none for a record that is not the fleet's, or is never deleted.
pub(crate) fn gone(key: &str) -> Option<Change> {
    let (kind, rest) = key.split_at(key.find('/')? + 1);
    match kind {
        WORKERS => Some(Change::WorkerGone(rest.into())),
        ROOMS => Some(Change::RoomGone(rest.into())),
        ALLOCATIONS => Some(Change::AllocationGone(rest.into())),
        TOKENS => Some(Change::TokenGone(rest.into())),
        CALLS => call(rest).map(Change::SpentGone),
        EVENTS => Some(Change::EventGone(rest.into())),
        _ => None,
    }
}

fn call(rest: &str) -> Option<RequestKey> {
    let mut parts = rest.splitn(3, '/');
    let (method, length, both) = (parts.next()?, parts.next()?, parts.next()?);
    let (principal, id) = both.split_at_checked(length.parse().ok()?)?;
    Some(RequestKey {
        method: METHODS.into_iter().find(|known| *known == method)?,
        principal: principal.into(),
        id: id.into(),
    })
}
