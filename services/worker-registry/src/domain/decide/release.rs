//! Giving room back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::allocate::check_term;
use super::{Decision, Refused, change_room, disable_if_emptied, free};
use crate::domain::allocation::{Allocation, End, Life, OwnerTerm};
use crate::domain::book::Book;
use crate::domain::fleet::{Change, Draft, Key};
use crate::domain::text::Text;

/// Gives an allocation back for its owner. Answers it as it is then; none if it is gone.
///
/// # Errors
/// `StaleOwner`, `OtherOwner`.
pub fn release(
    book: &Book,
    id: &Text,
    owner: &Text,
    term: &OwnerTerm,
    grace: Option<Duration>,
    reason: &Text,
    now: SystemTime,
) -> Result<Decision<Option<Arc<Allocation>>>, Refused> {
    check_term(book, owner, term)?;
    let Some(allocation) = book.fleet().allocation(id) else {
        return Ok(Decision::nothing(None));
    };
    if allocation.owner != *owner {
        let owner = allocation.owner.clone();
        return Err(Refused::OtherOwner {
            id: id.clone(),
            owner,
        });
    }
    let Some(entry) = book.fleet().worker(&allocation.worker) else {
        return Ok(Decision::nothing(None));
    };
    let taken = allocation.is_revoked_through(entry.worker.revoked_through);
    if !allocation.is_held() && !taken {
        return Ok(Decision::nothing(Some(Arc::clone(allocation))));
    }
    let mut draft = Draft::new();
    draft.rests_on(Key::Owner(owner.clone()));
    change_room(&mut draft, &allocation.worker);
    if taken || book.is_ended(id) {
        free(&mut draft, allocation, now);
        disable_if_emptied(&mut draft, entry, usize::from(!taken), now);
        return Ok(Decision {
            draft,
            answer: None,
        });
    }
    let end = End {
        at: now,
        reason: reason.clone(),
    };
    let mut ending = allocation.with_life(match entry.worker.is_lost() {
        true => Life::Revoked(end),
        false => Life::Releasing(end),
    });
    ending.stop_grace = grace.unwrap_or(allocation.stop_grace);
    let ending = Arc::new(ending);
    draft.put(Change::Allocation(Arc::clone(&ending)));
    Ok(Decision {
        draft,
        answer: Some(ending),
    })
}

/// Whether an owner may say how far it is with moving off a worker.
///
/// # Errors
/// `StaleOwner`, `NoWorker`; `Unfit` if the worker is not draining.
pub fn may_report(
    book: &Book,
    owner: &Text,
    term: &OwnerTerm,
    worker: &Text,
) -> Result<(), Refused> {
    check_term(book, owner, term)?;
    let entry = super::worker(book, worker)?;
    match entry.worker.running_drain() {
        Some(_) => Ok(()),
        None => Err(Refused::Unfit(format!(
            "worker {worker} is {}, not draining",
            entry.worker.state
        ))),
    }
}
