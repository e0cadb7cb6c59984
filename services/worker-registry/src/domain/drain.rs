//! A drain: the operation that empties a worker. Its terms and end are durable; how far its owners have
//! come is told by them and kept in memory.
//!
//! It decides what a drain says of itself: progress, what is blocked and why. It moves nothing.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::allocation::Allocation;
use super::text::Text;

/// The most allocations that are told to be blocked, by one owner and of one worker.
pub const MAX_BLOCKED: usize = 1000;

/// Why a drain was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A person or program wants the worker empty.
    Operator,
    /// The agent is being stopped.
    Shutdown,
    /// The provider takes the machine back.
    Reclaim,
}

/// What happens to what is left when the deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterDeadline {
    /// The drain goes on.
    Wait,
    /// The agent stops what is left.
    Force,
}

/// What a drain was asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Why.
    pub cause: Cause,
    /// The same in words.
    pub reason: Text,
    /// Who asked.
    pub actor: Text,
    /// When `after` applies; none is never.
    pub deadline: Option<SystemTime>,
    /// How many moves off the worker may be unfinished at a time.
    pub max_parallel: u32,
    /// What happens at the deadline.
    pub after: AfterDeadline,
}

impl Terms {
    /// When the agent stops what is left; none is never.
    fn forces_at(&self) -> Option<SystemTime> {
        self.deadline.filter(|_| self.after == AfterDeadline::Force)
    }

    /// The same, and in no less of a hurry than others: what is left is stopped at the earlier of both times.
    fn hurried_by(&self, others: &Self) -> Self {
        let comes_first = match (self.forces_at(), others.forces_at()) {
            (Some(own), Some(other)) => own <= other,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let first = if comes_first { self } else { others };
        Self {
            deadline: first.deadline,
            after: first.after,
            max_parallel: self.max_parallel.max(others.max_parallel),
            ..self.clone()
        }
    }
}

/// A drain under way, or the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Its terms as they are now.
    pub terms: Terms,
    /// When it began.
    pub started: SystemTime,
    /// The deadline has passed with FORCE.
    pub forced: bool,
    /// Allocations when it began.
    pub total: u32,
    /// When it ended; none while it runs.
    pub ended: Option<SystemTime>,
    /// Allocations that were left when it ended.
    pub left: u32,
}

impl Drain {
    /// A drain that begins now, of so many allocations.
    pub fn begin(terms: Terms, total: u32, now: SystemTime) -> Self {
        Self {
            terms,
            started: now,
            forced: false,
            total,
            ended: None,
            left: 0,
        }
    }

    /// The same drain on other terms. An agent's own shutdown hurries an operator's drain, and never
    /// becomes its cause: what an operator emptied stays empty when the agent is back.
    #[must_use]
    pub fn with_terms(&self, terms: Terms, now: SystemTime) -> Self {
        let keeps_cause = terms.cause == Cause::Shutdown && self.terms.cause != Cause::Shutdown;
        let terms = match keeps_cause {
            true => self.terms.hurried_by(&terms),
            false => terms,
        };
        let passed = terms.forces_at().is_some_and(|deadline| deadline <= now);
        Self {
            forced: passed || (keeps_cause && self.forced),
            terms,
            ..self.clone()
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether its deadline has passed with FORCE and that has not been recorded.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.is_running()
            && !self.forced
            && self
                .terms
                .forces_at()
                .is_some_and(|deadline| deadline <= now)
    }
}

/// What stands in a drain's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The allocation; empty for all of an owner's.
    pub allocation: String,
    /// What it is for.
    pub subject: String,
    /// A word for programs.
    pub reason: String,
    /// For a person.
    pub message: String,
}

/// What an owner last said of its moves off a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Moved since the drain began.
    pub moved: u32,
    /// What it cannot move now.
    pub blocked: Vec<Block>,
    /// When it expects to be done.
    pub eta: Option<SystemTime>,
    /// When it said so.
    pub at: SystemTime,
}

/// The last report of each owner.
pub type Reports = BTreeMap<Text, Report>;

/// How far a drain has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Moved, as the owners say.
    pub moved: u32,
    /// What cannot be moved now.
    pub blocked: Vec<Block>,
    /// When the last owner expects to be done; none unless all of them say.
    pub eta: Option<SystemTime>,
}

/// What a drain's progress is told from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The drain.
    pub drain: &'a Drain,
    /// What its owners last said.
    pub reports: &'a Reports,
    /// Whether its worker is LOST.
    pub lost: bool,
    /// How long an owner may say nothing before its allocations count as blocked.
    pub silent_after: Duration,
}

/// How far a running drain has come; `left` are the allocations that still count.
pub fn progress<'a>(
    view: View<'_>,
    left: impl Iterator<Item = &'a Allocation>,
    now: SystemTime,
) -> Progress {
    let mut owners: BTreeMap<&Text, u32> = BTreeMap::new();
    for allocation in left {
        *owners.entry(&allocation.owner).or_default() += 1;
    }
    let mut progress = Progress {
        moved: view.reports.values().map(|report| report.moved).sum(),
        blocked: Vec::new(),
        eta: None,
    };
    if view.lost {
        progress.blocked.push(lost_block());
    }
    let mut etas = Vec::new();
    for (owner, count) in owners {
        let report = view.reports.get(owner);
        let spoke = report.map_or(view.drain.started, |report| report.at);
        if now.duration_since(spoke).unwrap_or_default() >= view.silent_after {
            progress
                .blocked
                .push(silent_block(owner, count, view.silent_after));
            continue;
        }
        etas.push(report.and_then(|report| report.eta));
        progress.blocked.extend(
            report
                .iter()
                .flat_map(|report| report.blocked.iter().cloned()),
        );
    }
    progress.blocked.truncate(MAX_BLOCKED);
    let etas = etas.into_iter().collect::<Option<Vec<_>>>();
    progress.eta = etas.and_then(|etas| etas.into_iter().max());
    progress
}

fn lost_block() -> Block {
    Block {
        allocation: String::new(),
        subject: String::new(),
        reason: "LOST".to_owned(),
        message: "the worker is not heard; its drain ends when it is back, when its deadline passes with FORCE, or when it is disabled by force".to_owned(),
    }
}

fn silent_block(owner: &Text, count: u32, silent_after: Duration) -> Block {
    let allocations = if count == 1 {
        "allocation"
    } else {
        "allocations"
    };
    Block {
        allocation: String::new(),
        subject: owner.to_string(),
        reason: "OWNER_SILENT".to_owned(),
        message: format!(
            "{owner} has not said for {silent_after:?} what becomes of its {count} {allocations} here"
        ),
    }
}

#[cfg(test)]
mod tests;
