use std::convert::Infallible;

use futures_util::future::join_all;
use futures_util::poll;
use muster_runtime::context::Context;
use muster_runtime::resume::Progress;
use muster_store::{MAX_RECORDS, Revision, Store};

use super::*;
use crate::crash::Crash;
use crate::domain::replica::attempt::{Allocation, Attempt, End};
use crate::domain::replica::observe::{Report, ReportedPhase};
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::service::command::Identity;
use crate::domain::spec::testing::spec;
use crate::domain::world::Terms;
use crate::engine::{Parts, passes};
use crate::fleet::Fleet;
use crate::load::Loads;
use crate::metrics::Metrics;
use crate::state::hubs::Hubs;
use crate::state::view::View;
use crate::wakes::Wakes;

pub(in crate::engine) const UID: &str = "uid";

/// An engine that does not lead, with a service of so many replicas that run.
pub(in crate::engine) async fn engine_of(replicas: u32) -> Engine {
    let context = Context::for_tests("replica-manager");
    let store = Store::memory();
    let fleet = Fleet::new(Time::default());
    let view = View::default();
    let hubs = Hubs::new(&view.read(), 0, &store.epoch().to_string(), fleet.clone());
    let watch = store.watch("", Revision(0)).await.unwrap();
    let parts = Parts {
        store,
        view,
        progress: Progress::new(0),
        clock: context.clock.clone(),
        fleet,
        loads: Loads::default(),
        wakes: Wakes::default(),
        terms: Terms::default(),
        crash: Crash::default(),
        metrics: Metrics::new(&context.metrics),
    };
    let engine = Engine::new(parts, "here");
    context
        .tasks
        .spawn("follow", passes::follow(engine.clone(), watch, hubs));
    let identity = Identity {
        project: "default".to_owned(),
        uid: UID.to_owned(),
    };
    let service = Service::create(identity, spec("chat"), true, Time::default());
    let cause = Cause::by("test");
    engine.create(service, &cause).await.unwrap();
    for some in (0..replicas).collect::<Vec<_>>().chunks(40) {
        let add = |service: &mut Service, now: Time| {
            for ordinal in some {
                let edition = service.header.edition;
                let mut replica = Replica::new(*ordinal, Role::Member, edition, now);
                let mut attempt = Attempt::new(1, 1);
                attempt.allocation = Some(Allocation::on_w1(&format!("room-{ordinal}")));
                (replica.attempts, replica.attempt) = (1, Some(attempt));
                replica.state = State::Running(Phase::Ready);
                service.replicas.insert(*ordinal, replica.into());
            }
            Ok::<(), Infallible>(())
        };
        engine.change(UID, &cause, add).await.unwrap();
    }
    engine
}

fn end(ordinal: u32, message: &str) -> Vec<Learnt> {
    let end = End {
        at: Time::default(),
        exit: None,
        class: None,
        message: message.to_owned(),
        last_log_lines: Vec::new(),
    };
    let report = Report {
        phase: ReportedPhase::Ended(end),
        started: None,
        ready: None,
        addresses: Vec::new(),
    };
    let what = What::Of(1, Observation::Reported(report));
    vec![Learnt { ordinal, what }]
}

fn ended(engine: &Engine) -> usize {
    let stored = engine.parts().view.get(UID).unwrap();
    let replicas = stored.service.replicas.values();
    replicas.filter(|r| r.state == State::Ended).count()
}

#[test]
fn as_many_as_are_learnt_and_planned_for_at_once_fit_a_transaction() {
    // With the service itself, the version that is proven, the events, and the fence.
    assert!(MOST + Terms::default().batch + 4 <= MAX_RECORDS);
}

#[tokio::test]
async fn what_comes_while_a_service_is_changed_is_learnt_at_once() {
    let engine = engine_of(100).await;
    let before = engine.parts().progress.current();
    let turns = engine.turns_of(UID);
    let turn = turns.change.lock().await;
    let ends = (0..100).map(|ordinal| engine.learn(UID, Source::Agents, end(ordinal, "")));
    let mut ends = Box::pin(join_all(ends));
    assert!(poll!(&mut ends).is_pending());
    assert_eq!(ended(&engine), 0);
    drop(turn);
    assert!(ends.await.iter().all(Result::is_ok));
    assert_eq!(ended(&engine), 100);
    // 32, 32, 32 and 4.
    assert_eq!(engine.parts().progress.current() - before, 4);
}

#[tokio::test]
async fn what_is_too_large_together_is_learnt_in_parts() {
    let engine = engine_of(8).await;
    let before = engine.parts().progress.current();
    let turns = engine.turns_of(UID);
    let turn = turns.change.lock().await;
    let words = "x".repeat(100_000);
    let ends = (0..8).map(|ordinal| engine.learn(UID, Source::Agents, end(ordinal, &words)));
    let mut ends = Box::pin(join_all(ends));
    assert!(poll!(&mut ends).is_pending());
    drop(turn);
    assert!(ends.await.iter().all(Result::is_ok));
    assert_eq!(ended(&engine), 8);
    assert!(engine.parts().progress.current() - before > 1);
}

#[tokio::test]
async fn who_had_the_turn_and_is_gone_takes_nobody_along() {
    let engine = engine_of(3).await;
    let turns = engine.turns_of(UID);
    let turn = turns.change.lock().await;
    let mut first = Box::pin(engine.learn(UID, Source::Agents, end(0, "")));
    let mut second = Box::pin(engine.learn(UID, Source::Agents, end(1, "")));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    drop(turn);
    // It has taken both, and waits for the store.
    assert!(poll!(&mut first).is_pending());
    assert!(turns.change.try_lock().is_err());
    drop(first);
    // It tells it again, which may be found to be stored by then.
    let told = second.await;
    assert!(matches!(told, Ok(()) | Err(Error::Refused(Overtaken))));
    let again = engine.learn(UID, Source::Agents, end(1, ""));
    again.await.unwrap();
    assert!(ended(&engine) >= 1);
    let third = engine.learn(UID, Source::Registry, end(2, "")).await;
    assert!(matches!(third, Err(Error::NotLeading)));
}
