//! A watcher's place among those that a hub counts, and the bell that it hears there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};

use super::bell::Bell;
use super::common::Common;
use crate::status;

/// The watchers of a hub.
#[derive(Default)]
pub(super) struct Seats {
    taken: AtomicUsize,
    of_everything: AtomicUsize,
    next: AtomicU64,
}

impl Seats {
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Those that are woken by every change.
    pub(super) fn of_everything(&self) -> usize {
        self.of_everything.load(Ordering::Relaxed)
    }
}

/// A watcher's seat; given back when dropped.
pub(super) struct Seat<T> {
    pub(super) common: Arc<Common<T>>,
    pub(super) bell: Arc<Bell>,
    prefix: String,
    /// Tells it from all others that the hub has had.
    pub(super) number: u64,
}

impl<T> Seat<T> {
    /// A seat for a watcher of the keys that begin with `prefix`.
    pub(super) fn take(common: &Arc<Common<T>>, prefix: &str) -> Result<Self, Status> {
        let seats = &common.seats;
        let taken = seats.taken.fetch_add(1, Ordering::Relaxed);
        if prefix.is_empty() {
            seats.of_everything.fetch_add(1, Ordering::Relaxed);
        }
        let seat = Self {
            common: Arc::clone(common),
            bell: common.bells.join(prefix),
            prefix: prefix.to_owned(),
            number: seats.next.fetch_add(1, Ordering::Relaxed),
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

    /// Whether it hears of what concerns it only.
    pub(super) fn is_selective(&self) -> bool {
        !self.prefix.is_empty()
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let seats = &self.common.seats;
        seats.taken.fetch_sub(1, Ordering::Relaxed);
        if self.is_selective() {
            self.common.bells.leave(&self.prefix);
        } else {
            seats.of_everything.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
