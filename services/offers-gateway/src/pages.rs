//! Pages that fit together: what was on offer when the first page was sent is kept for the next
//! ones, and what a question selects from it is worked out once. It is bounded in time, in number
//! and in size; what is no longer kept has expired.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::board::Stand;
use crate::domain::selection::Selection;

/// How long a stand is kept after the last page that leads on from it.
pub const KEPT_FOR: Duration = Duration::from_secs(300);

/// Stands of different offers kept at most. Stands that differ in nothing but when offers were read share
/// them, and are kept together: with files looked at each few seconds there would otherwise be eight of
/// them before a long walk ends.
pub const MAX_KEPT: usize = 8;

/// Stands kept at most, all together: each is a list of what the backends share.
const MAX_STANDS: usize = 512;

/// Selections remembered at most.
const MAX_PLANS: usize = 256;

/// Offers in remembered selections at most, 8 bytes each.
const MAX_HITS: usize = 2_000_000;

/// The longest question that is remembered, in bytes: people's have a few hundred, and of a message as
/// large as callers may send the next page can be worked out again.
const MAX_ASKED: usize = 16 << 10;

/// What pages are made from. One for the whole gateway.
#[derive(Debug, Default)]
pub struct Pages {
    kept: Mutex<VecDeque<Kept>>,
    plans: Mutex<Plans>,
}

#[derive(Debug)]
struct Kept {
    stand: Arc<Stand>,
    until: Instant,
}

/// What was asked: the revision of the offers, and the question as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The revision of what it is asked of.
    pub revision: u64,
    /// The question's bytes.
    pub asked: Vec<u8>,
}

#[derive(Debug, Default)]
struct Plans {
    by_question: FxHashMap<Question, Plan>,
    hits: usize,
    uses: u64,
}

#[derive(Debug)]
struct Plan {
    selection: Arc<Selection>,
    used: u64,
}

impl Pages {
    /// Keeps a stand for the pages that follow.
    pub fn keep(&self, stand: &Arc<Stand>) {
        let now = Instant::now();
        let mut kept = lock(&self.kept);
        let until = now + KEPT_FOR;
        if let Some(known) = kept
            .iter_mut()
            .find(|known| known.stand.revision == stand.revision)
        {
            known.until = until;
            return;
        }
        kept.retain(|known| known.until > now);
        while kept.len() >= MAX_STANDS || others(&kept, stand.content) >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(Kept {
            stand: Arc::clone(stand),
            until,
        });
    }

    /// The stand of a revision, if it is still kept.
    pub fn find(&self, revision: u64) -> Option<Arc<Stand>> {
        let now = Instant::now();
        let kept = lock(&self.kept);
        let found = kept
            .iter()
            .find(|known| known.stand.revision == revision && known.until > now)?;
        Some(Arc::clone(&found.stand))
    }

    /// What a question selects, if it was asked before.
    pub fn recall(&self, question: &Question) -> Option<Arc<Selection>> {
        let mut plans = lock(&self.plans);
        plans.uses += 1;
        let used = plans.uses;
        let plan = plans.by_question.get_mut(question)?;
        plan.used = used;
        Some(Arc::clone(&plan.selection))
    }

    /// Remembers what a question selects.
    pub fn remember(&self, question: Question, selection: &Arc<Selection>) {
        let size = selection.hits.len();
        if size > MAX_HITS || question.asked.len() > MAX_ASKED {
            return;
        }
        let mut plans = lock(&self.plans);
        while plans.by_question.len() >= MAX_PLANS || plans.hits + size > MAX_HITS {
            if !plans.forget_oldest() {
                return;
            }
        }
        let plan = Plan {
            selection: Arc::clone(selection),
            used: plans.uses,
        };
        let replaced = plans.by_question.insert(question, plan);
        plans.hits += size;
        plans.hits -= replaced.map_or(0, |plan| plan.selection.hits.len());
    }
}

/// How many different offers are kept beside those of `content`.
fn others(kept: &VecDeque<Kept>, content: u64) -> usize {
    let contents = kept.iter().map(|known| known.stand.content);
    let different: BTreeSet<_> = contents.filter(|other| *other != content).collect();
    different.len()
}

impl Plans {
    /// False if there is none.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.by_question.iter().min_by_key(|(_, plan)| plan.used);
        let Some(question) = oldest.map(|(question, _)| question.clone()) else {
            return false;
        };
        let gone = self.by_question.remove(&question);
        self.hits -= gone.map_or(0, |plan| plan.selection.hits.len());
        true
    }
}

// Nothing in here panics halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
