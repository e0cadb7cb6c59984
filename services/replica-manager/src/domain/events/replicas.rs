//! What happens to single replicas.

use super::{Happening, Severity, about};
use crate::domain::failure::Class;
use crate::domain::replica::attempt::Attempt;
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::service::Service;

pub(super) fn tell(
    service: &Service,
    before: Option<&Replica>,
    after: &Replica,
    told: &mut Vec<Happening>,
) {
    let id = Some(after.ordinal);
    let Some(before) = before else {
        told.push(about(
            id,
            "ReplicaCreated",
            Severity::Info,
            why_created(service, after),
        ));
        return;
    };
    ended(before, after, told);
    if before.role != after.role && after.role == Role::Member {
        told.push(about(
            id,
            "ReplicaPromoted",
            Severity::Info,
            "is one of the wanted number now",
        ));
    }
    if before.stop.is_none()
        && let Some(stop) = after.stop
    {
        let event = about(id, "ReplicaStopping", Severity::Info, stop.why.to_string());
        told.push(event);
    }
    let newly_placed = after.worker().is_some() && attempt_number(before) != attempt_number(after)
        || before.worker().is_none() && after.worker().is_some();
    if newly_placed {
        placed(after, told);
    }
    if before.state != after.state {
        state(before, after, told);
    }
}

pub(super) fn tell_removed(service: &Service, replica: &Replica, told: &mut Vec<Happening>) {
    let words = replica
        .stop
        .map_or_else(String::new, |stop| stop.why.to_string());
    let moved = service.replica_id(replica.ordinal);
    let event = about(
        Some(replica.ordinal),
        "ReplicaRemoved",
        Severity::Info,
        words,
    );
    told.push(event.with("replica", &moved));
}

fn attempt_number(replica: &Replica) -> u32 {
    replica.attempt.as_ref().map_or(0, |attempt| attempt.number)
}

fn why_created(service: &Service, replica: &Replica) -> String {
    match replica.role {
        Role::Member => "it is wanted".to_owned(),
        Role::Spare { of } => format!("stands in for {}", service.replica_id(of)),
        Role::Surge { of } => format!(
            "of version {}, is to replace {}",
            replica.edition.version,
            service.replica_id(of)
        ),
        Role::Move { of } => {
            format!(
                "is to replace {} on a draining worker",
                service.replica_id(of)
            )
        }
    }
}

fn ended(before: &Replica, after: &Replica, told: &mut Vec<Happening>) {
    let ended = |attempt: &Attempt| attempt.end.is_some();
    let known = |number| {
        let attempts = [before.attempt.as_ref(), before.previous.as_ref()];
        attempts
            .into_iter()
            .flatten()
            .any(|a| a.number == number && ended(a))
    };
    let attempts = [after.previous.as_ref(), after.attempt.as_ref()];
    for attempt in attempts.into_iter().flatten() {
        let Some(end) = attempt.end.as_ref().filter(|_| !known(attempt.number)) else {
            continue;
        };
        let event = match end.class {
            Some(class) => {
                let event = about(
                    Some(after.ordinal),
                    "ReplicaFailed",
                    Severity::Warning,
                    end.to_string(),
                );
                event.with("class", &class)
            }
            None => about(
                Some(after.ordinal),
                "ReplicaStopped",
                Severity::Info,
                end.to_string(),
            ),
        };
        let worker = attempt
            .allocation
            .as_ref()
            .map_or("", |room| room.worker.as_str());
        let mut event = event
            .with("attempt", &attempt.number)
            .with("worker", &worker);
        if let Some(code) = end.exit.and_then(|exit| exit.code) {
            event = event.with("exit_code", &code);
        }
        if let Some(line) = end.last_log_lines.last() {
            event = event.with("last_log_line", &line);
        }
        told.push(event);
    }
}

fn placed(after: &Replica, told: &mut Vec<Happening>) {
    let Some(attempt) = &after.attempt else {
        return;
    };
    let Some(room) = &attempt.allocation else {
        return;
    };
    let message = format!("on {}, attempt {}", room.worker, attempt.number);
    let event = about(
        Some(after.ordinal),
        "ReplicaPlaced",
        Severity::Info,
        message,
    );
    told.push(
        event
            .with("worker", &room.worker)
            .with("attempt", &attempt.number),
    );
}

fn state(before: &Replica, after: &Replica, told: &mut Vec<Happening>) {
    let id = Some(after.ordinal);
    match &after.state {
        State::Running(Phase::Ready) => {
            told.push(about(id, "ReplicaReady", Severity::Info, "gets traffic"));
        }
        // One that is stopped gets no traffic, whatever its probe says.
        State::Running(Phase::Unready) if after.stop.is_none() => {
            let message = "its readiness probe fails";
            told.push(about(id, "ReplicaUnready", Severity::Warning, message));
        }
        State::Running(Phase::Unreachable) => {
            let message = "its worker is lost; the next attempt waits for the fence";
            told.push(about(id, "ReplicaUnreachable", Severity::Warning, message));
        }
        State::Running(Phase::Revoked) => {
            let message =
                "its worker was taken out of use by force; the next attempt waits for the fence";
            told.push(about(id, "ReplicaUnreachable", Severity::Warning, message));
        }
        State::Backoff(backoff) => {
            let waits = backoff.class == Class::NoCapacity;
            // Asking again and again for the same room is told once.
            let known = matches!(
                &before.state,
                State::Backoff(old) if old.class == backoff.class && old.message == backoff.message
            );
            let asked_again = matches!(
                &before.state,
                State::Placing(placing) if waits && placing.refusal == backoff.message
            );
            if !known && !asked_again {
                let kind = if waits {
                    "ReplicaWaitsForPlace"
                } else {
                    "ReplicaBackoff"
                };
                let delay = backoff.due.since(after.since);
                let event = about(id, kind, Severity::Warning, &backoff.message);
                told.push(
                    event
                        .with("class", &backoff.class)
                        .with("delay_ms", &delay.as_millis()),
                );
            }
        }
        State::Failed { class, .. } => {
            let words = crate::domain::status::words(after);
            told.push(about(id, "ReplicaGaveUp", Severity::Error, words).with("class", &class));
        }
        State::Pending { .. }
        | State::Placing(_)
        | State::Refused(_)
        | State::Running(Phase::Allocated | Phase::Starting | Phase::Unready)
        | State::Ended
        | State::Stopped => {}
    }
}
