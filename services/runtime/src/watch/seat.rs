//! A watcher's place among those that a hub counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};

use super::hub::Common;
use crate::status;

/// The watchers of a hub.
#[derive(Default)]
pub(super) struct Seats {
    taken: AtomicUsize,
    next: AtomicU64,
}

impl Seats {
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A watcher's seat; given back when dropped.
pub(super) struct Seat<T> {
    pub(super) common: Arc<Common<T>>,
    /// Tells it from all others that the hub has had.
    pub(super) number: u64,
}

impl<T> Seat<T> {
    pub(super) fn take(common: &Arc<Common<T>>) -> Result<Self, Status> {
        let seats = &common.seats;
        let taken = seats.taken.fetch_add(1, Ordering::Relaxed);
        let number = seats.next.fetch_add(1, Ordering::Relaxed);
        let seat = Self {
            common: Arc::clone(common),
            number,
        };
        if taken < common.options.max_watchers {
            return Ok(seat);
        }
        let message = format!("{taken} watches are open, as many as are allowed");
        Err(status::error(
            Code::ResourceExhausted,
            ErrorReason::TooManyWatches,
            message,
        )
        .into())
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.common.seats.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
