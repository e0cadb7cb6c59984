//! A machine comes, or comes again.

use std::sync::Arc;
use std::time::SystemTime;

use muster_model::constraints::Labels;

use super::allocate::is_of_epoch;
use super::{CHUNK, Decision, Refused, change_room, incarnation, next_state, put_worker};
use crate::domain::allocation::Allocation;
use crate::domain::book::Book;
use crate::domain::fleet::{Change, Draft, Entry, Key};
use crate::domain::machine::Machine;
use crate::domain::state::{Event, State};
use crate::domain::text::Text;
use crate::domain::token::JoinToken;
use crate::domain::worker::{By, Presence, Worker};

/// What a machine proves itself with.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The uid in a credential of this name whose signature is ours.
    pub credential: Option<Text>,
    /// It presented a credential that is none of ours, or of another name.
    pub bad_credential: bool,
    /// The join token's id and the SHA-256 of its secret.
    pub token: Option<(Text, [u8; 32])>,
    /// The name in its certificate.
    pub san: Option<Text>,
    /// Nothing needs to be proved the first time.
    pub insecure: bool,
}

/// A machine that registers.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The worker's name.
    pub name: Text,
    /// Random for each process of the agent.
    pub boot_id: Text,
    /// The generation that the agent had last; 0 is none.
    pub last_generation: u64,
    /// What it says of itself.
    pub machine: Arc<Machine>,
    /// What it proves itself with.
    pub proof: Proof,
    /// It lists allocations that [`recreate`] will make again.
    pub recreates: bool,
    /// Something of what it lists runs.
    pub runs: bool,
    /// The uid of the record if it is a new one.
    pub uid: Text,
}

/// A machine has registered.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its record.
    pub worker: Arc<Worker>,
    /// Whether it proved itself by a credential, and so needs no new one.
    pub had_credential: bool,
}

/// Registers a machine: makes its record, raises its generation, or, for a repeated call of the same
/// process, answers what the first one did. A process whose accelerators have changed since raises it too.
///
/// # Errors
/// `NameTaken`, `TokenNeeded`, `UnknownToken`, `TokenUnfit`, `BadCredential`.
pub fn register(
    book: &Book,
    arrival: &Arrival,
    now: SystemTime,
) -> Result<Decision<Registered>, Refused> {
    let entry = book.fleet().worker(&arrival.name);
    match entry {
        Some(entry) if entry.worker.generation > 0 => again(book, entry, arrival, now),
        Some(_) | None => first(book, entry, arrival, now),
    }
}

/// A record that a machine has used before.
fn again(
    book: &Book,
    entry: &Entry,
    arrival: &Arrival,
    now: SystemTime,
) -> Result<Decision<Registered>, Refused> {
    let known = &entry.worker;
    let repeated = known.boot_id == arrival.boot_id;
    let by_certificate = arrival
        .proof
        .san
        .as_ref()
        .is_some_and(|san| *san == known.san);
    let had_credential = by_certificate || arrival.proof.credential.as_ref() == Some(&known.uid);
    let proved = had_credential || (repeated && came_by(known, &arrival.proof));
    if !proved {
        return Err(Refused::NameTaken(arrival.name.clone()));
    }
    // The same process in the same history is the same incarnation, however often it registers, for as long
    // as it has the same accelerators.
    let is_same =
        repeated && known.epoch == *book.epoch() && !brings_other_accelerators(known, arrival);
    let mut worker = Worker::clone(known);
    let mut state = match is_same {
        true => known.state,
        false => next_state(entry, Event::Register)?,
    };
    if arrival.recreates && state == State::Disabled {
        // The agent is the witness: it got work after the backup in which it was disabled.
        state = State::Provisioning;
    }
    if is_same && state == known.state && known.is_expected() {
        let worker = Arc::clone(known);
        return Ok(Decision::nothing(Registered {
            worker,
            had_credential,
        }));
    }
    if !is_same {
        worker.generation = next_generation(book, known.generation, arrival);
        worker.set_machine(Arc::clone(&arrival.machine));
    }
    if state != State::Draining {
        worker.end_drain(entry.usage().allocations, now);
    }
    let draft = Draft::new();
    Ok(arrive(
        book,
        worker,
        state,
        arrival,
        draft,
        had_credential,
        now,
    ))
}

/// Whether the process of the present generation says, of that generation, that its accelerators are others.
/// A call that it made before, and that comes late, names an earlier one, and must not bring back what is gone.
fn brings_other_accelerators(known: &Worker, arrival: &Arrival) -> bool {
    arrival.last_generation == known.generation
        && !arrival.machine.gpus.are_the_same_as(&known.machine.gpus)
}

/// A record that no machine has used yet, or none at all.
fn first(
    book: &Book,
    ahead: Option<&Entry>,
    arrival: &Arrival,
    now: SystemTime,
) -> Result<Decision<Registered>, Refused> {
    let mut draft = Draft::new();
    let name = &arrival.name;
    let uid = returning_uid(book, ahead, arrival)?;
    let had_credential = uid.is_some();
    let token = match had_credential {
        true => None,
        false => admitting_token(book, arrival, now)?,
    };
    let mut worker = match ahead {
        Some(entry) => Worker::clone(&entry.worker),
        None => {
            let mut made = Worker::ahead(
                name.clone(),
                uid.unwrap_or_else(|| arrival.uid.clone()),
                By::new("agent", ""),
                now,
            );
            made.history = Arc::default();
            made
        }
    };
    if let Some(token) = &token {
        let mut labels = token.labels.clone();
        labels.extend(Labels::clone(&worker.labels));
        worker.set_labels(labels);
        worker.join_token = token.id.clone();
        draft.put(Change::Token(Arc::new(token.used())));
    }
    // Another instance may have buried one of this name just now.
    draft.rests_on(Key::Tombstone(name.clone()));
    if let Some(san) = &arrival.proof.san {
        worker.san = san.clone();
    }
    worker.generation = next_generation(book, 0, arrival);
    worker.revoked_through = buried_generation(book, name);
    worker.set_machine(Arc::clone(&arrival.machine));
    // Whoever disabled what was made ahead is not overruled.
    let state = match ahead {
        Some(entry) => next_state(entry, Event::Register)?,
        None => State::Provisioning,
    };
    Ok(arrive(
        book,
        worker,
        state,
        arrival,
        draft,
        had_credential,
        now,
    ))
}

/// The uid that a credential gives a machine of which this registry has no record: it joined after the
/// backup that the registry was restored from.
fn returning_uid(
    book: &Book,
    ahead: Option<&Entry>,
    arrival: &Arrival,
) -> Result<Option<Text>, Refused> {
    let Some(uid) = arrival.proof.credential.clone() else {
        return Ok(None);
    };
    let is_buried = book
        .fleet()
        .tombstone(&arrival.name)
        .is_some_and(|stone| stone.buries(&uid));
    let is_other = ahead.is_some_and(|entry| entry.worker.uid != uid);
    match is_buried || is_other {
        false => Ok(Some(uid)),
        true if arrival.proof.token.is_some() || arrival.proof.insecure => Ok(None),
        true => Err(Refused::BadCredential(arrival.name.clone())),
    }
}

/// The join token that lets the machine in; none if none is needed.
fn admitting_token(
    book: &Book,
    arrival: &Arrival,
    now: SystemTime,
) -> Result<Option<Arc<JoinToken>>, Refused> {
    let Some((id, hash)) = &arrival.proof.token else {
        let free = arrival.proof.insecure || arrival.proof.san.is_some();
        return match (free, arrival.proof.bad_credential) {
            (true, _) => Ok(None),
            (false, true) => Err(Refused::BadCredential(arrival.name.clone())),
            (false, false) => Err(Refused::TokenNeeded(arrival.name.clone())),
        };
    };
    let token = book
        .fleet()
        .token(id)
        .filter(|token| token.secret_hash == *hash);
    let token = token.ok_or(Refused::UnknownToken)?;
    token.admits(&arrival.name, now)?;
    Ok(Some(Arc::clone(token)))
}

/// Whether a repeated first call proves itself as the first one did.
fn came_by(worker: &Worker, proof: &Proof) -> bool {
    match &proof.token {
        Some((id, _)) => *id == worker.join_token,
        None => proof.insecure,
    }
}

/// Above all that this name ever had, as far as this registry or the agent know.
fn next_generation(book: &Book, known: u64, arrival: &Arrival) -> u64 {
    let buried = buried_generation(book, &arrival.name);
    known.max(buried).max(arrival.last_generation) + 1
}

/// The last generation of the workers of this name that were deleted. What they were given is not their
/// successor's: it went with them.
pub(super) fn buried_generation(book: &Book, name: &str) -> u64 {
    book.fleet()
        .tombstone(name)
        .map_or(0, |stone| stone.generation)
}

fn arrive(
    book: &Book,
    mut worker: Worker,
    state: State,
    arrival: &Arrival,
    mut draft: Draft,
    had_credential: bool,
    now: SystemTime,
) -> Decision<Registered> {
    let is_new = worker.history.is_empty();
    worker.boot_id = arrival.boot_id.clone();
    worker.presence = Presence::Expected;
    worker.checks = Arc::default();
    worker.unconfirmed &= arrival.runs;
    worker.epoch = book.epoch().clone();
    worker.enter(state, By::new("agent", "registered"), now);
    if is_new && let Some(only) = Arc::make_mut(&mut worker.history).first_mut() {
        only.from = None;
    }
    let worker = put_worker(&mut draft, worker, now);
    Decision {
        draft,
        answer: Registered {
            worker,
            had_credential,
        },
    }
}

/// Whether an agent's word brings back an allocation that this registry does not have: it was made in an
/// earlier epoch, after the backup, and force-disabling did not take it.
pub fn recreatable(book: &Book, entry: Option<&Entry>, record: &Allocation) -> bool {
    let of_now = is_of_epoch(&record.id, book.epoch());
    let is_earlier = record.fencing.epoch < *book.epoch() && !of_now;
    let is_unknown = book.fleet().allocation(&record.id).is_none();
    let revoked_through = entry.map_or(0, |entry| entry.worker.revoked_through);
    is_earlier && is_unknown && !record.is_revoked_through(revoked_through)
}

/// Makes records again from the agent's word, some at a time. Answers whether there may be more. A worker that was
/// disabled since it registered, as if nothing were on it, is not called empty.
///
/// # Errors
/// `Fenced`, `Reregister`: it is not the incarnation that registered, which is the witness.
pub fn recreate(
    book: &Book,
    name: &Text,
    generation: u64,
    records: &[Arc<Allocation>],
    now: SystemTime,
) -> Result<Decision<bool>, Refused> {
    let entry = incarnation(book, name, generation)?;
    let missing = records
        .iter()
        .filter(|record| recreatable(book, Some(entry), record));
    let missing: Vec<_> = missing.take(CHUNK).collect();
    if missing.is_empty() {
        return Ok(Decision::nothing(false));
    }
    let mut draft = Draft::new();
    change_room(&mut draft, name);
    if entry.worker.state == State::Disabled {
        let mut worker = Worker::clone(&entry.worker);
        let by = By::new("agent", "it runs what was made after the backup");
        worker.go(State::Provisioning, by, now);
        put_worker(&mut draft, worker, now);
    }
    for record in &missing {
        draft.put(Change::Allocation(Arc::clone(record)));
    }
    let more = missing.len() == CHUNK;
    Ok(Decision {
        draft,
        answer: more,
    })
}
