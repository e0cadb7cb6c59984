//! What time alone proves: an episode of failures is over, an edition works, a first start took too long.
//! And what it cannot prove: a clock that was set back makes no wait longer, and stretches no limit.

use std::time::Duration;

use super::draft::Draft;
use crate::domain::replica::Replica;
use crate::domain::service::apply::Action;
use crate::domain::spec::defaults;
use crate::domain::status;

/// How far clocks of instances may be apart without anyone having set one back.
const APART: Duration = Duration::from_secs(1);

/// A change in place is of every replica that need not be replaced for it.
pub(super) fn renumber(draft: &mut Draft<'_>) {
    let edition = draft.service.header.edition;
    let behind = |replica: &Replica| {
        replica.edition.same(&edition) && replica.edition.version != edition.version
    };
    for ordinal in draft.which(behind) {
        let version = edition.version;
        draft.act(Action::Renumber { ordinal, version });
    }
}

pub(super) fn note(draft: &mut Draft<'_>) {
    let latest = draft.now + APART;
    if draft.service.header.counts_from() > latest {
        draft.act(Action::SetBackService);
    }
    for ordinal in draft.which(|replica| replica.counts_from() > latest) {
        draft.act(Action::SetBack { ordinal });
    }
    let spec = draft.service.spec();
    let min_ready = spec.update.min_ready;
    let stable = spec
        .retry
        .as_ref()
        .map_or(defaults::retry().stable, |r| r.stable);
    // Of thousands that have been ready for long, nothing is to be noted.
    let settled = |replica: &Replica| {
        let proven = draft.service.header.proven;
        let proven = proven.is_some_and(|proven| proven.same(&replica.edition));
        !replica.first_start && (!replica.ready() || proven && replica.episode.is_none())
    };
    for ordinal in draft.which(|replica| !settled(replica)) {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        if let Some(deadline) = status::start_deadline(&draft.service, replica)
            && deadline > draft.now
        {
            draft.wake(deadline);
        }
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let Some(since) = replica.ready_since() else {
            continue;
        };
        let (edition, troubled) = (replica.edition, replica.episode.is_some());
        let proven = draft.service.header.proven;
        if proven.is_none_or(|proven| !proven.same(&edition)) {
            let aimed_at = edition.same(&draft.service.aim());
            if since + min_ready > draft.now {
                draft.wake(since + min_ready);
            } else if aimed_at {
                draft.act(Action::Prove { edition });
            }
        }
        if troubled {
            if since + stable <= draft.now {
                draft.act(Action::Settle { ordinal });
            } else {
                draft.wake(since + stable);
            }
        }
    }
}
