//! What happened to workers, in pages or as a watch.

use futures_util::StreamExt as _;
use muster_proto::types::v1::{EventChange, event_change};
use muster_proto::workers::v1 as proto;
use muster_runtime::auth::Principal;
use muster_runtime::deadline::Deadline;
use muster_runtime::page::{Asked, cut};
use muster_runtime::status::Violations;
use muster_runtime::watch::{Event, Message};
use prost::Message as _;
use tonic::{Request, Status};

use super::convert::render_event;
use super::failure::check;
use super::filter;
use super::readers::{DEFAULT_WAIT, Watch, cursor};
use crate::registry::Registry;
use crate::seen::SeenEvent;

/// Events, oldest first.
pub(super) async fn list(
    registry: &Registry,
    request: Request<proto::ListWorkerEventsRequest>,
) -> Result<proto::ListWorkerEventsResponse, Status> {
    let principal = Principal::of(&request);
    let deadline = Deadline::of(&request).unwrap_or_else(|| Deadline::after(DEFAULT_WAIT));
    let mut message = request.into_inner();
    let mut violations = Violations::new();
    let asked = Asked::take(
        &mut message.page_size,
        &mut message.page_token,
        &mut violations,
    );
    let filter = filter::Events::parse(message.filter.clone(), &mut violations);
    check(violations)?;
    let not_before = std::mem::take(&mut message.not_before);
    registry
        .progress
        .not_before(&not_before, &registry.epoch, deadline)
        .await?;
    let scope = registry
        .sealer
        .scope("ListWorkerEvents", principal.id(), &message);
    let after = cursor(&scope, &asked.token)?;
    // What comes between this position and the look is told twice, which a watch from here allows;
    // the other way round it would be missed.
    let resume_token = registry.hubs.events.resume_token();
    let found = registry
        .hubs
        .events
        .after(&after, |event| filter.meets(&event.0), asked.size + 1);
    let rendered = found.iter().map(|event| render_event(&event.0));
    let (events, more) = cut(rendered, asked.size, |event| event.encoded_len());
    let last = events.last().map(|event| event.id.as_bytes());
    Ok(proto::ListWorkerEventsResponse {
        next_page_token: last
            .filter(|_| more)
            .map(|last| scope.seal(last))
            .unwrap_or_default(),
        resume_token,
        events,
    })
}

/// Events kept, then those that come.
pub(super) fn watch(
    registry: &Registry,
    message: proto::WatchWorkerEventsRequest,
) -> Result<Watch<proto::WatchWorkerEventsResponse>, Status> {
    let mut violations = Violations::new();
    let filter = filter::Events::parse(message.filter, &mut violations);
    check(violations)?;
    let messages = registry
        .hubs
        .events
        .watch(&message.resume_token, filter.into_watch())?;
    let render = |message: Message<SeenEvent>| proto::WatchWorkerEventsResponse {
        changes: message.changes.iter().filter_map(render_change).collect(),
        resume_token: message.resume_token,
        synced: message.synced,
    };
    Ok(messages.map(move |message| message.map(render)).boxed())
}

/// Events only come; that an old one is forgotten is told to nobody.
fn render_change(event: &Event<SeenEvent>) -> Option<EventChange> {
    let Event::Put(seen) = event else { return None };
    Some(EventChange {
        change: Some(event_change::Change::Put(render_event(&seen.0))),
    })
}
