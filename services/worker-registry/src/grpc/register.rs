//! A machine comes, or comes again, and proves itself fit.

use std::sync::Arc;

use muster_proto::workers::v1 as proto;
use muster_runtime::auth::{Principal, Role};
use muster_runtime::status::{self, Violations};
use muster_runtime::wire;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::access::{bearer, speaks_for};
use super::convert::{
    MAX_ID, check_names, check_text, known, parse_allocation, parse_capacity_type, parse_checks,
    parse_generation, parse_labels, parse_machine, parse_name, parse_price, parse_required,
};
use super::failure::{check, status_of};
use super::heartbeat::{end, ended, hear, render_terms, runs};
use super::operators::{seen, shown};
use super::wire::put_worker;
use crate::credential;
use crate::domain::allocation::Allocation;
use crate::domain::book::Book;
use crate::domain::decide::{self, Arrival, Checked, Proof};
use crate::domain::machine::{Machine, common_labels};
use crate::domain::text::{Text, common};
use crate::domain::worker::Worker;
use crate::registry::Registry;
use crate::seen::Seen;

/// The longest address, label of a place, or version, in characters.
pub(super) const MAX_PLACE: usize = 253;

/// The field of the answer that holds the worker.
const WORKER: u32 = 1;

/// What the answer to a machine of eight accelerators takes, in bytes.
const ROOM: usize = 2048;

/// The answer to a machine that has come.
#[derive(Debug)]
pub(crate) struct Registered {
    /// Its worker.
    pub(crate) seen: Seen,
    /// All but its worker.
    pub(crate) rest: proto::RegisterWorkerResponse,
}

impl Registered {
    /// The answer, written straight to bytes: most of it are the accelerators.
    pub(crate) fn answer(self) -> Response<proto::RegisterWorkerResponse> {
        let mut message = Vec::with_capacity(ROOM);
        wire::put_message(WORKER, &mut message, |to| {
            put_worker(&self.seen, &self.rest.epoch, to);
        });
        // Writing to memory cannot fail.
        let _ = self.rest.encode(&mut message);
        wire::answer(message)
    }
}

/// A machine comes.
pub(crate) async fn register(
    registry: &Registry,
    request: Request<proto::RegisterWorkerRequest>,
) -> Result<Registered, Status> {
    speaks_for(registry, &request, &request.get_ref().name)?;
    let mut violations = Violations::new();
    let proof = proof(registry, &request);
    let message = request.into_inner();
    let held = parse_records(&message, &mut violations);
    let ended = ended(&message.held, &mut violations);
    let arrival = parse_arrival(message, proof, &mut violations)?;
    check(violations)?;
    let make = |book: &Book, now| {
        let entry = book.fleet().worker(&arrival.name);
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
    let worker = &registered.worker;
    hear(registry, worker, true).await?;
    let revision = settle_held(registry, worker, &held, &ended).await?;
    let credential = match registered.had_credential {
        true => String::new(),
        false => registry.keys.sign(&worker.name, &worker.uid),
    };
    let rest = proto::RegisterWorkerResponse {
        worker: None,
        credential,
        terms: Some(render_terms(registry.terms(), worker)),
        epoch: registry.epoch.to_string(),
        resume_token: registry.token(revision),
    };
    let seen = seen(registry, &worker.name)?;
    Ok(Registered { seen, rest })
}

/// Makes again what is missing, and frees what has ended.
async fn settle_held(
    registry: &Registry,
    worker: &Worker,
    held: &[Arc<Allocation>],
    ended: &[Text],
) -> Result<u64, Status> {
    let mut more = !held.is_empty();
    while more {
        let make =
            |book: &_, now| decide::recreate(book, &worker.name, worker.generation, held, now);
        more = registry.decide(make).await.map_err(status_of)?.value;
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
            let read = credential::read_join_token(token);
            let read = read.filter(|(id, hash)| {
                // Also one that was used up, by which a repeated call still proves itself.
                *hash == credential::hash(&registry.keys.join_secret(id))
            });
            read.unwrap_or_else(|| ("".into(), [0; 32]))
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
        check_text(field, text, MAX_PLACE, violations);
        common(text)
    };
    let mut machine = Machine {
        labels: common_labels(parse_labels(
            "agent_labels",
            message.agent_labels,
            violations,
        )),
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
    check_names("capacity", message.capacity.as_ref(), violations);
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

/// Start-up checks have been run.
pub(crate) async fn activate(
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
    hear(registry, &activated.value, true).await?;
    Ok(proto::ActivateWorkerResponse {
        worker: Some(shown(registry, &asked.name)?),
        resume_token: registry.token(activated.revision),
    })
}
