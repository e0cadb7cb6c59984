//! What operators and agents ask of a worker's state.

use std::sync::Arc;
use std::time::SystemTime;

use muster_model::constraints::{CapacityType, Labels};
use muster_model::quantity::MicroUsd;

use super::{
    CHUNK, Decision, Precondition, Refused, change_room, disable_if_emptied, free, incarnation,
    next_state, put_worker, worker,
};
use crate::domain::allocation::Allocation;
use crate::domain::book::Book;
use crate::domain::drain::{AfterDeadline, Cause, Drain, Terms};
use crate::domain::fleet::{Change, Draft, Entry, Key, Tombstone};
use crate::domain::state::{Event, Next, State};
use crate::domain::text::Text;
use crate::domain::worker::{By, Check, CheckStatus, Worker};

const DRAIN_FIRST: &str = "drain it first, or disable it by force";

/// What an agent's checks came to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The worker.
    pub name: Text,
    /// Its generation.
    pub generation: u64,
    /// Every check.
    pub checks: Vec<Check>,
}

/// Records start-up checks; if all have passed, a PROVISIONING worker becomes ACTIVE.
///
/// # Errors
/// `Fenced`, `Reregister`; `WrongState` of a DISABLED worker whose checks have passed.
pub fn activate(
    book: &Book,
    asked: Checked,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    let entry = incarnation(book, &asked.name, asked.generation)?;
    let passed = asked
        .checks
        .iter()
        .all(|check| check.status == CheckStatus::Passed);
    let mut worker = Worker::clone(&entry.worker);
    worker.checks = asked.checks.into();
    if passed {
        worker.proved_generation = worker.generation;
        let state = next_state(entry, Event::Activate)?;
        worker.go(
            state,
            By::new("agent", "all start-up checks have passed"),
            now,
        );
    }
    if worker == *entry.worker {
        return Ok(Decision::nothing(Arc::clone(&entry.worker)));
    }
    let mut draft = Draft::new();
    let worker = put_worker(&mut draft, worker, now);
    Ok(Decision {
        draft,
        answer: worker,
    })
}

/// A drain that is asked for.
#[derive(Clone, Debug)]
pub struct DrainAsked {
    /// The worker.
    pub name: Text,
    /// Its terms.
    pub terms: Terms,
    /// The generation of the agent that asks for its own shutdown; none for others.
    pub generation: Option<u64>,
}

/// Begins a drain, or changes the terms of the one under way. An empty worker is DISABLED at once.
///
/// # Errors
/// `NoWorker`, `Fenced`, `Reregister`, `StaleEtag`, `WrongState`.
pub fn drain(
    book: &Book,
    asked: &DrainAsked,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    let entry = match asked.generation {
        Some(generation) => incarnation(book, &asked.name, generation)?,
        None => worker(book, &asked.name)?,
    };
    require(&entry.worker)?;
    next_state(entry, Event::Drain)?;
    let mut draft = Draft::new();
    let worker = begin_drain(entry, &asked.terms, now);
    let worker = put_worker(&mut draft, worker, now);
    draft.rests_on(Key::Room(worker.name.clone()));
    Ok(Decision {
        draft,
        answer: worker,
    })
}

/// The worker with a drain on these terms; DISABLED if nothing is left on it.
fn begin_drain(entry: &Entry, terms: &Terms, now: SystemTime) -> Worker {
    let mut worker = Worker::clone(&entry.worker);
    let by = By::new(terms.actor.clone(), terms.reason.clone());
    let count = u32::try_from(entry.counted().count()).unwrap_or(u32::MAX);
    let running = entry.worker.running_drain().cloned();
    let drain = running.unwrap_or_else(|| Drain::begin(terms.clone(), count, now));
    worker.drain = Some(Arc::new(drain.with_terms(terms.clone(), now)));
    worker.enter(State::Draining, by, now);
    if entry.is_empty() {
        worker.go(State::Disabled, By::system("nothing was left on it"), now);
    }
    worker
}

/// Calls a drain off.
///
/// # Errors
/// `NoWorker`, `StaleEtag`, `WrongState`.
pub fn resume(
    book: &Book,
    name: &Text,
    by: &Arc<By>,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    step(book, name, Event::Resume, by, require, now)
}

/// Puts a disabled worker back: it proves itself, then takes work.
///
/// # Errors
/// `NoWorker`, `StaleEtag`, `WrongState`.
pub fn enable(
    book: &Book,
    name: &Text,
    by: &Arc<By>,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    step(book, name, Event::Enable, by, require, now)
}

fn step(
    book: &Book,
    name: &Text,
    event: Event,
    by: &Arc<By>,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    let entry = worker(book, name)?;
    require(&entry.worker)?;
    let state = next_state(entry, event)?;
    let mut worker = Worker::clone(&entry.worker);
    if event == Event::Enable {
        worker.proved_generation = 0;
    }
    if event == Event::Resume {
        worker.end_drain(entry.usage().allocations, now);
    }
    worker.go(state, by.clone(), now);
    let mut draft = Draft::new();
    let worker = put_worker(&mut draft, worker, now);
    Ok(Decision {
        draft,
        answer: worker,
    })
}

/// Takes a worker out of use: at once if it is empty; by force also if it is not. Then it drains with
/// its deadline now, or, if it is LOST or has LEFT, everything on it is revoked and it is DISABLED; unconfirmed
/// if it is LOST.
///
/// # Errors
/// `NoWorker`, `StaleEtag`, `WrongState`, `NotEmpty`.
pub fn disable(
    book: &Book,
    name: &Text,
    force: bool,
    by: &Arc<By>,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    let entry = worker(book, name)?;
    require(&entry.worker)?;
    let event = if force { Event::Force } else { Event::Disable };
    let state = next_state(entry, event).map_err(|rejected| match entry.worker.state {
        State::Provisioning | State::Active | State::Draining => {
            Refused::NotEmpty(entry.usage().allocations, DRAIN_FIRST)
        }
        State::Disabled => rejected.into(),
    })?;
    let mut draft = Draft::new();
    let mut worker = match state {
        State::Draining => begin_drain(entry, &forced_terms(by, now), now),
        State::Provisioning | State::Active | State::Disabled => Worker::clone(&entry.worker),
    };
    if state == State::Disabled {
        if !entry.is_empty() {
            revoke_all(&mut worker);
        }
        take_over_drain(&mut worker);
        worker.end_drain(entry.usage().allocations, now);
        worker.go(State::Disabled, by.clone(), now);
    }
    let worker = put_worker(&mut draft, worker, now);
    draft.rests_on(Key::Room(name.clone()));
    Ok(Decision {
        draft,
        answer: worker,
    })
}

fn forced_terms(by: &By, now: SystemTime) -> Terms {
    Terms {
        cause: Cause::Operator,
        reason: by.reason.clone(),
        actor: by.actor.clone(),
        deadline: Some(now),
        max_parallel: 1,
        after: AfterDeadline::Force,
    }
}

/// Whoever disables a worker by hand means it: an agent's own shutdown is not what led there.
fn take_over_drain(worker: &mut Worker) {
    if let Some(drain) = worker.running_drain() {
        let mut drain = drain.clone();
        drain.terms.cause = Cause::Operator;
        worker.drain = Some(Arc::new(drain));
    }
}

/// One write takes all: whatever was made up to now belongs to a generation that is over. An agent that has left
/// had ended it all.
fn revoke_all(worker: &mut Worker) {
    worker.revoked_through = worker.generation;
    worker.generation += 1;
    worker.unconfirmed |= worker.is_lost();
}

/// The deadline of a worker's drain has passed with FORCE: its agent is told to stop what is left; of a
/// worker that is LOST or has LEFT everything is revoked. Answers whether anything changed.
pub fn call_deadline(book: &Book, name: &Text, now: SystemTime) -> Decision<bool> {
    let due = |entry: &&Entry| {
        let drain = entry.worker.running_drain();
        drain.is_some_and(|drain| drain.is_due(now) || (drain.forced && entry.worker.is_gone()))
    };
    let Some(entry) = book.fleet().worker(name).filter(due) else {
        return Decision::nothing(false);
    };
    let mut worker = Worker::clone(&entry.worker);
    if let Some(drain) = entry.worker.running_drain() {
        worker.drain = Some(Arc::new(Drain {
            forced: true,
            ..drain.clone()
        }));
    }
    if worker.is_gone() {
        let reason = match worker.has_left() {
            true => "the drain's deadline has passed, and the agent has left",
            false => "the drain's deadline has passed, and the worker is lost",
        };
        revoke_all(&mut worker);
        worker.end_drain(entry.usage().allocations, now);
        worker.go(State::Disabled, By::system(reason), now);
    }
    let mut draft = Draft::new();
    put_worker(&mut draft, worker, now);
    draft.rests_on(Key::Room(name.clone()));
    Decision {
        draft,
        answer: true,
    }
}

/// Forgets allocations that force-disabling took, and those that were given back where the agent has left, some
/// at a time. Answers whether there may be more.
pub fn clear_over(book: &Book, name: &Text, now: SystemTime) -> Decision<bool> {
    let Some(entry) = book.fleet().worker(name) else {
        return Decision::nothing(false);
    };
    let revoked_through = entry.worker.revoked_through;
    let is_taken = |one: &&Arc<Allocation>| one.is_revoked_through(revoked_through);
    let is_over =
        |one: &&Arc<Allocation>| is_taken(one) || (entry.worker.has_left() && !one.is_held());
    let over = entry.allocations().iter().filter(is_over);
    let over: Vec<_> = over.take(CHUNK).collect();
    if over.is_empty() {
        return Decision::nothing(false);
    }
    let mut draft = Draft::new();
    change_room(&mut draft, name);
    for allocation in &over {
        free(&mut draft, allocation, now);
    }
    let counted = over.iter().copied().filter(|one| !is_taken(one)).count();
    disable_if_emptied(&mut draft, entry, counted, now);
    let more = over.len() == CHUNK;
    Decision {
        draft,
        answer: more,
    }
}

/// How many uids of earlier workers of a name a tombstone keeps.
const MAX_EARLIER: usize = 1000;

/// Forgets a disabled worker, once what it ran has ended: owners learn that from its record alone.
///
/// # Errors
/// `NoWorker`, `StaleEtag`, `WrongState`; `NotEmpty` while what force-disabling took is being forgotten.
pub fn delete(
    book: &Book,
    name: &Text,
    actor: &Text,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<()>, Refused> {
    let entry = worker(book, name)?;
    require(&entry.worker)?;
    match entry.worker.next(Event::Delete, entry.is_empty())? {
        Next::Deleted if entry.allocations().is_empty() => {}
        Next::Deleted | Next::State(_) => {
            let left = u32::try_from(entry.allocations().len()).unwrap_or(u32::MAX);
            return Err(Refused::NotEmpty(
                left,
                "they are being forgotten; try again",
            ));
        }
    }
    let before = book.fleet().tombstone(name);
    let mut earlier: Vec<Text> = before
        .iter()
        .flat_map(|stone| stone.earlier.iter().chain([&stone.uid]).cloned())
        .collect();
    earlier.drain(..earlier.len().saturating_sub(MAX_EARLIER));
    let stone = Tombstone {
        earlier,
        generation: entry.worker.generation,
        uid: entry.worker.uid.clone(),
        at: now,
        actor: actor.clone(),
    };
    let mut draft = Draft::of(Change::Tombstone(name.clone(), stone));
    if entry.room_modified().is_some() {
        draft.put(Change::RoomGone(name.clone()));
    }
    draft.put(Change::WorkerGone(name.clone()));
    Ok(Decision { draft, answer: () })
}

/// What an operator writes on a worker; what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// All the operator's labels.
    pub labels: Option<Labels>,
    /// The price; none within is: as the agent says.
    pub price: Option<Option<MicroUsd>>,
    /// The capacity type; none within is: as the agent says.
    pub capacity_type: Option<Option<CapacityType>>,
}

/// Changes what the operator says of a worker.
///
/// # Errors
/// `NoWorker`, `StaleEtag`.
pub fn update(
    book: &Book,
    name: &Text,
    edit: &Edit,
    require: Precondition<'_>,
    now: SystemTime,
) -> Result<Decision<Arc<Worker>>, Refused> {
    let entry = worker(book, name)?;
    require(&entry.worker)?;
    let mut worker = Worker::clone(&entry.worker);
    if let Some(labels) = &edit.labels {
        worker.set_labels(labels.clone());
    }
    worker.price = edit.price.unwrap_or(worker.price);
    worker.capacity_type = edit.capacity_type.unwrap_or(worker.capacity_type);
    if worker == *entry.worker {
        return Ok(Decision::nothing(Arc::clone(&entry.worker)));
    }
    worker.writes += 1;
    let mut draft = Draft::new();
    let worker = put_worker(&mut draft, worker, now);
    Ok(Decision {
        draft,
        answer: worker,
    })
}
