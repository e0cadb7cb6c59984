//! When a replica counts as well: results in a row, and the time from one try to the next. It asks
//! nobody itself.

use std::time::Duration;

/// The first try of a replica that has never been well, and what the delay between them doubles
/// from: most start within seconds, and their users wait for them.
const EAGER: Duration = Duration::from_millis(50);

/// How often a replica is asked, and how many answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From one try to the next.
    pub interval: Duration,
    /// For one try.
    pub timeout: Duration,
    /// Successes in a row that make it well.
    pub successes: u32,
    /// Failures in a row that make it unwell.
    pub failures: u32,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Whether it may get traffic.
    Ready,
    /// Whether it has to be restarted.
    Alive,
}

/// What one try found: nothing wrong, or what.
pub type Outcome = Result<(), String>;

/// The results in a row so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counter {
    successes: u32,
    failures: u32,
}

/// What the results in a row say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enough successes.
    Well,
    /// Enough failures.
    Unwell,
    /// Neither yet: whatever was true stays true.
    Open,
}

impl Counter {
    /// Counts one result.
    pub fn count(&mut self, success: bool, terms: &Terms) -> Verdict {
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
        }
        if self.successes >= terms.successes.max(1) {
            Verdict::Well
        } else if self.failures >= terms.failures.max(1) {
            Verdict::Unwell
        } else {
            Verdict::Open
        }
    }
}

impl Terms {
    /// The time from try number `tried` (the first is 1) to the next. While the replica has never
    /// been well, the first tries come sooner than every interval.
    pub fn delay(&self, tried: u32, was_well: bool) -> Duration {
        if was_well {
            return self.interval;
        }
        let doublings = tried.saturating_sub(1).min(16);
        EAGER.saturating_mul(1 << doublings).min(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        successes: 2,
        failures: 3,
    };

    #[test]
    fn results_count_in_a_row_only() {
        use Verdict::{Open, Unwell, Well};
        let mut counter = Counter::default();
        for (at, (success, verdict)) in [
            (true, Open),
            (false, Open),
            (true, Open),
            (true, Well),
            (true, Well),
            (false, Open),
            (false, Open),
            (false, Unwell),
            (false, Unwell),
            (true, Open),
            (false, Open),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(counter.count(success, &TERMS), verdict, "result {at}");
        }
    }

    #[test]
    fn a_starting_replica_is_asked_sooner() {
        let millis = |tried| TERMS.delay(tried, false).as_millis();
        assert_eq!([millis(1), millis(2), millis(3)], [50, 100, 200]);
        assert_eq!(TERMS.delay(8, false), TERMS.interval);
        assert_eq!(TERMS.delay(1, true), TERMS.interval);
    }

    proptest! {
        #[test]
        fn no_delay_is_longer_than_the_interval(tried in any::<u32>(), well in any::<bool>(), secs in 0_u64..100) {
            let terms = Terms { interval: Duration::from_secs(secs), ..TERMS };
            prop_assert!(terms.delay(tried, well) <= terms.interval);
        }
    }
}
