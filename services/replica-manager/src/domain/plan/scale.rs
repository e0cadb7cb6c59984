//! Follows the load. It decides how many are wanted, never which.

use super::draft::Draft;
use crate::domain::service::apply::Action;

pub(super) fn follow_load(draft: &mut Draft<'_>) {
    let Some(scaling) = draft.service.spec().scaling.clone() else {
        return;
    };
    // What was measured before says nothing of now; whoever measures again wakes us.
    let Some(measure) = draft.world.measure else {
        return;
    };
    let before = draft.service.header.autoscaler.clone();
    let after = before.judge(&scaling, draft.service.bounds(), measure, draft.now);
    if after != before {
        draft.act(Action::Scale(after));
    }
}
