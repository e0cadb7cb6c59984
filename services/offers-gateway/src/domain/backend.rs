//! How a backend stands: what it last told, when it is asked next, and what is wrong with it. It
//! decides from that when a refresh is due and what is shown; it never asks a backend itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::breaker::{self, Breaker};
use super::snapshot::Snapshot;

/// What is fixed about a backend while it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its kind, such as "catalog".
    pub kind: &'static str,
    /// Where it reads, without secrets.
    pub source: String,
    /// How often it is refreshed, unless it wants to be asked less often.
    pub refresh_interval: Duration,
    /// Offers older than this are left out; none keeps them for ever.
    pub drop_after: Option<Duration>,
    /// When it is left alone for failing.
    pub breaker: breaker::Policy,
    /// Why it is not asked at all; none if it is.
    pub disabled: Option<String>,
}

/// What a refresh did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether time ran out, or else it failed.
    pub timed_out: bool,
    /// In words a user can act on.
    pub message: String,
}

/// A refresh that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What went wrong; none if it went well.
    pub fault: Option<Fault>,
}

/// What a backend last told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its offers.
    pub snapshot: Arc<Snapshot>,
    /// When they were read.
    pub observed: SystemTime,
    /// Whether it knows live capacity.
    pub live_capacity: bool,
}

/// How a backend stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What is fixed.
    pub facts: Arc<Facts>,
    /// What it last told; none if nothing.
    pub told: Option<Told>,
    /// The last refresh that ended; none if none has since the start.
    pub ended: Option<Ended>,
    /// Whether it is left alone.
    pub breaker: Breaker,
    /// When it is asked next; none if it is disabled or being asked.
    pub next_refresh: Option<SystemTime>,
    /// Its offers are older than it keeps them, and are left out.
    pub dropped: bool,
    /// The least time between two refreshes that the backend itself wants.
    least_interval: Duration,
}

/// How long after a refresh that failed the next one is tried, while the breaker is closed.
const RETRY: Duration = Duration::from_secs(10);

impl Standing {
    /// A backend that has not been asked yet.
    pub fn new(facts: Arc<Facts>) -> Self {
        Self {
            facts,
            told: None,
            ended: None,
            breaker: Breaker::default(),
            next_refresh: None,
            dropped: false,
            least_interval: Duration::ZERO,
        }
    }

    /// A backend that has not been asked yet, with what it told while it was configured otherwise.
    pub fn with_offers(facts: Arc<Facts>, told: Option<Told>, now: SystemTime) -> Self {
        let mut standing = Self {
            told,
            ..Self::new(facts)
        };
        standing.dropped = standing.is_too_old(now);
        standing
    }

    /// Whether its first refresh since the start is still to end, with nothing to show meanwhile.
    pub fn is_awaited(&self) -> bool {
        self.facts.disabled.is_none() && self.told.is_none() && self.ended.is_none()
    }

    /// Time since its offers were read; none if there are none.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let told = self.told.as_ref()?;
        Some(now.duration_since(told.observed).unwrap_or_default())
    }

    /// Whether its offers are older than `limit`. Those of a time that is still to come were read before
    /// the clock was set back, nobody knows when: they count as older than anything.
    pub fn is_older_than(&self, limit: Duration, now: SystemTime) -> bool {
        self.is_ahead_of(now) || self.age(now).is_none_or(|age| age > limit)
    }

    /// Whether its offers are of a time that is still to come: the clock was set back.
    pub fn is_ahead_of(&self, now: SystemTime) -> bool {
        self.told.as_ref().is_some_and(|told| told.observed > now)
    }

    /// The clock was set back: its offers are as if they had been read now.
    pub fn clock_set_back(&mut self, now: SystemTime) {
        if let Some(told) = &mut self.told {
            told.observed = told.observed.min(now);
        }
    }

    /// The offers that are shown: none once they are too old.
    pub fn shown(&self) -> Option<&Told> {
        self.told.as_ref().filter(|_| !self.dropped)
    }

    /// Whether its offers are too old to be shown.
    pub fn is_too_old(&self, now: SystemTime) -> bool {
        let limit = self.facts.drop_after;
        self.age(now)
            .zip(limit)
            .is_some_and(|(age, limit)| age > limit)
    }

    /// When its offers will be too old to be shown; none if never, or already.
    pub fn drop_time(&self) -> Option<SystemTime> {
        let told = self.shown()?;
        // One that is exactly so old is still shown.
        Some(told.observed + self.facts.drop_after? + Duration::from_millis(1))
    }

    /// Offers kept from before the start are here again.
    pub fn restore(&mut self, told: Told, now: SystemTime, jitter: f64) {
        let due = told.observed + self.interval(jitter);
        self.told = Some(told);
        self.next_refresh = Some(if self.is_ahead_of(now) {
            now
        } else {
            due.max(now)
        });
        self.clock_set_back(now);
        self.dropped = self.is_too_old(now);
    }

    /// The backend wants to be asked no more often than this.
    pub fn refresh_at_most_every(&mut self, least: Duration) {
        self.least_interval = least;
    }

    /// How often it is refreshed, as long as all goes well.
    pub fn refresh_interval(&self) -> Duration {
        self.facts.refresh_interval.max(self.least_interval)
    }

    /// A refresh begins.
    pub fn begin(&mut self) {
        self.breaker.begin();
        self.next_refresh = None;
    }

    /// A refresh went well: new offers, or word that the old ones hold.
    pub fn succeed(&mut self, told: Told, ended: Ended, jitter: f64) {
        self.next_refresh = Some(ended.at + self.interval(jitter));
        self.breaker.succeed();
        self.told = Some(told);
        self.dropped = false;
        self.ended = Some(ended);
    }

    /// A refresh did not go well.
    pub fn fail(&mut self, ended: Ended, jitter: f64) {
        self.breaker.fail(&self.facts.breaker, ended.at, jitter);
        let next = match self.breaker.state() {
            breaker::State::Open { until } => until,
            breaker::State::Closed | breaker::State::HalfOpen => {
                ended.at
                    + RETRY
                        .min(self.facts.refresh_interval)
                        .mul_f64(1.0 + 0.2 * jitter)
            }
        };
        self.next_refresh = Some(next.max(ended.at + self.least_interval));
        self.ended = Some(ended);
    }

    /// What is wrong with it; none if nothing is.
    pub fn fault(&self) -> Option<&Fault> {
        self.ended.as_ref()?.fault.as_ref()
    }

    fn interval(&self, jitter: f64) -> Duration {
        self.facts
            .refresh_interval
            .mul_f64(1.0 - 0.1 * jitter.clamp(0.0, 1.0))
            .max(self.least_interval)
    }
}

#[cfg(test)]
mod tests;
