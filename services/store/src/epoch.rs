//! The name of one life of a store's data: it begins at creation and again at each restore.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One life of a store's data: creation or restore time, then a random suffix. Later epochs are
/// greater, so tokens order by (epoch, revision).
///
/// Shown as twelve hexadecimal digits of milliseconds since 1970, a dash, and eight of suffix, which
/// sorts as text the way it sorts as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    millis: u64,
    suffix: u32,
}

/// What a time in milliseconds is cut to: 48 bits, which last beyond the year 10,000.
const MAX_MILLIS: u64 = (1 << 48) - 1;

impl Epoch {
    /// The epoch that begins at `time`; `suffix` tells apart two that begin in one millisecond.
    #[must_use]
    pub fn new(time: SystemTime, suffix: u32) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(MAX_MILLIS);
        Self {
            millis: millis.min(MAX_MILLIS),
            suffix,
        }
    }

    /// The epoch that begins now by the system's clock, with a random suffix.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that names a store after the time; tests and simulations pass Options::epoch"
    )]
    pub fn begin() -> Self {
        // Without randomness the process id still tells apart what is made side by side.
        let suffix = getrandom::u32().unwrap_or_else(|_| std::process::id());
        Self::new(SystemTime::now(), suffix)
    }

    /// When it began, by the clock of the machine that made it.
    #[must_use]
    pub fn began(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis)
    }

    /// This epoch, or the least with this suffix after `earlier`, where a clock went backwards.
    pub(crate) fn later_than(self, earlier: Self) -> Self {
        let millis = self.millis.max((earlier.millis + 1).min(MAX_MILLIS));
        Self { millis, ..self }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:012x}-{:08x}", self.millis, self.suffix)
    }
}

/// The text is not an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an epoch: expected twelve hexadecimal digits, a dash, and eight more")]
pub struct ParseEpochError;

impl FromStr for Epoch {
    type Err = ParseEpochError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (millis, suffix) = text.split_once('-').ok_or(ParseEpochError)?;
        if millis.len() != 12 || suffix.len() != 8 {
            return Err(ParseEpochError);
        }
        let epoch = Self {
            millis: u64::from_str_radix(millis, 16).map_err(|_| ParseEpochError)?,
            suffix: u32::from_str_radix(suffix, 16).map_err(|_| ParseEpochError)?,
        };
        // A sign or capitals would give one epoch two spellings.
        if epoch.to_string() == text {
            Ok(epoch)
        } else {
            Err(ParseEpochError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, suffix: u32) -> Epoch {
        Epoch::new(UNIX_EPOCH + Duration::from_millis(millis), suffix)
    }

    #[test]
    fn text_and_value_agree_and_sort_alike() {
        let epochs = [at(0, 0), at(0, 7), at(1, 0), at(0x0198_c3a2_f1b4, u32::MAX)];
        for pair in epochs.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for epoch in epochs {
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
        }
    }

    #[test]
    fn a_clock_that_went_back_still_makes_a_later_epoch() {
        let earlier = at(5_000, 9);
        assert!(at(1_000, 0).later_than(earlier) > earlier);
        assert!(at(5_000, 0).later_than(earlier) > earlier);
        assert_eq!(at(9_000, 1).later_than(earlier), at(9_000, 1));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            "0-0",
            "+0000000000f-00000000",
            "00000000000F-00000000",
            "00000000000f00000000",
        ] {
            assert_eq!(text.parse::<Epoch>(), Err(ParseEpochError), "{text}");
        }
    }
}
