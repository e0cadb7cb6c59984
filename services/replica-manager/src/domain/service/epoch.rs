//! What a restored store does not know. A service may have made attempts after its backup was taken, and
//! they may still run: no new one may bear the number of one of them, and what has ended meanwhile is
//! nobody's failure.

use crate::domain::failure::Class;
use crate::domain::replica::attempt::Attempt;
use crate::domain::replica::{Replica, State};

use super::Service;

/// One life of the store's data, which begins at creation and again at each restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its name.
    pub name: String,
    /// Numbers of attempts from this on were used by no earlier epoch.
    pub first_attempt: u32,
}

/// What the records of a service know of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// It is the current one of its replica, and has not ended.
    Current,
    /// The same, and it has its room on another worker than the one that speaks of it.
    Elsewhere,
    /// Its agent is ahead of its record, which has no room for it yet: what is said of it cannot be recorded.
    Early,
    /// Its end is recorded.
    Past,
    /// Nothing.
    None,
}

impl Service {
    /// Goes on in this epoch. A service that goes on in its own stays as it is. False if more than `at_most`
    /// replicas have to: then these many did, and the service is not there yet.
    #[must_use]
    pub fn enter(&mut self, epoch: &Epoch, at_most: usize) -> bool {
        if self.is_of(epoch) {
            return true;
        }
        let restored = !self.header.epoch.is_empty();
        if restored {
            let replicas = self.replicas.values();
            let behind = replicas.filter(|replica| replica.is_before(epoch));
            let behind: Vec<u32> = behind.map(|replica| replica.ordinal).collect();
            for ordinal in behind.iter().take(at_most) {
                if let Some(replica) = self.replica_mut(*ordinal) {
                    replica.enter(epoch);
                }
            }
            if behind.len() > at_most {
                return false;
            }
            self.header.attempts_from = epoch.first_attempt;
        }
        self.header.epoch.clone_from(&epoch.name);
        true
    }

    /// Whether it was written last in this epoch.
    #[must_use]
    pub fn is_of(&self, epoch: &Epoch) -> bool {
        self.header.epoch == epoch.name
    }

    /// What the records know of one of its attempts, (ordinal, number), of which a worker speaks.
    #[must_use]
    pub fn knows_on(&self, worker: &str, attempt: (u32, u32), epoch: &Epoch) -> Knowledge {
        let (ordinal, number) = attempt;
        let known = self.knows(ordinal, number, epoch);
        let replica = self.replicas.get(&ordinal);
        let on = replica.and_then(|replica| replica.worker());
        if known == Knowledge::Current && on != Some(worker) {
            return Knowledge::Elsewhere;
        }
        known
    }

    /// What the records know of one of its attempts.
    #[must_use]
    pub fn knows(&self, ordinal: u32, number: u32, epoch: &Epoch) -> Knowledge {
        let replica = self.replicas.get(&ordinal);
        let attempt = replica.and_then(|replica| replica.attempt.as_ref());
        if let (Some(replica), Some(attempt)) = (replica, attempt)
            && attempt.number == number
        {
            return match replica.state {
                _ if attempt.end.is_some() => Knowledge::Past,
                State::Running(_) => Knowledge::Current,
                State::Pending { .. }
                | State::Placing(_)
                | State::Refused(_)
                | State::Ended
                | State::Backoff(_)
                | State::Stopped
                | State::Failed { .. } => Knowledge::Early,
            };
        }
        let made = match replica {
            Some(replica) => number <= replica.attempts,
            None => ordinal < self.header.next_ordinal,
        };
        if made && number >= self.unsure_below(epoch) {
            Knowledge::Past
        } else {
            Knowledge::None
        }
    }

    /// Attempts below this number may have been made when the records knew nothing of it.
    fn unsure_below(&self, epoch: &Epoch) -> u32 {
        if self.is_of(epoch) || self.header.epoch.is_empty() {
            self.header.attempts_from
        } else {
            epoch.first_attempt
        }
    }
}

impl Replica {
    /// Whether its record is to be changed where its service goes on in this epoch.
    fn is_before(&self, epoch: &Epoch) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| {
            if attempt.is_unused() {
                return attempt.number < epoch.first_attempt;
            }
            matches!(self.state, State::Running(_)) && !attempt.unconfirmed
        })
    }

    fn enter(&mut self, epoch: &Epoch) {
        let next = (self.attempts + 1).max(epoch.first_attempt);
        match &mut self.attempt {
            // Its room may have been given, and more, since the backup.
            Some(attempt) if attempt.is_unused() => {
                attempt.number = next;
                self.attempts = next;
            }
            Some(attempt) => attempt.unconfirmed = true,
            None => {}
        }
    }
}

impl Attempt {
    /// Whether it never had room, so that its number can be used for another question.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.allocation.is_none() && self.end.is_none()
    }

    /// Whether it was gone before the records were restored that know of it.
    #[must_use]
    pub fn ended_before_restore(&self) -> bool {
        let end = self.end.as_ref();
        self.unconfirmed && end.is_some_and(|end| end.class == Some(Class::Interruption))
    }
}
