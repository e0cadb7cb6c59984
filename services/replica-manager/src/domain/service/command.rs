//! What users ask of a service, and what each wish changes in its records. Acting on it is the
//! planner's part.

use std::sync::Arc;

use crate::domain::replica::{Replica, State, StopWhy};
use crate::domain::rollout::{Edition, Rollout, Stage};
use crate::domain::scaling::Autoscaler;
use crate::domain::spec::diff::{Diff, Effect};
use crate::domain::spec::{Count, Spec};
use crate::domain::status::{Counts, ServicePhase, Status};
use crate::domain::time::Time;

use super::{Header, Intent, Reached, Service, Totals};

/// Who a service is, for its creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its project.
    pub project: String,
    /// Never used again.
    pub uid: String,
}

/// Why a wish is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The service is being deleted.
    #[error("the service is being deleted: wait until it is gone")]
    Deleting,
    /// The service does not run.
    #[error("the service does not run: start it first")]
    NotRunning,
    /// The replica is on its way out.
    #[error("the replica is being stopped for good")]
    Leaving,
    /// The replica has an attempt that runs, or is about to.
    #[error("the replica has another attempt that runs: stop it first")]
    Attended,
}

impl Service {
    /// A new service, version 1, which has nothing yet.
    #[must_use]
    pub fn create(identity: Identity, spec: Spec, start: bool, now: Time) -> Self {
        let edition = Edition {
            template: 1,
            restart: 0,
            version: 1,
        };
        let intent = if start { Intent::Run } else { Intent::Stop };
        let header = Header {
            project: identity.project,
            name: spec.name.clone(),
            uid: identity.uid,
            version: 1,
            edition,
            rollout: None,
            proven: None,
            intent,
            intent_reason: "created".to_owned(),
            failure: None,
            scale: None,
            autoscaler: Autoscaler::default(),
            next_ordinal: 0,
            epoch: String::new(),
            attempts_from: 0,
            tried_anew: None,
            waits_anew: None,
            writes: 1,
            status: Status {
                phase: ServicePhase::Pending,
                since: now,
                reason: String::new(),
                counts: Counts::default(),
                updating: false,
                scaled_to_zero: false,
            },
            reached: Reached::default(),
            totals: Totals::default(),
            created: now,
            updated: now,
        };
        Self {
            header,
            replicas: std::collections::BTreeMap::new(),
            applied: Arc::new(spec),
            earlier: std::collections::BTreeMap::new(),
        }
    }

    /// Takes another spec as its next version. `diff` is what differs.
    ///
    /// # Errors
    /// `Deleting`.
    pub fn update(&mut self, spec: Spec, diff: &Diff, now: Time) -> Result<(), Refused> {
        self.refuse_if_deleting()?;
        self.header.scale = None;
        self.written(now);
        if diff.effect == Effect::None {
            return Ok(());
        }
        let before = self.header.version;
        let version = before + 1;
        let old = std::mem::replace(&mut self.applied, Arc::new(spec));
        if old.retry != self.applied.retry {
            self.header.waits_anew = Some(now);
        }
        if self.applied.scaling.is_none() {
            self.header.autoscaler = Autoscaler::default();
        }
        match diff.effect {
            Effect::Rolling => {
                let edition = Edition {
                    template: version,
                    restart: self.header.edition.restart,
                    version,
                };
                self.earlier.insert(before, old);
                self.header.version = version;
                self.roll_to(edition, now);
            }
            Effect::InPlace | Effect::None => {
                self.header.version = version;
                self.renumber(version);
                self.earlier.insert(before, old);
            }
        }
        self.try_anew(now);
        let needed = self.versions_in_use();
        self.earlier.retain(|version, _| needed.contains(version));
        Ok(())
    }

    /// Gives the version of a change in place to all that need not be replaced for it, but for the replicas,
    /// which a plan renumbers, as many at once as fit a transaction.
    fn renumber(&mut self, version: u64) {
        let edition = self.header.edition;
        let same = |other: &Edition| other.same(&edition);
        self.header.edition.version = version;
        let rollout = self.header.rollout.iter_mut();
        let editions = rollout.flat_map(|r| [Some(&mut r.target), r.stable.as_mut()]);
        let known = editions.chain([self.header.proven.as_mut()]).flatten();
        for edition in known.filter(|e| same(e)) {
            edition.version = version;
        }
    }

    /// Makes an edition what is meant to run, by a rolling update if anything else runs, or would run if any
    /// were wanted.
    fn roll_to(&mut self, edition: Edition, now: Time) {
        let stable = self.stable();
        self.header.edition = edition;
        let meant_to = self.header.intent == Intent::Run;
        let mut replicas = self.replicas.values();
        let running = match replicas.len() {
            0 => meant_to && stable.is_some(),
            _ => meant_to || replicas.any(|replica| !replica.at_rest()),
        };
        self.header.rollout = running.then(|| Rollout {
            stage: Stage::Running,
            target: edition,
            stable,
            reason: String::new(),
            began: now,
            progress: now,
        });
    }

    /// What a failing update would go back to: what is meant to run now, if it ever ran well. What is on
    /// trial itself is no such thing while there is something better known.
    fn stable(&self) -> Option<Edition> {
        let aim = self.aim();
        let rollout = self.header.rollout.as_ref();
        let before = rollout.and_then(|rollout| rollout.stable);
        if self.on_trial() {
            return before;
        }
        let proven = self.header.proven.is_some_and(|proven| proven.same(&aim));
        let mut replicas = self.replicas.values();
        if proven || replicas.any(|r| r.ready() && r.edition.same(&aim)) {
            return Some(aim);
        }
        before
    }

    /// Those that gave up are tried anew, if the service is meant to run: a plan revives them.
    fn try_anew(&mut self, now: Time) {
        if self.header.intent == Intent::Run {
            self.header.tried_anew = Some(now);
        }
    }

    /// Means it to run, with those too that gave up before.
    ///
    /// # Errors
    /// `Deleting`.
    pub fn start(&mut self, reason: &str, now: Time) -> Result<(), Refused> {
        self.refuse_if_deleting()?;
        if self.header.intent == Intent::Run {
            return Ok(());
        }
        self.header.failure = None;
        self.header.reached = Reached::default();
        if let Some(rollout) = &mut self.header.rollout {
            // The time that it was stopped is none without progress.
            rollout.progress = now;
            if rollout.forward() {
                rollout.stage = Stage::Running;
            }
        }
        self.intend(Intent::Run, reason, now);
        self.try_anew(now);
        Ok(())
    }

    /// Means it to be stopped.
    ///
    /// # Errors
    /// `Deleting`.
    pub fn stop(&mut self, reason: &str, now: Time) -> Result<(), Refused> {
        self.refuse_if_deleting()?;
        if self.header.intent != Intent::Stop {
            self.header.failure = None;
            self.intend(Intent::Stop, reason, now);
        }
        Ok(())
    }

    /// Means it to be deleted.
    pub fn delete(&mut self, reason: &str, now: Time) {
        if self.header.intent != Intent::Delete {
            self.intend(Intent::Delete, reason, now);
        }
    }

    /// Sets the number of replicas until the next apply.
    ///
    /// # Errors
    /// `Deleting`.
    pub fn scale(&mut self, replicas: u32, now: Time) -> Result<(), Refused> {
        self.refuse_if_deleting()?;
        if self.header.scale != Some(replicas) {
            self.header.scale = Some(replicas);
            self.written(now);
        }
        Ok(())
    }

    /// The most replicas that a user may scale to: the spec's `max` where it is a range. A fixed number
    /// bounds nothing, and is what scaling changes.
    #[must_use]
    pub fn most_by_scaling(&self) -> Option<u32> {
        let Count { min, max } = self.spec().replicas;
        (max > min.max(1)).then_some(max)
    }

    /// Replaces every replica, as an update does.
    ///
    /// # Errors
    /// `Deleting`, `NotRunning`.
    pub fn restart(&mut self, now: Time) -> Result<(), Refused> {
        self.refuse_if_deleting()?;
        self.refuse_unless_running()?;
        let mut edition = self.header.edition;
        edition.restart += 1;
        self.written(now);
        self.roll_to(edition, now);
        Ok(())
    }

    /// Restarts one replica, or revives it. `None` if there is none of this number.
    ///
    /// # Errors
    /// `Deleting`, `NotRunning`, `Leaving`.
    pub fn restart_replica(&mut self, ordinal: u32, now: Time) -> Result<Option<()>, Refused> {
        let Some(replica) = self.replicas.get(&ordinal) else {
            return Ok(None);
        };
        self.refuse_if_deleting()?;
        self.refuse_unless_running()?;
        if replica.leaving() {
            return Err(Refused::Leaving);
        }
        if let Some(replica) = self.replica_mut(ordinal) {
            replica.restart(now);
        }
        Ok(Some(()))
    }

    fn intend(&mut self, intent: Intent, reason: &str, now: Time) {
        self.header.intent = intent;
        reason.clone_into(&mut self.header.intent_reason);
        self.written(now);
    }

    fn written(&mut self, now: Time) {
        self.header.writes += 1;
        self.header.updated = now;
    }

    pub(super) fn refuse_if_deleting(&self) -> Result<(), Refused> {
        match self.header.intent {
            Intent::Delete => Err(Refused::Deleting),
            Intent::Run | Intent::Stop | Intent::Failed => Ok(()),
        }
    }

    pub(super) fn refuse_unless_running(&self) -> Result<(), Refused> {
        match self.header.intent {
            Intent::Run => Ok(()),
            Intent::Delete | Intent::Stop | Intent::Failed => Err(Refused::NotRunning),
        }
    }
}

impl Replica {
    fn restart(&mut self, now: Time) {
        match &self.state {
            State::Running(_) => self.stop(StopWhy::Restart, now, now),
            // It is on its way to a new attempt already.
            State::Placing(_) | State::Pending { .. } => {}
            State::Refused(_)
            | State::Ended
            | State::Backoff(_)
            | State::Stopped
            | State::Failed { .. } => self.revive(self.edition, now),
        }
    }
}

#[cfg(test)]
mod tests;
