//! Spares: while a member is in a long BACKOFF and `max` allows, another copy stands in for it, on
//! another worker, and goes once the member is back.

use super::Reason;
use super::draft::Draft;
use crate::domain::failure::Class;
use crate::domain::replica::{Replica, Role, State, StopWhy};
use crate::domain::service::apply::Action;
use crate::domain::service::count;

pub(super) fn keep(draft: &mut Draft<'_>) {
    stop_unneeded(draft);
    for ordinal in draft.which(|r| r.role == Role::Member && r.stop.is_none()) {
        let missed = draft
            .replica(ordinal)
            .is_some_and(|replica| missed(draft, replica));
        if !missed || draft.has(Role::Spare { of: ordinal }) {
            continue;
        }
        // Those of an update will be members.
        if staying(draft) >= draft.service.bounds().max {
            return;
        }
        if draft.copies() >= draft.service.most_copies() {
            return;
        }
        let Some(edition) = draft.replica(ordinal).map(|replica| replica.edition) else {
            continue;
        };
        draft.explain(Reason::Spare { ordinal });
        draft.act(Action::Create {
            role: Role::Spare { of: ordinal },
            edition,
        });
    }
}

/// Copies that stay, but for moves, which are beyond max by themselves.
fn staying(draft: &Draft<'_>) -> u32 {
    let replicas = draft.service.replicas.values();
    count(replicas.filter(|r| !matches!(r.role, Role::Move { .. }) && !r.leaving()))
}

/// In BACKOFF for long enough to be worth a stand-in. Where there is no room for it, there is none for a
/// spare either.
fn missed(draft: &Draft<'_>, replica: &Replica) -> bool {
    let State::Backoff(backoff) = &replica.state else {
        return false;
    };
    let long = backoff.due.since(replica.since) >= draft.world.terms.spare_after;
    long && backoff.class != Class::NoCapacity
}

fn stop_unneeded(draft: &mut Draft<'_>) {
    let min_ready = draft.service.spec().update.min_ready;
    for ordinal in draft.which(|r| matches!(r.role, Role::Spare { .. }) && !r.leaving()) {
        let of = draft.replica(ordinal).and_then(|replica| replica.role.of());
        let Some(since) = of
            .and_then(|of| draft.replica(of))
            .and_then(Replica::ready_since)
        else {
            continue;
        };
        let until = since + min_ready;
        if until > draft.now {
            draft.explain(Reason::WaitsMinReady { ordinal, until });
            draft.wake(until);
        } else if draft
            .replica(ordinal)
            .is_some_and(|spare| draft.spares(spare))
        {
            let why = StopWhy::SpareNotNeeded;
            draft.explain(Reason::Stops { ordinal, why });
            draft.stop(ordinal, why);
        }
    }
}
