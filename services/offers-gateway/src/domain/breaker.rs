//! Whether a backend that failed is asked again: closed (as usual), open (left alone for a while),
//! half-open (one trial). It keeps no clock; `now` is an argument, jitter too.

use std::time::{Duration, SystemTime};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row after which it opens.
    pub threshold: u32,
    /// How long it is open the first time.
    pub initial: Duration,
    /// How long at most; each failed trial doubles the time.
    pub max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            threshold: 3,
            initial: Duration::from_secs(30),
            max: Duration::from_secs(600),
        }
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Asked as usual.
    #[default]
    Closed,
    /// Left alone until then.
    Open {
        /// When a trial is due.
        until: SystemTime,
    },
    /// A trial is under way.
    HalfOpen,
}

/// A backend's breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    state: State,
}

impl Breaker {
    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the backend may be asked now.
    pub fn allows(&self, now: SystemTime) -> bool {
        match self.state {
            State::Closed | State::HalfOpen => true,
            State::Open { until } => now >= until,
        }
    }

    /// The backend is being asked.
    pub fn begin(&mut self) {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::HalfOpen;
        }
    }

    /// It answered well.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// It did not. `jitter` (0 to 1) spreads the trials of backends that failed together.
    pub fn fail(&mut self, policy: &Policy, now: SystemTime, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let beyond = self.failures.checked_sub(policy.threshold);
        self.state = match beyond {
            None => State::Closed,
            Some(beyond) => {
                let doubled = policy.initial.saturating_mul(1 << beyond.min(20));
                State::Open {
                    until: now
                        + doubled
                            .min(policy.max)
                            .mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0)),
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_after_the_threshold_and_lets_one_trial_through() {
        let policy = Policy::default();
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.fail(&policy, START, 0.0);
            assert_eq!(breaker.state(), State::Closed);
        }
        breaker.fail(&policy, START, 0.0);
        assert_eq!(
            breaker.state(),
            State::Open {
                until: START + secs(30)
            }
        );
        assert!(!breaker.allows(START + secs(29)));
        assert!(breaker.allows(START + secs(30)));
        breaker.begin();
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.fail(&policy, START + secs(30), 0.0);
        assert_eq!(
            breaker.state(),
            State::Open {
                until: START + secs(90)
            },
            "twice as long"
        );
        breaker.begin();
        breaker.succeed();
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn it_is_never_open_for_longer_than_the_most() {
        let policy = Policy::default();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.fail(&policy, START, 1.0);
        }
        assert_eq!(
            breaker.state(),
            State::Open {
                until: START + secs(480)
            },
            "jitter only shortens"
        );
        assert_eq!(breaker.failures(), 100);
    }
}
