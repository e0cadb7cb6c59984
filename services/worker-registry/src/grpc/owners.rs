//! What owners of allocations call: claiming, allocating, releasing, reporting.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use muster_proto::types::v1::{ErrorReason, ItemError};
use muster_proto::workers::v1 as proto;
use muster_runtime::auth::Principal;
use muster_runtime::status::{self, Violations};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::task::yield_now;
use tonic::{Code, Request, Status};

use super::access::REPORT_DRAIN;
use super::convert::{
    MAX_ID, MAX_REASON, parse_blocks, parse_count, parse_duration, parse_item, parse_name,
    parse_named_time, parse_required, parse_term, parse_text, render_allocation, render_refusal,
    render_term,
};
use super::failure::{check, class, status_of};
use super::peers::pass_on;
use super::refusals::{Reasons, refusals};
use crate::domain::allocation::{Allocation, Request as Call};
use crate::domain::decide::{self, Item, Refused};
use crate::domain::drain::Report;
use crate::domain::placement;
use crate::domain::text::Text;
use crate::registry::{At, Error, Registry};

/// The most allocations of one batch.
const MAX_BATCH: usize = 1000;

/// The most allocations of one transaction: what a transaction may name is limited, and each names its
/// worker, the worker's room, itself, its call, the one that it replaces, and that one's call.
const MAX_TOGETHER: usize = 12;

/// Takes room on a worker.
pub(crate) async fn allocate(
    registry: &Registry,
    request: Request<proto::AllocateRequest>,
) -> Result<proto::AllocateResponse, Status> {
    let principal: Text = Principal::of(&request).id().into();
    let message = request.into_inner();
    let mut violations = Violations::new();
    let owner = parse_required("owner", &message.owner, MAX_ID, &mut violations);
    let asks_only = message.validate_only;
    let term = match (&message.owner_term, asks_only) {
        (None, true) => no_term(),
        (term, _) => parse_term(term.as_ref(), &mut violations),
    };
    let Some(spec) = message.spec else {
        violations.add("spec", "must be set");
        return Err(violations.into_status());
    };
    let mut inner = Violations::new();
    let call = call(&principal, &owner, &spec, asks_only, &mut inner);
    let item = parse_item(owner, term, spec, call, &mut inner);
    violations.extend_under("spec", inner);
    check(violations)?;
    if asks_only {
        return Ok(answer_question(registry, &item).await);
    }
    let items = std::slice::from_ref(&item);
    let make = |book: &_, now| {
        let mut decision = decide::allocate(book, items, false, now);
        let one = decision.answer.pop().unwrap_or(Err(Refused::NoCapacity))?;
        Ok(decide::Decision {
            draft: decision.draft,
            answer: one,
        })
    };
    match registry.decide(make).await {
        Ok(At { value, revision }) => Ok(proto::AllocateResponse {
            allocation: Some(render_allocation(&value, None)),
            refusals: Vec::new(),
            resume_token: registry.token(revision),
        }),
        Err(Error::Refused(Refused::NoCapacity)) => Err(no_capacity(registry, &item).await),
        Err(error) => Err(status_of(error)),
    }
}

/// No term: it is lower than any, and only asks.
fn no_term() -> crate::domain::allocation::OwnerTerm {
    crate::domain::allocation::OwnerTerm {
        epoch: "".into(),
        revision: 0,
    }
}

/// The call that a spec is part of; none for a question.
fn call(
    principal: &Text,
    owner: &Text,
    spec: &proto::AllocationSpec,
    asks_only: bool,
    violations: &mut Violations,
) -> Option<Call> {
    if asks_only {
        return None;
    }
    Some(Call {
        principal: principal.clone(),
        id: parse_required("request_id", &spec.request_id, MAX_ID, violations),
        body: checksum(owner, spec),
    })
}

/// The same for the same owner and spec, in every version of this program.
fn checksum(owner: &str, spec: &proto::AllocationSpec) -> u64 {
    let mut digest = Sha256::new();
    digest.update(owner.len().to_be_bytes());
    digest.update(owner.as_bytes());
    digest.update(spec.encode_to_vec());
    let bytes: [u8; 32] = digest.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    u64::from_be_bytes(first)
}

/// Where it would go, and why each other worker is refused.
async fn answer_question(registry: &Registry, item: &Item) -> proto::AllocateResponse {
    let now = registry.clock.now();
    let decided = registry.with_book(|book| decide::allocate_in_question(book, item, now));
    let refusals = refusals(registry, &item.ask).await;
    proto::AllocateResponse {
        allocation: decided.map(|allocation| render_allocation(&allocation, None)),
        refusals: refusals.iter().map(render_refusal).collect(),
        resume_token: registry.token(registry.progress.current()),
    }
}

async fn no_capacity(registry: &Registry, item: &Item) -> Status {
    let refusals = refusals(registry, &item.ask).await;
    let message = format!("no worker fits now: {}", placement::summary(&refusals));
    status::error(Code::ResourceExhausted, ErrorReason::NoCapacity, message).into_status()
}

/// Takes room for several at once.
pub(crate) async fn batch_allocate(
    registry: &Registry,
    request: Request<proto::BatchAllocateRequest>,
) -> Result<proto::BatchAllocateResponse, Status> {
    let principal: Text = Principal::of(&request).id().into();
    let message = request.into_inner();
    let mut violations = Violations::new();
    let owner = parse_required("owner", &message.owner, MAX_ID, &mut violations);
    let term = parse_term(message.owner_term.as_ref(), &mut violations);
    let together = message.all_or_nothing;
    let most = if together { MAX_TOGETHER } else { MAX_BATCH };
    if message.specs.is_empty() || message.specs.len() > most {
        violations.add("specs", format!("must be 1 to {most}"));
    }
    let mut items = Vec::with_capacity(message.specs.len().min(most));
    for (place, spec) in message.specs.into_iter().take(most).enumerate() {
        let mut inner = Violations::new();
        let call = call(&principal, &owner, &spec, false, &mut inner);
        items.push(parse_item(
            owner.clone(),
            term.clone(),
            spec,
            call,
            &mut inner,
        ));
        violations.extend_under(&format!("specs[{place}]"), inner);
    }
    check(violations)?;
    // One chunk is decided after another, each in a turn of its own; all of them wait for the disk together.
    let chunks: Vec<_> = items.chunks(MAX_TOGETHER).collect();
    let in_turn = stream::iter(0..chunks.len()).then(async |place| {
        yield_now().await;
        place
    });
    let decide = async |place: usize| {
        registry
            .decide(|book, now| Ok(decide::allocate(book, chunks[place], together, now)))
            .await
    };
    let decided: Vec<_> = in_turn.map(decide).buffered(MAX_BATCH).collect().await;
    let mut results = Vec::with_capacity(items.len());
    let mut reasons = Reasons::new(registry);
    let mut revision = 0;
    for (chunk, decided) in chunks.iter().zip(decided) {
        let decided = decided.map_err(status_of)?;
        revision = revision.max(decided.revision);
        if together && let Some(Err(refused)) = decided.value.last() {
            return Err(batch_refused(registry, chunk, decided.value.len(), refused).await);
        }
        for (item, result) in chunk.iter().zip(decided.value) {
            results.push(render_result(&mut reasons, item, result).await);
        }
    }
    Ok(proto::BatchAllocateResponse {
        results,
        resume_token: registry.token(revision),
    })
}

/// The first refusal refuses a batch of all or nothing.
async fn batch_refused(
    registry: &Registry,
    items: &[Item],
    count: usize,
    refused: &Refused,
) -> Status {
    let place = count.saturating_sub(1);
    match (refused, items.get(place)) {
        (Refused::NoCapacity, Some(item)) => no_capacity(registry, item).await,
        (refused, _) => super::failure::refusal(refused),
    }
}

async fn render_result(
    reasons: &mut Reasons<'_>,
    item: &Item,
    result: Result<Arc<Allocation>, Refused>,
) -> proto::AllocationResult {
    use proto::allocation_result::Result::{Allocation, Error};
    match result {
        Ok(allocation) => proto::AllocationResult {
            result: Some(Allocation(render_allocation(&allocation, None))),
            refusals: Vec::new(),
        },
        Err(refused) => proto::AllocationResult {
            result: Some(Error(ItemError {
                reason: class(&refused).1.into(),
                message: refused.to_string(),
            })),
            refusals: match refused == Refused::NoCapacity {
                true => reasons.of(&item.ask).await,
                false => Vec::new(),
            },
        },
    }
}

/// Gives room back.
pub(crate) async fn release(
    registry: &Registry,
    request: Request<proto::ReleaseRequest>,
) -> Result<proto::ReleaseResponse, Status> {
    let message = request.into_inner();
    let mut violations = Violations::new();
    let id = parse_required(
        "allocation_id",
        &message.allocation_id,
        MAX_ID,
        &mut violations,
    );
    let owner = parse_required("owner", &message.owner, MAX_ID, &mut violations);
    let term = parse_term(message.owner_term.as_ref(), &mut violations);
    let grace = parse_duration("stop_grace", message.stop_grace.as_ref(), &mut violations);
    let reason = parse_text("reason", &message.reason, MAX_REASON, &mut violations);
    check(violations)?;
    let make = |book: &_, now| decide::release(book, &id, &owner, &term, grace, &reason, now);
    let released = registry.decide(make).await.map_err(status_of)?;
    Ok(proto::ReleaseResponse {
        allocation: released
            .value
            .map(|allocation| render_allocation(&allocation, None)),
        resume_token: registry.token(released.revision),
    })
}

/// Raises an owner's term.
pub(crate) async fn claim(
    registry: &Registry,
    request: Request<proto::ClaimOwnerRequest>,
) -> Result<proto::ClaimOwnerResponse, Status> {
    let message = request.into_inner();
    let mut violations = Violations::new();
    let owner = parse_required("owner", &message.owner, MAX_ID, &mut violations);
    let term = parse_term(message.owner_term.as_ref(), &mut violations);
    check(violations)?;
    let make = |book: &_, _| decide::claim_owner(book, &owner, &term);
    let claimed = registry.decide(make).await.map_err(status_of)?;
    Ok(proto::ClaimOwnerResponse {
        previous_term: claimed.value.as_ref().map(render_term),
        epoch: registry.epoch.to_string(),
        resume_token: registry.token(claimed.revision),
    })
}

/// Takes what an owner says of its moves, or lets the leader take it.
pub(super) async fn report_drain(
    registry: &Registry,
    request: Request<proto::ReportDrainRequest>,
) -> Result<proto::ReportDrainResponse, Status> {
    match registry.leads() {
        true => report_drain_here(registry, request),
        false => pass_on(registry, &REPORT_DRAIN, request).await,
    }
}

/// Takes what an owner says of its moves.
pub(super) fn report_drain_here(
    registry: &Registry,
    request: Request<proto::ReportDrainRequest>,
) -> Result<proto::ReportDrainResponse, Status> {
    let message = request.into_inner();
    let mut violations = Violations::new();
    let owner = parse_required("owner", &message.owner, MAX_ID, &mut violations);
    let term = parse_term(message.owner_term.as_ref(), &mut violations);
    let worker = parse_name("worker", &message.worker, &mut violations);
    let report = Report {
        moved: parse_count("moved", message.moved, &mut violations),
        blocked: parse_blocks(message.blocked, &mut violations),
        eta: parse_named_time("eta_time", message.eta_time.as_ref(), &mut violations),
        at: registry.clock.now(),
    };
    parse_count("left", message.left, &mut violations);
    check(violations)?;
    let allowed = registry.with_book(|book| decide::may_report(book, &owner, &term, &worker));
    allowed.map_err(|refused| status_of(refused.into()))?;
    if let Some(live) = registry.lives.get(&worker) {
        live.report(owner, report);
    }
    registry.observe(&worker);
    Ok(proto::ReportDrainResponse {})
}
