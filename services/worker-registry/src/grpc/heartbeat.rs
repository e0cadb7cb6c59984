//! Heartbeats: the call that comes most often. It takes the view for a moment and the worker's own lock,
//! and goes to the book only if something durable changes.

use std::collections::BTreeSet;
use std::hash::Hasher as _;
use std::sync::Arc;

use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as proto;
use muster_runtime::status::{self, Violations};
use rustc_hash::FxHasher;
use tonic::{Request, Status};

use super::access::speaks_for;
use super::convert::{known, parse_generation, parse_phase, render_duration, render_state};
use super::failure::{check, status_of};
use crate::domain::allocation::{Allocation, DEFAULT_STOP_GRACE, Life};
use crate::domain::decide::{self, HeldPhase, Named, Refused};
use crate::domain::fleet::{Entry, Fleet};
use crate::domain::liveness::Terms;
use crate::domain::text::Text;
use crate::domain::worker::{Presence, Worker};
use crate::registry::{Beat, Error, RETRY, Registry};

/// The most allocations that an agent may name at once.
const MAX_HELD: usize = 10_000;

/// What a heartbeat finds before anything is changed.
struct Found {
    worker: Arc<Worker>,
    /// Something that its records list has ended.
    ends: bool,
    /// Something runs on that force-disabling took, or that is not known.
    unended: bool,
}

/// The agent is there.
pub(crate) async fn heartbeat(
    registry: &Registry,
    request: Request<proto::HeartbeatRequest>,
) -> Result<proto::HeartbeatResponse, Status> {
    speaks_for(registry, &request, &request.get_ref().name)?;
    if !registry.may_answer() {
        return Err(cut_off());
    }
    let message = request.into_inner();
    let mut violations = Violations::new();
    let ended = ended(&message.held, &mut violations);
    let generation = parse_generation("generation", message.generation, &mut violations);
    check(violations)?;
    let found = {
        let view = registry.view();
        look(registry, &view, &message, generation, &ended)?
    };
    // Before anything waits for the disk, which may hang for longer than a worker may be silent.
    let was_suspect = note_beat(registry, &found.worker.name);
    let ends = found.ends || message.leaving;
    if ends {
        end(registry, &found.worker.name, generation, &ended).await?;
    }
    let runs = message.held.iter().any(runs);
    record_heard(registry, &found.worker, found.unended, was_suspect).await?;
    if message.leaving {
        leave(registry, &found.worker, runs).await?;
    }
    let gone = match registry.is_shared() {
        true => registry.gone(missing(registry, &message)).await,
        false => BTreeSet::new(),
    };
    let mut answered = answer(registry, &message, &gone);
    // By this an agent stops all that it runs: it has to be so still.
    if answered.forced && registry.is_shared() {
        match registry.in_step().await {
            Ok(()) => answered = answer(registry, &message, &gone),
            Err(_) => answered.forced = false,
        }
    }
    Ok(answered)
}

/// The allocations that an agent names and the worker's records do not list.
fn missing(registry: &Registry, message: &proto::HeartbeatRequest) -> Vec<Text> {
    let view = registry.view();
    let Some(entry) = view.worker(&message.name) else {
        return Vec::new();
    };
    let ids = message.held.iter().map(|held| &*held.allocation_id);
    let is_missing = |id: &&str| !Named::of(entry, id, &registry.epoch).is_listed();
    ids.filter(is_missing).map(Into::into).collect()
}

/// The one that judges may take this instance for gone, and so its word for nothing.
fn cut_off() -> Status {
    let message = "this instance is cut off from the store; beat to another";
    status::unavailable(ErrorReason::StoreUnavailable, message, RETRY).into_status()
}

fn look(
    registry: &Registry,
    view: &Fleet,
    message: &proto::HeartbeatRequest,
    generation: u64,
    ended: &[Text],
) -> Result<Found, Status> {
    let refuse = |refused| Err(status_of(Error::Refused(refused)));
    let Some(entry) = view.worker(&message.name) else {
        return refuse(Refused::Reregister(message.name.as_str().into()));
    };
    let worker = &entry.worker;
    let name = worker.name.clone();
    if generation < worker.generation {
        return refuse(Refused::Fenced {
            name,
            asked: generation,
            current: worker.generation,
        });
    }
    if generation > worker.generation || worker.epoch != registry.epoch {
        return refuse(Refused::Reregister(name));
    }
    let names_known = || {
        ended
            .iter()
            .any(|id| Named::of(entry, id, &registry.epoch).is_listed())
    };
    let is_unended = |one: &proto::HeldAllocation| {
        runs(one) && Named::of(entry, &one.allocation_id, &registry.epoch) != Named::Known
    };
    Ok(Found {
        worker: Arc::clone(worker),
        ends: !ended.is_empty() && names_known(),
        unended: worker.unconfirmed && message.held.iter().any(is_unended),
    })
}

/// The worker is heard: its silence ends, and whatever durable followed from it. `runs` says whether
/// anything that force-disabling took may still run on it.
pub(super) async fn hear(registry: &Registry, worker: &Worker, runs: bool) -> Result<(), Status> {
    let was_suspect = note_beat(registry, &worker.name);
    record_heard(registry, worker, runs, was_suspect).await
}

/// The worker is heard, as far as that is in memory. Answers whether it was SUSPECT.
fn note_beat(registry: &Registry, name: &Text) -> bool {
    let beat = registry.lives.beat(name, registry.terms());
    let was_suspect = beat == Beat::Alive { was_suspect: true };
    if was_suspect {
        registry.with_book(|book| book.set_suspect(name, false));
    }
    if beat != Beat::Heard {
        registry.observe(name);
    }
    was_suspect
}

/// Whatever durable followed from its silence ends.
async fn record_heard(
    registry: &Registry,
    worker: &Worker,
    runs: bool,
    was_suspect: bool,
) -> Result<(), Status> {
    let name = &worker.name;
    // Whoever was silent for so long may be declared lost at this very moment.
    let is_news = worker.presence != Presence::Expected || (worker.unconfirmed && !runs);
    if was_suspect || is_news {
        let generation = worker.generation;
        let make = |book: &_, now| decide::heard(book, name, generation, runs, now);
        registry.decide_beat(make).await.map_err(status_of)?;
    }
    Ok(())
}

/// The agent leaves, if it may.
async fn leave(registry: &Registry, worker: &Worker, runs: bool) -> Result<(), Status> {
    let name = &worker.name;
    if runs {
        return Err(status_of(Refused::StillRunning(name.clone()).into()));
    }
    let make = |book: &_, now| decide::leave(book, name, worker.generation, now);
    registry.decide(make).await.map_err(status_of).map(drop)
}

/// The allocations that an agent names ended.
pub(super) fn ended(held: &[proto::HeldAllocation], violations: &mut Violations) -> Vec<Text> {
    if held.len() > MAX_HELD {
        violations.add("held", format!("must be at most {MAX_HELD}"));
    }
    let mut ended = Vec::new();
    for (place, one) in held.iter().enumerate() {
        let path = |name: &str| format!("held[{place}].{name}");
        if one.allocation_id.is_empty() {
            violations.add(path("allocation_id"), "must be set");
        }
        match parse_phase(known(&path("phase"), one.phase, violations)) {
            Some(HeldPhase::Ended) => ended.push(one.allocation_id.as_str().into()),
            Some(HeldPhase::Waiting | HeldPhase::Running | HeldPhase::Stopping) => {}
            None => violations.add(path("phase"), "must be set"),
        }
    }
    ended
}

/// Whether the agent has still something to do with an allocation.
pub(super) fn runs(held: &proto::HeldAllocation) -> bool {
    held.phase() != proto::HeldPhase::Ended
}

/// Frees what has ended; notes what its owner still holds.
pub(super) async fn end(
    registry: &Registry,
    name: &Text,
    generation: u64,
    ended: &[Text],
) -> Result<(), Status> {
    let mut left: Vec<Text> = ended.to_vec();
    while !left.is_empty() {
        let make = |book: &_, now| decide::end(book, name, generation, &left, now);
        let held = registry.decide_beat(make).await.map_err(status_of)?.value;
        // Whoever gives one back between the decision and the note finds it not noted: then it is
        // taken up once more.
        left = registry.with_book(|book| {
            let mut again = Vec::new();
            for id in &left {
                match book.fleet().allocation(id) {
                    Some(one) if one.is_held() && held.contains(id) => {
                        book.note_ended(id, generation);
                    }
                    Some(one) if one.worker == *name => again.push(id.clone()),
                    Some(_) | None => {}
                }
            }
            again
        });
    }
    Ok(())
}

fn answer(
    registry: &Registry,
    message: &proto::HeartbeatRequest,
    gone: &BTreeSet<Text>,
) -> proto::HeartbeatResponse {
    let terms = registry.terms();
    let is_unsure = |id: &str| registry.is_shared() && !gone.contains(id);
    let view = registry.view();
    let mut answer = proto::HeartbeatResponse {
        epoch: registry.epoch.to_string(),
        ..proto::HeartbeatResponse::default()
    };
    let Some(entry) = view.worker(&message.name) else {
        return answer;
    };
    let worker = &entry.worker;
    answer.terms = Some(render_terms(terms, worker));
    answer.state = render_state(worker.state).into();
    answer.forced = worker.running_drain().is_some_and(|drain| drain.forced);
    answer.notices = notices(entry);
    for held in &message.held {
        let has_ended = held.phase() == proto::HeldPhase::Ended;
        match Named::of(entry, &held.allocation_id, &registry.epoch) {
            Named::Known | Named::Taken => {}
            // It may be there by now, or have been: nothing is said of it until that is sure.
            Named::Over | Named::Unknown if is_unsure(&held.allocation_id) => {}
            Named::Over | Named::Unknown if has_ended => {
                answer
                    .forgotten_allocations
                    .push(held.allocation_id.clone());
            }
            Named::Over => answer.notices.push(stop(&held.allocation_id)),
            Named::Unknown => answer.unknown_allocations.push(held.allocation_id.clone()),
        }
    }
    answer
}

/// What of the worker's allocations has to end.
fn notices(entry: &Entry) -> Vec<proto::AllocationNotice> {
    let revoked_through = entry.worker.revoked_through;
    let notice = |allocation: &Arc<Allocation>| {
        let taken = allocation.is_revoked_through(revoked_through);
        let state = match (&allocation.life, taken) {
            (Life::Held, false) => return None,
            (Life::Releasing(_), false) => proto::AllocationState::Releasing,
            (Life::Revoked(_), _) | (_, true) => proto::AllocationState::Revoked,
        };
        Some(proto::AllocationNotice {
            allocation_id: allocation.id.to_string(),
            state: state.into(),
            stop_grace: Some(render_duration(allocation.stop_grace)),
        })
    };
    entry.allocations().iter().filter_map(notice).collect()
}

/// Of an allocation that is over here and still runs there.
fn stop(id: &str) -> proto::AllocationNotice {
    proto::AllocationNotice {
        allocation_id: id.to_owned(),
        state: proto::AllocationState::Revoked.into(),
        stop_grace: Some(render_duration(DEFAULT_STOP_GRACE)),
    }
}

pub(super) fn render_terms(terms: Terms, worker: &Worker) -> proto::HeartbeatTerms {
    let mut hasher = FxHasher::default();
    hasher.write(worker.uid.as_bytes());
    let terms = terms.jittered(hasher.finish() >> 20);
    proto::HeartbeatTerms {
        interval: Some(render_duration(terms.interval)),
        lost_after: Some(render_duration(terms.lost_after)),
        fence_after: Some(render_duration(terms.fence_after)),
    }
}
