//! Times as Go's flags read and show them: `500ms`, `1m30s`, `1.5h`, also below
//! zero. Decides what is a time; never which times make sense.

use std::{fmt, str::FromStr, time::Duration};

/// The units, in nanoseconds. Two characters stand for micro.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits after the point that count: beyond them there is no nanosecond.
const FRACTION_DIGITS: usize = 18;

/// A time in nanoseconds, before or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(i64);

/// The text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parse error")]
pub(super) struct NoSpan;

impl Span {
    /// A number of whole seconds.
    pub(super) const fn seconds(seconds: i64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// As a duration; `None` if it is not above zero.
    pub(super) fn positive(self) -> Option<Duration> {
        let nanos = u64::try_from(self.0).ok().filter(|&nanos| nanos > 0);
        nanos.map(Duration::from_nanos)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for Span {
    type Err = NoSpan;

    fn from_str(text: &str) -> Result<Self, NoSpan> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        // The only number that needs no unit.
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(NoSpan);
        }
        let mut nanos = 0_i128;
        while !rest.is_empty() {
            let (part, tail) = term(rest)?;
            nanos = nanos.checked_add(part).ok_or(NoSpan)?;
            rest = tail;
        }
        let signed = if negative { -nanos } else { nanos };
        i64::try_from(signed).map(Self).map_err(|_| NoSpan)
    }
}

/// The first number and unit of a text, in nanoseconds, and what follows.
fn term(text: &str) -> Result<(i128, &str), NoSpan> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(NoSpan);
    }
    let end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, nanos) = unit.ok_or(NoSpan)?;
    let whole: u128 = number(whole)?;
    let whole = whole.checked_mul(*nanos).ok_or(NoSpan)?;
    let total = whole.checked_add(part_of(fraction, *nanos)?);
    let total = total.and_then(|total| i128::try_from(total).ok());
    Ok((total.ok_or(NoSpan)?, rest))
}

/// A decimal fraction of `nanos`, rounded down.
fn part_of(fraction: &str, nanos: u128) -> Result<u128, NoSpan> {
    let fraction = fraction.get(..FRACTION_DIGITS).unwrap_or(fraction);
    let scale = fraction.chars().fold(1_u128, |scale, _| scale * 10);
    Ok(number(fraction)? * nanos / scale)
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn number(digits: &str) -> Result<u128, NoSpan> {
    if digits.is_empty() {
        return Ok(0);
    }
    digits.parse().map_err(|_| NoSpan)
}

impl fmt::Display for Span {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            to.write_str("-")?;
        }
        let nanos = self.0.unsigned_abs();
        match nanos {
            0 => to.write_str("0s"),
            1..1_000 => write!(to, "{nanos}ns"),
            1_000..1_000_000 => write!(to, "{}\u{b5}s", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(to, "{}ms", decimal(nanos, 1_000_000)),
            _ => clock(to, nanos),
        }
    }
}

/// Hours, minutes and seconds, from the first that is not zero.
fn clock(to: &mut fmt::Formatter<'_>, nanos: u64) -> fmt::Result {
    const MINUTE: u64 = 60_000_000_000;
    let minutes = nanos / MINUTE;
    if minutes >= 60 {
        write!(to, "{}h", minutes / 60)?;
    }
    if minutes > 0 {
        write!(to, "{}m", minutes % 60)?;
    }
    write!(to, "{}s", decimal(nanos % MINUTE, 1_000_000_000))
}

/// `nanos` in units of `unit`, a power of ten, without zeros at the end.
fn decimal(nanos: u64, unit: u64) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{rest:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        for (text, nanos, shown) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("+5s", 5_000_000_000, "5s"),
            ("-1m", -60_000_000_000, "-1m0s"),
            ("500ms", 500_000_000, "500ms"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            (
                "1h15m30.918273645s",
                4_530_918_273_645,
                "1h15m30.918273645s",
            ),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("2us", 2_000, "2\u{b5}s"),
            ("2.5\u{b5}s", 2_500, "2.5\u{b5}s"),
            ("2\u{3bc}s", 2_000, "2\u{b5}s"),
            ("100ns", 100, "100ns"),
            ("1s1s", 2_000_000_000, "2s"),
            ("0.1000000000000000000000001h", 360_000_000_000, "6m0s"),
            (
                "2540400h10m10s",
                9_145_440_610_000_000_000,
                "2540400h10m10s",
            ),
        ] {
            let span: Span = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(span.0, nanos, "{text}");
            assert_eq!(span.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn all_else_is_no_time() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "1h30",
            "1 s",
            "s1",
            "--1s",
            "1e3s",
            "\u{661}s",
            "9223372036854775808ns",
            "3000000h",
            "99999999999999999999999999999999999999999h",
        ] {
            assert_eq!(text.parse::<Span>(), Err(NoSpan), "{text}");
        }
    }

    #[test]
    fn only_what_is_above_zero_is_a_duration() {
        assert_eq!(Span::seconds(1).positive(), Some(Duration::from_secs(1)));
        assert_eq!(Span(0).positive(), None);
        assert_eq!(Span(-1).positive(), None);
        assert_eq!(Span::from(Duration::MAX).0, i64::MAX);
    }
}
