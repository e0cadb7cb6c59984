//! Moves off draining workers: a new replica stands for each, and the old one is stopped only after the
//! new one has been ready for `min_ready`.

use std::collections::{BTreeMap, BTreeSet};

use super::Reason;
use super::draft::Draft;
use crate::domain::replica::{Replica, Role, StopWhy};
use crate::domain::rollout::Stage;
use crate::domain::service::Service;
use crate::domain::service::apply::Action;

pub(super) fn pace(draft: &mut Draft<'_>) {
    finish(draft);
    leave_draining(draft);
    begin(draft);
}

/// Moves under way: those whose replacement is ready are completed, those not needed any more undone.
fn finish(draft: &mut Draft<'_>) {
    for ordinal in draft.which(|r| matches!(r.role, Role::Move { .. }) && !r.leaving()) {
        let Some(of) = draft.replica(ordinal).and_then(|replica| replica.role.of()) else {
            continue;
        };
        let (Some(new), Some(old)) = (draft.replica(ordinal), draft.replica(of)) else {
            continue;
        };
        if old.leaving() {
            continue;
        }
        let needed = draining(draft, old) && !replaced_by_update(&draft.service, old);
        if !needed && !new.ready() {
            draft.explain(Reason::Stops {
                ordinal,
                why: StopWhy::MoveUndone,
            });
            draft.stop(ordinal, StopWhy::MoveUndone);
            continue;
        }
        let Some(since) = new.ready_since() else {
            continue;
        };
        let role = old.role;
        let until = since + draft.service.spec().update.min_ready;
        if until > draft.now {
            draft.explain(Reason::WaitsMinReady { ordinal, until });
            draft.wake(until);
        } else if draft.spares(old) {
            draft.explain(Reason::Stops {
                ordinal: of,
                why: StopWhy::Moved,
            });
            if draft.stop(of, StopWhy::Moved) {
                draft.act(Action::Promote { ordinal, role });
            }
        } else {
            let (ready, floor) = (draft.ready(), draft.service.floor());
            draft.explain(Reason::KeepsReady {
                ordinal: of,
                ready,
                floor,
            });
        }
    }
}

/// Extra copies that came upon a draining worker and serve nobody yet are made anew elsewhere.
fn leave_draining(draft: &mut Draft<'_>) {
    for ordinal in draft.which(|r| r.role != Role::Member && !r.leaving() && !r.ready()) {
        if draft.replica(ordinal).is_some_and(|r| draining(draft, r)) {
            draft.stop(ordinal, StopWhy::MoveUndone);
        }
    }
}

fn begin(draft: &mut Draft<'_>) {
    let begun = begun(&draft.service);
    let mut unfinished = unfinished(&draft.service);
    // A move may be beside all others, but not beside what is above that still.
    let mut most = draft.service.most_copies() + 1;
    for ordinal in draft.which(|r| moves(r) && r.stop.is_none()) {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let Some(worker) = replica.worker().map(str::to_owned) else {
            continue;
        };
        let Some(drain) = draft.world.draining(&worker) else {
            continue;
        };
        if begun.contains(&ordinal) {
            continue;
        }
        if replaced_by_update(&draft.service, replica) {
            draft.explain(Reason::UpdateMoves { ordinal });
            continue;
        }
        let elsewhere = draft.world.moves_elsewhere.get(&worker).copied();
        let here = unfinished.get(&worker).copied();
        if elsewhere.unwrap_or(0) + here.unwrap_or(0) >= drain.max_parallel {
            draft.explain(Reason::MoveWaits { ordinal, worker });
            continue;
        }
        let edition = replica.edition;
        let copies = draft.copies();
        if copies >= most {
            draft.explain(Reason::TooManyCopies { copies, most });
            continue;
        }
        let role = Role::Move { of: ordinal };
        if draft.act(Action::Create { role, edition }) {
            *unfinished.entry(worker).or_default() += 1;
            most += 1;
        }
    }
}

/// Whether another is put in its place first. An update's copies are members before long, and those that serve
/// nobody yet are made anew.
fn moves(replica: &Replica) -> bool {
    match replica.role {
        Role::Member => true,
        Role::Spare { .. } => replica.ready(),
        Role::Surge { .. } | Role::Move { .. } => false,
    }
}

/// Whom a move stands for, also one that is on its way out: it is a copy still.
fn begun(service: &Service) -> BTreeSet<u32> {
    let replicas = service.replicas.values();
    replicas.filter_map(|replica| moved_by(replica)).collect()
}

/// Whom it stands for, if it is a move.
fn moved_by(replica: &Replica) -> Option<u32> {
    match replica.role {
        Role::Move { of } => Some(of),
        Role::Member | Role::Spare { .. } | Role::Surge { .. } => None,
    }
}

/// An update that is under way takes it off the worker by itself.
fn replaced_by_update(service: &Service, replica: &Replica) -> bool {
    let rollout = service.header.rollout.as_ref();
    let replacing = rollout.is_some_and(|r| matches!(r.stage, Stage::Running | Stage::RollingBack));
    replacing && !replica.edition.same(&service.aim())
}

fn draining(draft: &Draft<'_>, replica: &Replica) -> bool {
    replica
        .worker()
        .is_some_and(|worker| draft.world.draining(worker).is_some())
}

/// Moves that are not finished, by the worker that they are off: the old replica is still there.
#[must_use]
pub fn unfinished(service: &Service) -> BTreeMap<String, u32> {
    let staying = service.replicas.values().filter(|r| !r.leaving());
    let moved: BTreeSet<u32> = staying.filter_map(|r| moved_by(r)).collect();
    let mut by_worker = BTreeMap::new();
    for replica in service.replicas.values() {
        let going = replica.stop.is_some_and(|stop| stop.why == StopWhy::Moved);
        if (going || moved.contains(&replica.ordinal))
            && let Some(worker) = replica.worker()
        {
            *by_worker.entry(worker.to_owned()).or_default() += 1;
        }
    }
    by_worker
}
