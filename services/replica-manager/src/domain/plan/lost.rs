//! Attempts whose worker is gone, or was taken out of use by force. With `keep` one ends without its agent's
//! word at either; with `stop` only once it has certainly ended there: at the fence, or by the word of the
//! agent that is back. What is known of a worker from before an attempt was given room there says nothing of it.

use super::Reason;
use super::draft::Draft;
use crate::domain::replica::{Phase, Replica};
use crate::domain::service::apply::Action;
use crate::domain::spec::OnDisconnect;
use crate::domain::world::{Liveness, Worker, WorkerState};

pub(super) fn judge(draft: &mut Draft<'_>) {
    for ordinal in
        draft.which(|replica| !matches!(found(draft, replica), None | Some(Verdict::Stays)))
    {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let Some(name) = replica.worker().map(str::to_owned) else {
            continue;
        };
        let Some(verdict) = found(draft, replica) else {
            continue;
        };
        match verdict {
            Verdict::Stays => {}
            Verdict::Unreachable => {
                wait(
                    draft,
                    ordinal,
                    name,
                    Phase::Unreachable,
                    Action::Unreachable { ordinal },
                );
            }
            Verdict::Revoked => {
                wait(
                    draft,
                    ordinal,
                    name,
                    Phase::Revoked,
                    Action::Revoked { ordinal },
                );
            }
            Verdict::Gone(why) => {
                let message = format!("worker {name} {why}");
                if draft.act(Action::GiveUp { ordinal, message }) {
                    draft.explain(Reason::GivenUp {
                        ordinal,
                        worker: name,
                    });
                }
            }
        }
    }
}

/// What is to be thought of an attempt on a worker; `None` if it is on none.
fn found(draft: &Draft<'_>, replica: &Replica) -> Option<Verdict> {
    let worker = draft.world.worker(replica.worker()?);
    Some(match worker {
        Some(worker) => verdict(draft, replica, worker),
        None => absent(draft, replica),
    })
}

/// Until nothing of it can run on its worker any more; `becoming` puts it in `phase`.
fn wait(draft: &mut Draft<'_>, ordinal: u32, worker: String, phase: Phase, becoming: Action) {
    draft.explain(Reason::WaitsForFence { ordinal, worker });
    let known = draft
        .replica(ordinal)
        .and_then(|replica| replica.state.phase());
    if known != Some(phase) {
        draft.act(becoming);
    }
}

enum Verdict {
    Stays,
    Unreachable,
    Revoked,
    Gone(&'static str),
}

/// Only a worker that is empty is deleted, and, where it was lost, fenced.
fn absent(draft: &Draft<'_>, replica: &Replica) -> Verdict {
    let room = replica.attempt.as_ref().and_then(|a| a.allocation.as_ref());
    match room.is_some_and(|room| draft.world.deleted(room)) {
        true => Verdict::Gone("is deleted"),
        false => Verdict::Stays,
    }
}

fn verdict(draft: &Draft<'_>, replica: &Replica, worker: &Worker) -> Verdict {
    let room = replica.attempt.as_ref().and_then(|a| a.allocation.as_ref());
    let position = draft.world.position;
    if room.is_some_and(|room| position.precedes(&room.fencing_token)) {
        return Verdict::Stays;
    }
    let revoked = room.is_some_and(|room| room.generation <= worker.revoked_through);
    let taken = worker.state == WorkerState::Disabled || revoked;
    let spec = draft.service.spec_of(replica.edition.version);
    let waits = spec.on_disconnect == OnDisconnect::Stop && worker.may_run_on();
    match worker.liveness {
        _ if taken && waits => Verdict::Revoked,
        _ if worker.state == WorkerState::Disabled => {
            Verdict::Gone("was taken out of use by force")
        }
        _ if taken => Verdict::Gone("was taken out of use by force, or deleted, and is back"),
        Liveness::Unknown | Liveness::Alive | Liveness::Suspect => Verdict::Stays,
        Liveness::Left => Verdict::Gone("has left"),
        Liveness::Lost if waits => Verdict::Unreachable,
        Liveness::Lost if worker.fenced => Verdict::Gone("is lost, and fenced"),
        Liveness::Lost => Verdict::Gone("is lost"),
    }
}
