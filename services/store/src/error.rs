//! What can go wrong with an open store. What can go wrong while opening stands in `open_error`.

use crate::record::Revision;
use crate::transaction::{MAX_BYTES, MAX_RECORDS};

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached now; a later try may work. Whether a transaction that ended so
    /// was committed is not known.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The history asked for is not kept (any more), or the watcher was too slow for it: list again.
    #[error("the history is kept only from revision {oldest} on")]
    Compacted {
        /// The oldest revision that a watch may begin after.
        oldest: Revision,
    },
    /// A write or fsync failed. Final: the store takes no more transactions until it is opened
    /// anew. Whether the transactions under way then are on disk is not known.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The transaction exceeds [`MAX_RECORDS`] or [`MAX_BYTES`]; nothing was written.
    #[error(
        "a transaction of {records} records and {bytes} bytes is too large: at most {MAX_RECORDS} records and {MAX_BYTES} bytes are possible"
    )]
    TooLarge {
        /// The records named.
        records: usize,
        /// The bytes of all keys and values.
        bytes: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}
