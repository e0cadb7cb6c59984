//! Names events so that their ids sort as they happened, across restarts too.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::time::Time;

/// Gives each batch of events its place.
#[derive(Debug)]
pub(crate) struct Journal {
    epoch: String,
    last: AtomicU64,
}

impl Journal {
    pub(crate) fn new(epoch: String) -> Self {
        Self {
            epoch,
            last: AtomicU64::new(0),
        }
    }

    /// The id of the next batch: later than every one before, even if the clock went back.
    pub(crate) fn next(&self, now: Time) -> String {
        let place = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(now.micros().max(last + 1))
            });
        let last = place.unwrap_or_default();
        format!("{}-{:016x}", self.epoch, now.micros().max(last + 1))
    }
}
