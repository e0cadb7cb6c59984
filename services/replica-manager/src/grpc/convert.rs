//! Between the contract's messages and the domain's types. `parse_*` notes every fault that it finds;
//! `render_*` cannot fail. Nothing here decides what is done.

pub(crate) mod assignment;
pub(crate) mod mask;
pub(crate) mod replica;
pub(crate) mod report;
pub(crate) mod resources;
pub(crate) mod service;
pub(crate) mod spec;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_runtime::status::Violations;

use crate::domain::time::Time;

/// A count that must not be negative.
pub(crate) fn natural(value: i32, path: &str, faults: &mut Violations) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| {
        faults.add(path, format!("must not be negative, is {value}"));
        0
    })
}

/// A count as the contract carries it.
pub(crate) fn count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A version or another large number as the contract carries it.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An enum's value; one that is not in the contract is a fault.
pub(crate) fn known<E: TryFrom<i32> + Default>(
    value: i32,
    path: &str,
    faults: &mut Violations,
) -> E {
    E::try_from(value).unwrap_or_else(|_| {
        faults.add(path, format!("is not a known value: {value}"));
        E::default()
    })
}

/// A span that must not be negative, or a default.
pub(crate) fn span(
    value: Option<prost_types::Duration>,
    default: Duration,
    path: &str,
    faults: &mut Violations,
) -> Duration {
    optional_span(value, path, faults).unwrap_or(default)
}

/// A span that must not be negative, if there is one.
pub(crate) fn optional_span(
    value: Option<prost_types::Duration>,
    path: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    let value = value?;
    let parsed = Duration::try_from(value)
        .ok()
        .filter(|span| *span <= LONGEST);
    if parsed.is_none() {
        faults.add(path, "must be 0 to 10 years");
    }
    parsed
}

/// More than this is taken for a slip.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// A span as the contract carries it.
pub(crate) fn render_span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A time as the contract carries it.
pub(crate) fn render_time(time: Time) -> prost_types::Timestamp {
    SystemTime::from(time).into()
}

/// A time of the contract; `None` for one before 1970 or out of range.
pub(crate) fn parse_time(time: &prost_types::Timestamp) -> Option<Time> {
    let time = SystemTime::try_from(*time).ok()?;
    (time >= UNIX_EPOCH).then(|| Time::from(time))
}
