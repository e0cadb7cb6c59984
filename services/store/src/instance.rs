//! The instances of a component on one store: who they are, and whether one may still answer for itself.

use std::sync::Arc;

use bytes::Bytes;

use crate::clustered::Hold;

/// An instance that holds a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id, random for each start.
    pub id: Arc<str>,
    /// What it says of itself.
    pub value: Bytes,
    /// Whether it leads.
    pub leader: bool,
}

/// This instance's place among the instances, kept by a lease until it is dropped.
#[derive(Clone, Debug)]
pub struct Seat {
    instance: Instance,
    hold: Hold,
}

impl Seat {
    pub(crate) fn new(instance: Instance, hold: Hold) -> Self {
        Self { instance, hold }
    }

    /// The id that it joined by.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.instance.id
    }

    /// Whether the seat is held, by this instance's own count: from when it sent the last renewal that the
    /// store acknowledged. Once false, others may have taken it for gone; it becomes true again when the
    /// store has given it a new seat.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.hold.holds()
    }
}
