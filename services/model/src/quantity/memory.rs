//! Memory and disk, in MiB. K, M, G and T with B, iB or nothing are binary: `64GB` is 65,536 MiB.

use super::decimal::{Decimal, Wrong};

/// The most that an amount may be, in MiB: what a 32-bit number on the wire holds (2 PiB).
pub const MAX_MIB: u32 = 0x7fff_ffff;

const UNITS: [(&str, u64); 4] = [("k", 1), ("m", 1 << 10), ("g", 1 << 20), ("t", 1 << 30)];

/// Why a text is no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has no unit.
    #[error("`{0}` has no unit: write {0}GB or {0}MB (K, M, G and T are binary)")]
    NoUnit(String),
    /// Its number or unit is none.
    #[error("`{0}` is no amount of memory: write a number and K, M, G or T, such as 64GB or 512MB")]
    Malformed(String),
    /// It is more than can be counted.
    #[error("`{0}` is too large: at most 2047TB")]
    TooLarge(String),
}

/// Reads an amount, in MiB; a part of a MiB counts as a whole one.
pub fn parse(text: &str) -> Result<u32, Error> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = Decimal::parse(number).map_err(|wrong| refused(wrong, text))?;
    let unit = unit.trim_start().to_ascii_lowercase();
    if unit.is_empty() {
        return Err(Error::NoUnit(text.to_owned()));
    }
    let prefix = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let (_, kib) = UNITS
        .into_iter()
        .find(|(name, _)| *name == prefix)
        .ok_or_else(|| Error::Malformed(text.to_owned()))?;
    let mib = number
        .scaled_up(kib, 1 << 10)
        .map_err(|wrong| refused(wrong, text))?;
    let mib = u32::try_from(mib).ok().filter(|mib| *mib <= MAX_MIB);
    mib.ok_or_else(|| Error::TooLarge(text.to_owned()))
}

/// Prints an amount exactly, in the largest unit that does: `80GB`, `81559MB`.
pub fn print(mib: u32) -> String {
    match mib {
        0 => "0MB".to_owned(),
        _ if mib.is_multiple_of(1 << 20) => format!("{}TB", mib >> 20),
        _ if mib.is_multiple_of(1 << 10) => format!("{}GB", mib >> 10),
        _ => format!("{mib}MB"),
    }
}

/// Prints an amount for a person, to a tenth of its unit: `80 GB`, `1.5 TB`, `512 MB`.
pub fn human(mib: u64) -> String {
    let tenths = |unit: u64, name: &str| {
        let tenths = mib.saturating_mul(10).saturating_add(unit / 2) / unit;
        match tenths % 10 {
            0 => format!("{} {name}", tenths / 10),
            tenth => format!("{}.{tenth} {name}", tenths / 10),
        }
    };
    match mib {
        0..1024 => format!("{mib} MB"),
        1024..1_048_576 => tenths(1 << 10, "GB"),
        _ => tenths(1 << 20, "TB"),
    }
}

fn refused(wrong: Wrong, text: &str) -> Error {
    match wrong {
        Wrong::Malformed | Wrong::TooFine => Error::Malformed(text.to_owned()),
        Wrong::TooLarge => Error::TooLarge(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
