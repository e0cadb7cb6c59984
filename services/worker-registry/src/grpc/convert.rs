//! The contract's messages from and to what the domain knows. Records on disk are the contract's own
//! messages in an envelope, so these serve both.
//!
//! `parse_*` collects every field that is wrong; `render_*` cannot fail.

mod allocation;
mod ask;
mod drain;
mod enums;
mod event;
mod history;
mod machine;
mod time;
mod token;
mod worker;

pub(crate) use allocation::{parse_allocation, parse_term, render_allocation, render_term};
pub(crate) use ask::{parse_item, render_refusal};
pub(crate) use drain::{parse_blocks, parse_terms, render_progress};
pub(crate) use enums::{
    known, parse_allocation_state, parse_capacity_type, parse_liveness, parse_phase, parse_state,
    render_arch, render_capacity_type, render_liveness, render_state, render_vendor,
};
pub(crate) use event::{parse_event, parse_severity, render_event};
pub(crate) use history::{leave_out_told, render_history};
pub(crate) use machine::{check_names, parse_kind, parse_machine, parse_price, render_price};
pub(crate) use time::{
    is_told, parse_duration, parse_later, parse_named_time, parse_time, read_duration,
    render_duration, render_time,
};
pub(crate) use token::render_token;
pub(crate) use worker::{
    parse_checks, parse_worker_record, render_check, render_record_around, render_seen_drain,
    render_usage, render_worker,
};

use muster_model::constraints::Labels;
use muster_model::name;
use muster_runtime::status::Violations;

use crate::domain::text::Text;

/// The longest id of a call, boot id or owner, in characters.
pub(crate) const MAX_ID: usize = 64;

/// The longest reason in words, in characters.
pub(crate) const MAX_REASON: usize = 256;

/// The most labels of one kind on a worker.
const MAX_LABELS: usize = 64;

/// A required name of a worker.
pub(crate) fn parse_name(field: &str, text: &str, violations: &mut Violations) -> Text {
    if text.is_empty() {
        violations.add(field, "must be set");
    } else {
        violations.take(field, name::check(text));
    }
    text.into()
}

/// A text of at most so many characters.
pub(crate) fn parse_text(
    field: &str,
    text: &str,
    most: usize,
    violations: &mut Violations,
) -> Text {
    check_text(field, text, most, violations);
    text.into()
}

/// Refuses a text of more than so many characters.
pub(crate) fn check_text(field: &str, text: &str, most: usize, violations: &mut Violations) {
    if text.len() > most && text.chars().count() > most {
        violations.add(field, format!("must be at most {most} characters"));
    }
}

/// A required text of at most so many characters.
pub(crate) fn parse_required(
    field: &str,
    text: &str,
    most: usize,
    violations: &mut Violations,
) -> Text {
    if text.is_empty() {
        violations.add(field, "must be set");
    }
    parse_text(field, text, most, violations)
}

/// Labels of a worker.
pub(crate) fn parse_labels(field: &str, labels: Labels, violations: &mut Violations) -> Labels {
    if labels.len() > MAX_LABELS {
        violations.add(field, format!("must be at most {MAX_LABELS}"));
    }
    for (key, value) in &labels {
        violations.take(&format!("{field}[{key:?}]"), name::check_label_key(key));
        violations.take(&format!("{field}[{key:?}]"), name::check_label_value(value));
    }
    labels
}

/// A number that must not be negative.
pub(crate) fn parse_count(field: &str, value: i32, violations: &mut Violations) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| {
        violations.add(field, "must not be negative");
        0
    })
}

/// A generation, which must not be negative.
pub(crate) fn parse_generation(field: &str, value: i64, violations: &mut Violations) -> u64 {
    u64::try_from(value).unwrap_or_else(|_| {
        violations.add(field, "must not be negative");
        0
    })
}

/// A count as the contract has it.
pub(crate) fn render_count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A generation as the contract has it.
pub(crate) fn render_generation(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
