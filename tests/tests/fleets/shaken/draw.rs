//! What is left to chance, all of it from one seed. It never reads a clock nor the machine's randomness.

use std::{ops::Range, time::Duration};

use muster_runtime::backoff;

/// A row of drawn numbers, which depends on a seed and on what it is for.
#[derive(Debug)]
pub(super) struct Draw {
    seed: u64,
    index: u64,
}

impl Draw {
    pub(super) fn new(seed: u64, what: &str) -> Self {
        Self {
            seed: backoff::seed(&format!("{seed} {what}")),
            index: 0,
        }
    }

    /// A number in [0, 1).
    fn unit(&mut self) -> f64 {
        self.index += 1;
        backoff::unit(self.seed, self.index)
    }

    /// One of some, each as likely as the others.
    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let all: Vec<_> = of.iter().map(|one| (1, one)).collect();
        self.weighed(&all)
    }

    /// One of some, each as likely as its weight says.
    pub(super) fn weighed<T: Copy>(&mut self, of: &[(u32, T)]) -> T {
        let total: u32 = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.unit() * f64::from(total);
        for (weight, one) in of {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *one;
            }
        }
        panic!("nothing to draw from");
    }

    pub(super) fn number(&mut self, of: Range<i32>) -> i32 {
        let all: Vec<_> = of.collect();
        *self.one(&all)
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A time of so many milliseconds.
    pub(super) fn span(&mut self, millis: Range<u32>) -> Duration {
        let length = f64::from(millis.end - millis.start) * self.unit();
        Duration::from_secs_f64((f64::from(millis.start) + length) / 1000.0)
    }
}
