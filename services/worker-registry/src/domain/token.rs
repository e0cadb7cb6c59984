//! Join tokens: what lets a machine register for the first time. Their secrets are kept as hashes only.
//!
//! It decides whether a token lets a machine in. It makes no secret and hashes none.

use std::time::SystemTime;

use muster_model::constraints::Labels;

use super::text::Text;

/// What lets machines register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Its id, which is not secret.
    pub id: Text,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// The only worker that it lets register; none is any.
    pub worker: Option<Text>,
    /// How many machines it lets register; none is any number.
    pub max_uses: Option<u32>,
    /// How many it has.
    pub uses: u32,
    /// When it stops; none is never.
    pub expires: Option<SystemTime>,
    /// When it was made.
    pub created: SystemTime,
    /// Who made it.
    pub actor: Text,
    /// Labels for the workers that come by it.
    pub labels: Labels,
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its time has passed.
    #[error("the join token has expired")]
    Expired,
    /// It has been used as often as it may.
    #[error("the join token has been used as often as it may")]
    UsedUp,
    /// It is for another worker.
    #[error("the join token is bound to another worker name")]
    OtherWorker,
}

impl JoinToken {
    /// Whether the token lets the worker of this name register now.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn admits(&self, worker: &str, now: SystemTime) -> Result<(), Unfit> {
        if self.worker.as_ref().is_some_and(|bound| **bound != *worker) {
            return Err(Unfit::OtherWorker);
        }
        if self.expires.is_some_and(|end| end <= now) {
            return Err(Unfit::Expired);
        }
        if self.max_uses.is_some_and(|most| self.uses >= most) {
            return Err(Unfit::UsedUp);
        }
        Ok(())
    }

    /// The token after one more machine.
    #[must_use]
    pub fn used(&self) -> Self {
        Self {
            uses: self.uses.saturating_add(1),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
