//! Values as people write and read them. The words are the model's; this only
//! brings them into the types of the contract and back.

use std::{
    num::IntErrorKind,
    time::{Duration, SystemTime},
};

use muster_model::quantity::{self, MicroUsd};
use muster_proto::types::v1::{GpuGroup, Price};

/// Reads an amount of memory into MiB.
pub(crate) fn memory(text: &str) -> Result<i32, String> {
    let mib = quantity::memory::parse(text).map_err(|error| error.to_string())?;
    i32::try_from(mib).map_err(|_| format!("`{text}` is too large"))
}

/// Reads a number of processors into thousandths.
pub(crate) fn cpu(text: &str) -> Result<i32, String> {
    let milli = quantity::cpu::parse(text).map_err(|error| error.to_string())?;
    i32::try_from(milli).map_err(|_| format!("`{text}` is too large"))
}

/// Reads a number of things.
pub(crate) fn count<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let too_large = || format!("`{text}` is too large");
    let number = text.parse::<u64>().map_err(|error| {
        if *error.kind() == IntErrorKind::PosOverflow {
            too_large()
        } else {
            format!("`{text}` is no whole number of 0 or more")
        }
    })?;
    N::try_from(number).map_err(|_| too_large())
}

/// Reads the number of a version.
pub(crate) fn version(text: &str) -> Result<i64, String> {
    match count(text)? {
        0 => Err(format!("`{text}` is no version: they begin at 1")),
        version => Ok(version),
    }
}

/// Reads a duration such as `30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    quantity::duration::parse(text).map_err(|error| error.to_string())
}

/// Reads dollars.
pub(crate) fn price(text: &str) -> Result<MicroUsd, String> {
    text.parse()
        .map_err(|error: quantity::money::Error| error.to_string())
}

/// A price for a person; `-` if it is not known.
pub(crate) fn print_price(price: Option<&Price>) -> String {
    price.map_or_else(nothing, |price| MicroUsd(price.micro_usd_per_hour).human())
}

/// An amount of memory for a person; `-` if it is not known.
pub(crate) fn print_memory(mib: Option<i32>) -> String {
    let known = mib.and_then(|mib| u64::try_from(mib).ok());
    known.map_or_else(nothing, quantity::memory::human)
}

/// A number of processors for a person; `-` if it is not known.
pub(crate) fn print_cpu(milli: Option<i32>) -> String {
    let known = milli.and_then(|milli| u32::try_from(milli).ok());
    known.map_or_else(nothing, quantity::cpu::print)
}

/// Accelerators for a person: `8 x H100 80 GB`.
pub(crate) fn print_gpus(gpus: &[GpuGroup]) -> String {
    if gpus.is_empty() {
        return nothing();
    }
    let print = |gpu: &GpuGroup| {
        let share = match gpu.share_milli {
            0 | 1000 => gpu.count.to_string(),
            share => format!("{}.{share:03}", 0).trim_end_matches('0').to_owned(),
        };
        match u64::try_from(gpu.memory_mib) {
            Ok(mib) if mib > 0 => {
                format!("{share} x {} {}", gpu.name, quantity::memory::human(mib))
            }
            _ => format!("{share} x {}", gpu.name),
        }
    };
    gpus.iter().map(print).collect::<Vec<_>>().join(" + ")
}

/// A span of time for a person; `-` if it is not known.
pub(crate) fn print_span(span: Option<prost_types::Duration>) -> String {
    let known = span.and_then(|span| Duration::try_from(span).ok());
    known.map_or_else(nothing, quantity::duration::human)
}

/// How long ago something was, for a person; `-` if it is not known.
pub(crate) fn print_ago(time: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    let known = time.and_then(|time| SystemTime::try_from(time).ok());
    known.map_or_else(nothing, |time| {
        quantity::duration::human(now.duration_since(time).unwrap_or_default())
    })
}

/// The time of day in UTC, with its date if it is not today: `09:41:07`.
pub(crate) fn print_time(time: Option<prost_types::Timestamp>, now: SystemTime) -> String {
    let Some(time) = time else {
        return nothing();
    };
    let today = prost_types::Timestamp::from(now).to_string();
    let whole = prost_types::Timestamp { nanos: 0, ..time }.to_string();
    let (date, clock) = whole.split_once('T').unwrap_or((&whole, ""));
    let clock = clock.trim_end_matches('Z');
    if today.starts_with(date) {
        clock.to_owned()
    } else {
        format!("{date} {clock}")
    }
}

/// What stands where nothing is known.
pub(crate) fn nothing() -> String {
    "-".to_owned()
}

/// The text, or what stands where nothing is known.
pub(crate) fn or_nothing(text: &str) -> String {
    if text.is_empty() {
        nothing()
    } else {
        text.to_owned()
    }
}

/// A line of at most so many characters; one that is cut says so by its last.
pub(crate) fn cut(line: &str, most: usize) -> String {
    if line.chars().count() <= most {
        return line.to_owned();
    }
    let kept: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// The word of an enum's value: `WORKER_STATE_ACTIVE` is `ACTIVE`.
pub(crate) fn word(name: &'static str, prefix: &str) -> &'static str {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    if word == "UNSPECIFIED" { "-" } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_its_most_characters() {
        assert_eq!(cut("", 3), "");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("äöüß", usize::MAX), "äöüß");
    }
}
