//! One decision for each call: from the book and what was asked to the records that change, or to why
//! nothing does.
//!
//! A decision is pure and may be made again after a conflict. It writes nothing, and answers what will be
//! true once its draft is durable.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::allocation::Allocation;
use super::book::Book;
use super::fleet::{Change, Draft, Entry, Key, RequestKey, Spent};
use super::state::{Event, Next, Rejected, State};
use super::text::Text;
use super::token::Unfit;
use super::worker::{By, Worker};

mod allocate;
mod beat;
mod operate;
mod register;
mod release;
mod tokens;

pub use allocate::{Item, allocate, allocate_in_question, claim_owner};
pub use beat::{HeldPhase, Named, end, fenced, hand_out, heard, leave, lost, sweep};
pub use operate::{
    Checked, DrainAsked, Edit, activate, call_deadline, clear_over, delete, disable, drain, enable,
    resume, update,
};
pub use register::{Arrival, Proof, Registered, recreatable, recreate, register};
pub use release::{may_report, release};
pub use tokens::{NewToken, create_token, revoke_token};

/// The most records of a kind that one transaction takes of those that come in any number, so that it
/// stays far below the store's limit together with the records around them.
pub const CHUNK: usize = 25;

/// How long a caller's id for a call is kept after what the call made is gone.
pub const REQUEST_KEPT: Duration = Duration::from_secs(600);

/// What a decision leads to, and what to answer once it is durable.
#[derive(Clone, Debug)]
pub struct Decision<T> {
    /// The records that change.
    pub draft: Draft,
    /// The answer.
    pub answer: T,
}

impl<T> Decision<T> {
    /// Changes nothing.
    pub fn nothing(answer: T) -> Self {
        Self {
            draft: Draft::new(),
            answer,
        }
    }
}

/// Why a call changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such worker.
    #[error("there is no worker {0}")]
    NoWorker(Text),
    /// There is no such allocation.
    #[error("there is no allocation {0}")]
    NoAllocation(Text),
    /// There is no such join token.
    #[error("there is no join token {0}")]
    NoToken(Text),
    /// The table of states does not allow it.
    #[error(transparent)]
    WrongState(#[from] Rejected),
    /// Something other than a worker's state stands in the way.
    #[error("{0}")]
    Unfit(String),
    /// Allocations are still held.
    #[error("the worker still holds {0} allocations; {1}")]
    NotEmpty(u32, &'static str),
    /// The etag is not the current one.
    #[error("the worker has changed since it was read; read it again, then write")]
    StaleEtag,
    /// The etag is none of ours.
    #[error("is not an etag")]
    BadEtag,
    /// A later incarnation has registered.
    #[error("generation {asked} of worker {name} is fenced: the current one is {current}")]
    Fenced {
        /// The worker.
        name: Text,
        /// The caller's generation.
        asked: u64,
        /// The current one.
        current: u64,
    },
    /// The registry does not know this incarnation.
    #[error("worker {0} has to register again and list what it runs")]
    Reregister(Text),
    /// Another machine has the name.
    #[error(
        "another machine is registered as worker {0}; choose another name, or delete that worker first"
    )]
    NameTaken(Text),
    /// A worker of this name exists.
    #[error("a worker {0} exists already")]
    WorkerExists(Text),
    /// The credential is not valid.
    #[error("the credential is not valid for worker {0}")]
    BadCredential(Text),
    /// The first registration needs a join token.
    #[error("the first registration of worker {0} needs a join token")]
    TokenNeeded(Text),
    /// The join token is unknown.
    #[error("the join token is unknown or was revoked")]
    UnknownToken,
    /// The join token does not let this worker in.
    #[error(transparent)]
    TokenUnfit(#[from] Unfit),
    /// A newer term was claimed.
    #[error("term {asked} of {owner} is stale: {claimed} has been claimed")]
    StaleOwner {
        /// The owner.
        owner: Text,
        /// The caller's term.
        asked: String,
        /// The claimed one.
        claimed: String,
    },
    /// Another owner holds it.
    #[error("allocation {id} is held by {owner}")]
    OtherOwner {
        /// The allocation.
        id: Text,
        /// Who holds it.
        owner: Text,
    },
    /// No worker fits now.
    #[error("no worker fits now")]
    NoCapacity,
    /// The call's id was used with another body.
    #[error("request id {0} was used before with another body")]
    RequestReused(Text),
    /// What the repeated call made was given back.
    #[error("what request id {0} made was released")]
    AlreadyReleased(Text),
    /// The worker is silent for too long.
    #[error("worker {0} is lost")]
    WorkerLost(Text),
    /// The agent leaves while something runs.
    #[error("worker {0} cannot leave while something runs on it; drain it first")]
    StillRunning(Text),
}

/// What a caller requires of the record as it is, such as its etag.
pub type Precondition<'a> = &'a (dyn Fn(&Worker) -> Result<(), Refused> + Sync);

fn worker<'a>(book: &'a Book, name: &Text) -> Result<&'a Entry, Refused> {
    book.fleet()
        .worker(name)
        .ok_or_else(|| Refused::NoWorker(name.clone()))
}

/// The worker, if it is the current incarnation that speaks.
fn incarnation<'a>(book: &'a Book, name: &Text, generation: u64) -> Result<&'a Entry, Refused> {
    let entry = book
        .fleet()
        .worker(name)
        .ok_or_else(|| Refused::Reregister(name.clone()))?;
    let current = entry.worker.generation;
    if generation < current {
        return Err(Refused::Fenced {
            name: name.clone(),
            asked: generation,
            current,
        });
    }
    if generation > current || entry.worker.epoch != *book.epoch() {
        return Err(Refused::Reregister(name.clone()));
    }
    Ok(entry)
}

/// The state that `event` leads to.
fn next_state(entry: &Entry, event: Event) -> Result<State, Rejected> {
    match entry.worker.next(event, entry.is_empty())? {
        Next::State(state) => Ok(state),
        // The one event that deletes is asked for by itself, in `delete`.
        Next::Deleted => Ok(entry.worker.state),
    }
}

/// Puts a changed worker into a draft.
fn put_worker(draft: &mut Draft, mut worker: Worker, now: SystemTime) -> Arc<Worker> {
    worker.updated = now;
    let worker = Arc::new(worker);
    draft.put(Change::Worker(Arc::clone(&worker)));
    worker
}

/// Lets a draining worker end its drain if, with so many of its allocations gone, none is left.
fn disable_if_emptied(draft: &mut Draft, entry: &Entry, gone: usize, now: SystemTime) {
    let left = entry.counted().count().saturating_sub(gone);
    if left > 0 || entry.worker.state != State::Draining {
        return;
    }
    if let Ok(Next::State(state)) = entry.worker.next(Event::Emptied, true) {
        let mut worker = Worker::clone(&entry.worker);
        worker.go(state, By::system("drained: nothing is left on it"), now);
        put_worker(draft, worker, now);
    }
}

/// Frees an allocation: its room, and the id of the call that made it.
fn free(draft: &mut Draft, allocation: &Allocation, now: SystemTime) {
    draft.put(Change::AllocationGone(allocation.id.clone()));
    if let Some(request) = &allocation.request {
        let key = RequestKey {
            method: allocate::METHOD,
            principal: request.principal.clone(),
            id: request.id.clone(),
        };
        let spent = Spent {
            body: request.body,
            made: allocation.id.clone(),
            until: now + REQUEST_KEPT,
        };
        draft.put(Change::Spent(key, spent));
    }
}

/// What any decision about a worker's room rests on and changes.
fn change_room(draft: &mut Draft, name: &Text) {
    draft.put(Change::Room(name.clone()));
    draft.rests_on(Key::Worker(name.clone()));
}

#[cfg(test)]
mod tests;
