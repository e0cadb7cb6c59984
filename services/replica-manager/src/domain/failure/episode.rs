//! A run of failures of one replica: what is counted, and when it is enough. It lasts until the
//! replica has been ready for `stable`, however often attempts run a little in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Class;
use super::policy::{Retry, Stage};
use crate::domain::time::Time;

/// What is known of the failures since a replica was last stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// The first failure.
    pub began: Time,
    /// Failures but for NO_CAPACITY.
    pub failures: u32,
    /// The class of the last one.
    pub last: Class,
    /// The class of the last one that is not NO_CAPACITY.
    pub cause: Option<Class>,
    /// Each class's own count and clock.
    pub classes: BTreeMap<Class, Tally>,
    /// Workers that attempts failed on.
    pub workers: BTreeSet<String>,
    /// Regions that attempts failed in.
    pub regions: BTreeSet<String>,
    /// The stage, from 0, that the next attempt belongs to.
    pub stage: usize,
    /// Attempts that the stage has had.
    pub stage_used: u32,
    /// Time spent without a place before `waiting`.
    pub waited: Duration,
    /// Since when there is no place.
    pub waiting: Option<Time>,
}

/// One class's part of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Failures.
    pub failures: u32,
    /// The first of them.
    pub began: Time,
    /// What [`Episode::waited`] came to then: it is not on this class's clock.
    pub waited_before: Duration,
}

/// The limit that ends an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exceeded {
    /// `max_attempts`.
    Attempts,
    /// `max_duration`.
    Duration,
    /// The last stage's `attempts`.
    Stages,
}

/// Asking for room that is not there is not worth more than this, whatever the interval.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

impl Episode {
    /// The episode that this failure begins.
    #[must_use]
    pub fn begin(class: Class, now: Time) -> Self {
        let mut episode = Self {
            began: now,
            failures: 0,
            last: class,
            cause: None,
            classes: BTreeMap::new(),
            workers: BTreeSet::new(),
            regions: BTreeSet::new(),
            stage: 0,
            stage_used: 0,
            waited: Duration::ZERO,
            waiting: None,
        };
        episode.add(class, now);
        episode
    }

    /// Counts one more failure.
    pub fn add(&mut self, class: Class, now: Time) {
        self.last = class;
        let waited_before = self.waited_at(now);
        let tally = self.classes.entry(class).or_insert(Tally {
            failures: 0,
            began: now,
            waited_before,
        });
        tally.failures += 1;
        if class == Class::NoCapacity {
            self.waiting.get_or_insert(now);
        } else {
            self.failures += 1;
            self.cause = Some(class);
        }
    }

    /// A place was found.
    pub fn placed(&mut self, now: Time) {
        self.waited = self.waited_at(now);
        self.waiting = None;
    }

    /// Failures of one class.
    #[must_use]
    pub fn count(&self, class: Class) -> u32 {
        self.classes.get(&class).map_or(0, |tally| tally.failures)
    }

    /// Whether the next retry is the first of the episode that answers a failure to run.
    #[must_use]
    pub fn first_retry(&self) -> bool {
        self.failures <= 1
    }

    /// How long to wait after the last failure, which was of this class and of this attempt.
    #[must_use]
    pub fn delay(&self, retry: &Retry, class: Class, attempt_id: &str) -> Duration {
        let (limits, number) = (retry.limits(class), self.count(class));
        if class == Class::NoCapacity {
            // The same attempt asks again and again: its number alone would give the same jitter.
            let id = format!("{attempt_id}.{number}");
            return limits.delay(number, number == 1, &id).max(SHORTEST_WAIT);
        }
        limits.delay(number, self.first_retry(), attempt_id)
    }

    /// What a class's clock shows.
    #[must_use]
    pub fn elapsed(&self, class: Class, now: Time) -> Duration {
        if class == Class::NoCapacity {
            return self.waited_at(now);
        }
        self.classes.get(&class).map_or(Duration::ZERO, |tally| {
            let waited = self.waited_at(now).saturating_sub(tally.waited_before);
            now.since(tally.began).saturating_sub(waited)
        })
    }

    /// Which limit forbids the retry that is due now.
    #[must_use]
    pub fn exceeded(&self, retry: &Retry, now: Time) -> Option<Exceeded> {
        let limits = retry.limits(self.last);
        let count = self.count(self.last);
        if limits.max_attempts.is_some_and(|most| count > most) {
            Some(Exceeded::Attempts)
        } else if self.elapsed(self.last, now) >= limits.max_duration {
            Some(Exceeded::Duration)
        } else if self.last != Class::NoCapacity && self.stages_used_up(&retry.stages) {
            Some(Exceeded::Stages)
        } else {
            None
        }
    }

    /// The stage, from 0, that the next attempt belongs to: the last one if all are used up.
    #[must_use]
    pub fn next_stage(&self, stages: &[Stage]) -> usize {
        let current = stages.get(self.stage);
        let next = match current {
            Some(stage) if self.used_up(*stage) => self.stage + 1,
            _ => self.stage,
        };
        next.min(stages.len().saturating_sub(1))
    }

    /// Counts an attempt that was placed by a stage (from 0).
    pub fn placed_by(&mut self, stage: usize) {
        if stage > self.stage {
            self.stage = stage;
            self.stage_used = 0;
        }
        self.stage_used += 1;
    }

    fn used_up(&self, stage: Stage) -> bool {
        stage.attempts.is_some_and(|most| self.stage_used >= most)
    }

    fn stages_used_up(&self, stages: &[Stage]) -> bool {
        let Some((last, before)) = stages.split_last() else {
            return false;
        };
        self.stage >= before.len() && self.used_up(*last)
    }

    fn waited_at(&self, now: Time) -> Duration {
        let current = self
            .waiting
            .map_or(Duration::ZERO, |since| now.since(since));
        self.waited + current
    }
}

#[cfg(test)]
mod tests;
