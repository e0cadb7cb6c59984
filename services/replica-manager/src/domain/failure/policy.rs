//! What a user allows to be retried, how often, for how long and after which delay.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Class;
use crate::domain::hash;

/// What happens when a replica fails: it is tried again. A service without one fails fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Time from a failure to the next attempt.
    pub interval: Duration,
    /// How long an episode may last.
    pub max_duration: Duration,
    /// Retries in an episode; `None` is any number.
    pub max_attempts: Option<u32>,
    /// How the delay grows; `None` does not.
    pub growth: Option<Growth>,
    /// How long a replica has to be ready for its episode to end.
    pub stable: Duration,
    /// What differs for some classes.
    pub classes: BTreeMap<Class, Rule>,
    /// Where attempts are placed as they fail; empty is the default order.
    pub stages: Vec<Stage>,
    /// What happens when the limits are reached.
    pub exhausted: Exhausted,
}

/// How a delay grows from retry to retry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// What the delay is multiplied by: 1 to 10.
    pub factor: f64,
    /// The longest delay, before jitter.
    pub max: Duration,
    /// The most that is added, as a part of the delay: 0 to 1.
    pub jitter: f64,
}

/// What differs for one class; `None` is the policy's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// The first failure of the class fails the service.
    pub fail: bool,
    /// See [`Retry::interval`].
    pub interval: Option<Duration>,
    /// See [`Retry::max_duration`].
    pub max_duration: Option<Duration>,
    /// See [`Retry::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`Retry::growth`].
    pub growth: Option<Growth>,
}

/// A step of escalation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// How many attempts it lasts; `None`, for the last only, is any number.
    pub attempts: Option<u32>,
    /// Where they are placed.
    pub place: StagePlace,
}

/// Where a stage places attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StagePlace {
    /// On the worker of the attempt before.
    SameWorker,
    /// On none of the workers that failed in this episode.
    OtherWorker,
    /// In none of the regions that failed in this episode.
    OtherRegion,
    /// Anywhere.
    Any,
}

/// What happens when the limits are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The replica gives up; the service goes on with the others.
    Replica,
    /// The service fails.
    Service,
}

/// What holds for one class, with everything filled in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The first failure fails the service.
    pub fail: bool,
    /// Time from a failure to the next attempt.
    pub interval: Duration,
    /// How long the class's clock may run.
    pub max_duration: Duration,
    /// Retries; `None` is any number.
    pub max_attempts: Option<u32>,
    /// How the delay grows.
    pub growth: Option<Growth>,
}

/// What later retries count from if the interval is shorter.
const SHORTEST_REPEATED: Duration = Duration::from_secs(1);

impl Retry {
    /// The limits of one class. CONFIG is `fail` unless the policy names it.
    #[must_use]
    pub fn limits(&self, class: Class) -> Limits {
        let unnamed = Rule {
            fail: class == Class::Config,
            ..Rule::default()
        };
        let rule = self.classes.get(&class).copied().unwrap_or(unnamed);
        Limits {
            fail: rule.fail,
            interval: rule.interval.unwrap_or(self.interval),
            max_duration: rule.max_duration.unwrap_or(self.max_duration),
            max_attempts: rule.max_attempts.or(self.max_attempts),
            growth: rule.growth.or(self.growth),
        }
    }
}

impl Limits {
    /// The delay before retry `number` (from 1) of the class. `first` says that it is the first of
    /// its episode. `attempt_id` names the attempt that failed, and gives the jitter.
    #[must_use]
    pub fn delay(&self, number: u32, first: bool, attempt_id: &str) -> Duration {
        let growth = self.growth.unwrap_or(Growth {
            factor: 1.0,
            max: self.interval,
            jitter: 0.0,
        });
        let (base, steps) = if first || self.interval >= SHORTEST_REPEATED {
            (self.interval, number.saturating_sub(1))
        } else {
            (SHORTEST_REPEATED, number.saturating_sub(2))
        };
        let ceiling = base.max(growth.max).as_secs_f64();
        let grown = base.as_secs_f64() * growth.factor.powi(i32::try_from(steps).unwrap_or(64));
        let jitter = 1.0 + growth.jitter * hash::fraction(attempt_id);
        Duration::try_from_secs_f64(grown.min(ceiling) * jitter).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests;
