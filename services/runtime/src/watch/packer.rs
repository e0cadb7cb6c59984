//! Puts changes into messages: whole revisions while they fit, one revision over several messages
//! where it does not, and the position only where a revision is complete.

use tokio::time::Instant;

use super::history::{Change, Commit};
use super::observed::Entry;
use super::{Event, Filter};
use crate::page::Budget;

/// Messages in the making: their changes, and the revision up to which they are complete.
pub(super) struct Packer<T> {
    limit: usize,
    budget: Budget,
    changes: Vec<Event<T>>,
    done: Vec<(Vec<Event<T>>, Option<u64>)>,
    /// Everything up to this revision is packed.
    position: Option<u64>,
    /// When the oldest durable change that was packed was made.
    oldest: Option<Instant>,
}

impl<T> Packer<T> {
    /// Messages of at most `limit` changes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            budget: Budget::new(limit),
            changes: Vec::new(),
            done: Vec::new(),
            position: None,
            oldest: None,
        }
    }

    /// Packs what `filter` sees of `commit`.
    pub(super) fn add_commit(&mut self, commit: &Commit<T>, filter: &Filter<T>) {
        let seen = |change| durable_event(change, filter);
        let events: Vec<_> = commit.changes.iter().filter_map(seen).collect();
        let mut rest = self.budget.clone();
        if !self.changes.is_empty() && !events.iter().all(|(_, size)| rest.admit(*size)) {
            self.cut(self.position);
        }
        for (event, size) in events {
            self.oldest.get_or_insert(commit.at);
            self.add(event, size, None);
        }
        self.position = Some(commit.revision);
    }

    /// Says that nothing else is seen up to `revision`.
    pub(super) fn complete_to(&mut self, revision: u64) {
        self.position = Some(revision);
    }

    /// Packs what `filter` sees of new in-memory facts. `exact` says that the watcher has last
    /// seen just the entry's former state.
    pub(super) fn add_observed(&mut self, entry: &Entry<T>, filter: &Filter<T>, exact: bool) {
        let Some((event, size)) = observed_event(entry, filter, exact) else {
            return;
        };
        self.add(event, size, self.position);
    }

    /// When the oldest durable change that is seen was made.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// The messages, in order. There is none if nothing was seen.
    pub(super) fn finish(mut self) -> Vec<(Vec<Event<T>>, Option<u64>)> {
        if !self.changes.is_empty() {
            self.cut(self.position);
        }
        self.done
    }

    /// Adds one change; if the message is full, it is cut there, at `position`.
    fn add(&mut self, event: Event<T>, size: usize, position: Option<u64>) {
        if !self.budget.admit(size) {
            self.cut(position);
            self.budget.admit(size);
        }
        self.changes.push(event);
    }

    fn cut(&mut self, position: Option<u64>) {
        self.done
            .push((std::mem::take(&mut self.changes), position));
        self.budget = Budget::new(self.limit);
    }
}

/// What a watcher is told of a durable change, and its size.
fn durable_event<T>(change: &Change<T>, filter: &Filter<T>) -> Option<(Event<T>, usize)> {
    if !filter.covers(&change.key) {
        return None;
    }
    if let Some(after) = &change.after
        && filter.sees(after)
    {
        return Some((Event::Put(after.clone()), after.size()));
    }
    // Only the durable facts are asked of the former state: the watcher may have last seen it
    // with other in-memory facts than it had in the end.
    let before = change.before.as_ref()?;
    filter
        .may_see(before)
        .then(|| (Event::Deleted(before.clone()), before.size()))
}

/// What a watcher is told of new in-memory facts, and its size.
fn observed_event<T>(
    entry: &Entry<T>,
    filter: &Filter<T>,
    exact: bool,
) -> Option<(Event<T>, usize)> {
    let Entry {
        key, before, after, ..
    } = entry;
    if !filter.covers(key) || !filter.may_see(after) {
        return None;
    }
    if filter.sees(after) {
        return Some((Event::Observed(after.clone()), after.size()));
    }
    let was_seen = !exact || filter.sees(before);
    was_seen.then(|| (Event::Deleted(before.clone()), before.size()))
}
