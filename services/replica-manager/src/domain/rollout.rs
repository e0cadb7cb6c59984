//! What a service is meant to run, and how far the change to it has come. It decides nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// What a replica is made of: a version of the spec, as started by one update or restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edition {
    /// The version that last changed what runs.
    pub template: u64,
    /// Restarts of the whole service asked for until then.
    pub restart: u32,
    /// The version whose spec is used: the template's, or a later one that changed things in place.
    pub version: u64,
}

impl Edition {
    /// Whether replicas of the two need not be replaced by each other.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.template == other.template && self.restart == other.restart
    }
}

/// How far a rolling update has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Under way.
    Running,
    /// Waiting for capacity or a lost machine, since then.
    Paused {
        /// Since when.
        since: Time,
    },
    /// Every replica is of the target.
    Complete,
    /// The target failed; replicas go back to the stable edition.
    RollingBack,
    /// Every replica is of the stable edition again.
    RolledBack,
}

/// A rolling update, under way or the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// How far it has come.
    pub stage: Stage,
    /// What is put in place.
    pub target: Edition,
    /// What it replaces, and goes back to; `None` if that never ran well.
    pub stable: Option<Edition>,
    /// Why it is as it is, in words.
    pub reason: String,
    /// When it began.
    pub began: Time,
    /// When it last made progress; moved on by the time of pauses.
    pub progress: Time,
}

impl Rollout {
    /// What replicas are meant to be.
    #[must_use]
    pub fn aim(&self) -> Edition {
        match (self.stage, self.stable) {
            (Stage::RollingBack | Stage::RolledBack, Some(stable)) => stable,
            _ => self.target,
        }
    }

    /// Whether replicas are being replaced.
    #[must_use]
    pub fn active(&self) -> bool {
        matches!(
            self.stage,
            Stage::Running | Stage::Paused { .. } | Stage::RollingBack
        )
    }

    /// Whether it is still judged: on its way forward.
    #[must_use]
    pub fn forward(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Paused { .. })
    }

    /// The time without progress since then, but for pauses.
    #[must_use]
    pub fn idle(&self, then: Time, now: Time) -> Duration {
        let from = self.progress.max(then);
        match self.stage {
            Stage::Paused { since } => since.since(from),
            Stage::Running | Stage::RollingBack | Stage::Complete | Stage::RolledBack => {
                now.since(from)
            }
        }
    }
}
