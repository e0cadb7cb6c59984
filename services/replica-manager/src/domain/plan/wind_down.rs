//! A service that is not meant to run: every replica is stopped, and of one that is being deleted nothing
//! is kept.

use super::draft::Draft;
use crate::domain::replica::{Replica, Role, State, StopWhy};
use crate::domain::service::Intent;
use crate::domain::service::apply::Action;

pub(super) fn stop_all(draft: &mut Draft<'_>) {
    let why = match draft.service.header.intent {
        Intent::Run => return,
        Intent::Stop => StopWhy::ServiceStopped,
        Intent::Failed => StopWhy::ServiceFailed,
        Intent::Delete => StopWhy::ServiceDeleted,
    };
    for ordinal in draft.which(|replica| !settled(replica, why)) {
        let extra = draft
            .replica(ordinal)
            .is_some_and(|r| r.role != Role::Member);
        // Only members are kept for a later start.
        let why = if extra { StopWhy::ScaleDown } else { why };
        let at = draft.now;
        draft.act(Action::Stop { ordinal, why, at });
    }
}

/// Whether it is being stopped, or at rest, as the service's intent asks.
fn settled(replica: &Replica, why: StopWhy) -> bool {
    let Some(stop) = replica.stop else {
        // A replica that gave up shows why; it holds nothing.
        let kept = matches!(replica.state, State::Failed { .. }) && replica.role == Role::Member;
        return kept && !why.removes();
    };
    let far_enough =
        stop.why.removes() || stop.why == why || !why.removes() && stop.why != StopWhy::Restart;
    let told = stop.told || !replica.live();
    far_enough && told
}
