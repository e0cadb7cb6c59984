//! What happened to workers, in words that people and programs read.
//!
//! It decides which changes of records are worth telling. Most events follow from the records themselves
//! (their history, their presence), so telling them costs no write and survives a restart.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::allocation::{Allocation, Life};
use super::fleet::Tombstone;
use super::gpus::Gpu;
use super::state::State;
use super::text::{SYSTEM, Text};
use super::worker::{Presence, Transition, Worker};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Part of normal work.
    Info,
    /// Something failed that is being dealt with.
    Warning,
    /// Something failed that needs a person.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique, and in order of time.
    pub id: Text,
    /// When.
    pub at: SystemTime,
    /// What it is about, such as "worker/w1" or "zone/eu-1".
    pub subject: String,
    /// The subject's uid; empty if it has none.
    pub uid: Text,
    /// One CamelCase word.
    pub kind: Cow<'static, str>,
    /// How much it matters.
    pub severity: Severity,
    /// For a person.
    pub message: String,
    /// Who caused it.
    pub actor: Text,
    /// For programs.
    pub attributes: Vec<(Cow<'static, str>, String)>,
}

impl Event {
    /// Something that happened to a zone, of which no worker's record tells.
    pub fn of_zone(
        zone: &str,
        at: SystemTime,
        kind: &'static str,
        severity: Severity,
        message: String,
        actor: Text,
    ) -> Self {
        let named = if zone.is_empty() { "(none)" } else { zone };
        Self {
            id: id(at, named, kind),
            at,
            subject: format!("zone/{named}"),
            uid: "".into(),
            kind: kind.into(),
            severity,
            message,
            actor,
            attributes: vec![("zone".into(), zone.to_owned())],
        }
    }

    fn of_worker(
        worker: &Worker,
        at: SystemTime,
        kind: &'static str,
        severity: Severity,
        message: String,
        actor: Text,
    ) -> Self {
        Self {
            id: id(at, &worker.name, kind),
            at,
            subject: format!("worker/{}", worker.name),
            uid: worker.uid.clone(),
            kind: kind.into(),
            severity,
            message,
            actor,
            attributes: vec![("generation".into(), worker.generation.to_string())],
        }
    }
}

/// What a change of a worker's record tells.
pub fn of_change(before: Option<&Worker>, after: &Worker) -> Vec<Event> {
    let mut events = Vec::new();
    let same = before.filter(|before| before.uid == after.uid);
    let last = same.and_then(|before| before.history.last());
    let known = last.and_then(|last| after.history.iter().rposition(|one| one == last));
    for at in known.map_or(0, |at| at + 1)..after.history.len() {
        events.push(of_transition(after, at));
    }
    if same.is_none_or(|before| before.presence != after.presence) {
        events.extend(of_presence(same, after));
    }
    events.extend(of_forced(same, after));
    events.extend(
        same.into_iter()
            .flat_map(|before| of_accelerators(before, after)),
    );
    events
}

/// What a worker's record still tells after a restart.
pub fn of_record(worker: &Worker) -> Vec<Event> {
    let transitions = (0..worker.history.len()).map(|at| of_transition(worker, at));
    transitions.chain(of_presence(None, worker)).collect()
}

/// What a tombstone tells.
pub fn of_tombstone(name: &str, stone: &Tombstone) -> Event {
    Event {
        id: id(stone.at, name, "WorkerDeleted"),
        at: stone.at,
        subject: format!("worker/{name}"),
        uid: stone.uid.clone(),
        kind: "WorkerDeleted".into(),
        severity: Severity::Info,
        message: "deleted".to_owned(),
        actor: stone.actor.clone(),
        attributes: vec![("generation".into(), stone.generation.to_string())],
    }
}

/// What a change of an allocation tells, if anything: only that it was taken from its owner.
pub fn of_allocation(
    before: Option<&Allocation>,
    after: &Allocation,
    worker: &Worker,
) -> Option<Event> {
    let Life::Revoked(end) = &after.life else {
        return None;
    };
    if before.is_some_and(|before| matches!(before.life, Life::Revoked(_))) {
        return None;
    }
    let message = format!(
        "{} ({}) was revoked: {}",
        after.subject, after.id, end.reason
    );
    let mut event = Event::of_worker(
        worker,
        end.at,
        "AllocationRevoked",
        Severity::Warning,
        message,
        SYSTEM.into(),
    );
    event.id = id(end.at, &after.id, "AllocationRevoked");
    event
        .attributes
        .push(("allocation".into(), after.id.to_string()));
    Some(event)
}

fn of_transition(worker: &Worker, at: usize) -> Event {
    let transition = &worker.history[at];
    let before = at
        .checked_sub(1)
        .and_then(|before| worker.history.get(before));
    let (kind, severity) = kind_of(before, transition);
    let by = &transition.by;
    let message = match (transition.from, by.reason.is_empty()) {
        (None, _) => by.reason.to_string(),
        (Some(from), true) => format!("{from} to {}", transition.to),
        (Some(from), false) => format!("{from} to {}: {}", transition.to, by.reason),
    };
    let mut event = Event::of_worker(
        worker,
        transition.at,
        kind,
        severity,
        message,
        by.actor.clone(),
    );
    event.attributes = vec![
        ("generation".into(), transition.generation.to_string()),
        ("state".into(), transition.to.to_string()),
    ];
    event
}

fn kind_of(before: Option<&Transition>, now: &Transition) -> (&'static str, Severity) {
    let came = before.map_or(0, |before| before.generation) < now.generation;
    match (now.from, now.to) {
        (None, _) if now.generation == 0 => ("WorkerCreated", Severity::Info),
        _ if came && now.to != State::Disabled => ("WorkerRegistered", Severity::Info),
        (Some(State::Disabled), State::Disabled) if came => ("WorkerRegistered", Severity::Info),
        (_, State::Disabled) if came => ("WorkerForceDisabled", Severity::Warning),
        (Some(State::Draining), State::Active) => ("WorkerResumed", Severity::Info),
        (Some(State::Draining), State::Draining) => ("DrainChanged", Severity::Info),
        (Some(State::Draining), State::Provisioning) => ("WorkerResumed", Severity::Info),
        (_, State::Active) => ("WorkerActivated", Severity::Info),
        (_, State::Draining) => ("WorkerDraining", Severity::Info),
        (_, State::Disabled) => ("WorkerDisabled", Severity::Info),
        (_, State::Provisioning) => ("WorkerEnabled", Severity::Info),
    }
}

fn of_presence(before: Option<&Worker>, after: &Worker) -> Option<Event> {
    let tell = |at, kind, severity, message: &str| {
        Some(Event::of_worker(
            after,
            at,
            kind,
            severity,
            message.to_owned(),
            SYSTEM.into(),
        ))
    };
    match (before.map(|before| before.presence), after.presence) {
        (Some(Presence::Lost { fenced: false, .. }), Presence::Lost { fenced: true, .. }) => tell(
            after.updated,
            "WorkerFenced",
            Severity::Warning,
            "everything on it that stops without us has stopped",
        ),
        (_, Presence::Lost { at, .. }) => tell(
            at,
            "WorkerLost",
            Severity::Error,
            "not heard for longer than lost_after",
        ),
        (_, Presence::Left { at }) => tell(at, "WorkerLeft", Severity::Info, "its agent has left"),
        (Some(Presence::Lost { .. }), Presence::Expected) => tell(
            after.updated,
            "WorkerReturned",
            Severity::Info,
            "heard again after it was lost",
        ),
        (_, Presence::Expected | Presence::Awaited) => None,
    }
}

fn of_forced(before: Option<&Worker>, after: &Worker) -> Option<Event> {
    let forced = |worker: &Worker| worker.drain.as_ref().is_some_and(|drain| drain.forced);
    let news = forced(after) && before.is_some_and(|before| !forced(before));
    news.then(|| {
        let message = "the drain's deadline has passed: its agent stops what is left".to_owned();
        Event::of_worker(
            after,
            after.updated,
            "DrainForced",
            Severity::Warning,
            message,
            SYSTEM.into(),
        )
    })
}

/// A machine has registered with other accelerators than before: its agent asks the driver for them.
fn of_accelerators(before: &Worker, after: &Worker) -> Vec<Event> {
    // Before its first registration nothing was known of it.
    if before.generation == 0 || Arc::ptr_eq(&before.machine, &after.machine) {
        return Vec::new();
    }
    let (then, now) = (&before.machine.gpus, &after.machine.gpus);
    let tell = |kind, severity, gpus: Vec<Gpu<'_>>, message: String| {
        let mut event = Event::of_worker(
            after,
            after.updated,
            kind,
            severity,
            message,
            "agent".into(),
        );
        let uuids: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid).collect();
        event.attributes.push(("gpus".into(), uuids.join(",")));
        (!gpus.is_empty()).then_some(event)
    };
    let gone: Vec<_> = then.without(now).collect();
    let left = now.uuids().count();
    let words = format!("gone: {}; left: {left}", named(&gone));
    let gone = tell("AcceleratorsGone", Severity::Warning, gone, words);
    let come: Vec<_> = now.without(then).collect();
    let words = format!("found: {}", named(&come));
    let come = tell("AcceleratorsFound", Severity::Info, come, words);
    gone.into_iter().chain(come).collect()
}

/// Some accelerators, as many as a line holds.
fn named(gpus: &[Gpu<'_>]) -> String {
    const NAMED: usize = 8;
    let each = gpus.iter().take(NAMED);
    let each: Vec<_> = each
        .map(|gpu| format!("{} ({})", gpu.uuid, gpu.kind.name.as_str()))
        .collect();
    let mut named = each.join(", ");
    if let Some(more) = gpus.len().checked_sub(NAMED).filter(|more| *more > 0) {
        named.push_str(&format!(" and {more} more"));
    }
    named
}

fn id(at: SystemTime, subject: &str, kind: &str) -> Text {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let place = place_of(kind);
    format!("{:017}-{subject}-{place}-{kind}", since.as_micros()).into()
}

/// Where an event comes among those of its subject that one decision makes, all at the same time: what a
/// worker becomes DISABLED by comes before that.
fn place_of(kind: &str) -> u8 {
    match kind {
        "WorkerDisabled" | "WorkerForceDisabled" => 2,
        _ => 1,
    }
}
