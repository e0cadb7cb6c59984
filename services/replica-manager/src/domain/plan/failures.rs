//! What an attempt's failure means. Precedence: the update is rolled back, the class is `fail`, fail
//! fast, retry. What we did ourselves never gets here: it is no failure.

use super::draft::Draft;
use super::{Reason, places, update};
use crate::domain::failure::Class;
use crate::domain::failure::episode::Episode;
use crate::domain::replica::attempt::Attempt;
use crate::domain::replica::{Placing, Replica, Role, State, StopWhy};
use crate::domain::rollout::Edition;
use crate::domain::service::apply::Action;
use crate::domain::service::{Failure, FailureReason, Intent, Service};
use crate::domain::spec::defaults;
use crate::domain::time::Time;

pub(super) fn decide(draft: &mut Draft<'_>) {
    for ordinal in draft.which(|replica| matches!(replica.state, State::Ended)) {
        if draft.service.header.intent == Intent::Run {
            ended(draft, ordinal);
        }
    }
    for ordinal in draft.which(|replica| matches!(replica.state, State::Refused(_))) {
        if draft.service.header.intent == Intent::Run {
            refused(draft, ordinal);
        }
    }
}

fn ended(draft: &mut Draft<'_>, ordinal: u32) {
    let Some(replica) = draft.replica(ordinal) else {
        return;
    };
    let end = replica
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.end.as_ref());
    let class = end.and_then(|end| end.class).unwrap_or(Class::Error);
    if replica
        .attempt
        .as_ref()
        .is_some_and(Attempt::ended_before_restore)
    {
        let edition = replica.edition;
        draft.explain(Reason::EndedBeforeRestore { ordinal });
        draft.act(Action::Revive { ordinal, edition });
        return;
    }
    let on_trial = update::on_trial(&draft.service, replica);
    if class.blames_version() && (on_trial || update::taken_back(&draft.service, replica)) {
        // Of several that fail together the first has said it all.
        if on_trial {
            let id = draft.service.replica_id(ordinal);
            let why = format!("{id} {}", describe(replica));
            update::roll_back(draft, why);
        }
        draft.act(Action::Stop {
            ordinal,
            why: StopWhy::Rollback,
            at: draft.now,
        });
        return;
    }
    let policy = draft
        .service
        .spec()
        .retry
        .as_ref()
        .map(|retry| retry.limits(class));
    match policy {
        None if replica.role != Role::Member && !class.blames_version() => {
            // Losing the machine of a copy that has not yet taken anyone's place costs nobody anything.
            let edition = replica.edition;
            draft.explain(Reason::ExtraCopy { ordinal, class });
            draft.act(Action::Revive { ordinal, edition });
        }
        None if excused(&draft.service, replica) => retry(draft, ordinal, class),
        None => fail(draft, ordinal, class, FailureReason::ReplicaFailed),
        Some(limits) if limits.fail => fail(draft, ordinal, class, FailureReason::FailingClass),
        Some(_) => retry(draft, ordinal, class),
    }
}

/// A copy that stands for another, was never ready, and runs what is known to run well: it is tried again, as
/// if there were a policy with every default.
fn excused(service: &Service, replica: &Replica) -> bool {
    let extra = replica.role != Role::Member;
    let never_ready = replica.attempt.as_ref().is_some_and(|a| a.ready.is_none());
    let same = |edition: Edition| edition.same(&replica.edition);
    let proven = service.header.proven.is_some_and(same);
    let mut others = service.replicas.values();
    extra && never_ready && (proven || others.any(|r| r.ready() && same(r.edition)))
}

fn fail(draft: &mut Draft<'_>, ordinal: u32, class: Class, reason: FailureReason) {
    let Some(replica) = draft.replica(ordinal) else {
        return;
    };
    let id = draft.service.replica_id(ordinal);
    let message = format!("{id} {}", describe(replica));
    draft.explain(Reason::Fails {
        ordinal,
        class,
        no_retry: reason == FailureReason::ReplicaFailed,
    });
    draft.act(Action::Fail(Failure { reason, message }));
}

/// How the last attempt failed, with its last words: after the replica's name.
fn describe(replica: &Replica) -> String {
    let end = replica
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.end.as_ref());
    let Some(end) = end else {
        return "failed".to_owned();
    };
    let lines: Vec<&str> = end
        .last_log_lines
        .iter()
        .map(|line| line.trim_end())
        .collect();
    let last: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    let tail = last.len().saturating_sub(LAST_WORDS);
    if last.is_empty() {
        format!("failed: {end}")
    } else {
        format!(
            "failed: {end}; its last output: {}",
            last[tail..].join(" | ")
        )
    }
}

/// Log lines that fit into one sentence; the rest stands with the attempt.
const LAST_WORDS: usize = 3;

fn retry(draft: &mut Draft<'_>, ordinal: u32, class: Class) {
    let Some(replica) = draft.replica(ordinal) else {
        return;
    };
    if draft.has(Role::Move { of: ordinal }) {
        draft.act(Action::Stop {
            ordinal,
            why: StopWhy::Moved,
            at: draft.now,
        });
        return;
    }
    let Some(attempt) = &replica.attempt else {
        return;
    };
    let defaults = defaults::retry();
    let policy = draft.service.spec().retry.as_ref().unwrap_or(&defaults);
    let episode = episode_with(replica, class, draft.now);
    let id = draft.service.attempt_id(ordinal, attempt.number);
    let delay = episode.delay(policy, class, &id);
    let due = draft.now + delay;
    let soon = delay <= draft.world.terms.hold_within;
    let hold = soon && places::stays(draft, replica, &episode);
    let message = describe(replica);
    draft.explain(Reason::Retries {
        ordinal,
        class,
        due,
    });
    draft.act(Action::Wait {
        ordinal,
        class,
        due,
        counts: true,
        hold,
        message,
    });
}

fn refused(draft: &mut Draft<'_>, ordinal: u32) {
    let Some(replica) = draft.replica(ordinal) else {
        return;
    };
    let State::Refused(placing) = &replica.state else {
        return;
    };
    let placing = placing.clone();
    let limits = draft.service.spec().retry.as_ref();
    let limits = limits.map(|retry| retry.limits(Class::NoCapacity));
    let patient = limits.is_some_and(|limits| !limits.fail);
    let deadline = gives_up_at(draft, replica).filter(|_| !patient);
    if deadline.is_some_and(|at| at <= draft.now) {
        no_place(draft, ordinal, &placing);
        return;
    }
    let due = placing.ahead_of.filter(|due| *due > draft.now);
    let due = due.unwrap_or_else(|| ask_again_at(draft, replica));
    let due = deadline.map_or(due, |at| at.min(due));
    draft.explain(Reason::NoPlace { ordinal, due });
    draft.act(Action::Wait {
        ordinal,
        class: Class::NoCapacity,
        due,
        counts: placing.ahead_of.is_none(),
        hold: false,
        message: placing.refusal,
    });
}

/// When a service that fails fast gives up on a place: only one that was never up, and not for an extra
/// copy.
fn gives_up_at(draft: &Draft<'_>, replica: &Replica) -> Option<Time> {
    let never_up = !draft.service.header.reached.up;
    let since = replica.placeless?;
    let counts = never_up && replica.role == Role::Member;
    counts.then_some(since + draft.world.terms.place_within)
}

fn ask_again_at(draft: &Draft<'_>, replica: &Replica) -> Time {
    let Some(policy) = draft.service.spec().retry.as_ref() else {
        return draft.now + draft.world.terms.ask_again;
    };
    let episode = episode_with(replica, Class::NoCapacity, draft.now);
    let id = draft.service.attempt_id(replica.ordinal, replica.attempts);
    draft.now + episode.delay(policy, Class::NoCapacity, &id)
}

/// The replica's episode with one more failure.
fn episode_with(replica: &Replica, class: Class, now: Time) -> Episode {
    let Some(mut episode) = replica.episode.clone() else {
        return Episode::begin(class, now);
    };
    episode.add(class, now);
    episode
}

fn no_place(draft: &mut Draft<'_>, ordinal: u32, placing: &Placing) {
    let id = draft.service.replica_id(ordinal);
    let within = draft.world.terms.place_within.as_secs();
    draft.explain(Reason::Fails {
        ordinal,
        class: Class::NoCapacity,
        no_retry: draft.service.spec().retry.is_none(),
    });
    draft.act(Action::Fail(Failure {
        reason: FailureReason::NoCapacity,
        message: format!("{id} found no place within {within} s: {}", placing.refusal),
    }));
}
