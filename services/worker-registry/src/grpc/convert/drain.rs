//! Drains.

use std::sync::Arc;
use std::time::SystemTime;

use muster_proto::workers::v1 as proto;
use muster_runtime::status::Violations;

use super::enums::known;
use super::time::{parse_duration, parse_later, parse_time, render_time};
use super::{MAX_ID, MAX_REASON, check_text, parse_count, parse_text, render_count};
use crate::domain::drain::{AfterDeadline, Block, Cause, Drain, MAX_BLOCKED, Progress, Terms};
use crate::domain::text::Text;

/// The terms of a drain that begins now.
pub(crate) fn parse_terms(
    request: &proto::DrainWorkerRequest,
    actor: Text,
    now: SystemTime,
    violations: &mut Violations,
) -> Terms {
    let deadline = parse_duration("deadline", request.deadline.as_ref(), violations);
    let after = parse_after(known("after_deadline", request.after_deadline, violations));
    if after == AfterDeadline::Force && request.deadline.is_none() {
        violations.add("deadline", "must be set with after_deadline FORCE");
    }
    let max_parallel = parse_count("max_parallel", request.max_parallel, violations);
    let cause = parse_cause(known("cause", request.cause, violations));
    Terms {
        cause,
        reason: parse_text("reason", &request.reason, MAX_REASON, violations),
        actor,
        deadline: deadline.and_then(|wait| parse_later("deadline", now, wait, violations)),
        max_parallel: max_parallel.max(1),
        after,
    }
}

/// A drain with how far it has come; once it has ended, with how far it came.
pub(crate) fn render_drain(drain: &Drain, progress: Option<&Progress>, left: u32) -> proto::Drain {
    let terms = &drain.terms;
    let told = progress.map_or(0, |progress| progress.moved);
    let (moved, left) = match drain.is_running() {
        true => (told, left),
        false => (drain.total.saturating_sub(drain.left), drain.left),
    };
    proto::Drain {
        cause: render_cause(terms.cause).into(),
        reason: terms.reason.to_string(),
        actor: terms.actor.to_string(),
        start_time: Some(render_time(drain.started)),
        deadline_time: terms.deadline.map(render_time),
        max_parallel: render_count(terms.max_parallel),
        after_deadline: render_after(terms.after).into(),
        forced: drain.forced,
        total: render_count(drain.total),
        moved: render_count(moved),
        left: render_count(left),
        blocked: progress
            .map(|progress| progress.blocked.iter().map(render_block).collect())
            .unwrap_or_default(),
        eta_time: progress.and_then(|progress| progress.eta).map(render_time),
        end_time: drain.ended.map(render_time),
    }
}

/// How far a drain has come, without the drain.
pub(crate) fn render_progress(progress: &Progress) -> proto::Drain {
    proto::Drain {
        moved: render_count(progress.moved),
        blocked: progress.blocked.iter().map(render_block).collect(),
        eta_time: progress.eta.map(render_time),
        ..proto::Drain::default()
    }
}

/// A drain from its record.
pub(crate) fn parse_drain(drain: &proto::Drain) -> Option<Arc<Drain>> {
    Some(Arc::new(Drain {
        terms: Terms {
            cause: parse_cause(drain.cause()),
            reason: drain.reason.as_str().into(),
            actor: drain.actor.as_str().into(),
            deadline: parse_time(drain.deadline_time.as_ref()),
            max_parallel: u32::try_from(drain.max_parallel).ok()?,
            after: parse_after(drain.after_deadline()),
        },
        started: parse_time(drain.start_time.as_ref())?,
        forced: drain.forced,
        total: u32::try_from(drain.total).ok()?,
        ended: parse_time(drain.end_time.as_ref()),
        left: u32::try_from(drain.left).unwrap_or(0),
    }))
}

/// What an owner cannot move now.
pub(crate) fn parse_blocks(
    blocks: Vec<proto::DrainBlock>,
    violations: &mut Violations,
) -> Vec<Block> {
    if blocks.len() > MAX_BLOCKED {
        violations.add("blocked", format!("must be at most {MAX_BLOCKED}"));
    }
    let blocks = blocks.into_iter().take(MAX_BLOCKED).enumerate();
    let parse = |(place, block): (usize, proto::DrainBlock)| {
        let texts = [
            ("allocation_id", &block.allocation_id, MAX_ID),
            ("subject", &block.subject, MAX_REASON),
            ("reason", &block.reason, MAX_ID),
        ];
        for (name, text, most) in texts {
            if text.len() > most {
                check_text(&format!("blocked[{place}].{name}"), text, most, violations);
            }
        }
        Block {
            allocation: block.allocation_id,
            subject: block.subject,
            reason: block.reason,
            // Words for people, as long as they may be: not worth losing a report for.
            message: block.message.chars().take(MAX_REASON).collect(),
        }
    };
    blocks.map(parse).collect()
}

fn render_block(block: &Block) -> proto::DrainBlock {
    proto::DrainBlock {
        allocation_id: block.allocation.clone(),
        subject: block.subject.clone(),
        reason: block.reason.clone(),
        message: block.message.clone(),
    }
}

fn parse_cause(cause: proto::DrainCause) -> Cause {
    match cause {
        proto::DrainCause::Unspecified | proto::DrainCause::Operator => Cause::Operator,
        proto::DrainCause::Shutdown => Cause::Shutdown,
        proto::DrainCause::Reclaim => Cause::Reclaim,
    }
}

fn render_cause(cause: Cause) -> proto::DrainCause {
    match cause {
        Cause::Operator => proto::DrainCause::Operator,
        Cause::Shutdown => proto::DrainCause::Shutdown,
        Cause::Reclaim => proto::DrainCause::Reclaim,
    }
}

fn parse_after(after: proto::AfterDeadline) -> AfterDeadline {
    match after {
        proto::AfterDeadline::Unspecified | proto::AfterDeadline::Wait => AfterDeadline::Wait,
        proto::AfterDeadline::Force => AfterDeadline::Force,
    }
}

fn render_after(after: AfterDeadline) -> proto::AfterDeadline {
    match after {
        AfterDeadline::Wait => proto::AfterDeadline::Wait,
        AfterDeadline::Force => proto::AfterDeadline::Force,
    }
}
