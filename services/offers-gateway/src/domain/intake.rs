//! What became of the rows that a backend was read from: how many there were, which could not be
//! used and why, which had to be mended. Every row that is not an offer is accounted for here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Reasons told apart at most; a source that finds more has its further rows counted together.
const MAX_REASONS: usize = 32;

/// Unknown accelerator names kept at most.
const MAX_UNKNOWN: usize = 200;

/// A reason for which rows were skipped.
pub type Reason = Cow<'static, str>;

/// Rows of one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skips {
    /// How many.
    pub count: u32,
    /// Where the first one is, such as "vms.csv line 1204".
    pub example: String,
}

/// What became of a backend's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Rows read.
    pub rows: u32,
    /// Rows that were mended before they could be used.
    pub mended: u32,
    /// Rows that say what another row has said.
    pub repeated: u32,
    /// Rows that could not be used, by reason.
    pub skipped: BTreeMap<Reason, Skips>,
    /// Accelerator names that the name table does not know.
    pub unknown_gpus: BTreeSet<String>,
    /// The date that a price list says of itself; empty if it says none.
    pub price_date: String,
}

impl Intake {
    /// Counts a row that could not be used.
    pub fn skip(&mut self, reason: impl Into<Reason>, place: impl FnOnce() -> String) {
        let mut reason = reason.into();
        if self.skipped.len() >= MAX_REASONS && !self.skipped.contains_key(&reason) {
            reason = Cow::Borrowed("other reasons");
        }
        let skips = self.skipped.entry(reason).or_insert_with(|| Skips {
            count: 0,
            example: place(),
        });
        skips.count = skips.count.saturating_add(1);
    }

    /// Notes an accelerator name that the table does not know.
    pub fn unknown_gpu(&mut self, name: &str) {
        if self.unknown_gpus.len() < MAX_UNKNOWN && !self.unknown_gpus.contains(name) {
            self.unknown_gpus.insert(name.to_owned());
        }
    }

    /// Rows that could not be used, in all.
    pub fn skipped_rows(&self) -> u32 {
        self.skipped
            .values()
            .fold(0, |sum, skips| sum.saturating_add(skips.count))
    }

    /// The same by reason, most first.
    pub fn skipped_by_count(&self) -> Vec<(&str, &Skips)> {
        let mut reasons: Vec<_> = self
            .skipped
            .iter()
            .map(|(reason, skips)| (reason.as_ref(), skips))
            .collect();
        reasons.sort_by_key(|(_, skips)| std::cmp::Reverse(skips.count));
        reasons
    }

    /// What stood in the way of most rows, in words; none if nothing did.
    pub fn worst(&self) -> Option<String> {
        let (reason, skips) = self.skipped_by_count().into_iter().next()?;
        Some(format!(
            "{} rows: {reason} (first at {})",
            skips.count, skips.example
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_with_their_first_place() {
        let mut intake = Intake::default();
        intake.skip("no price", || "line 2".to_owned());
        intake.skip("no price", || "line 3".to_owned());
        intake.skip(format!("odd {}", 1), || "line 4".to_owned());
        assert_eq!(intake.skipped_rows(), 3);
        assert_eq!(
            intake.worst().as_deref(),
            Some("2 rows: no price (first at line 2)")
        );
    }

    #[test]
    fn reasons_are_bounded() {
        let mut intake = Intake::default();
        for number in 0..100 {
            intake.skip(format!("reason {number}"), String::new);
        }
        assert_eq!(intake.skipped.len(), MAX_REASONS + 1);
        assert_eq!(intake.skipped_rows(), 100);
    }
}
