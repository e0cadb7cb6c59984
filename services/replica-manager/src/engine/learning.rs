//! What is learnt of the replicas of one service while a change of it is being made waits in a line, and the next
//! decision takes in as much of it as fits one transaction: each decision looks at the whole service, so that
//! thousands of answers that come together must not be as many decisions. Everybody who waits is answered once
//! its own is durable.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::{Cause, Engine, Error, Turns};
use crate::domain::replica::observe::Observation;
use crate::domain::service::Service;
use crate::domain::time::Time;

/// Replicas that one decision learns of: with as many more as a plan touches at once, the service itself, a version
/// that is proven, the events and the fence, they are within the 80 records of a transaction.
pub(super) const MOST: usize = 32;

/// What was learnt of one replica.
#[derive(Clone, Debug)]
pub(crate) struct Learnt {
    /// The replica.
    pub(crate) ordinal: u32,
    pub(crate) what: What,
}

/// What was learnt.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Something of the attempt with this number.
    Of(u32, Observation),
    /// The registry has taken this allocation back.
    Released(String),
}

/// Who tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Agents, at whatever instance.
    Agents,
    /// The worker-registry, at the instance that leads.
    Registry,
}

/// What agents report has changed while it was being recorded: which of both came first is not known.
#[derive(Clone, Debug)]
pub(crate) struct Overtaken;

type Outcome = Result<(), Error<Overtaken>>;

/// What one source told and no decision has taken in. As long as those who told it wait: their calls are bounded.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: Mutex<VecDeque<Waiting>>,
    /// One of those who wait has a turn for all of them, so that whoever else changes the service waits for one
    /// decision rather than for the whole line.
    turn: AsyncMutex<()>,
}

#[derive(Debug)]
struct Waiting {
    learnt: Vec<Learnt>,
    told: oneshot::Sender<Outcome>,
    /// Since when the replicas that it is about were what they were when a decision looked at them first.
    known: Option<Vec<Option<Time>>>,
    overtaken: bool,
}

impl Source {
    fn cause(self) -> Cause {
        match self {
            Self::Agents => Cause::by("agent"),
            Self::Registry => Cause::system(),
        }
    }
}

impl Engine {
    /// Records what was learnt of a service's replicas, with what else is waiting, and answers once it is durable.
    /// What is of no use any more is let go.
    pub(crate) async fn learn(&self, uid: &str, source: Source, learnt: Vec<Learnt>) -> Outcome {
        let turns = self.turns_of(uid);
        let line = turns.line(source);
        let mut answer = line.join(&learnt);
        loop {
            tokio::select! {
                biased;
                told = &mut answer => match told {
                    Ok(outcome) => return outcome,
                    // Whoever had the turn is gone. What was stored nevertheless changes nothing when it is
                    // learnt again, or is found overtaken, and told once more.
                    Err(_) => answer = line.join(&learnt),
                },
                _turn = line.turn.lock() => self.take_in(uid, &turns, source).await,
            }
        }
    }

    /// One decision with as much of a line as fits.
    async fn take_in(&self, uid: &str, turns: &Turns, source: Source) {
        let line = turns.line(source);
        let _change = turns.change.lock().await;
        let mut taken = line.take();
        while !taken.is_empty() {
            let take_in = |service: &mut Service, now: Time| {
                // Before any is taken in: several may be about one replica.
                if source == Source::Agents {
                    taken.iter_mut().for_each(|waiting| waiting.look(service));
                }
                let current = taken.iter().filter(|waiting| !waiting.overtaken);
                let all = current.flat_map(|waiting| &waiting.learnt);
                all.for_each(|learnt| learnt.of(service, now));
                Ok(())
            };
            let outcome = self.change_in_turn(uid, &source.cause(), take_in).await;
            let too_large = matches!(
                &outcome,
                Err(Error::Store(muster_store::Error::TooLarge { .. }))
            );
            if too_large && taken.len() > 1 {
                line.put_back(taken.split_off(taken.len() / 2));
                continue;
            }
            let outcome = outcome.map(drop);
            for waiting in taken.drain(..) {
                let refused = outcome.is_ok() && waiting.overtaken;
                let outcome = match refused {
                    true => Err(Error::Refused(Overtaken)),
                    false => outcome.clone(),
                };
                // Who does not wait any more needs no answer.
                let _ = waiting.told.send(outcome);
            }
        }
    }
}

impl Waiting {
    /// Whoever told another instance of the same meanwhile may have told what is newer.
    fn look(&mut self, service: &Service) {
        let replicas = self.learnt.iter();
        let replicas = replicas.map(|learnt| service.replicas.get(&learnt.ordinal));
        let is: Vec<_> = replicas.map(|replica| replica.map(|r| r.since)).collect();
        self.overtaken = self.known.get_or_insert_with(|| is.clone()) != &is;
    }
}

impl Learnt {
    fn of(&self, service: &mut Service, now: Time) {
        let Some(replica) = service.replica_mut(self.ordinal) else {
            return;
        };
        match &self.what {
            // What is about an attempt that is past that needs no record: the reconciliation gives back such room.
            What::Of(attempt, observation) => {
                let _ = replica.observe(*attempt, observation.clone(), now);
            }
            What::Released(allocation) => {
                let _ = replica.released(allocation);
            }
        }
    }
}

impl Line {
    fn join(&self, learnt: &[Learnt]) -> oneshot::Receiver<Outcome> {
        let (told, answer) = oneshot::channel();
        self.lock().push_back(Waiting {
            learnt: learnt.to_vec(),
            told,
            known: None,
            overtaken: false,
        });
        answer
    }

    /// The first of those who still wait, as many as one decision takes.
    fn take(&self) -> Vec<Waiting> {
        let mut line = self.lock();
        let (mut taken, mut replicas) = (Vec::new(), 0);
        while let Some(first) = line.pop_front() {
            if first.told.is_closed() {
                continue;
            }
            replicas += first.learnt.len();
            if replicas > MOST && !taken.is_empty() {
                line.push_front(first);
                break;
            }
            taken.push(first);
        }
        taken
    }

    fn put_back(&self, taken: Vec<Waiting>) {
        let mut line = self.lock();
        for waiting in taken.into_iter().rev() {
            line.push_front(waiting);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests;
