//! What operators call: draining, resuming, disabling, enabling, deleting, updating.

use std::sync::Arc;
use std::time::SystemTime;

use muster_proto::workers::v1 as proto;
use muster_runtime::auth::{Principal, Role};
use muster_runtime::resume::{Etag, EtagError};
use muster_runtime::status::Violations;
use tonic::{Request, Status};

use super::access::{RELEASE_MASS_LOSS, actor, speaks_for};
use super::convert::{
    MAX_REASON, known, parse_capacity_type, parse_generation, parse_labels, parse_name,
    parse_price, parse_terms, parse_text, render_worker,
};
use super::failure::{check, status_of};
use super::peers::pass_on;
use super::register::MAX_PLACE;
use crate::domain::book::Book;
use crate::domain::decide::{self, Decision, DrainAsked, Edit, Refused};
use crate::domain::fleet::Entry;
use crate::domain::text::Text;
use crate::domain::worker::{By, Worker};
use crate::registry::{At, Registry};
use crate::seen::Seen;

/// What an operator's call says of a worker.
struct Asked {
    name: Text,
    by: Arc<By>,
    etag: String,
}

impl Asked {
    fn parse(name: &str, reason: &str, etag: String, actor: Text) -> Result<Self, Status> {
        let mut violations = Violations::new();
        let asked = Self {
            name: parse_name("name", name, &mut violations),
            by: By::new(
                actor,
                parse_text("reason", reason, MAX_REASON, &mut violations),
            ),
            etag,
        };
        check(violations)?;
        Ok(asked)
    }
}

/// Requires the etag that a caller gave to be the current one.
fn require<'a>(
    registry: &'a Registry,
    etag: &'a str,
) -> impl Fn(&Worker) -> Result<(), Refused> + Sync + 'a {
    move |worker| {
        let current = Etag::new(&registry.epoch, &worker.uid, worker.writes);
        current.check(etag).map_err(|error| match error {
            EtagError::Stale => Refused::StaleEtag,
            EtagError::Malformed => Refused::BadEtag,
        })
    }
}

/// Decides about a worker, and answers it as it is then.
async fn decide_about(
    registry: &Registry,
    name: &Text,
    make: impl Fn(&Book, SystemTime) -> Result<Decision<Arc<Worker>>, Refused>,
) -> Result<(proto::Worker, String), Status> {
    let At { revision, .. } = registry.decide(make).await.map_err(status_of)?;
    Ok((shown(registry, name)?, registry.token(revision)))
}

/// Empties a worker.
pub(crate) async fn drain(
    registry: &Registry,
    request: Request<proto::DrainWorkerRequest>,
) -> Result<proto::DrainWorkerResponse, Status> {
    speaks_for(registry, &request, &request.get_ref().name)?;
    let by_agent = Principal::of(&request).role() == Role::Agent;
    let actor = actor(&request);
    let message = request.into_inner();
    let mut violations = Violations::new();
    let name = parse_name("name", &message.name, &mut violations);
    let terms = parse_terms(&message, actor, registry.clock.now(), &mut violations);
    let generation = parse_generation("generation", message.generation, &mut violations);
    if by_agent && generation == 0 {
        violations.add("generation", "must be set by an agent");
    }
    check(violations)?;
    let asked = DrainAsked {
        name: name.clone(),
        terms,
        generation: (generation > 0).then_some(generation),
    };
    let require = require(registry, &message.etag);
    let would_fail = would_fail(registry, &name);
    let make = |book: &Book, now| decide::drain(book, &asked, &require, now);
    if message.validate_only {
        let (worker, resume_token) = question(registry, make)?;
        return Ok(proto::DrainWorkerResponse {
            worker: Some(worker),
            would_fail,
            resume_token,
        });
    }
    let (worker, resume_token) = decide_about(registry, &name, make).await?;
    Ok(proto::DrainWorkerResponse {
        worker: Some(worker),
        would_fail,
        resume_token,
    })
}

/// What the decision would come to; nothing is written.
fn question(
    registry: &Registry,
    make: impl Fn(&Book, SystemTime) -> Result<Decision<Arc<Worker>>, Refused>,
) -> Result<(proto::Worker, String), Status> {
    let now = registry.clock.now();
    let decided = registry.with_book(|book| make(book, now));
    let worker = decided.map_err(|refused| status_of(refused.into()))?.answer;
    let view = registry.view();
    let mut seen = view.worker(&worker.name).map(|entry| registry.seen(entry));
    drop(view);
    if let Some(Seen { worker: shown, .. }) = &mut seen {
        *shown = worker;
    }
    let rendered = seen
        .map(|seen| render_worker(&seen, &registry.epoch))
        .unwrap_or_default();
    Ok((rendered, registry.token(registry.progress.current())))
}

/// What a forced end would fail.
fn would_fail(registry: &Registry, name: &str) -> Vec<String> {
    let view = registry.view();
    let failing = |entry: &Entry| -> Vec<String> {
        let failing = entry
            .counted()
            .filter(|one| one.fails_if_forced && one.is_held());
        failing.map(|one| one.subject.to_string()).collect()
    };
    view.worker(name).map(failing).unwrap_or_default()
}

/// Calls a drain off.
pub(crate) async fn resume(
    registry: &Registry,
    request: Request<proto::ResumeWorkerRequest>,
) -> Result<proto::ResumeWorkerResponse, Status> {
    let actor = actor(&request);
    let message = request.into_inner();
    let asked = Asked::parse(&message.name, &message.reason, message.etag, actor)?;
    let require = require(registry, &asked.etag);
    let make = |book: &_, now| decide::resume(book, &asked.name, &asked.by, &require, now);
    let (worker, resume_token) = decide_about(registry, &asked.name, make).await?;
    Ok(proto::ResumeWorkerResponse {
        worker: Some(worker),
        resume_token,
    })
}

/// Takes a worker out of use.
pub(crate) async fn disable(
    registry: &Registry,
    request: Request<proto::DisableWorkerRequest>,
) -> Result<proto::DisableWorkerResponse, Status> {
    let actor = actor(&request);
    let message = request.into_inner();
    let force = message.force;
    let asked = Asked::parse(&message.name, &message.reason, message.etag, actor)?;
    let require = require(registry, &asked.etag);
    let make = |book: &_, now| decide::disable(book, &asked.name, force, &asked.by, &require, now);
    let (worker, resume_token) = decide_about(registry, &asked.name, make).await?;
    Ok(proto::DisableWorkerResponse {
        worker: Some(worker),
        resume_token,
    })
}

/// Puts a worker back.
pub(crate) async fn enable(
    registry: &Registry,
    request: Request<proto::EnableWorkerRequest>,
) -> Result<proto::EnableWorkerResponse, Status> {
    let actor = actor(&request);
    let message = request.into_inner();
    let asked = Asked::parse(&message.name, &message.reason, message.etag, actor)?;
    let require = require(registry, &asked.etag);
    let make = |book: &_, now| decide::enable(book, &asked.name, &asked.by, &require, now);
    let (worker, resume_token) = decide_about(registry, &asked.name, make).await?;
    Ok(proto::EnableWorkerResponse {
        worker: Some(worker),
        resume_token,
    })
}

/// Forgets a worker.
pub(crate) async fn delete(
    registry: &Registry,
    request: Request<proto::DeleteWorkerRequest>,
) -> Result<proto::DeleteWorkerResponse, Status> {
    let actor = actor(&request);
    let message = request.into_inner();
    let asked = Asked::parse(&message.name, "", message.etag, actor)?;
    let require = require(registry, &asked.etag);
    let make = |book: &_, now| decide::delete(book, &asked.name, &asked.by.actor, &require, now);
    let deleted = registry.decide(make).await.map_err(status_of)?;
    Ok(proto::DeleteWorkerResponse {
        resume_token: registry.token(deleted.revision),
    })
}

/// Lets a zone's silent workers be judged, by the leader.
pub(crate) async fn release_mass_loss(
    registry: &Registry,
    request: Request<proto::ReleaseMassLossRequest>,
) -> Result<proto::ReleaseMassLossResponse, Status> {
    match registry.leads() {
        true => release_mass_loss_here(registry, request).await,
        false => pass_on(registry, &RELEASE_MASS_LOSS, request).await,
    }
}

/// Lets a zone's silent workers be judged.
pub(super) async fn release_mass_loss_here(
    registry: &Registry,
    request: Request<proto::ReleaseMassLossRequest>,
) -> Result<proto::ReleaseMassLossResponse, Status> {
    let actor = actor(&request);
    let message = request.into_inner();
    let mut violations = Violations::new();
    let zone = parse_text("zone", &message.zone, MAX_PLACE, &mut violations);
    let by = By::new(
        actor,
        parse_text("reason", &message.reason, MAX_REASON, &mut violations),
    );
    check(violations)?;
    let held = registry
        .release_mass_loss(zone, by)
        .await
        .map_err(status_of)?;
    Ok(proto::ReleaseMassLossResponse {
        workers: i32::try_from(held).unwrap_or(i32::MAX),
    })
}

/// Changes what the operator says of a worker.
pub(crate) async fn update(
    registry: &Registry,
    request: Request<proto::UpdateWorkerRequest>,
) -> Result<proto::UpdateWorkerResponse, Status> {
    let message = request.into_inner();
    let mut violations = Violations::new();
    let worker = message.worker.unwrap_or_default();
    let name = parse_name("worker.name", &worker.name, &mut violations);
    let etag = worker.etag.clone();
    let edit = parse_edit(worker, message.update_mask, &mut violations);
    check(violations)?;
    let require = require(registry, &etag);
    let make = |book: &Book, now| decide::update(book, &name, &edit, &require, now);
    let (worker, resume_token) = match message.validate_only {
        true => question(registry, make)?,
        false => decide_about(registry, &name, make).await?,
    };
    Ok(proto::UpdateWorkerResponse {
        worker: Some(worker),
        resume_token,
    })
}

fn parse_edit(
    worker: proto::Worker,
    mask: Option<prost_types::FieldMask>,
    violations: &mut Violations,
) -> Edit {
    let paths = mask.unwrap_or_default().paths;
    let all = paths.iter().any(|path| path == "*");
    for path in &paths {
        if !["labels", "price", "capacity_type", "*"].contains(&path.as_str()) {
            violations.add(
                "update_mask",
                format!("{path:?} cannot be changed; labels, price and capacity_type can"),
            );
        }
    }
    let takes = |path: &str, is_set: bool| match paths.is_empty() {
        true => is_set,
        false => all || paths.iter().any(|named| named == path),
    };
    let capacity_type = parse_capacity_type(known(
        "worker.capacity_type",
        worker.capacity_type,
        violations,
    ));
    let price = parse_price("worker.price", worker.price, violations);
    let takes_labels = takes("labels", !worker.labels.is_empty());
    Edit {
        capacity_type: takes("capacity_type", capacity_type.is_some()).then_some(capacity_type),
        price: takes("price", price.is_some()).then_some(price),
        labels: takes_labels.then(|| parse_labels("worker.labels", worker.labels, violations)),
    }
}

/// The worker as it is durable now.
pub(super) fn shown(registry: &Registry, name: &Text) -> Result<proto::Worker, Status> {
    let seen = seen(registry, name)?;
    Ok(render_worker(&seen, &registry.epoch))
}

/// The same, before it is rendered.
pub(super) fn seen(registry: &Registry, name: &Text) -> Result<Seen, Status> {
    let view = registry.view();
    let entry = view.worker(name);
    let entry = entry.ok_or_else(|| status_of(Refused::NoWorker(name.clone()).into()))?;
    Ok(registry.seen(entry))
}
