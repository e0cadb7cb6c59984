//! Durations: `500ms`, `30s`, `5m`, `6h`, `2d`, and several of them together, `1m30s`.

use std::time::Duration;

/// The longest that a duration may be, in milliseconds: 100,000 days.
pub const MAX_MS: u64 = 100_000 * DAY;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const UNITS: [(&str, u64); 5] = [
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
    ("ms", 1),
];

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has no unit.
    #[error("`{0}` has no unit: write {0}s, {0}m, {0}h or {0}d")]
    NoUnit(String),
    /// It is no number with a unit.
    #[error(
        "`{0}` is no duration: write whole numbers with ms, s, m, h or d, such as 30s, 5m or 1h30m"
    )]
    Malformed(String),
    /// Its parts are not from the largest to the smallest, each once.
    #[error("`{0}` is out of order: write the larger unit first and each once, such as 1h30m")]
    OutOfOrder(String),
    /// It is longer than can be counted.
    #[error("`{0}` is too long: at most 100000d")]
    TooLong(String),
}

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let text = text.trim();
    let malformed = || Error::Malformed(text.to_owned());
    let too_long = || Error::TooLong(text.to_owned());
    let mut total = 0u64;
    let mut smaller = UNITS.as_slice();
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after, |c| c.is_ascii_alphabetic());
        if unit.is_empty() && number == text {
            return Err(Error::NoUnit(text.to_owned()));
        }
        let (_, ms) = *UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(malformed)?;
        let place = smaller.iter().position(|(name, _)| *name == unit);
        let place = place.ok_or_else(|| Error::OutOfOrder(text.to_owned()))?;
        if number.is_empty() {
            return Err(malformed());
        }
        let part = number
            .parse()
            .ok()
            .and_then(|number: u64| number.checked_mul(ms));
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or_else(too_long)?;
        smaller = smaller.get(place + 1..).unwrap_or_default();
        rest = after;
    }
    match total {
        _ if text.is_empty() => Err(malformed()),
        _ if total > MAX_MS => Err(too_long()),
        _ => Ok(Duration::from_millis(total)),
    }
}

/// Prints a duration exactly, down to the millisecond: `1h30m`, `500ms`, `0s`.
pub fn print(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, ms) in UNITS {
        if left >= ms {
            text.push_str(&format!("{}{name}", left / ms));
            left %= ms;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// Prints a duration for a person, in one unit, rounded down: `850 ms`, `12 m`, `3 h`, `5 d`.
pub fn human(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match ms {
        0 => "0 s".to_owned(),
        1..SECOND => format!("{ms} ms"),
        SECOND..MINUTE => format!("{} s", ms / SECOND),
        MINUTE..HOUR => format!("{} m", ms / MINUTE),
        _ if ms < 2 * DAY => format!("{} h", ms / HOUR),
        _ => format!("{} d", ms / DAY),
    }
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests;
