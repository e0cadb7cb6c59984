//! What to do now for one service, why, and when to look again. A function of the time, the service and
//! the world: it decides everything and does nothing.
//!
//! Each concern works on a draft of the service to which the acts before it have been applied, so that
//! none contradicts another, and a second plan of the result has nothing left to do.

mod draft;
mod failures;
mod finish;
mod lost;
mod members;
mod moves;
mod places;
pub mod reason;
mod retries;
mod scale;
mod settle;
mod spares;
mod tally;
mod update;
mod wind_down;

use std::time::SystemTime;

use super::service::apply::Action;
use super::service::{Intent, Service};
use super::time::Time;
use super::world::World;
use draft::Draft;
pub use moves::unfinished;
pub use reason::Reason;

/// What to do for one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Acts, in order.
    pub actions: Vec<Action>,
    /// When to plan again if nothing happens before.
    pub wake_at: Option<Time>,
    /// Why it is done, and why other things are not.
    pub reasons: Vec<Reason>,
}

/// Plans for one service.
#[must_use]
pub fn plan(now: SystemTime, service: &Service, world: &World<'_>) -> Plan {
    let mut draft = Draft::new(Time::from(now), service, world);
    // One concern's act may be what another waits for.
    for _ in 0..MOST_ROUNDS {
        let before = draft.acts();
        round(&mut draft);
        if draft.acts() == before {
            break;
        }
    }
    finish::show(&mut draft);
    draft.finish()
}

/// Rounds after which a plan is taken as it is; two or three are usual.
const MOST_ROUNDS: usize = 16;

fn round(draft: &mut Draft<'_>) {
    settle::renumber(draft);
    lost::judge(draft);
    settle::note(draft);
    failures::decide(draft);
    retries::wait_anew(draft);
    retries::check_limits(draft);
    if draft.service.header.intent == Intent::Run {
        keep_running(draft);
    } else {
        wind_down::stop_all(draft);
    }
    finish::tell_and_remove(draft);
    retries::place_due(draft);
}

fn keep_running(draft: &mut Draft<'_>) {
    scale::follow_load(draft);
    members::revive(draft);
    update::judge(draft);
    moves::pace(draft);
    update::step(draft);
    members::keep(draft);
    spares::keep(draft);
}

#[cfg(test)]
mod tests;
