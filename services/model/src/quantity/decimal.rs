//! Decimal numbers without a rounding error: digits, and how many of them stand behind the point.

/// A number of 0 or more: `digits` / 10^`places`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: u64,
    places: u32,
}

/// What can be wrong with a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no number.
    Malformed,
    /// It has more digits behind the point than are counted, or than can be.
    TooFine,
    /// It is too large.
    TooLarge,
}

impl Decimal {
    /// Reads `12`, `0.5` and `.5`; no sign, no exponent. Zeros at the end do not count.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let ends_in_point = text.ends_with('.');
        if !is_number(whole) || !is_number(fraction) || text.is_empty() || ends_in_point {
            return Err(Wrong::Malformed);
        }
        let fraction = fraction.trim_end_matches('0');
        let places = u32::try_from(fraction.len()).map_err(|_| Wrong::TooFine)?;
        let digits = after(0, whole).ok_or(Wrong::TooLarge)?;
        let digits = after(digits, fraction).ok_or(Wrong::TooFine)?;
        Ok(Self { digits, places })
    }

    /// The number times 10^`places`, which has to be whole.
    pub(super) fn exactly(self, places: u32) -> Result<u64, Wrong> {
        let missing = places.checked_sub(self.places).ok_or(Wrong::TooFine)?;
        let scale = 10u64.checked_pow(missing).ok_or(Wrong::TooLarge)?;
        self.digits.checked_mul(scale).ok_or(Wrong::TooLarge)
    }

    /// The number times `multiplier` over `divisor`, rounded up.
    pub(super) fn scaled_up(self, multiplier: u64, divisor: u64) -> Result<u64, Wrong> {
        let scale = 10u128.checked_pow(self.places).ok_or(Wrong::TooFine)?;
        let below = scale
            .checked_mul(u128::from(divisor))
            .ok_or(Wrong::TooFine)?;
        let above = u128::from(self.digits) * u128::from(multiplier);
        u64::try_from(above.div_ceil(below.max(1))).map_err(|_| Wrong::TooLarge)
    }
}

/// A number with more digits behind it, if that can be counted.
fn after(number: u64, digits: &str) -> Option<u64> {
    digits.bytes().try_fold(number, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}
