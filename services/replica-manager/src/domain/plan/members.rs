//! As many members as are wanted: creates, revives, promotes and scales down.

use std::cmp::Reverse;

use super::Reason;
use super::draft::Draft;
use crate::domain::replica::{Replica, Role, State, StopWhy};
use crate::domain::rollout::Rollout;
use crate::domain::service::apply::Action;
use crate::domain::service::count;

pub(super) fn keep(draft: &mut Draft<'_>) {
    promote(draft);
    let wanted = draft.service.wanted();
    if draft.members() > wanted {
        stop_some(draft, draft.members() - wanted);
    }
    if draft.members() < wanted {
        create(draft, wanted - draft.members());
    }
}

/// Extra copies take the places that are free; those whose replica is gone and that are not needed go.
fn promote(draft: &mut Draft<'_>) {
    let aim = draft.service.aim();
    let rollout = draft.service.header.rollout.as_ref();
    let updating = rollout.is_some_and(Rollout::active);
    let full = crowded(draft);
    let mut extra: Vec<(bool, u32)> = Vec::new();
    for replica in draft.service.replicas.values() {
        let gone = is_gone(draft, replica, updating);
        let candidate = match replica.role {
            Role::Member => false,
            Role::Surge { .. } => gone || replica.edition.same(&aim),
            Role::Spare { .. } => gone || full,
            Role::Move { .. } => gone,
        };
        if candidate && !replica.leaving() {
            extra.push((!replica.ready(), replica.ordinal));
        }
    }
    extra.sort_unstable();
    for (_, ordinal) in extra {
        let short = draft.members() < draft.service.wanted();
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let gone = is_gone(draft, replica, updating);
        let beyond = matches!(replica.role, Role::Spare { .. }) && crowded(draft);
        if short {
            become_member(draft, ordinal);
        } else if gone || (beyond && draft.spares(replica)) {
            stop_if_spared(draft, ordinal, StopWhy::SpareNotNeeded);
        } else if beyond {
            // It serves, and one of the members does not: that one goes instead.
            become_member(draft, ordinal);
        }
    }
}

fn become_member(draft: &mut Draft<'_>, ordinal: u32) {
    let role = Role::Member;
    draft.act(Action::Promote { ordinal, role });
}

/// Whether there would be more than `max` with the spares beside all that are wanted.
fn crowded(draft: &Draft<'_>) -> bool {
    let service = &draft.service;
    let spares = service.replicas.values();
    let spares = count(spares.filter(|r| matches!(r.role, Role::Spare { .. }) && !r.leaving()));
    spares > 0 && service.wanted() + spares > service.bounds().max
}

/// Whether what it stands for is gone: a replica, or the update.
fn is_gone(draft: &Draft<'_>, replica: &Replica, updating: bool) -> bool {
    let ended = matches!(replica.role, Role::Surge { .. }) && !updating;
    ended || replica.role.of().is_some_and(|of| draft.gone(of))
}

/// Members that were stopped with the service, or restarted, come back, and so do those that gave up before the
/// service was started again or changed.
pub(super) fn revive(draft: &mut Draft<'_>) {
    let edition = draft.service.aim();
    let tried_anew = draft.service.header.tried_anew;
    let most = draft.service.most_copies();
    let stopped = |replica: &Replica| replica.stop.is_some_and(|stop| !stop.why.removes());
    let gave_up = |replica: &Replica| {
        let failed = matches!(replica.state, State::Failed { .. }) && replica.stop.is_none();
        failed && tried_anew.is_some_and(|at| replica.since <= at)
    };
    for ordinal in draft.which(|replica| stopped(replica) || gave_up(replica)) {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        if replica.state != State::Stopped && !matches!(replica.state, State::Failed { .. }) {
            continue;
        }
        let member = replica.role == Role::Member;
        let copies = draft.copies();
        if member && copies >= most {
            draft.explain(Reason::TooManyCopies { copies, most });
        } else if member {
            draft.act(Action::Revive { ordinal, edition });
        } else {
            draft.stop(ordinal, StopWhy::ScaleDown);
        }
    }
}

/// Stops so many members, those first that are missed least, until one has to wait.
fn stop_some(draft: &mut Draft<'_>, surplus: u32) {
    let aim = draft.service.aim();
    let rank = |replica: &Replica| {
        let of = replica.ordinal;
        let attended = [Role::Surge { of }, Role::Move { of }];
        let attended = attended.into_iter().any(|role| draft.has(role));
        let draining = replica
            .worker()
            .is_some_and(|w| draft.world.draining(w).is_some());
        (
            replica.ready(),
            replica.live(),
            replica.edition.same(&aim),
            attended,
            !draining,
            Reverse(of),
        )
    };
    let mut ranked: Vec<_> = draft.service.members().map(rank).collect();
    ranked.sort_unstable();
    let missed_least = ranked
        .into_iter()
        .take(usize::try_from(surplus).unwrap_or(usize::MAX));
    for (.., Reverse(ordinal)) in missed_least {
        if !stop_if_spared(draft, ordinal, StopWhy::ScaleDown) {
            return;
        }
    }
}

fn stop_if_spared(draft: &mut Draft<'_>, ordinal: u32, why: StopWhy) -> bool {
    let Some(replica) = draft.replica(ordinal) else {
        return false;
    };
    if draft.spares(replica) {
        draft.explain(Reason::Stops { ordinal, why });
        return draft.stop(ordinal, why);
    }
    let (ready, floor) = (draft.ready(), draft.service.floor());
    draft.explain(Reason::KeepsReady {
        ordinal,
        ready,
        floor,
    });
    false
}

fn create(draft: &mut Draft<'_>, missing: u32) {
    let edition = draft.service.aim();
    let most = draft.service.most_copies();
    for _ in 0..missing {
        let copies = draft.copies();
        if copies >= most {
            draft.explain(Reason::TooManyCopies { copies, most });
            return;
        }
        let role = Role::Member;
        if !draft.act(Action::Create { role, edition }) {
            return;
        }
    }
}
