//! What is on offer now over all backends: for each the snapshot that is shown and what launches
//! have taught about its rows. A market never changes; a newer one takes its place, and shares
//! with it whatever is still the same.

use std::sync::Arc;
use std::time::SystemTime;

use muster_model::quantity::MicroUsd;
use rustc_hash::FxHashMap;

use super::offer::{Availability, Source};
use super::snapshot::{Row, RowNumber, SegmentKey, Snapshot};

/// One backend's offers as they are shown.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The offers.
    pub snapshot: Arc<Snapshot>,
    /// When they were read.
    pub observed: SystemTime,
    /// What launches have taught about some of them.
    pub marks: Marks,
    /// Where the backend's name stands among all in the order of ids.
    rank: u32,
}

/// What launches have taught about rows of one snapshot.
pub type Marks = Arc<FxHashMap<RowNumber, Mark>>;

/// What launches have taught about one offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whether it can be had; none leaves what its source says.
    pub availability: Option<Availability>,
    /// What it costs; none leaves what its source says.
    pub price: Option<MicroUsd>,
}

/// An offer as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// For the whole machine; none is unknown.
    pub price: Option<MicroUsd>,
    /// Whether it can be had.
    pub availability: Availability,
    /// Who says so.
    pub source: Source,
}

/// What is on offer now.
#[derive(Clone, Debug, Default)]
pub struct Market {
    shelves: Vec<Arc<Shelf>>,
}

impl Shelf {
    /// A backend's offers.
    pub fn new(snapshot: Arc<Snapshot>, observed: SystemTime, marks: Marks) -> Self {
        Self {
            snapshot,
            observed,
            marks,
            rank: 0,
        }
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        self.snapshot.backend()
    }

    /// Where the backend's name stands among all in the order of ids.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// A row as it is shown.
    pub fn shown(&self, number: RowNumber, row: &Row) -> Shown {
        let told = Shown {
            price: row.price,
            availability: row.availability,
            source: self.snapshot.source(),
        };
        if self.marks.is_empty() {
            return told;
        }
        let Some(mark) = self.marks.get(&number) else {
            return told;
        };
        let by_report = |availability| Shown {
            availability,
            source: Source::Report,
            ..told
        };
        let shown = mark.availability.map_or(told, by_report);
        Shown {
            price: mark.price.or(shown.price),
            ..shown
        }
    }

    /// Whether any row is shown at another price than its snapshot has, so that rows are not in
    /// order of price.
    pub fn is_repriced(&self) -> bool {
        self.marks.values().any(|mark| mark.price.is_some())
    }
}

impl Market {
    /// Puts shelves together, in order of backend name.
    pub fn new(mut shelves: Vec<Shelf>) -> Self {
        let by_id =
            |a: &Shelf, b: &Shelf| SegmentKey::new(a.backend()).cmp(&SegmentKey::new(b.backend()));
        shelves.sort_by(by_id);
        for (rank, shelf) in (0u32..).zip(&mut shelves) {
            shelf.rank = rank;
        }
        shelves.sort_by(|a, b| a.backend().cmp(b.backend()));
        Self {
            shelves: shelves.into_iter().map(Arc::new).collect(),
        }
    }

    /// Every backend that has offers, in order of name.
    pub fn shelves(&self) -> &[Arc<Shelf>] {
        &self.shelves
    }

    /// One backend's offers.
    pub fn shelf(&self, backend: &str) -> Option<&Arc<Shelf>> {
        let at = self
            .shelves
            .binary_search_by(|shelf| shelf.backend().cmp(backend))
            .ok()?;
        self.shelves.get(at)
    }
}
