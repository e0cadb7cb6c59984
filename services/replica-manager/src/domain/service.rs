//! A service with its replicas, as the records keep them: what a plan reads, and what actions and
//! commands change. It decides nothing by itself.

pub mod adopt;
pub mod apply;
pub mod command;
pub mod epoch;
mod set_back;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::replica::{Replica, Role, StopWhy};
use super::rollout::{Edition, Rollout, Stage};
use super::scaling::Autoscaler;
use super::spec::{Count, Spec};
use super::status::Status;
use super::time::Time;

/// A service with its replicas and the specs that they run.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its own record.
    pub header: Header,
    /// Its replicas by ordinal.
    pub replicas: BTreeMap<u32, Arc<Replica>>,
    /// The spec as applied.
    pub applied: Arc<Spec>,
    /// Earlier specs by version: those that replicas run or may go back to.
    pub earlier: BTreeMap<u64, Arc<Spec>>,
}

impl PartialEq for Service {
    /// What two states share is not looked at: of thousands of replicas a change touches few.
    fn eq(&self, other: &Self) -> bool {
        let same = |(was, is): (Option<&Arc<Replica>>, Option<&Arc<Replica>>)| was == is;
        let applied =
            || Arc::ptr_eq(&self.applied, &other.applied) || self.applied == other.applied;
        self.header == other.header
            && applied()
            && self.earlier == other.earlier
            && differing(Some(self), Some(other)).all(same)
    }
}

/// A service's own record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Its project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Never used again.
    pub uid: String,
    /// The number of the applied spec.
    pub version: u64,
    /// What the applied spec asks to run.
    pub edition: Edition,
    /// The rolling update under way, or the last one.
    pub rollout: Option<Rollout>,
    /// The last edition of which a replica was ready for `min_ready`.
    pub proven: Option<Edition>,
    /// Whether it is meant to run.
    pub intent: Intent,
    /// Why, in words, and by whom.
    pub intent_reason: String,
    /// Why it failed; `None` unless it has.
    pub failure: Option<Failure>,
    /// The number set by a user since the last apply.
    pub scale: Option<u32>,
    /// What the autoscaler remembers.
    pub autoscaler: Autoscaler,
    /// The next replica's number.
    pub next_ordinal: u32,
    /// The epoch of the store that it was written in last; empty if no record says.
    #[serde(default)]
    pub epoch: String,
    /// Attempts with lower numbers may have been made after the backup that the store was restored from.
    #[serde(default)]
    pub attempts_from: u32,
    /// Replicas that had given up before are to be tried anew.
    #[serde(default)]
    pub tried_anew: Option<Time>,
    /// Retries that were waited for before wait as the policy says now.
    #[serde(default)]
    pub waits_anew: Option<Time>,
    /// Changes by callers: what the etag covers.
    pub writes: u64,
    /// How it is.
    pub status: Status,
    /// What was reached since it was started last.
    pub reached: Reached,
    /// Counts since it was created.
    pub totals: Totals,
    /// When it was created.
    pub created: Time,
    /// When its spec or intent changed last.
    pub updated: Time,
}

/// Whether a service is meant to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// It is.
    Run,
    /// It was stopped by a user.
    Stop,
    /// It has failed.
    Failed,
    /// It is being deleted.
    Delete,
}

/// Why a service failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub reason: FailureReason,
    /// For people: which replica, how, and its last words.
    pub message: String,
}

/// Why a service failed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// A replica failed, and there is no retry.
    ReplicaFailed,
    /// A replica failed of a class that is `fail`.
    FailingClass,
    /// There was no place in time.
    NoCapacity,
    /// Retries are used up.
    RetriesExhausted,
}

/// What was reached since a service was started last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Any replica had a place.
    pub placed: bool,
    /// min(min_healthy, wanted) ready replicas.
    pub least: bool,
    /// As many as were wanted.
    pub wanted: bool,
    /// The service was up: as `least`, and at least one. It stays so while none is wanted.
    #[serde(default)]
    pub up: bool,
}

/// Counts of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Attempts after a replica's first.
    pub restarts: u64,
    /// Outages begun.
    pub outages: u64,
    /// Degradations begun.
    pub degradations: u64,
    /// How long the last outage or degradation lasted.
    pub last_recovery: Option<Duration>,
}

impl FailureReason {
    /// The word for it: `RETRIES_EXHAUSTED`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ReplicaFailed => "REPLICA_FAILED",
            Self::FailingClass => "FAILING_CLASS",
            Self::NoCapacity => "NO_CAPACITY",
            Self::RetriesExhausted => "RETRIES_EXHAUSTED",
        }
    }
}

impl Service {
    /// The spec as applied.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.applied
    }

    /// The spec of a version in use; the applied one for any other.
    #[must_use]
    pub fn spec_of(&self, version: u64) -> &Arc<Spec> {
        let earlier = self.earlier.get(&version);
        earlier
            .filter(|_| version != self.header.version)
            .unwrap_or(&self.applied)
    }

    /// Versions whose specs are needed: of replicas, and of what may be gone back to.
    #[must_use]
    pub fn versions_in_use(&self) -> BTreeSet<u64> {
        let header = &self.header;
        let rollout = header.rollout.iter();
        let editions = rollout.flat_map(|rollout| [Some(rollout.target), rollout.stable]);
        let known = editions.chain([header.proven]).flatten();
        let of_replicas = self.replicas.values().flat_map(|replica| {
            let running = replica.attempt.as_ref().map(|attempt| attempt.version);
            [Some(replica.edition.version), running]
        });
        let versions = known.map(|edition| edition.version);
        versions
            .chain(of_replicas.flatten())
            .chain([header.version])
            .collect()
    }

    /// What replicas are meant to be: the applied edition, or the stable one after a rollback.
    #[must_use]
    pub fn aim(&self) -> Edition {
        let rollout = self.header.rollout.as_ref();
        rollout.map_or(self.header.edition, Rollout::aim)
    }

    /// Whether nothing has proven the target of the last update yet, and there is something to go back to.
    /// While nothing is wanted an update is complete, and its target on trial still.
    #[must_use]
    pub fn on_trial(&self) -> bool {
        self.header.rollout.as_ref().is_some_and(|rollout| {
            let proven = self.header.proven;
            let proven = proven.is_some_and(|proven| proven.same(&rollout.target));
            let taken_back = matches!(rollout.stage, Stage::RollingBack | Stage::RolledBack);
            !taken_back && !proven && rollout.stable.is_some()
        })
    }

    /// The least and the most replicas, with the count that a user set.
    #[must_use]
    pub fn bounds(&self) -> Count {
        let Count { min, max } = self.spec().replicas;
        let min = self.header.scale.unwrap_or(min);
        Count {
            min,
            max: max.max(min),
        }
    }

    /// How many replicas are meant to be ready.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        if self.header.intent != Intent::Run {
            return 0;
        }
        let bounds = self.bounds();
        match self.spec().scaling {
            Some(_) => {
                let desired = self.header.autoscaler.desired.unwrap_or(bounds.min);
                desired.clamp(bounds.min, bounds.max)
            }
            None => bounds.min,
        }
    }

    /// Below this many ready replicas no act of ours takes the service.
    #[must_use]
    pub fn floor(&self) -> u32 {
        let wanted = self.wanted();
        let spec = self.spec();
        let available = wanted.saturating_sub(spec.update.max_unavailable);
        available.max(spec.min_healthy.min(wanted))
    }

    /// How many replicas are ready and meant to stay.
    #[must_use]
    pub fn ready(&self) -> u32 {
        count(self.replicas.values().filter(|replica| replica.ready()))
    }

    /// Replicas that hold one of the wanted places.
    pub fn members(&self) -> impl Iterator<Item = &Replica> {
        let members = self.replicas.values().map(Arc::as_ref);
        members.filter(|replica| replica.role == Role::Member && !replica.leaving())
    }

    /// The replica that stands for another in this way, if it is meant to stay.
    #[must_use]
    pub fn companion(&self, role: Role) -> Option<&Replica> {
        let mut all = self.replicas.values().map(Arc::as_ref);
        all.find(|replica| replica.role == role && !replica.leaving())
    }

    /// Everything that runs, may run, or will.
    #[must_use]
    pub fn copies(&self) -> u32 {
        count(self.replicas.values().filter(|replica| !replica.at_rest()))
    }

    /// The most copies that there may be: each move in flight allows one more.
    #[must_use]
    pub fn most_copies(&self) -> u32 {
        let moving = self.replicas.values().filter(|replica| !replica.at_rest());
        let moving = moving.filter_map(|replica| match replica.role {
            Role::Move { of } => Some(of),
            Role::Member | Role::Spare { .. } | Role::Surge { .. } => None,
        });
        let moving: BTreeSet<u32> = moving.collect();
        let in_flight = self.replicas.values().filter(|replica| {
            let moved = replica.stop.is_some_and(|stop| stop.why == StopWhy::Moved);
            !replica.at_rest() && (moved || moving.contains(&replica.ordinal))
        });
        self.bounds().max + self.spec().update.max_surge + count(in_flight)
    }

    /// The id of a replica's attempt: `uid.ordinal.number`.
    #[must_use]
    pub fn attempt_id(&self, ordinal: u32, number: u32) -> String {
        attempt_id(&self.header.uid, ordinal, number)
    }

    /// The id of a replica: `chat/0`.
    #[must_use]
    pub fn replica_id(&self, ordinal: u32) -> String {
        format!("{}/{ordinal}", self.header.name)
    }
}

fn attempt_id(uid: &str, ordinal: u32, number: u32) -> String {
    format!("{uid}.{ordinal}.{number}")
}

/// The replicas that are not the same in two states of one service, each as it was and as it is, in order of their
/// numbers. One that no change has touched is shared by both, and costs one comparison of addresses.
pub fn differing<'a>(
    before: Option<&'a Service>,
    after: Option<&'a Service>,
) -> impl Iterator<Item = (Option<&'a Arc<Replica>>, Option<&'a Arc<Replica>>)> {
    let all = |service: Option<&'a Service>| {
        let replicas = service.into_iter().flat_map(|s| s.replicas.values());
        replicas.peekable()
    };
    let (mut old, mut new) = (all(before), all(after));
    std::iter::from_fn(move || {
        loop {
            let (was, is) = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(was), Some(is)) if was.ordinal == is.ordinal => (old.next(), new.next()),
                (Some(was), Some(is)) if was.ordinal > is.ordinal => (None, new.next()),
                (Some(_), _) => (old.next(), None),
                (None, Some(_)) => (None, new.next()),
            };
            let same = was.zip(is).is_some_and(|(was, is)| Arc::ptr_eq(was, is));
            if !same {
                return Some((was, is));
            }
        }
    })
}

/// The length of an iterator as a count of replicas.
pub(crate) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::command::Identity;
    use super::*;
    use crate::domain::spec::testing::spec;

    #[test]
    fn of_two_states_what_is_not_shared_is_told_in_order() {
        let identity = Identity {
            project: "default".to_owned(),
            uid: "uid".to_owned(),
        };
        let mut before = Service::create(identity, spec("chat"), true, Time::default());
        let replica = |ordinal, service: &Service| {
            let edition = service.header.edition;
            Arc::new(Replica::new(
                ordinal,
                Role::Member,
                edition,
                Time::default(),
            ))
        };
        for ordinal in [1, 2, 3, 5] {
            before.replicas.insert(ordinal, replica(ordinal, &before));
        }
        let mut after = before.clone();
        assert_eq!(differing(Some(&before), Some(&after)).count(), 0);
        after.replicas.remove(&1);
        after.replicas.insert(4, replica(4, &before));
        if let Some(replica) = after.replica_mut(3) {
            replica.restarts = 7;
        }
        let ordinal = |replica: Option<&Arc<Replica>>| replica.map(|replica| replica.ordinal);
        let told = |before, after| -> Vec<_> {
            let pairs = differing(before, after);
            pairs.map(|(was, is)| (ordinal(was), ordinal(is))).collect()
        };
        let gone_changed_new = [(Some(1), None), (Some(3), Some(3)), (None, Some(4))];
        assert_eq!(told(Some(&before), Some(&after)), gone_changed_new);
        assert_eq!(told(None, Some(&before)).len(), 4);
        assert_ne!(before, after);
        // The same by its content is the same, shared or not.
        let mut same = before.clone();
        same.replicas.insert(2, replica(2, &before));
        assert_eq!(before, same);
    }
}
