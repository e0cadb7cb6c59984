//! Taking room, and the terms of those who take it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_model::constraints::Labels;

use super::{Decision, Refused, change_room, free};
use crate::domain::allocation::{Allocation, End, FencingToken, Life, OwnerTerm, Request};
use crate::domain::book::Book;
use crate::domain::fleet::{Change, Draft, Key, RequestKey, Spent};
use crate::domain::placement::{self, Ask, Site};
use crate::domain::text::Text;

/// The method's word in the scope of request ids.
pub(super) const METHOD: &str = "allocate";

/// How long the record of a call is kept at least while what it made lives: freeing that shortens it.
const LIVING: Duration = Duration::from_secs(10 * 365 * 86_400);

/// One allocation that is asked for.
#[derive(Clone, Debug)]
pub struct Item {
    /// Who will hold it.
    pub owner: Text,
    /// The owner's term.
    pub term: OwnerTerm,
    /// The call, so that it is known when it is repeated; none in a question.
    pub request: Option<Request>,
    /// What is needed, and where.
    pub ask: Ask,
    /// What it is for.
    pub subject: Text,
    /// Kept with it.
    pub attributes: Labels,
    /// A forced end would fail what it is for.
    pub fails_if_forced: bool,
    /// How long what it runs is given to stop.
    pub stop_grace: Duration,
    /// The project.
    pub project: Text,
}

/// Takes room for several in one transaction, at most 12. Each is decided on what those
/// before it took. The answer has one result for each; with `all_or_nothing`, one refusal refuses all.
pub fn allocate(
    book: &Book,
    items: &[Item],
    all_or_nothing: bool,
    now: SystemTime,
) -> Decision<Vec<Result<Arc<Allocation>, Refused>>> {
    let mut draft = Draft::new();
    let mut made: Vec<Arc<Allocation>> = Vec::with_capacity(items.len());
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let result = one(book, item, &mut made, &mut draft, now);
        if all_or_nothing && result.is_err() {
            results.push(result);
            return Decision::nothing(results);
        }
        results.push(result);
    }
    Decision {
        draft,
        answer: results,
    }
}

/// What [`allocate`] would make of one; nothing is taken, and nobody's term is looked at.
pub fn allocate_in_question(book: &Book, item: &Item, now: SystemTime) -> Option<Allocation> {
    let site = placement::find(book.fleet(), book.index(), &item.ask, &[])?;
    Some(build(book, item, site, 0, now))
}

fn one(
    book: &Book,
    item: &Item,
    made: &mut Vec<Arc<Allocation>>,
    draft: &mut Draft,
    now: SystemTime,
) -> Result<Arc<Allocation>, Refused> {
    check_term(book, &item.owner, &item.term)?;
    if let Some(request) = &item.request
        && let Some(known) = replayed(book, request, made)?
    {
        return Ok(known);
    }
    let old = item
        .ask
        .replaces
        .as_ref()
        .map(|id| replaceable(book, id, item, made))
        .transpose()?;
    let site =
        placement::find(book.fleet(), book.index(), &item.ask, made).ok_or(Refused::NoCapacity)?;
    let allocation = Arc::new(build(book, item, site, made.len(), now));
    draft.rests_on(Key::Owner(item.owner.clone()));
    change_room(draft, &allocation.worker);
    if let Some(old) = old {
        end_replaced(book, old, &allocation.id, draft, now);
    }
    if let Some(request) = item.request.as_ref().filter(|_| book.is_shared()) {
        keep_call(request, &allocation.id, draft, now);
    }
    draft.put(Change::Allocation(Arc::clone(&allocation)));
    made.push(Arc::clone(&allocation));
    Ok(allocation)
}

/// Lets the same call, decided at another instance at this moment, conflict. The record is kept for as long
/// as the allocation.
fn keep_call(request: &Request, made: &Text, draft: &mut Draft, now: SystemTime) {
    let key = RequestKey {
        method: METHOD,
        principal: request.principal.clone(),
        id: request.id.clone(),
    };
    let spent = Spent {
        body: request.body,
        made: made.clone(),
        until: now + LIVING,
    };
    draft.put(Change::Spent(key, spent));
}

/// Whether a term may act: the one claimed last, or a later one.
pub(super) fn check_term(book: &Book, owner: &Text, term: &OwnerTerm) -> Result<(), Refused> {
    match book.fleet().owner(owner) {
        Some(claimed) if term < claimed => Err(Refused::StaleOwner {
            owner: owner.clone(),
            asked: term.to_string(),
            claimed: claimed.to_string(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// What the call made when it came first, if it is a repeated one.
fn replayed(
    book: &Book,
    request: &Request,
    made: &[Arc<Allocation>],
) -> Result<Option<Arc<Allocation>>, Refused> {
    let same = |one: &&Arc<Allocation>| {
        let other = one.request.as_ref();
        other.is_some_and(|other| other.id == request.id && other.principal == request.principal)
    };
    let known = book.fleet().made_by(&request.principal, &request.id);
    let known = known.or_else(|| made.iter().find(same));
    if let Some(known) = known {
        let body = known.request.as_ref().map(|request| request.body);
        let entry = book.fleet().worker(&known.worker);
        let revoked_through = entry.map_or(0, |entry| entry.worker.revoked_through);
        let is_held = known.is_held() && !known.is_revoked_through(revoked_through);
        return match (body == Some(request.body), is_held) {
            (false, _) => Err(Refused::RequestReused(request.id.clone())),
            (true, false) => Err(Refused::AlreadyReleased(request.id.clone())),
            (true, true) => Ok(Some(Arc::clone(known))),
        };
    }
    let key = RequestKey {
        method: METHOD,
        principal: request.principal.clone(),
        id: request.id.clone(),
    };
    match book.fleet().spent(&key) {
        Some(spent) if spent.body == request.body => {
            Err(Refused::AlreadyReleased(request.id.clone()))
        }
        Some(_) => Err(Refused::RequestReused(request.id.clone())),
        None => Ok(None),
    }
}

/// The allocation whose room is taken over, if it may be.
fn replaceable<'a>(
    book: &'a Book,
    id: &Text,
    item: &Item,
    made: &[Arc<Allocation>],
) -> Result<&'a Arc<Allocation>, Refused> {
    let fleet = book.fleet();
    let old = fleet
        .allocation(id)
        .ok_or_else(|| Refused::NoAllocation(id.clone()))?;
    if old.owner != item.owner {
        return Err(Refused::OtherOwner {
            id: id.clone(),
            owner: old.owner.clone(),
        });
    }
    let entry = fleet
        .worker(&old.worker)
        .ok_or_else(|| Refused::NoAllocation(id.clone()))?;
    if let Some(other) = item
        .ask
        .worker
        .as_ref()
        .filter(|asked| **asked != old.worker)
    {
        return Err(Refused::Unfit(format!(
            "allocation {id} is on worker {}; its room cannot be taken over on {other}",
            old.worker
        )));
    }
    let revoked = old.is_revoked_through(entry.worker.revoked_through);
    if revoked || matches!(old.life, Life::Revoked(_)) {
        return Err(Refused::Unfit(format!(
            "allocation {id} was revoked; its room cannot be taken over"
        )));
    }
    if entry.worker.is_lost() {
        return Err(Refused::WorkerLost(old.worker.clone()));
    }
    let mut others = entry.allocations().iter().chain(made);
    if let Some(other) = others.find(|other| other.replaces.as_ref() == Some(id)) {
        return Err(Refused::Unfit(format!(
            "the room of allocation {id} was taken over by {}",
            other.id
        )));
    }
    let waits_for = old
        .replaces
        .as_ref()
        .filter(|before| fleet.allocation(before).is_some());
    if let Some(before) = waits_for {
        return Err(Refused::Unfit(format!(
            "allocation {id} itself waits for {before} to end"
        )));
    }
    Ok(old)
}

/// The old allocation has to end now; if its agent has named it ended, it is gone at once.
fn end_replaced(
    book: &Book,
    old: &Arc<Allocation>,
    new: &Text,
    draft: &mut Draft,
    now: SystemTime,
) {
    if book.is_ended(&old.id) {
        free(draft, old, now);
    } else if old.is_held() {
        let end = End {
            at: now,
            reason: format!("replaced by {new}").into(),
        };
        draft.put(Change::Allocation(Arc::new(
            old.with_life(Life::Releasing(end)),
        )));
    }
}

fn build(book: &Book, item: &Item, site: Site, number: usize, now: SystemTime) -> Allocation {
    let generation = book
        .fleet()
        .worker(&site.worker)
        .map_or(0, |entry| entry.worker.generation);
    let revision = book.next_revision();
    // An id of before the book was read anew may be there.
    let mut ids = (number..).map(|number| allocation_id(book, number));
    let unused = ids.find(|id| book.fleet().allocation(id).is_none());
    let id = unused.unwrap_or_default();
    Allocation {
        id,
        worker: site.worker,
        generation,
        life: Life::Held,
        owner: item.owner.clone(),
        term: item.term.clone(),
        subject: item.subject.clone(),
        gpus: site.taken.gpus,
        amounts: item.ask.amounts(),
        host_ports: item.ask.host_ports.clone(),
        spread_key: item.ask.spread_key.clone(),
        fencing: FencingToken {
            epoch: book.epoch().clone(),
            revision,
        },
        replaces: item.ask.replaces.clone(),
        attributes: item.attributes.clone(),
        fails_if_forced: item.fails_if_forced,
        stop_grace: item.stop_grace,
        created: now,
        project: item.project.clone(),
        request: item.request.clone(),
    }
}

/// An id that no other allocation has, of this epoch or any other: its transaction, its place in it, and
/// the end of the epoch, by which [`is_of_epoch`] knows it.
fn allocation_id(book: &Book, number: usize) -> Text {
    let (revision, mark) = (book.next_revision(), book.mark());
    let epoch = epoch_mark(book.epoch());
    format!("a-{revision:011x}{number:x}{mark}-{epoch}").into()
}

/// Whether an allocation id was given in this epoch.
pub(super) fn is_of_epoch(id: &str, epoch: &str) -> bool {
    id.rsplit_once('-')
        .is_some_and(|(_, mark)| mark == epoch_mark(epoch))
}

fn epoch_mark(epoch: &str) -> &str {
    epoch.rsplit_once('-').map_or(epoch, |(_, suffix)| suffix)
}

/// Raises an owner's term. Answers the one before.
///
/// # Errors
/// `StaleOwner`.
pub fn claim_owner(
    book: &Book,
    owner: &Text,
    term: &OwnerTerm,
) -> Result<Decision<Option<OwnerTerm>>, Refused> {
    check_term(book, owner, term)?;
    let before = book.fleet().owner(owner).cloned();
    if before.as_ref() == Some(term) {
        return Ok(Decision::nothing(before));
    }
    let draft = Draft::of(Change::Owner(owner.clone(), term.clone()));
    Ok(Decision {
        draft,
        answer: before,
    })
}
