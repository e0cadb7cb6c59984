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
