//! Processors, in thousandths of one: `8`, `0.5` and `500m`.

use super::decimal::{Decimal, Wrong};

/// The most that an amount may be, in thousandths: what a 32-bit number on the wire holds.
pub const MAX_MILLI: u32 = 0x7fff_ffff;

/// Why a text is no number of processors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no number.
    #[error("`{0}` is no number of processors: write 8, 0.5 or 500m")]
    Malformed(String),
    /// It asks for less than a thousandth.
    #[error("`{0}` is too fine: a processor is counted in thousandths, such as 0.125 or 125m")]
    TooFine(String),
    /// It is more than can be counted.
    #[error("`{0}` is too large: at most 2147483 processors")]
    TooLarge(String),
}

/// Reads a number of processors, in thousandths.
pub fn parse(text: &str) -> Result<u32, Error> {
    let text = text.trim();
    let (number, places) = match text.strip_suffix('m') {
        Some(milli) => (milli, 0),
        None => (text, 3),
    };
    let milli = Decimal::parse(number).and_then(|number| number.exactly(places));
    let milli = milli.map_err(|wrong| match wrong {
        Wrong::Malformed => Error::Malformed(text.to_owned()),
        Wrong::TooFine => Error::TooFine(text.to_owned()),
        Wrong::TooLarge => Error::TooLarge(text.to_owned()),
    })?;
    let milli = u32::try_from(milli)
        .ok()
        .filter(|milli| *milli <= MAX_MILLI);
    milli.ok_or_else(|| Error::TooLarge(text.to_owned()))
}

/// Prints thousandths of a processor as a decimal number: `8`, `0.5`.
pub fn print(milli: u32) -> String {
    let (whole, part) = (milli / 1000, milli % 1000);
    match part {
        0 => whole.to_string(),
        part => format!("{whole}.{part:03}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
