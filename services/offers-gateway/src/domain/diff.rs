//! What changed of one backend's offers between two readings, as callers see them.

use rustc_hash::FxHashMap;

use super::market::Shelf;
use super::snapshot::{MachineId, Row, RowNumber, Snapshot, TextId};

/// A change of one offer: as it was and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The offer before; none if it is new.
    pub before: Option<RowNumber>,
    /// The offer now; none if it is gone.
    pub after: Option<RowNumber>,
    /// Only the provider's own fields differ: a change for those alone who are shown them.
    pub only_raw: bool,
}

/// The changes from one reading to the next, in the order of rows now, then of those that are gone.
/// The time of reading is no change of an offer.
pub fn diff(before: Option<&Shelf>, after: Option<&Shelf>) -> Vec<Change> {
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => numbers(after)
            .map(|row| Change {
                before: None,
                after: Some(row),
                only_raw: false,
            })
            .collect(),
        (Some(before), None) => numbers(before)
            .map(|row| Change {
                before: Some(row),
                after: None,
                only_raw: false,
            })
            .collect(),
        (Some(before), Some(after)) => between(before, after),
    }
}

fn numbers(shelf: &Shelf) -> std::ops::Range<RowNumber> {
    0..u32::try_from(shelf.snapshot.len()).unwrap_or(u32::MAX)
}

fn between(before: &Shelf, after: &Shelf) -> Vec<Change> {
    let translation = Translation::new(&after.snapshot, &before.snapshot);
    let mut changes = Vec::new();
    let mut kept = vec![false; before.snapshot.len()];
    for (number, row) in (0u32..).zip(after.snapshot.rows()) {
        let was = translation.find(row);
        if let Some(was) = was {
            kept[was as usize] = true;
        }
        let is_same = was.is_some_and(|was| translation.is_same((before, was), (after, number)));
        let same_raw = || {
            let was = was.map(|was| before.snapshot.raw_of(before.snapshot.row(was)));
            was.is_some_and(|was| was == after.snapshot.raw_of(row))
        };
        if !is_same || !same_raw() {
            changes.push(Change {
                before: was,
                after: Some(number),
                only_raw: is_same,
            });
        }
    }
    let gone = (0u32..).zip(kept).filter(|(_, kept)| !kept);
    changes.extend(gone.map(|(was, _)| Change {
        before: Some(was),
        after: None,
        only_raw: false,
    }));
    changes
}

/// How one snapshot's texts and machines are called in another one, so that rows are compared by
/// numbers.
struct Translation<'a> {
    to: &'a Snapshot,
    texts: Vec<Option<TextId>>,
    machines: Vec<Option<MachineId>>,
}

impl<'a> Translation<'a> {
    fn new(from: &Snapshot, to: &'a Snapshot) -> Self {
        let known: FxHashMap<_, _> = to.parts().machines.iter().zip(0u32..).collect();
        let machine = |machine| known.get(machine).copied().map(MachineId);
        Self {
            texts: from
                .parts()
                .texts
                .iter()
                .map(|text| to.find_text(text))
                .collect(),
            machines: from.parts().machines.iter().map(machine).collect(),
            to,
        }
    }

    fn find(&self, row: &Row) -> Option<RowNumber> {
        let text = |text: TextId| self.texts[text.0 as usize];
        self.to.find_key(
            text(row.region)?,
            text(row.zone)?,
            text(row.instance_type)?,
            row.capacity_type,
        )
    }

    fn is_same(
        &self,
        (before, was): (&Shelf, RowNumber),
        (after, is): (&Shelf, RowNumber),
    ) -> bool {
        let (old, new) = (before.snapshot.row(was), after.snapshot.row(is));
        before.shown(was, old) == after.shown(is, new)
            && self.machines[new.machine.0 as usize] == Some(old.machine)
    }
}

#[cfg(test)]
mod tests;
