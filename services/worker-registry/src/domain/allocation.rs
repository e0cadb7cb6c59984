//! Room on a worker, held for one attempt: how it lives and ends, and the tokens that order it.
//!
//! It decides when an allocation may be freed. It never finds room for one.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use muster_model::constraints::Labels;

use super::text::Text;

/// How long what an allocation runs is given to stop, if nobody says.
pub const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(30);

/// How far an allocation's life has come. What is gone has no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its owner may run on it.
    Held,
    /// Its owner gave it back; its room is freed when the agent has said that nothing of it runs.
    Releasing(End),
    /// Taken from its owner; its room is freed as for `Releasing`.
    Revoked(End),
}

/// When and why an allocation had to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// When it was asked to.
    pub at: SystemTime,
    /// Why, in words.
    pub reason: Text,
}

/// The term of an owner of allocations; a later one is greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerTerm {
    /// The epoch of the owner's store; epochs order as texts.
    pub epoch: Text,
    /// The revision of the owner's leader key.
    pub revision: u64,
}

impl fmt::Display for OwnerTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.revision)
    }
}

/// Orders allocations of one store; of two for one accelerator the agent serves the greater. Its text
/// orders as it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken {
    /// The epoch of the registry's store.
    pub epoch: Text,
    /// A number that no later allocation of the epoch has again, except others of its transaction.
    pub revision: u64,
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:020}", self.epoch, self.revision)
    }
}

/// The text is no fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no fencing token")]
pub struct FencingTokenError;

impl FromStr for FencingToken {
    type Err = FencingTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, revision) = text.rsplit_once('-').ok_or(FencingTokenError)?;
        let digits = revision.len() == 20 && revision.bytes().all(|byte| byte.is_ascii_digit());
        if epoch.is_empty() || !digits {
            return Err(FencingTokenError);
        }
        Ok(Self {
            epoch: epoch.into(),
            revision: revision.parse().map_err(|_| FencingTokenError)?,
        })
    }
}

/// By which call an allocation was made, so that a repeated one is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who called; empty is nobody in particular.
    pub principal: Text,
    /// The caller's id for the call.
    pub id: Text,
    /// A checksum of what was asked, which a repeated call has to share.
    pub body: u64,
}

/// What a machine gives away, accelerators apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Processors in thousandths.
    pub cpu_milli: u32,
    /// Main memory in MiB.
    pub memory_mib: u32,
    /// Disk in MiB.
    pub disk_mib: u32,
}

impl Amounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            disk_mib: self.disk_mib.saturating_add(other.disk_mib),
        }
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory_mib: self.memory_mib.max(other.memory_mib),
            disk_mib: self.disk_mib.max(other.disk_mib),
        }
    }
}

/// Room on a worker, held for one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Given by the registry; never used again.
    pub id: Text,
    /// The worker.
    pub worker: Text,
    /// The worker's generation when it was made.
    pub generation: u64,
    /// How far its life has come; see [`Allocation::life_on`] for what force-disabling adds.
    pub life: Life,
    /// Who holds it.
    pub owner: Text,
    /// The owner's term when it was made.
    pub term: OwnerTerm,
    /// What it is for, for people.
    pub subject: Text,
    /// Accelerators, by uuid.
    pub gpus: Vec<Text>,
    /// Everything else.
    pub amounts: Amounts,
    /// Ports of the host that only it may use.
    pub host_ports: Vec<u16>,
    /// What it is spread by; empty is nothing.
    pub spread_key: Text,
    /// Its place in the order of allocations.
    pub fencing: FencingToken,
    /// The allocation whose room it took over.
    pub replaces: Option<Text>,
    /// Whatever the owner keeps with it.
    pub attributes: Labels,
    /// A forced end would fail what it is for.
    pub fails_if_forced: bool,
    /// How long what it runs is given to stop.
    pub stop_grace: Duration,
    /// When it was made.
    pub created: SystemTime,
    /// The project of what it is for.
    pub project: Text,
    /// The call that made it; none for one that was made again from an agent's word.
    pub request: Option<Request>,
}

impl Allocation {
    /// Whether force-disabling took it: it holds no room, and whatever runs of it has to stop.
    pub fn is_revoked_through(&self, revoked_through: u64) -> bool {
        self.generation <= revoked_through
    }

    /// Whether it holds this accelerator.
    pub fn has_gpu(&self, uuid: &str) -> bool {
        self.gpus.iter().any(|held| **held == *uuid)
    }

    /// Whether its owner may run on it.
    pub fn is_held(&self) -> bool {
        matches!(self.life, Life::Held)
    }

    /// The same allocation at another point of its life.
    #[must_use]
    pub fn with_life(&self, life: Life) -> Self {
        Self {
            life,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
