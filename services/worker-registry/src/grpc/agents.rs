//! What agents call: registering, activating, beating.

use std::hash::Hasher as _;
use std::sync::Arc;

use muster_proto::workers::v1 as proto;
use muster_runtime::auth::{Principal, Role};
use muster_runtime::status::{self, Violations};
use rustc_hash::FxHasher;
use tonic::{Request, Status};

use super::access::{bearer, speaks_for};
use super::convert::{
    MAX_ID, known, parse_allocation, parse_capacity_type, parse_checks, parse_generation,
    parse_labels, parse_machine, parse_name, parse_phase, parse_price, parse_required, parse_text,
    render_duration, render_state, render_worker,
};
use super::failure::{check, status_of};
use crate::credential;
use crate::domain::allocation::{Allocation, DEFAULT_STOP_GRACE, Life};
use crate::domain::decide::{self, Arrival, Checked, HeldPhase, Named, Proof, Refused};
use crate::domain::fleet::{Entry, Fleet};
use crate::domain::liveness::Terms;
use crate::domain::machine::Machine;
use crate::domain::text::Text;
use crate::domain::worker::{Presence, Worker};
use crate::registry::{Beat, Error, Registry};

/// The longest address, label of a place, or version, in characters.
const MAX_PLACE: usize = 253;

/// The most allocations that an agent may name at once.
const MAX_HELD: usize = 10_000;

/// A machine comes.
pub(super) async fn register(
    registry: &Registry,
    request: Request<proto::RegisterWorkerRequest>,
) -> Result<proto::RegisterWorkerResponse, Status> {
    speaks_for(registry, &request, &request.get_ref().name)?;
    let mut violations = Violations::new();
    let proof = proof(registry, &request);
    let message = request.into_inner();
    let held = parse_records(&message, &mut violations);
    let ended = ended(&message.held, &mut violations);
    let arrival = parse_arrival(message, proof, &mut violations)?;
    check(violations)?;
    let make = |book: &_, now| {
        let entry = registry_entry(book, &arrival.name);
        let recreates = held
            .iter()
            .any(|record| decide::recreatable(book, entry, record));
        decide::register(
            book,
            &Arrival {
                recreates,
                ..arrival.clone()
            },
            now,
        )
    };
    let registered = registry.decide(make).await.map_err(status_of)?.value;
    let revision = settle_held(registry, &registered.worker, &held, &ended).await?;
    let worker = &registered.worker;
    let credential = match registered.had_credential {
        true => String::new(),
        false => registry.keys.sign(&worker.name, &worker.uid),
    };
    Ok(proto::RegisterWorkerResponse {
        worker: Some(shown(registry, &worker.name)?),
        credential,
        terms: Some(render_terms(registry.terms(), worker)),
        epoch: registry.epoch.to_string(),
        resume_token: registry.token(revision),
    })
}

fn registry_entry<'a>(book: &'a crate::domain::book::Book, name: &str) -> Option<&'a Entry> {
    book.fleet().worker(name)
}

/// Makes again what is missing, and frees what has ended.
async fn settle_held(
    registry: &Registry,
    worker: &Worker,
    held: &[Arc<Allocation>],
    ended: &[Text],
) -> Result<u64, Status> {
    loop {
        let make = |book: &_, _| Ok(decide::recreate(book, &worker.name, held));
        if !registry.decide(make).await.map_err(status_of)?.value {
            break;
        }
    }
    end(registry, &worker.name, worker.generation, ended).await?;
    Ok(registry.progress.current())
}

/// What the caller proves itself with.
fn proof(registry: &Registry, request: &Request<proto::RegisterWorkerRequest>) -> Proof {
    let message = request.get_ref();
    let shown = bearer(request).filter(|token| registry.keys.read(token).is_some());
    let claim = shown.and_then(|token| registry.keys.verify(token));
    let credential = claim
        .filter(|claim| *claim.name == *message.name)
        .map(|claim| claim.uid);
    let principal = Principal::of(request);
    let san = principal.san().filter(|_| principal.role() == Role::Agent);
    let join_token = Some(&message.join_token).filter(|token| !token.is_empty());
    Proof {
        bad_credential: shown.is_some() && credential.is_none(),
        credential,
        token: join_token.map(|token| {
            credential::read_join_token(token).unwrap_or_else(|| ("".into(), [0; 32]))
        }),
        san: san.map(Text::from),
        insecure: registry.config.insecure_join,
    }
}

fn parse_arrival(
    message: proto::RegisterWorkerRequest,
    proof: Proof,
    violations: &mut Violations,
) -> Result<Arrival, Status> {
    let place = |field: &str, text: &str, violations: &mut Violations| {
        parse_text(field, text, MAX_PLACE, violations)
    };
    let mut machine = Machine {
        labels: parse_labels("agent_labels", message.agent_labels, violations),
        capacity_type: parse_capacity_type(known(
            "capacity_type",
            message.capacity_type,
            violations,
        )),
        price: parse_price("price", message.price, violations),
        backend: place("backend", &message.backend, violations),
        region: place("region", &message.region, violations),
        zone: place("zone", &message.zone, violations),
        agent_version: place("agent_version", &message.agent_version, violations),
        agent_address: place("agent_address", &message.agent_address, violations),
        advertise_host: place("advertise_host", &message.advertise_host, violations),
        ..Machine::default()
    };
    match message.capacity {
        Some(capacity) => parse_machine("capacity", capacity, &mut machine, violations),
        None => violations.add("capacity", "must be set"),
    }
    let last_generation = parse_generation("last_generation", message.last_generation, violations);
    if last_generation > 1 << 60 {
        violations.add("last_generation", "is no generation of a worker");
    }
    Ok(Arrival {
        name: parse_name("name", &message.name, violations),
        boot_id: parse_required("boot_id", &message.boot_id, MAX_ID, violations),
        last_generation,
        machine: Arc::new(machine),
        proof,
        recreates: false,
        runs: message.held.iter().any(runs),
        uid: credential::random_id().map_err(|_| status::internal())?,
    })
}

/// The allocations of which an agent tells everything.
fn parse_records(
    message: &proto::RegisterWorkerRequest,
    violations: &mut Violations,
) -> Vec<Arc<Allocation>> {
    let mut records = Vec::new();
    for (place, held) in message.held.iter().enumerate() {
        let field = format!("held[{place}].record");
        let Some(record) = held.record.clone() else {
            continue;
        };
        if record.worker != message.name {
            violations.add(
                format!("{field}.worker"),
                "must be the worker that registers",
            );
        }
        if record.id != held.allocation_id {
            violations.add(format!("{field}.id"), "must be allocation_id");
        }
        let record = parse_allocation(&field, record, violations);
        if held.phase() != proto::HeldPhase::Ended {
            records.push(record);
        }
    }
    records
}

/// The allocations that an agent names ended.
fn ended(held: &[proto::HeldAllocation], violations: &mut Violations) -> Vec<Text> {
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

/// Start-up checks have been run.
pub(super) async fn activate(
    registry: &Registry,
    request: Request<proto::ActivateWorkerRequest>,
) -> Result<proto::ActivateWorkerResponse, Status> {
    speaks_for(registry, &request, &request.get_ref().name)?;
    let message = request.into_inner();
    let mut violations = Violations::new();
    if message.checks.is_empty() {
        violations.add("checks", "must not be empty");
    }
    let asked = Checked {
        name: parse_name("name", &message.name, &mut violations),
        generation: parse_generation("generation", message.generation, &mut violations),
        checks: parse_checks(message.checks, &mut violations),
    };
    check(violations)?;
    let make = |book: &_, now| decide::activate(book, asked.clone(), now);
    let activated = registry.decide(make).await.map_err(status_of)?;
    Ok(proto::ActivateWorkerResponse {
        worker: Some(shown(registry, &asked.name)?),
        resume_token: registry.token(activated.revision),
    })
}

/// What a heartbeat finds before anything is changed.
struct Found {
    worker: Arc<Worker>,
    /// Something durable has to change first.
    changes: bool,
}

/// The agent is there.
pub(super) async fn heartbeat(
    registry: &Registry,
    request: Request<proto::HeartbeatRequest>,
) -> Result<proto::HeartbeatResponse, Status> {
    speaks_for(registry, &request, &request.get_ref().name)?;
    let message = request.into_inner();
    let mut violations = Violations::new();
    let ended = ended(&message.held, &mut violations);
    let generation = parse_generation("generation", message.generation, &mut violations);
    check(violations)?;
    let found = {
        let view = registry.view();
        look(registry, &view, &message, generation, &ended)?
    };
    let terms = registry.terms();
    let beat = registry.lives.beat(&message.name, terms);
    if let Beat::Alive { was_suspect } = beat {
        if was_suspect {
            registry.with_book(|book| book.set_suspect(&found.worker.name, false));
        }
        registry.observe(&message.name);
    }
    if found.changes || message.leaving {
        change(registry, &message, &found.worker, &ended).await?;
    }
    Ok(answer(registry, &message, terms))
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
    let changes = worker.presence != Presence::Expected || (!ended.is_empty() && names_known());
    Ok(Found {
        worker: Arc::clone(worker),
        changes,
    })
}

/// What the heartbeat changes for good.
async fn change(
    registry: &Registry,
    message: &proto::HeartbeatRequest,
    worker: &Worker,
    ended: &[Text],
) -> Result<(), Status> {
    let (name, generation) = (&worker.name, worker.generation);
    end(registry, name, generation, ended).await?;
    if message.leaving {
        if message.held.iter().any(runs) {
            return Err(status_of(Refused::StillRunning(name.clone()).into()));
        }
        let make = |book: &_, now| decide::leave(book, name, generation, now);
        registry.decide(make).await.map_err(status_of)?;
    } else {
        let runs = message.held.iter().any(runs);
        let make = |book: &_, now| decide::heard(book, name, generation, runs, now);
        registry.decide(make).await.map_err(status_of)?;
    }
    Ok(())
}

/// Whether the agent has still something to do with an allocation.
fn runs(held: &proto::HeldAllocation) -> bool {
    held.phase() != proto::HeldPhase::Ended
}

/// Frees what has ended; notes what its owner still holds.
async fn end(
    registry: &Registry,
    name: &Text,
    generation: u64,
    ended: &[Text],
) -> Result<(), Status> {
    let mut left: Vec<Text> = ended.to_vec();
    while !left.is_empty() {
        let make = |book: &_, now| decide::end(book, name, generation, &left, now);
        let held = registry.decide(make).await.map_err(status_of)?.value;
        // Whoever gives one back between the decision and the note finds it not noted: then it is
        // taken up once more.
        left = registry.with_book(|book| {
            let mut again = Vec::new();
            for id in &left {
                match book.fleet().allocation(id) {
                    Some(one) if one.is_held() && held.contains(id) => book.note_ended(id),
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
    terms: Terms,
) -> proto::HeartbeatResponse {
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
    entry.allocations.iter().filter_map(notice).collect()
}

/// Of an allocation that is over here and still runs there.
fn stop(id: &str) -> proto::AllocationNotice {
    proto::AllocationNotice {
        allocation_id: id.to_owned(),
        state: proto::AllocationState::Revoked.into(),
        stop_grace: Some(render_duration(DEFAULT_STOP_GRACE)),
    }
}

fn render_terms(terms: Terms, worker: &Worker) -> proto::HeartbeatTerms {
    let mut hasher = FxHasher::default();
    hasher.write(worker.uid.as_bytes());
    let terms = terms.jittered(hasher.finish() >> 20);
    proto::HeartbeatTerms {
        interval: Some(render_duration(terms.interval)),
        lost_after: Some(render_duration(terms.lost_after)),
        fence_after: Some(render_duration(terms.fence_after)),
    }
}

/// The worker as it is durable now.
pub(super) fn shown(registry: &Registry, name: &Text) -> Result<proto::Worker, Status> {
    let view = registry.view();
    let entry = view.worker(name);
    let entry = entry.ok_or_else(|| status_of(Refused::NoWorker(name.clone()).into()))?;
    let seen = registry.seen(entry);
    drop(view);
    Ok(render_worker(&seen, &registry.epoch))
}
