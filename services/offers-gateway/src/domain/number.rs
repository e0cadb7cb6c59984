//! Reads the numbers of other people's files: what they write for "nothing", floats where whole
//! numbers are meant, and GiB where we count MiB. A number that is out of range is an error, never
//! cut down.

use muster_model::quantity::MicroUsd;

/// What the wire can carry: counts, MiB and thousandths are 32-bit signed there.
const MAX: i64 = i32::MAX as i64;

/// A field is no number, negative, or larger than can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a number of a sensible size")]
pub struct NotANumber;

/// The field without what its writer means by nothing: spaces, `nan`, `None`, `null`.
pub fn given(field: &str) -> Option<&str> {
    let field = field.trim();
    let nothing = ["", "nan", "none", "null", "n/a", "-"];
    let is_nothing = nothing.iter().any(|word| field.eq_ignore_ascii_case(word));
    (!is_nothing).then_some(field)
}

/// A price in dollars an hour. Nothing and 0 mean that there is no such offer.
pub fn price(field: &str) -> Result<Option<MicroUsd>, NotANumber> {
    let Some(text) = given(field) else {
        return Ok(None);
    };
    let price = MicroUsd::nearest(text).ok_or(NotANumber)?;
    Ok((price > MicroUsd::ZERO).then_some(price))
}

/// A number in thousandths, rounded to the nearest; none if nothing is given.
pub fn milli(field: &str) -> Result<Option<u32>, NotANumber> {
    scaled(field, 1000)
}

/// A number of GiB (or of GB, which their writers mean binary) in MiB.
pub fn gib_as_mib(field: &str) -> Result<Option<u32>, NotANumber> {
    scaled(field, 1024)
}

/// A number times `by`, rounded to the nearest; none if nothing is given.
pub fn scaled(field: &str, by: u32) -> Result<Option<u32>, NotANumber> {
    let Some(text) = given(field) else {
        return Ok(None);
    };
    // Millionths are exact for what catalogues write, and fit for every number that we accept.
    let MicroUsd(millionths) = MicroUsd::nearest(text).ok_or(NotANumber)?;
    scale(millionths, by).map(Some).ok_or(NotANumber)
}

/// A number of a JSON document times `by`, rounded to the nearest.
pub fn float_scaled(number: f64, by: u32) -> Option<u32> {
    let MicroUsd(millionths) = MicroUsd::from_dollars(number)?;
    scale(millionths, by)
}

fn scale(millionths: i64, by: u32) -> Option<u32> {
    let exact = i128::from(millionths) * i128::from(by);
    let rounded = (exact + 500_000) / 1_000_000;
    u32::try_from(rounded)
        .ok()
        .filter(|value| i64::from(*value) <= MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_of_nothing_and_zero_are_no_offer() {
        for field in ["", " ", "0", "0.0", "0.00", "nan", "None"] {
            assert_eq!(price(field), Ok(None), "{field:?}");
        }
        assert_eq!(price("0.00924"), Ok(Some(MicroUsd(9_240))));
        assert_eq!(price("98.32"), Ok(Some(MicroUsd(98_320_000))));
        assert_eq!(price("0.33999999999"), Ok(Some(MicroUsd(340_000))));
        for field in ["-1", "free", "1,2", "inf", "$"] {
            assert_eq!(price(field), Err(NotANumber), "{field:?}");
        }
    }

    #[test]
    fn amounts_are_scaled_to_the_nearest() {
        assert_eq!(milli("12.0"), Ok(Some(12_000)));
        assert_eq!(milli("0.167"), Ok(Some(167)));
        assert_eq!(gib_as_mib("3.75"), Ok(Some(3_840)));
        assert_eq!(gib_as_mib(""), Ok(None));
        assert_eq!(gib_as_mib("99999999"), Err(NotANumber));
        assert_eq!(milli("-4"), Err(NotANumber));
        assert_eq!(float_scaled(0.5, 1024), Some(512));
        assert_eq!(float_scaled(f64::NAN, 1024), None);
    }
}
