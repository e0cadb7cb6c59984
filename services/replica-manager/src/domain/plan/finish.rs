//! What follows from all other decisions: agents are told, what is gone is forgotten, and the status
//! says how it is.

use super::draft::Draft;
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::service::Intent;
use crate::domain::service::apply::Action;
use crate::domain::status;

/// Tells agents once the endpoints are left, and forgets what has stopped for good.
pub(super) fn tell_and_remove(draft: &mut Draft<'_>) {
    for ordinal in draft.which(|replica| replica.stop.is_some() && replica.live()) {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let Some(stop) = replica.stop.filter(|stop| !stop.told) else {
            continue;
        };
        let serves = replica.state == State::Running(Phase::Ready);
        // No stop is put off for longer, unless the clock was set back since.
        let passed = stop.at <= draft.now || stop.at > draft.now + draft.world.terms.leave_first;
        if passed || !serves {
            draft.act(Action::Tell { ordinal });
        } else {
            draft.wake(stop.at);
        }
    }
    let winding_down = draft.service.header.intent != Intent::Run;
    for ordinal in draft.which(|replica| finished(replica, winding_down)) {
        draft.act(Action::Remove { ordinal });
    }
}

/// Nothing of it is left, and nobody asks for it.
fn finished(replica: &Replica, winding_down: bool) -> bool {
    let extra = winding_down && replica.role != Role::Member;
    let unwanted = replica.leaving() || extra;
    unwanted && replica.state == State::Stopped && replica.releases.is_empty()
}

/// Shows how the service is, if that is another way than before; forgets it if nothing is left of it.
pub(super) fn show(draft: &mut Draft<'_>) {
    if draft.service.header.intent == Intent::Delete && draft.service.replicas.is_empty() {
        draft.act(Action::Delete);
        return;
    }
    let reached = status::reached(&draft.service, draft.now);
    let status = status::status(&draft.service, reached, draft.now);
    let header = &draft.service.header;
    if status != header.status || reached != header.reached {
        draft.act(Action::Show { status, reached });
    }
}
