//! What anyone may read: workers and allocations, one by one, in pages, or as watches.

use std::time::Duration;

use futures_util::stream::BoxStream;
use muster_proto::workers::v1 as proto;
use muster_runtime::auth::Principal;
use muster_runtime::deadline::Deadline;
use muster_runtime::page::{self, Asked, Budget, Scope, TokenError};
use muster_runtime::status::Violations;
use muster_runtime::watch::{self, Event};
use muster_runtime::wire;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::access::speaks_for;
use super::convert::{
    MAX_ID, parse_name, parse_required, render_allocation, render_history, render_worker,
};
use super::failure::{check, status_of};
use super::filter;
use super::wire::put_worker;
use crate::domain::decide::Refused;
use crate::domain::fleet::Fleet;
use crate::domain::text::Text;
use crate::registry::Registry;
use crate::seen::{Seen, SeenAllocation};

/// How long a read waits for its position if the caller gave no deadline.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// A stream of a watch.
pub(super) type Watch<T> = BoxStream<'static, Result<T, Status>>;

/// Waits until reads show what the caller has seen already.
async fn catch_up<T>(
    registry: &Registry,
    request: &Request<T>,
    not_before: &str,
) -> Result<(), Status> {
    let deadline = Deadline::of(request).unwrap_or_else(|| Deadline::after(DEFAULT_WAIT));
    registry
        .progress
        .not_before(not_before, &registry.epoch, deadline)
        .await
}

/// The last item before the page that a token asks for.
pub(super) fn cursor(scope: &Scope<'_>, token: &str) -> Result<String, Status> {
    let Some(cursor) = scope.open(token)? else {
        return Ok(String::new());
    };
    Ok(String::from_utf8(cursor.to_vec()).map_err(|_| TokenError::Mismatch)?)
}

/// One worker, with its history and allocations.
pub(super) async fn get_worker(
    registry: &Registry,
    request: Request<proto::GetWorkerRequest>,
) -> Result<proto::GetWorkerResponse, Status> {
    let message = request.get_ref();
    speaks_for(registry, &request, &message.name)?;
    let mut violations = Violations::new();
    let name = parse_name("name", &message.name, &mut violations);
    check(violations)?;
    catch_up(registry, &request, &message.not_before).await?;
    let view = registry.view();
    let entry = view
        .worker(&name)
        .ok_or_else(|| status_of(Refused::NoWorker(name).into()))?;
    let mut worker = render_worker(&registry.seen(entry), &registry.epoch);
    worker.history = render_history(&entry.worker);
    let allocations = entry.allocations().iter().map(|one| {
        let seen = SeenAllocation::new(one, Some(&*entry.worker));
        render_allocation(&seen.allocation, seen.revoked.as_ref())
    });
    Ok(proto::GetWorkerResponse {
        worker: Some(worker),
        allocations: allocations.collect(),
        resume_token: registry.token(view.revision()),
    })
}

/// Workers, in order of name.
pub(super) async fn list_workers(
    registry: &Registry,
    request: Request<proto::ListWorkersRequest>,
) -> Result<Response<proto::ListWorkersResponse>, Status> {
    catch_up(registry, &request, &request.get_ref().not_before).await?;
    let principal = Principal::of(&request);
    let mut message = request.into_inner();
    let mut violations = Violations::new();
    let asked = Asked::take(
        &mut message.page_size,
        &mut message.page_token,
        &mut violations,
    );
    message.not_before.clear();
    let filter = filter::Workers::parse(message.filter.clone(), &mut violations);
    check(violations)?;
    let scope = registry
        .sealer
        .scope("ListWorkers", principal.id(), &message);
    let after = cursor(&scope, &asked.token)?;
    // Rendering takes longer than finding, and needs no lock.
    let (found, total, revision) = find_workers(registry, &filter, &after, asked.size);
    let mut page = Vec::new();
    let (last, cut) = put_page(&found, asked.size, &registry.epoch, &mut page);
    let rest = proto::ListWorkersResponse {
        next_page_token: last
            .filter(|_| cut)
            .map(|last| scope.seal(last.as_bytes()))
            .unwrap_or_default(),
        total_size: total,
        resume_token: registry.token(revision),
        workers: Vec::new(),
    };
    // Writing to memory cannot fail.
    let _ = rest.encode(&mut page);
    Ok(wire::answer(page))
}

/// The field of a page that holds its workers.
const WORKERS: u32 = 1;

/// Writes a page of what was found: the last worker on it, and whether any is left.
fn put_page<'a>(
    found: &'a [Seen],
    size: usize,
    epoch: &str,
    to: &mut Vec<u8>,
) -> (Option<&'a Text>, bool) {
    let mut budget = Budget::new(size);
    let mut last = None;
    for seen in found {
        let start = to.len();
        if budget.is_full() {
            return (last, true);
        }
        wire::put_message(WORKERS, to, |to| put_worker(seen, epoch, to));
        if !budget.admit(to.len() - start) {
            to.truncate(start);
            return (last, true);
        }
        if last.is_none() {
            // The others are about as long: a page that grows is copied again and again.
            to.reserve((found.len() * (to.len() - start)).min(page::MAX_BYTES));
        }
        last = Some(&seen.worker.name);
    }
    (last, false)
}

/// The workers of a page and one more, how many there are in all, and as of which revision.
fn find_workers(
    registry: &Registry,
    filter: &filter::Workers,
    after: &str,
    size: usize,
) -> (Vec<Seen>, i32, u64) {
    let view = registry.view();
    let meets = |entry: &&crate::domain::fleet::Entry| {
        filter.meets(&entry.worker)
            && (!filter.looks_at_liveness() || filter.is_live(registry.liveness(&entry.worker)))
    };
    let page = view.workers_after(after).filter(meets).take(size + 1);
    let found = page.map(|entry| registry.seen(entry)).collect();
    let total = match filter.is_all() {
        true => view.worker_count(),
        false => view.workers().filter(meets).count(),
    };
    (
        found,
        i32::try_from(total).unwrap_or(i32::MAX),
        view.revision(),
    )
}

/// Renders a page of what was found; whether any of it is left.
fn fill<T, M: prost::Message>(
    found: &[T],
    size: usize,
    render: impl Fn(&T) -> M,
) -> (Vec<M>, bool) {
    let mut budget = Budget::new(size);
    let mut page = Vec::with_capacity(found.len());
    for one in found {
        if budget.is_full() {
            return (page, true);
        }
        let message = render(one);
        if !budget.admit(message.encoded_len()) {
            return (page, true);
        }
        page.push(message);
    }
    (page, false)
}

/// Workers now, then every change.
pub(super) fn watch_workers(
    registry: &Registry,
    message: proto::WatchWorkersRequest,
) -> Result<Response<Watch<proto::WatchWorkersResponse>>, Status> {
    let mut violations = Violations::new();
    let filter = filter::Workers::parse(message.filter, &mut violations);
    check(violations)?;
    let messages = registry
        .hubs
        .workers
        .watch(&message.resume_token, filter.into_watch())?;
    let epoch = registry.epoch.clone();
    Ok(watch::respond(messages, move |event| {
        Some(render_worker_change(event, &epoch))
    }))
}

fn render_worker_change(event: &Event<Seen>, epoch: &str) -> proto::WorkerChange {
    use proto::worker_change::Change::{Deleted, Observed, Put};
    let worker = render_worker(event.resource(), epoch);
    let change = match event {
        Event::Put(_) => Put(worker),
        Event::Deleted(_) => Deleted(worker),
        Event::Observed(_) => Observed(worker),
    };
    proto::WorkerChange {
        change: Some(change),
    }
}

/// One allocation.
pub(super) async fn get_allocation(
    registry: &Registry,
    request: Request<proto::GetAllocationRequest>,
) -> Result<proto::GetAllocationResponse, Status> {
    let mut violations = Violations::new();
    let id = parse_required("id", &request.get_ref().id, MAX_ID, &mut violations);
    check(violations)?;
    catch_up(registry, &request, &request.get_ref().not_before).await?;
    let seen = {
        let view = registry.view();
        let allocation = view.allocation(&id);
        let allocation = allocation.ok_or_else(|| status_of(Refused::NoAllocation(id).into()))?;
        registry.seen_allocation(&view, allocation)
    };
    speaks_for(registry, &request, &seen.allocation.worker)?;
    Ok(proto::GetAllocationResponse {
        allocation: Some(render_allocation(&seen.allocation, seen.revoked.as_ref())),
        resume_token: registry.token(registry.progress.current()),
    })
}

/// Allocations, in order of id.
pub(super) async fn list_allocations(
    registry: &Registry,
    request: Request<proto::ListAllocationsRequest>,
) -> Result<proto::ListAllocationsResponse, Status> {
    catch_up(registry, &request, &request.get_ref().not_before).await?;
    let principal = Principal::of(&request);
    let mut message = request.into_inner();
    let mut violations = Violations::new();
    let asked = Asked::take(
        &mut message.page_size,
        &mut message.page_token,
        &mut violations,
    );
    message.not_before.clear();
    let filter = filter::Allocations::parse(message.filter.clone(), &mut violations);
    check(violations)?;
    let scope = registry
        .sealer
        .scope("ListAllocations", principal.id(), &message);
    let after = cursor(&scope, &asked.token)?;
    let (found, total, revision) = find_allocations(registry, &filter, &after, asked.size);
    let (allocations, cut) = fill(&found, asked.size, |seen| {
        render_allocation(&seen.allocation, seen.revoked.as_ref())
    });
    let last = allocations
        .last()
        .map(|allocation| allocation.id.as_bytes());
    Ok(proto::ListAllocationsResponse {
        next_page_token: last
            .filter(|_| cut)
            .map(|last| scope.seal(last))
            .unwrap_or_default(),
        total_size: total,
        resume_token: registry.token(revision),
        allocations,
    })
}

fn find_allocations(
    registry: &Registry,
    filter: &filter::Allocations,
    after: &str,
    size: usize,
) -> (Vec<SeenAllocation>, i32, u64) {
    let view: &Fleet = &registry.view();
    let seen = |allocation| registry.seen_allocation(view, allocation);
    let page = view
        .allocations_after(after)
        .map(seen)
        .filter(|seen| filter.meets(seen));
    let found = page.take(size + 1).collect();
    let total = match filter.is_all() {
        true => view.allocation_count(),
        false => view
            .allocations()
            .map(seen)
            .filter(|seen| filter.meets(seen))
            .count(),
    };
    (
        found,
        i32::try_from(total).unwrap_or(i32::MAX),
        view.revision(),
    )
}

/// Allocations now, then every change.
pub(super) fn watch_allocations(
    registry: &Registry,
    message: proto::WatchAllocationsRequest,
) -> Result<Response<Watch<proto::WatchAllocationsResponse>>, Status> {
    let mut violations = Violations::new();
    let filter = filter::Allocations::parse(message.filter, &mut violations);
    check(violations)?;
    let messages = registry
        .hubs
        .allocations
        .watch(&message.resume_token, filter.into_watch())?;
    Ok(watch::respond(messages, |event| {
        Some(render_allocation_change(event))
    }))
}

fn render_allocation_change(event: &Event<SeenAllocation>) -> proto::AllocationChange {
    use proto::allocation_change::Change::{Deleted, Put};
    let seen = event.resource();
    let allocation = render_allocation(&seen.allocation, seen.revoked.as_ref());
    let change = match event {
        // Nothing of an allocation is in memory only.
        Event::Put(_) | Event::Observed(_) => Put(allocation),
        Event::Deleted(_) => Deleted(allocation),
    };
    proto::AllocationChange {
        change: Some(change),
    }
}
