//! What heartbeats, and their absence, change in the records. Most heartbeats change nothing and never
//! come here.

use std::sync::Arc;
use std::time::SystemTime;

use super::{
    CHUNK, Decision, Refused, change_room, disable_if_emptied, free, incarnation, put_worker,
};
use crate::domain::book::Book;
use crate::domain::fleet::{Change, Draft, Entry, Key, Spent};
use crate::domain::liveness::Longest;
use crate::domain::text::Text;
use crate::domain::worker::{Presence, Worker};

/// How far an allocation has come on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldPhase {
    /// Known, and not started.
    Waiting,
    /// Something of it runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// Nothing of it runs, and nothing will.
    Ended,
}

/// What the registry makes of an allocation id that an agent names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The worker has it.
    Known,
    /// Force-disabling took it: whatever runs of it has to stop.
    Taken,
    /// It was freed in this epoch: whatever runs of it has to stop.
    Over,
    /// It may have been made after the backup that this registry was restored from: it is kept.
    Unknown,
}

impl Named {
    /// Whether the worker's records list it.
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Known | Self::Taken)
    }

    /// What `entry` makes of the id.
    pub fn of(entry: &Entry, id: &str, epoch: &str) -> Self {
        let known = entry
            .allocations()
            .binary_search_by(|one| (*one.id).cmp(id));
        let taken =
            |at: usize| entry.allocations()[at].is_revoked_through(entry.worker.revoked_through);
        match known {
            Ok(at) if taken(at) => Self::Taken,
            Ok(_) => Self::Known,
            Err(_) if super::allocate::is_of_epoch(id, epoch) => Self::Over,
            Err(_) => Self::Unknown,
        }
    }
}

/// Frees what the agent has named ended and its owner has given back, at most [`CHUNK`] of them; answers
/// those that the owner still holds, which are to be noted.
///
/// # Errors
/// `Fenced`, `Reregister`.
pub fn end(
    book: &Book,
    name: &Text,
    generation: u64,
    ids: &[Text],
    now: SystemTime,
) -> Result<Decision<Vec<Text>>, Refused> {
    let entry = incarnation(book, name, generation)?;
    let here = entry
        .allocations()
        .iter()
        .filter(|one| ids.contains(&one.id));
    let (held, over): (Vec<_>, Vec<_>) = here
        .partition(|one| one.is_held() && !one.is_revoked_through(entry.worker.revoked_through));
    let noted = held.into_iter().map(|one| one.id.clone()).collect();
    let mut draft = Draft::new();
    let over: Vec<_> = over.into_iter().take(CHUNK).collect();
    if over.is_empty() {
        return Ok(Decision {
            draft,
            answer: noted,
        });
    }
    change_room(&mut draft, name);
    for allocation in &over {
        free(&mut draft, allocation, now);
    }
    let counted = over
        .iter()
        .filter(|one| !one.is_revoked_through(entry.worker.revoked_through));
    disable_if_emptied(&mut draft, entry, counted.count(), now);
    Ok(Decision {
        draft,
        answer: noted,
    })
}

/// A worker is heard by whose word its record changes: it was lost or had left and is back, or what it
/// ran was not confirmed to have ended and now is (`runs` is false).
///
/// # Errors
/// `Fenced`, `Reregister`.
pub fn heard(
    book: &Book,
    name: &Text,
    generation: u64,
    runs: bool,
    now: SystemTime,
) -> Result<Decision<()>, Refused> {
    let entry = incarnation(book, name, generation)?;
    let mut worker = Worker::clone(&entry.worker);
    worker.presence = Presence::Expected;
    worker.unconfirmed &= runs;
    if worker == *entry.worker {
        return Ok(Decision::nothing(()));
    }
    let mut draft = Draft::new();
    put_worker(&mut draft, worker, now);
    Ok(Decision { draft, answer: () })
}

/// The agent says that it leaves.
///
/// # Errors
/// `Fenced`, `Reregister`; `StillRunning` while anything is allocated that the agent has not named ended.
pub fn leave(
    book: &Book,
    name: &Text,
    generation: u64,
    now: SystemTime,
) -> Result<Decision<()>, Refused> {
    let entry = incarnation(book, name, generation)?;
    // What its agent has named ended runs no more, whether or not its owner has given it back.
    if !entry.counted().all(|one| book.is_ended(&one.id)) {
        return Err(Refused::StillRunning(name.clone()));
    }
    if entry.worker.has_left() {
        return Ok(Decision::nothing(()));
    }
    let mut draft = Draft::new();
    let mut worker = Worker::clone(&entry.worker);
    worker.presence = Presence::Left { at: now };
    put_worker(&mut draft, worker, now);
    // That nothing is allocated has to be true when this is written.
    draft.rests_on(Key::Room(name.clone()));
    Ok(Decision { draft, answer: () })
}

/// Workers whose time has passed are LOST, those that still are expected; `still_silent` is asked once
/// more of each.
pub fn lost(
    book: &Book,
    names: &[Text],
    still_silent: impl Fn(&Worker) -> bool,
    now: SystemTime,
) -> Decision<Vec<Text>> {
    mark(book, names, now, |worker| {
        let gone = worker.is_expected() && still_silent(worker);
        gone.then_some(Presence::Lost {
            at: now,
            fenced: false,
        })
    })
}

/// The longest times that agents are about to be handed out, unless longer ones are known already.
pub fn hand_out(book: &Book, times: Longest) -> Decision<()> {
    let known = book.fleet().longest();
    let longest = known.max(times);
    Decision {
        draft: match longest == known {
            true => Draft::new(),
            false => Draft::of(Change::Longest(longest)),
        },
        answer: (),
    }
}

/// The fences of these LOST workers have passed.
pub fn fenced(book: &Book, names: &[Text], now: SystemTime) -> Decision<Vec<Text>> {
    mark(book, names, now, |worker| match worker.presence {
        Presence::Lost { at, fenced: false } => Some(Presence::Lost { at, fenced: true }),
        Presence::Lost { .. } | Presence::Left { .. } | Presence::Expected | Presence::Awaited => {
            None
        }
    })
}

fn mark(
    book: &Book,
    names: &[Text],
    now: SystemTime,
    presence: impl Fn(&Worker) -> Option<Presence>,
) -> Decision<Vec<Text>> {
    let mut draft = Draft::new();
    let mut marked = Vec::new();
    for entry in names.iter().filter_map(|name| book.fleet().worker(name)) {
        if let Some(presence) = presence(&entry.worker) {
            let mut worker = Worker::clone(&entry.worker);
            worker.presence = presence;
            put_worker(&mut draft, worker, now);
            marked.push(entry.worker.name.clone());
        }
    }
    Decision {
        draft,
        answer: marked,
    }
}

/// Forgets calls whose time is over, and events beyond `kept_events`, some of each. Answers whether
/// there may be more.
pub fn sweep(book: &Book, kept_events: usize, now: SystemTime) -> Decision<bool> {
    let mut draft = Draft::new();
    let fleet = book.fleet();
    // A call is remembered for as long as what it made is there.
    let is_over = |spent: &Spent| {
        fleet.token(&spent.made).is_none() && fleet.allocation(&spent.made).is_none()
    };
    let calls = fleet.spent_by(now).filter(|(_, spent)| is_over(spent));
    for (key, _) in calls.take(CHUNK) {
        draft.put(Change::SpentGone(key.clone()));
    }
    let events = fleet.events();
    let over = events.len().saturating_sub(kept_events);
    for event in events.take(over.min(CHUNK)) {
        draft.put(Change::EventGone(Arc::clone(event).id.clone()));
    }
    let more = draft.changes.len() >= CHUNK;
    Decision {
        draft,
        answer: more,
    }
}
