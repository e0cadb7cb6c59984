//! What may be said of a store beyond where it is.

use crate::epoch::Epoch;
use crate::history::HistoryLimits;

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
}

impl Default for Options {
    /// An epoch that begins now, the default history, and 8 MiB of cache.
    fn default() -> Self {
        Self {
            epoch: Epoch::begin(),
            history: HistoryLimits::default(),
            cache_bytes: 8 * 1024 * 1024,
        }
    }
}
