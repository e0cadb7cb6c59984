//! Asks for room: for what is new, for retries that are due, and ahead of time when room may have come
//! free. Limits are checked here, when a retry is due, and nowhere else: an attempt that runs is never
//! ended by them.

use super::draft::Draft;
use super::{Reason, places};
use crate::domain::failure::Class;
use crate::domain::failure::episode::Exceeded;
use crate::domain::failure::policy::Exhausted;
use crate::domain::replica::{Backoff, Replica, Role, State};
use crate::domain::service::apply::Action;
use crate::domain::service::{Failure, FailureReason, Intent};
use crate::domain::time::Time;

/// What was waited for when the policy changed is waited for as it says now.
pub(super) fn wait_anew(draft: &mut Draft<'_>) {
    let Some(changed) = draft.service.header.waits_anew else {
        return;
    };
    for ordinal in draft.which(|replica| replica.since <= changed) {
        if let Some(due) = draft.replica(ordinal).and_then(|r| due_anew(draft, r)) {
            draft.act(Action::Retime { ordinal, due });
        }
    }
}

/// When its retry is due by the policy, if that is another time than it waits for.
fn due_anew(draft: &Draft<'_>, replica: &Replica) -> Option<Time> {
    let retry = draft.service.spec().retry.as_ref()?;
    let wait = replica.state.backoff()?;
    let episode = replica.episode.as_ref()?;
    let id = draft.service.attempt_id(replica.ordinal, replica.attempts);
    let due = replica.since + episode.delay(retry, wait.class, &id);
    (due != wait.due).then_some(due)
}

/// Gives up on replicas whose retry is due and not allowed any more.
pub(super) fn check_limits(draft: &mut Draft<'_>) {
    let waits = |replica: &Replica| replica.stop.is_none() && replica.state.backoff().is_some();
    for ordinal in draft.which(waits) {
        if draft.service.header.intent != Intent::Run {
            // One of those before was the last straw.
            return;
        }
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        let State::Backoff(backoff) = &replica.state else {
            continue;
        };
        let (class, due) = (backoff.class, backoff.due);
        if due <= draft.now
            && let Some(limit) = exceeded(draft, replica, due)
        {
            exhaust(draft, ordinal, class, limit);
        }
    }
}

/// Asks for room for every replica whose time has come.
pub(super) fn place_due(draft: &mut Draft<'_>) {
    if draft.service.header.intent != Intent::Run {
        return;
    }
    let waits = |replica: &Replica| {
        let due_some_time = matches!(replica.state, State::Pending { .. } | State::Backoff(_));
        replica.stop.is_none() && due_some_time
    };
    for ordinal in draft.which(waits) {
        let Some(replica) = draft.replica(ordinal) else {
            continue;
        };
        match &replica.state {
            State::Pending { .. } => place(draft, ordinal),
            State::Backoff(backoff) if asks_now(draft, backoff) => place(draft, ordinal),
            State::Backoff(backoff) => {
                let due = backoff.due;
                draft.wake(due);
            }
            State::Placing(_)
            | State::Refused(_)
            | State::Running(_)
            | State::Ended
            | State::Stopped
            | State::Failed { .. } => {}
        }
    }
}

/// Whether its time has come, or room may have come free that it waits for.
fn asks_now(draft: &Draft<'_>, backoff: &Backoff) -> bool {
    let room = backoff.room_seen != draft.world.room;
    backoff.due <= draft.now || (backoff.class == Class::NoCapacity && room)
}

/// Which limit forbids the retry that was due then, though nobody may have planned at the time. An extra copy
/// waits for room as long as it is wanted.
fn exceeded(draft: &Draft<'_>, replica: &Replica, due: Time) -> Option<Exceeded> {
    let retry = draft.service.spec().retry.as_ref()?;
    let episode = replica.episode.as_ref()?;
    // So does one more of a service that is up, where giving up on it would end all; and one of an update,
    // which is only paused by that.
    let header = &draft.service.header;
    let one_more = header.reached.up && retry.exhausted == Exhausted::Service;
    let rollout = header.rollout.as_ref().filter(|rollout| rollout.forward());
    let new = rollout.is_some_and(|rollout| rollout.target.same(&replica.edition));
    let patient = replica.first_start && (one_more || new);
    let extra = replica.role != Role::Member || patient;
    if extra && episode.last == Class::NoCapacity {
        return None;
    }
    episode.exceeded(retry, due)
}

fn place(draft: &mut Draft<'_>, ordinal: u32) {
    let Some(replica) = draft.replica(ordinal) else {
        return;
    };
    let (choices, skipped) = places::choices(draft, replica);
    if draft.act(Action::Place { ordinal, choices }) {
        skipped.into_iter().for_each(|reason| draft.explain(reason));
    }
}

fn exhaust(draft: &mut Draft<'_>, ordinal: u32, class: Class, exceeded: Exceeded) {
    let done = draft.act(Action::Exhaust {
        ordinal,
        class,
        exceeded,
    });
    if !done {
        return;
    }
    let reason = Reason::Exhausted {
        ordinal,
        class,
        exceeded,
    };
    let policy = draft.service.spec().retry.as_ref();
    let whole = policy.is_some_and(|retry| retry.exhausted == Exhausted::Service);
    let member = draft
        .replica(ordinal)
        .is_some_and(|r| r.role == Role::Member);
    let words = format!("{} {reason}", draft.service.replica_id(ordinal));
    draft.explain(reason);
    if (whole && member) || nothing_left(draft) {
        draft.act(Action::Fail(Failure {
            reason: FailureReason::RetriesExhausted,
            message: words,
        }));
    }
}

/// Every wanted replica has failed, and nothing else may serve.
fn nothing_left(draft: &Draft<'_>) -> bool {
    let given_up =
        |replica: &std::sync::Arc<Replica>| matches!(replica.state, State::Failed { .. });
    let service = &draft.service;
    let mut staying = service
        .replicas
        .values()
        .filter(|replica| !replica.leaving());
    service.wanted() > 0 && staying.all(given_up)
}
