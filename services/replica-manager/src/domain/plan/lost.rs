//! Attempts whose worker is gone. One ends without its agent's word only at LOST (`keep`), at the fence
//! (`stop`), or when its worker was taken out of use by force.

use super::Reason;
use super::draft::Draft;
use crate::domain::replica::{Phase, Replica};
use crate::domain::service::apply::Action;
use crate::domain::spec::OnDisconnect;
use crate::domain::world::{Liveness, Worker, WorkerState};

pub(super) fn judge(draft: &mut Draft<'_>) {
    for ordinal in draft.which(|replica| replica.worker().is_some()) {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let Some(name) = replica.worker().map(str::to_owned) else {
            continue;
        };
        let Some(worker) = draft.world.worker(&name) else {
            // Absence says nothing: the registry may be restored from a backup.
            continue;
        };
        let known = replica.state.phase();
        match verdict(draft, replica, worker) {
            Verdict::Stays => {}
            Verdict::Unreachable => {
                draft.explain(Reason::WaitsForFence {
                    ordinal,
                    worker: name,
                });
                if known != Some(Phase::Unreachable) {
                    draft.act(Action::Unreachable { ordinal });
                }
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

enum Verdict {
    Stays,
    Unreachable,
    Gone(&'static str),
}

fn verdict(draft: &Draft<'_>, replica: &Replica, worker: &Worker) -> Verdict {
    let room = replica.attempt.as_ref().and_then(|a| a.allocation.as_ref());
    let revoked = room.is_some_and(|room| room.generation <= worker.revoked_through);
    if worker.state == WorkerState::Disabled || revoked {
        return Verdict::Gone("was taken out of use by force");
    }
    match worker.liveness {
        Liveness::Unknown | Liveness::Alive | Liveness::Suspect => Verdict::Stays,
        Liveness::Left => Verdict::Gone("has left"),
        Liveness::Lost => {
            let spec = draft.service.spec_of(replica.edition.version);
            match spec.on_disconnect {
                OnDisconnect::Keep => Verdict::Gone("is lost"),
                OnDisconnect::Stop if worker.fenced => Verdict::Gone("is lost, and fenced"),
                OnDisconnect::Stop => Verdict::Unreachable,
            }
        }
    }
}
