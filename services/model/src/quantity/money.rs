//! Money, in millionths of a US dollar: whole numbers, so that sums and comparisons are exact.

use super::decimal::{Decimal, Wrong};
use std::fmt;
use std::str::FromStr;

/// Millionths of a US dollar; of a price, an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroUsd(pub i64);

const DOLLAR: u64 = 1_000_000;

/// Why a text is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no decimal number of 0 or more.
    #[error("`{0}` is no amount in dollars: write a decimal number of 0 or more, such as 12.5")]
    Malformed(String),
    /// It has more than six decimals.
    #[error("`{0}` is too fine: dollars have at most 6 decimals")]
    TooFine(String),
    /// It is more than can be counted.
    #[error("`{0}` is too large: at most 9223372036854 dollars")]
    TooLarge(String),
}

impl MicroUsd {
    /// Nothing: free.
    pub const ZERO: Self = Self(0);

    /// The nearest amount to a number of dollars as machines write it (`0.33999999999`, `1e-3`);
    /// none if it is no number of 0 or more.
    pub fn nearest(text: &str) -> Option<Self> {
        let text = text.trim();
        text.parse()
            .ok()
            .or_else(|| Self::from_dollars(text.parse().ok()?))
    }

    /// The nearest amount to a number of dollars; none if it is negative, not finite or too large.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        // Printed to six decimals, a float is rounded correctly, and parses exactly.
        if dollars < 0.0 {
            None
        } else {
            format!("{:.6}", dollars.abs()).parse().ok()
        }
    }

    /// A part of this, rounded to the nearest millionth; none if there are no parts.
    pub fn per(self, parts: u64) -> Option<Self> {
        let parts = i128::from(parts);
        let rounded = (i128::from(self.0) + parts / 2).checked_div_euclid(parts)?;
        i64::try_from(rounded).ok().map(Self)
    }

    /// Prints it for a person: `$12.50`, `$1.6333`, `$0.00924`; four decimals, or six below a cent.
    pub fn human(self) -> String {
        let step = if self.0.unsigned_abs() < DOLLAR / 100 {
            1
        } else {
            100
        };
        let rounded = self.0.unsigned_abs().saturating_add(step / 2) / step * step;
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (rounded / DOLLAR, format!("{:06}", rounded % DOLLAR));
        let kept = part.trim_end_matches('0').len().max(2);
        format!("{sign}${whole}.{}", part.get(..kept).unwrap_or(&part))
    }
}

impl FromStr for MicroUsd {
    type Err = Error;

    /// Reads decimal dollars exactly, with or without a `$`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let dollars = text.strip_prefix('$').unwrap_or(text);
        let too_large = || Error::TooLarge(text.to_owned());
        let micro = Decimal::parse(dollars).and_then(|number| number.exactly(6));
        let micro = micro.map_err(|wrong| match wrong {
            Wrong::Malformed => Error::Malformed(text.to_owned()),
            Wrong::TooFine => Error::TooFine(text.to_owned()),
            Wrong::TooLarge => too_large(),
        })?;
        i64::try_from(micro).map(Self).map_err(|_| too_large())
    }
}

/// Decimal dollars, exact: `12.5`, `0.00924`, `0`.
impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (
            self.0.unsigned_abs() / DOLLAR,
            self.0.unsigned_abs() % DOLLAR,
        );
        match part {
            0 => write!(f, "{sign}{whole}"),
            part => write!(
                f,
                "{sign}{whole}.{}",
                format!("{part:06}").trim_end_matches('0')
            ),
        }
    }
}

#[cfg(test)]
mod tests;
