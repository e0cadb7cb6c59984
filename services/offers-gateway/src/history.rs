//! The last changes of what is on offer, for those who watch. What changed is worked out when the
//! first watcher asks, and once for all of them; a change that nobody watches costs nothing but the
//! memory of what was there before, which is bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task;
use tokio::time::Instant;

use crate::domain::diff::{Change, diff};
use crate::domain::market::{Market, Shelf};

/// Changes kept at most.
const MAX_STEPS: usize = 1_000;

/// For how long a change is kept at most.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Offers and marks of the past kept at most, about 100 bytes each.
const MAX_ROWS: usize = 500_000;

/// All changes of offers at one revision.
#[derive(Debug)]
pub struct Step {
    /// The revision.
    pub revision: u64,
    /// When it was made.
    pub at: Instant,
    pairs: Arc<[Pair]>,
    changes: OnceCell<Vec<Vec<Change>>>,
}

/// One backend's offers before and after.
#[derive(Debug)]
pub struct Pair {
    /// Before; none if it had none to show.
    pub before: Option<Arc<Shelf>>,
    /// After; none if it has none to show.
    pub after: Option<Arc<Shelf>>,
}

fn changes_of(pairs: &[Pair]) -> Vec<Vec<Change>> {
    let changes = pairs
        .iter()
        .map(|pair| diff(pair.before.as_deref(), pair.after.as_deref()));
    changes.collect()
}

/// The steps that are kept, oldest first.
#[derive(Debug)]
pub struct History {
    steps: VecDeque<Arc<Step>>,
    rows: usize,
    /// No step after this revision has been forgotten.
    floor: u64,
}

/// The revision asked for is older than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The oldest that can be gone on from.
    pub oldest: u64,
}

impl Step {
    /// What leads from one market to the next; none if no offer changed.
    pub fn between(old: &Market, new: &Market, revision: u64) -> Option<Self> {
        let pair = |before: Option<&Arc<Shelf>>, after: Option<&Arc<Shelf>>| {
            let same = before.zip(after).is_some_and(|(before, after)| {
                Arc::ptr_eq(&before.snapshot, &after.snapshot) && before.marks == after.marks
            });
            (!same).then(|| Pair {
                before: before.cloned(),
                after: after.cloned(),
            })
        };
        let gone = old
            .shelves()
            .iter()
            .filter(|shelf| new.shelf(shelf.backend()).is_none());
        let here = new
            .shelves()
            .iter()
            .filter_map(|shelf| pair(old.shelf(shelf.backend()), Some(shelf)));
        let pairs: Arc<[Pair]> = here
            .chain(gone.filter_map(|shelf| pair(Some(shelf), None)))
            .collect();
        let step = Self {
            revision,
            at: Instant::now(),
            pairs,
            changes: OnceCell::new(),
        };
        (!step.pairs.is_empty()).then_some(step)
    }

    /// Works out what changed, where it keeps no call waiting, unless that is done.
    pub async fn work_out(&self) {
        let work = || async {
            let pairs = Arc::clone(&self.pairs);
            let worked = task::spawn_blocking(move || changes_of(&pairs)).await;
            worked.unwrap_or_else(|_| changes_of(&self.pairs))
        };
        self.changes.get_or_init(work).await;
    }

    /// The changes of the backend at this place, once they are worked out; none if there is no such
    /// place.
    pub fn changes_at(&self, place: usize) -> Option<(&Pair, &[Change])> {
        let changes = self.changes.get()?.get(place)?;
        Some((self.pairs.get(place)?, changes))
    }

    /// Offers and marks that are held for this step alone.
    fn rows(&self) -> usize {
        let held = |pair: &Pair| {
            let before = pair.before.as_ref()?;
            let after = pair.after.as_ref();
            let still = after.is_some_and(|after| Arc::ptr_eq(&before.snapshot, &after.snapshot));
            let offers = if still { 0 } else { before.snapshot.len() };
            let still = after.is_some_and(|after| Arc::ptr_eq(&before.marks, &after.marks));
            let marks = if still { 0 } else { before.marks.len() };
            Some(offers + marks)
        };
        self.pairs.iter().filter_map(held).sum()
    }
}

impl History {
    /// Nothing has changed since `revision`.
    pub fn new(revision: u64) -> Self {
        Self {
            steps: VecDeque::new(),
            rows: 0,
            floor: revision,
        }
    }

    /// Adds the newest step and forgets old ones beyond the bounds.
    pub fn push(&mut self, step: Step) {
        let now = step.at;
        self.rows += step.rows();
        self.steps.push_back(Arc::new(step));
        while let Some(oldest) = self.steps.front() {
            let over = self.steps.len() > MAX_STEPS
                || self.rows > MAX_ROWS
                || now.saturating_duration_since(oldest.at) > MAX_AGE;
            // Watchers have yet to read the newest.
            if !over || self.steps.len() == 1 {
                break;
            }
            if let Some(oldest) = self.steps.pop_front() {
                self.rows -= oldest.rows();
                self.floor = oldest.revision;
            }
        }
    }

    /// The first step after `revision`; none if there is none yet.
    pub fn after(&self, revision: u64) -> Result<Option<Arc<Step>>, Forgotten> {
        if revision < self.floor {
            return Err(Forgotten { oldest: self.floor });
        }
        let first = self.steps.partition_point(|step| step.revision <= revision);
        Ok(self.steps.get(first).cloned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use muster_model::quantity::MicroUsd;

    use super::*;
    use crate::domain::market::Mark;
    use crate::domain::skypilot;

    fn market(rows: usize) -> Market {
        let rows: String = (0..rows).map(|row| format!("t{row},eu,1\n")).collect();
        let snapshot = skypilot::read(
            "b",
            "f",
            format!("InstanceType,Region,Price\n{rows}").as_bytes(),
        )
        .unwrap();
        Market::new(vec![Shelf::new(
            Arc::new(snapshot),
            SystemTime::UNIX_EPOCH,
            Arc::default(),
        )])
    }

    #[test]
    fn marks_of_the_past_are_kept_within_bounds_too() {
        let first = market(1);
        let snapshot = Arc::clone(&first.shelves()[0].snapshot);
        let marked = |price: i64| {
            let mark = Mark {
                availability: None,
                price: Some(MicroUsd(price)),
            };
            let marks = (0..150_000).map(|row| (row, mark)).collect();
            let shelf = Shelf::new(
                Arc::clone(&snapshot),
                SystemTime::UNIX_EPOCH,
                Arc::new(marks),
            );
            Market::new(vec![shelf])
        };
        let (mut history, mut old) = (History::new(1), first);
        for revision in 2..8u64 {
            let new = marked(i64::try_from(revision).unwrap());
            history.push(Step::between(&old, &new, revision).unwrap());
            old = new;
        }
        assert_eq!(history.after(2).unwrap_err(), Forgotten { oldest: 4 });
        assert_eq!(history.after(4).unwrap().unwrap().revision, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn steps_are_kept_within_bounds() {
        let (mut history, mut old) = (History::new(1), market(1));
        for revision in 2..20 {
            let new = market(usize::try_from(revision).unwrap());
            history.push(Step::between(&old, &new, revision).unwrap());
            assert!(Step::between(&new, &new, revision).is_none());
            old = new;
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(history.after(1).unwrap_err(), Forgotten { oldest: 8 });
        let next = history.after(8).unwrap().unwrap();
        assert_eq!(next.revision, 9);
        next.work_out().await;
        assert_eq!(
            next.changes_at(0).map(|(_, changes)| changes.len()),
            Some(1)
        );
        assert!(next.changes_at(1).is_none());
        assert!(history.after(19).unwrap().is_none());
    }
}
