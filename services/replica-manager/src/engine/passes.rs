//! The two loops of the engine: one folds what the store made durable into the view, in its order; the
//! other plans the services that something happened to, or whose time has come.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use muster_store::{Revision, Watch};
use tokio::time::Instant;

use super::duty::Duty;
use super::{Cause, Engine, Error};
use crate::domain::time::Time;
use crate::state::hubs::Hubs;
use crate::state::view::{Touched, Uid};

/// Services planned side by side: enough to fill a group commit, few enough to bound memory.
const SIDE_BY_SIDE: usize = 64;

/// The longest sleep, should a wake-up be lost.
const PERIOD: Duration = Duration::from_secs(30);

/// A clock that goes back by this much was set back; by less, it was only corrected.
const SET_BACK: Duration = Duration::from_secs(1);

/// The wait before a service is planned again whose plan could not be stored.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Folds each revision into the view, then tells watchers, and the leader's part of this instance. Ends only
/// with the store.
pub(crate) async fn follow(engine: Engine, mut watch: Watch, hubs: Hubs) -> Result<(), String> {
    loop {
        let batch = watch.next().await.map_err(|error| error.to_string())?;
        let parts = engine.parts();
        let Revision(revision) = batch.revision;
        let folded = parts.view.fold(&batch).map_err(|error| error.to_string())?;
        engine.note_events(&batch);
        hubs.publish(revision, &folded);
        parts.progress.advance(revision);
        // Looked at after the fold: whoever takes up the duty later begins with what is folded.
        let duty = engine.duty();
        for touched in &folded.services {
            if touched.after.is_none() {
                engine.forget(&touched.uid);
                parts.loads.forget(&touched.uid);
            }
            if let Some(duty) = &duty {
                see_to(&engine, duty, touched);
            }
        }
    }
}

/// What a change asks of the leader.
fn see_to(engine: &Engine, duty: &Duty, touched: &Touched) {
    let parts = engine.parts();
    parts.metrics.changed(touched, engine.now());
    if let Some(service) = &touched.after {
        match &touched.before {
            Some(before) => duty.executor.consider_again(before, service),
            None => duty.executor.consider(service),
        }
        // Another instance may have changed it, which plans nothing. Planned once more, what this one has
        // planned stays as it is.
        if parts.store.is_shared() {
            parts.wakes.wake(&touched.uid);
        }
    }
}

/// Counts the time that services spend in their phases, for ever.
pub(crate) async fn count_time(engine: Engine) {
    loop {
        tokio::time::sleep(COUNTED_EVERY).await;
        engine.parts().metrics.catch_up(engine.now());
    }
}

/// More often than metrics are scraped.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// Plans whatever is to be planned, for as long as this instance leads.
pub(crate) async fn plan_due(engine: &Engine) {
    let mut last = Time::default();
    // Woken, and to be planned once nobody plans it and there is room; no service waits for another's plan.
    let mut waiting = BTreeSet::new();
    let (mut planned, mut passes) = (BTreeSet::new(), FuturesUnordered::new());
    loop {
        let parts = engine.parts();
        let now = engine.now();
        if last.since(now) >= SET_BACK {
            // What was to be done at a time that has gone back would be late: each plan says anew when.
            let view = parts.view.read();
            parts.wakes.restart(view.all().map(|(uid, _)| uid.clone()));
        }
        last = now;
        let due = parts.wakes.take(now);
        waiting.extend(due.now);
        let room = SIDE_BY_SIDE - planned.len();
        let next = waiting.difference(&planned).take(room).cloned();
        for uid in next.collect::<Vec<Uid>>() {
            waiting.remove(&uid);
            planned.insert(uid.clone());
            passes.push(async move {
                pass(engine, &uid).await;
                uid
            });
        }
        let until = due
            .next
            .map_or(PERIOD, |at| engine.now().until(at).min(PERIOD));
        tokio::select! {
            Some(uid) = passes.next() => {
                planned.remove(&uid);
            }
            () = parts.wakes.rung() => {}
            () = tokio::time::sleep_until(Instant::now() + until) => {}
        }
    }
}

async fn pass(engine: &Engine, uid: &Arc<str>) {
    let unaltered = |_: &mut crate::domain::service::Service, _: Time| Ok::<(), Infallible>(());
    match engine.change(uid, &Cause::system(), unaltered).await {
        Ok(_) | Err(Error::Gone | Error::Repeated | Error::NotLeading) => {}
        Err(Error::Refused(never)) => match never {},
        Err(Error::Store(error)) => {
            tracing::warn!(service = %uid, %error, "a plan could not be stored");
            let again = engine.now() + AFTER_FAILURE;
            engine.parts().wakes.set(uid, Some(again));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::learning::tests::{UID, engine_of};
    use super::*;

    #[tokio::test]
    async fn a_service_that_is_being_changed_holds_up_no_other_plan() {
        let engine = engine_of(1).await;
        let turns = engine.turns_of(UID);
        let _turn = turns.change.lock().await;
        let (changed, other) = (Uid::from(UID), Uid::from("other"));
        let (wakes, all) = (&engine.parts().wakes, &engine.0.turns);
        wakes.wake(&changed);
        let looks = async {
            while !wakes.take(engine.now()).now.is_empty() {
                tokio::task::yield_now().await;
            }
            wakes.wake(&other);
            while !all.lock().unwrap().contains_key(&other) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = plan_due(&engine) => {}
            () = looks => {}
            () = tokio::time::sleep(PERIOD) => panic!("not planned"),
        }
    }
}
