//! Times and durations. What callers name has to be in the contract's range: whatever is kept is told
//! again, to callers that refuse more.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_runtime::status::Violations;
use prost_types::Timestamp;

/// The seconds of the first and of the last year that a timestamp may name, 1 and 9999.
const CALENDAR: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The longest duration, in seconds: about 10,000 years.
const LONGEST: u64 = 315_576_000_000;

const NANOS: u32 = 1_000_000_000;

/// A point in time.
pub(crate) fn render_time(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// A point in time of our own records, or of another instance; none if it is absent or damaged.
pub(crate) fn parse_time(time: Option<&Timestamp>) -> Option<SystemTime> {
    let time = time?;
    let nanos = u32::try_from(time.nanos).ok().filter(|one| *one < NANOS)?;
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let second = match time.seconds < 0 {
        true => UNIX_EPOCH.checked_sub(seconds)?,
        false => UNIX_EPOCH.checked_add(seconds)?,
    };
    second.checked_add(Duration::from_nanos(nanos.into()))
}

/// A point in time that a caller names; none if it is absent.
pub(crate) fn parse_named_time(
    field: &str,
    time: Option<&Timestamp>,
    violations: &mut Violations,
) -> Option<SystemTime> {
    let time = time?;
    let parsed = parse_time(Some(time).filter(|time| is_told(time)));
    if parsed.is_none() {
        violations.add(field, "must be a time of the years 1 to 9999");
    }
    parsed
}

/// Whether a time is of the years that the contract tells.
pub(crate) fn is_told(time: &Timestamp) -> bool {
    CALENDAR.contains(&time.seconds) && parse_time(Some(time)).is_some()
}

/// The time that comes so long after another as a caller asks; none if it is past the calendar.
pub(crate) fn parse_later(
    field: &str,
    time: SystemTime,
    wait: Duration,
    violations: &mut Violations,
) -> Option<SystemTime> {
    let later = time.checked_add(wait);
    let later = later.filter(|later| CALENDAR.contains(&render_time(*later).seconds));
    if later.is_none() {
        violations.add(field, "must end before the year 10000");
    }
    later
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
    let parsed = read_duration(duration?);
    if parsed.is_none() {
        violations.add(field, format!("must be a duration of 0 to {LONGEST} s"));
    }
    parsed
}

/// A duration of the contract's range; none if it is not one.
pub(crate) fn read_duration(duration: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok();
    let nanos = u32::try_from(duration.nanos).ok();
    seconds
        .zip(nanos.filter(|nanos| *nanos < NANOS))
        .map(|(seconds, nanos)| Duration::new(seconds, nanos))
        .filter(|read| *read <= Duration::from_secs(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(violations: &Violations) -> bool {
        !violations.is_empty()
    }

    #[test]
    fn durations_of_the_contract_are_taken_and_no_others() {
        let longest = 315_576_000_000;
        for (seconds, nanos, taken) in [
            (0, 0, true),
            (1, 999_999_999, true),
            (longest, 0, true),
            (longest, 1, false),
            (longest + 1, 0, false),
            (1 << 62, 0, false),
            (i64::MAX, 0, false),
            (i64::MIN, 0, false),
            (-1, 0, false),
            (0, -1, false),
            (1, -1, false),
            (-1, 1, false),
            (0, 1_000_000_000, false),
        ] {
            let duration = prost_types::Duration { seconds, nanos };
            let mut violations = Violations::new();
            let parsed = parse_duration("ttl", Some(&duration), &mut violations);
            assert_eq!(parsed.map(render_duration), taken.then_some(duration));
            assert_eq!(refused(&violations), !taken, "{duration:?}");
        }
        let mut violations = Violations::new();
        assert_eq!(parse_duration("ttl", None, &mut violations), None);
        assert!(!refused(&violations));
    }

    #[test]
    fn times_of_the_calendar_are_taken_and_no_others() {
        for (seconds, nanos, taken) in [
            (0, 0, true),
            (-62_135_596_800, 0, true),
            (-62_135_596_801, 999_999_999, false),
            (-1, 999_999_999, true),
            (253_402_300_799, 999_999_999, true),
            (253_402_300_800, 0, false),
            (i64::MAX, 0, false),
            (i64::MIN, 0, false),
            (1, -1, false),
            (1, 1_000_000_000, false),
        ] {
            let time = Timestamp { seconds, nanos };
            let mut violations = Violations::new();
            let parsed = parse_named_time("since_time", Some(&time), &mut violations);
            assert_eq!(parsed.map(render_time), taken.then_some(time));
            assert_eq!(refused(&violations), !taken, "{time:?}");
        }
        let mut violations = Violations::new();
        assert_eq!(parse_named_time("since_time", None, &mut violations), None);
        assert!(!refused(&violations));
    }

    #[test]
    fn what_ends_past_the_calendar_is_refused() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let last = Duration::from_secs(253_402_300_799 - 1_800_000_000);
        let second = Duration::from_secs(1);
        for (wait, taken) in [
            (second, true),
            (last, true),
            (last + second, false),
            (Duration::MAX, false),
        ] {
            let mut violations = Violations::new();
            let later = parse_later("ttl", now, wait, &mut violations);
            assert_eq!(later, taken.then(|| now + wait));
            assert_eq!(refused(&violations), !taken, "{wait:?}");
        }
    }
}
