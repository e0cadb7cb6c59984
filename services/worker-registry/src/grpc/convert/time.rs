//! Times and durations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_runtime::status::Violations;
use prost_types::Timestamp;

/// A point in time.
pub(crate) fn render_time(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// A point in time; none if it is absent or out of the calendar.
pub(crate) fn parse_time(time: Option<&Timestamp>) -> Option<SystemTime> {
    let time = time?;
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanos = u32::try_from(time.nanos).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

/// A duration.
pub(crate) fn render_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Under a thousand million, which an i32 holds.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration that is not negative; none if it is absent.
pub(crate) fn parse_duration(
    field: &str,
    duration: Option<&prost_types::Duration>,
    violations: &mut Violations,
) -> Option<Duration> {
    let duration = duration?;
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u32::try_from(duration.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    let parsed = seconds
        .zip(nanos)
        .map(|(seconds, nanos)| Duration::new(seconds, nanos));
    if parsed.is_none() {
        violations.add(field, "must be a duration that is not negative");
    }
    parsed
}
