//! Checks that have to ask: one task each, asking at intervals, one question at a time, each with
//! a timeout. What they found is cached in [`Health`]; a reader never asks anything.

use std::future::Future;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Check, Health, Tier};
use crate::panic::caught;
use crate::shutdown::{Phase, Shutdown};
use crate::task::{Name, Tasks};

/// How often a check asks, and how long it waits for the answer.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one question to the next.
    pub every: Duration,
    /// For one answer.
    pub timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }
}

/// Asks `ask` at `pace` until shutdown, and reports it as the check `name`. A question that times
/// out is dropped before the next is asked; one that blocks its thread makes the check stuck.
pub fn start<A, F>(
    health: &Health,
    tasks: &Tasks,
    shutdown: &Shutdown,
    (name, tier, pace): (impl Into<Name>, Tier, Pace),
    ask: A,
) where
    A: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<String, String>> + Send + 'static,
{
    let name = name.into();
    let check = health.check(name.clone(), tier);
    check.expires(2 * pace.every + 2 * pace.timeout);
    let ended = shutdown.reached(Phase::Loops);
    tasks.spawn(format!("check {name}"), async move {
        tokio::select! {
            () = ended => {}
            () = ask_on(check, pace, ask) => {}
        }
    });
}

async fn ask_on<A, F>(check: Check, pace: Pace, mut ask: A)
where
    A: FnMut() -> F,
    F: Future<Output = Result<String, String>>,
{
    let mut turns = interval(pace.every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match timeout(pace.timeout, caught(ask())).await {
            Ok(Ok(Ok(detail))) => check.ok(detail),
            Ok(Ok(Err(detail))) => check.failed(detail),
            Ok(Err(panicked)) => check.failed(panicked.to_string()),
            Err(_) => check.stuck(format!("no answer within {:?}", pace.timeout)),
        }
    }
}
