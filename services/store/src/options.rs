//! What may be said of a store beyond where it is.

use std::time::Duration;

use crate::epoch::Epoch;
use crate::history::HistoryLimits;

/// How long an instance may be away from a store of several before others take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// Of a [`crate::Seat`].
    pub instance: Duration,
    /// Of a [`crate::Leadership`].
    pub leader: Duration,
}

/// The shortest lease: renewed three times within it, a call may still take a third of a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest lease: for as long nobody leads, or is known to be gone.
const LONGEST: Duration = Duration::from_secs(3600);

impl Leases {
    /// What the flags of a component say: `--leader-lease` and `--instance-lease`.
    ///
    /// # Errors
    /// In words that name the flag: a lease that is too short or too long or no whole seconds, or leases
    /// that do not go together.
    pub fn from_flags(leader: Duration, instance: Duration) -> Result<Self, String> {
        for (flag, lease) in [("--leader-lease", leader), ("--instance-lease", instance)] {
            if !(SHORTEST..=LONGEST).contains(&lease) {
                return Err(format!(
                    "{flag} must be from {SHORTEST:?} to {LONGEST:?}, is {lease:?}"
                ));
            }
            // Stores of several instances count leases in whole seconds.
            if lease.subsec_nanos() != 0 {
                return Err(format!("{flag} must be whole seconds, is {lease:?}"));
            }
        }
        if instance < leader {
            return Err(format!(
                "--instance-lease must not be shorter than --leader-lease, {leader:?}, is {instance:?}"
            ));
        }
        Ok(Self { instance, leader })
    }
}

impl Default for Leases {
    /// 90 s and 3 s.
    fn default() -> Self {
        Self {
            instance: Duration::from_secs(90),
            leader: Duration::from_secs(3),
        }
    }
}

/// How to open a store. The default is right outside of tests.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The epoch of a store that this opening (or restoring) creates; an existing one keeps its own.
    pub epoch: Epoch,
    /// How much history is kept for watches.
    pub history: HistoryLimits,
    /// Bytes of the file that the writer may keep in memory. The records are there once more for
    /// readers; this is only for the tree's pages.
    pub cache_bytes: usize,
    /// How long instances hold what they have; for stores of several instances.
    pub leases: Leases,
}

impl Default for Options {
    /// An epoch that begins now, the default history and leases, and 8 MiB of cache.
    fn default() -> Self {
        Self {
            epoch: Epoch::begin(),
            history: HistoryLimits::default(),
            cache_bytes: 8 * 1024 * 1024,
            leases: Leases::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leader_millis: u64, instance_millis: u64) -> Result<Leases, String> {
        Leases::from_flags(
            Duration::from_millis(leader_millis),
            Duration::from_millis(instance_millis),
        )
    }

    #[test]
    fn leases_within_the_bounds_are_taken() {
        assert_eq!(told(3_000, 90_000), Ok(Leases::default()));
        for (leader, instance) in [
            (1_000, 1_000),
            (1_000, 3_600_000),
            (3_600_000, 3_600_000),
            (2_000, 30_000),
        ] {
            let leases = told(leader, instance).unwrap();
            assert_eq!(leases.leader, Duration::from_millis(leader));
            assert_eq!(leases.instance, Duration::from_millis(instance));
        }
    }

    #[test]
    fn leases_that_make_no_sense_are_refused_by_name() {
        for (leader, instance, words) in [
            (0, 90_000, "--leader-lease must be from 1s to 3600s, is 0ns"),
            (
                999,
                90_000,
                "--leader-lease must be from 1s to 3600s, is 999ms",
            ),
            (
                3_000,
                3_600_001,
                "--instance-lease must be from 1s to 3600s, is 3600.001s",
            ),
            (
                1_500,
                90_000,
                "--leader-lease must be whole seconds, is 1.5s",
            ),
            (
                3_000,
                90_001,
                "--instance-lease must be whole seconds, is 90.001s",
            ),
            (
                3_000,
                2_000,
                "--instance-lease must not be shorter than --leader-lease, 3s, is 2s",
            ),
        ] {
            assert_eq!(told(leader, instance), Err(words.to_owned()));
        }
    }
}
