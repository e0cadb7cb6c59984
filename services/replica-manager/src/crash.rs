//! Ends the process at one chosen step between an intent and what is learnt of it: how tests start a
//! manager that has to leave something half done. Unset, as always but there, it does nothing.

use crate::domain::replica::{Phase, Replica, State};
use crate::domain::service::Service;

/// A step after which nothing more is done, as after `kill -9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// The registry has taken our term; nothing has been read there.
    TermClaimed,
    /// A new service is durable; nobody has been told.
    ServiceStored,
    /// That room is to be asked for is durable; it has not been asked for.
    PlacingStored,
    /// The registry has given room; that is not stored.
    RoomGiven,
    /// The room is stored; no agent knows of it.
    RoomStored,
    /// An agent has said that an attempt runs; that is not stored.
    RunReported,
    /// That an attempt is ready is stored; its agent has had no answer.
    ReadyStored,
    /// An agent has said that an attempt has ended; that is not stored.
    EndReported,
    /// The end is stored with what follows from it; nothing of that has been done.
    EndStored,
    /// That a replica is to be stopped is durable; its agent has not been told.
    StopStored,
    /// That its agent is to be told is durable.
    TellStored,
    /// The registry has taken room back; that is not stored.
    RoomReturned,
    /// The return is stored.
    ReturnStored,
    /// A service and all of it is deleted; nobody has been told.
    DeletionStored,
}

/// Where this process is to end, if anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crash(pub Option<Step>);

impl Crash {
    /// The process has come to a step.
    pub(crate) fn at(self, step: Step) {
        if self.0 == Some(step) {
            std::process::abort();
        }
    }

    /// A change of a service is durable, and nothing has been done about it.
    pub(crate) fn stored(self, before: Option<&Service>, after: &Service, deleted: bool) {
        if let Some(step) = self.0
            && is_of(step, before, after, deleted)
        {
            self.at(step);
        }
    }
}

/// Whether a change of a service is what a step is about.
fn is_of(step: Step, before: Option<&Service>, after: &Service, deleted: bool) -> bool {
    let fresh = |test: fn(&Replica) -> bool| {
        after.replicas.iter().any(|(ordinal, replica)| {
            let known = before.and_then(|before| before.replicas.get(ordinal));
            test(replica) && !known.is_some_and(|known| test(known))
        })
    };
    let returned = |before: &Service| {
        let left = |service: &Service| service.replicas.values().map(|r| r.releases.len()).sum();
        let (was, is): (usize, usize) = (left(before), left(after));
        is < was
    };
    match step {
        Step::ServiceStored => before.is_none(),
        Step::PlacingStored => fresh(|replica| matches!(replica.state, State::Placing(_))),
        Step::RoomStored => fresh(|replica| replica.state == State::Running(Phase::Allocated)),
        Step::ReadyStored => fresh(|replica| replica.state == State::Running(Phase::Ready)),
        Step::EndStored => fresh(|replica| matches!(replica.state, State::Backoff(_))),
        Step::StopStored => fresh(|replica| replica.stop.is_some_and(|stop| !stop.told)),
        Step::TellStored => fresh(|replica| replica.stop.is_some_and(|stop| stop.told)),
        Step::ReturnStored => before.is_some_and(returned),
        Step::DeletionStored => deleted,
        Step::TermClaimed
        | Step::RoomGiven
        | Step::RunReported
        | Step::EndReported
        | Step::RoomReturned => false,
    }
}
