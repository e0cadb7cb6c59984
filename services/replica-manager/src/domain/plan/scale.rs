//! Follows the load. It decides how many are wanted, never which.

use super::draft::Draft;
use crate::domain::service::apply::Action;

pub(super) fn follow_load(draft: &mut Draft<'_>) {
    let Some(scaling) = draft.service.spec().scaling.clone() else {
        return;
    };
    let bounds = draft.service.bounds();
    let before = draft.service.header.autoscaler.clone();
    let measure = draft.world.measure.or(before.measure);
    let after = match measure {
        Some(measure) => before.judge(&scaling, bounds, measure, draft.now),
        None => before.clone(),
    };
    if let Some(due) = after.due(&scaling, bounds) {
        draft.wake(due);
    }
    if after != before {
        draft.act(Action::Scale(after));
    }
}
