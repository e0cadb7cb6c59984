//! The two loops of the engine: one folds what the store made durable into the view, in its order; the
//! other plans the services that something happened to, or whose time has come.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use muster_store::{Revision, Watch};
use tokio::time::Instant;

use super::duty::Duty;
use super::{Cause, Engine, Error};
use crate::domain::time::Time;
use crate::state::hubs::Hubs;
use crate::state::view::Touched;

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
        futures_util::stream::iter(due.now)
            .for_each_concurrent(SIDE_BY_SIDE, |uid| async move { pass(engine, &uid).await })
            .await;
        let until = due
            .next
            .map_or(PERIOD, |at| engine.now().until(at).min(PERIOD));
        tokio::select! {
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
