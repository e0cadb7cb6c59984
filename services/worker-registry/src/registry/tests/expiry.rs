//! Silence at scale, and silence that is our own fault.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_runtime::shutdown::{Cause, Phase};
use muster_store::{Store, Transaction};

use super::{Running, config, pass};
use crate::domain::fleet::Change;
use crate::domain::liveness::Liveness;
use crate::domain::machine::Machine;
use crate::domain::text::Text;
use crate::domain::worker::{By, Presence, Worker};
use crate::record;
use crate::registry::{Error, Registry};

const S: Duration = Duration::from_secs(1);

fn worker(store: &Store, place: usize, zone: &str) -> Arc<Worker> {
    let name: Text = format!("w{place:06}").into();
    let mut worker = Worker::ahead(
        name,
        format!("uid-{place}").into(),
        By::system(""),
        SystemTime::UNIX_EPOCH,
    );
    worker.generation = 1;
    worker.presence = Presence::Expected;
    worker.epoch = store.epoch().to_string().into();
    worker.set_machine(Arc::new(Machine {
        zone: zone.into(),
        ..Machine::default()
    }));
    Arc::new(worker)
}

/// A store with workers, the zone of each by its place.
async fn store_of(count: usize, zone: impl Fn(usize) -> String) -> Store {
    let store = Store::memory();
    for place in 0..count {
        let change = Change::Worker(worker(&store, place, &zone(place)));
        let (key, value) = (
            record::key_of(&change.key()),
            record::value_of(&change).unwrap(),
        );
        let _committed = store
            .commit(Transaction::new().put(key, value))
            .await
            .unwrap();
    }
    store
}

fn name(place: usize) -> String {
    format!("w{place:06}")
}

/// Those of `places` beat each second, for so many seconds.
async fn beat(registry: &Registry, seconds: u64, places: impl Fn(usize) -> bool, count: usize) {
    for _ in 0..seconds {
        pass(S).await;
        for place in (0..count).filter(|place| places(*place)) {
            registry.lives.beat(&name(place), registry.terms());
        }
    }
}

fn count(registry: &Registry, liveness: Liveness) -> usize {
    let view = registry.view();
    view.workers()
        .filter(|entry| registry.liveness(&entry.worker) == liveness)
        .count()
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_gone_at_once_are_seen_within_a_second_of_expiry() {
    const ALL: usize = 50_000;
    const GONE: usize = 20_000;
    let is_gone = |place: usize| place % 5 < 2;
    let store = store_of(ALL, |place| format!("zone-{}", place / 5 % 50)).await;
    let running = Running::start(config(), store).await;
    let registry = &running.registry;
    let terms = registry.terms();
    assert_eq!(terms.lost_after, 20 * S);
    for place in 0..ALL {
        registry.lives.beat(&name(place), terms);
    }
    // Every third interval for those who stay; never again for the others.
    pass(15 * S).await;
    for place in (0..ALL).filter(|place| !is_gone(*place)) {
        registry.lives.beat(&name(place), terms);
    }
    assert_eq!(count(registry, Liveness::Suspect), GONE);
    pass(Duration::from_millis(4_900)).await;
    assert_eq!(count(registry, Liveness::Lost), 0);
    pass(Duration::from_millis(1_000)).await;
    assert_eq!(count(registry, Liveness::Lost), GONE);
    assert_eq!(count(registry, Liveness::Alive), ALL - GONE);
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_start_everybody_counts_as_heard() {
    let store = store_of(3, |_| String::new()).await;
    let running = Running::start(config(), store).await;
    let registry = &running.registry;
    assert_eq!(count(registry, Liveness::Unknown), 3);
    beat(registry, 5, |place| place == 0, 3).await;
    pass(Duration::from_millis(100)).await;
    assert_eq!(
        (
            count(registry, Liveness::Alive),
            count(registry, Liveness::Suspect)
        ),
        (1, 2)
    );
    beat(registry, 6, |place| place == 0, 3).await;
    assert_eq!(count(registry, Liveness::Lost), 2);
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn who_was_told_to_beat_less_often_is_not_lost_by_a_start_with_other_settings() {
    let store = store_of(2, |_| String::new()).await;
    let mut slow = config();
    slow.rules.interval = 6 * S;
    let running = Running::start(slow, store.clone()).await;
    assert_eq!(running.registry.terms().lost_after, 24 * S);
    running.crash().await;
    let running = Running::start(config(), store.clone()).await;
    let registry = &running.registry;
    assert_eq!(registry.terms().lost_after, 10 * S);
    pass(11 * S).await;
    assert_eq!(count(registry, Liveness::Unknown), 2);
    pass(14 * S).await;
    assert_eq!(count(registry, Liveness::Lost), 2);
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn lost_survives_a_restart_and_its_fence_counts_anew() {
    let store = store_of(1, |_| String::new()).await;
    let running = Running::start(config(), store.clone()).await;
    pass(50 * S).await;
    assert_eq!(count(&running.registry, Liveness::Lost), 1);
    assert!(!is_fenced(&running.registry, 0));
    running.crash().await;
    let running = Running::start(config(), store).await;
    assert_eq!(count(&running.registry, Liveness::Lost), 1);
    // fence_after x 1.01 + 1 s from the start.
    pass(Duration::from_millis(61_400)).await;
    assert!(!is_fenced(&running.registry, 0));
    pass(Duration::from_millis(400)).await;
    assert!(is_fenced(&running.registry, 0));
    running.crash().await;
}

fn is_fenced(registry: &Registry, place: usize) -> bool {
    let view = registry.view();
    let entry = view.worker(&name(place)).unwrap();
    matches!(entry.worker.presence, Presence::Lost { fenced: true, .. })
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_stood_still_declares_nobody_lost() {
    const ALL: usize = 30;
    for stall in [5 * S, 30 * S, 600 * S] {
        // Each in a zone of its own, so that no brake helps.
        let store = store_of(ALL, |place| format!("zone-{place}")).await;
        let running = Running::start(config(), store).await;
        let registry = &running.registry;
        beat(registry, 4, |_| true, ALL).await;
        // Time jumps in one piece: no tick and no heartbeat came meanwhile, as under SIGSTOP.
        tokio::time::advance(stall).await;
        pass(Duration::from_millis(100)).await;
        assert_eq!(count(registry, Liveness::Lost), 0, "after {stall:?}");
        beat(registry, 3, |_| true, ALL).await;
        assert_eq!(count(registry, Liveness::Alive), ALL, "after {stall:?}");
        running.crash().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_ends_declares_nobody_lost() {
    let store = store_of(2, |_| String::new()).await;
    let running = Running::start(config(), store).await;
    let registry = &running.registry;
    beat(registry, 3, |_| true, 2).await;
    // A caller that takes its time keeps it from ending, while nobody can beat any more.
    let shutdown = &running.context.shutdown;
    let drained = || tokio::time::sleep(20 * S);
    shutdown.step(Phase::Drain, "a call", 30 * S, drained);
    shutdown.begin(Cause::asked("a restart"));
    pass(S).await;
    assert!(shutdown.has_reached(Phase::Drain));
    pass(15 * S).await;
    assert!(!shutdown.has_reached(Phase::Loops));
    assert_eq!(count(registry, Liveness::Lost), 0);
    // Nor does anyone wait for it to judge.
    let by = By::new("alice", "they are gone");
    let released = registry.release_mass_loss("".into(), by);
    let released = tokio::time::timeout(S, released).await;
    assert!(
        matches!(released, Ok(Err(Error::NotLeading))),
        "{released:?}"
    );
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_falls_silent_at_once_is_held_and_others_are_not() {
    const ALL: usize = 60;
    let zone = |place: usize| if place < 20 { "dark" } else { "light" }.to_owned();
    let store = store_of(ALL, zone).await;
    let running = Running::start(config(), store).await;
    let registry = &running.registry;
    beat(registry, 2, |_| true, ALL).await;
    // All of the dark zone and five of the light one.
    beat(registry, 15, |place| place >= 25, ALL).await;
    assert_eq!(count(registry, Liveness::Suspect), 20);
    assert_eq!(count(registry, Liveness::Lost), 5);
    assert_eq!(registry.metrics.braked.get(), 20);
    let kinds = event_kinds(registry);
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "MassLossHeld").count(),
        1
    );
    assert_eq!(kinds.iter().filter(|kind| *kind == "WorkerLost").count(), 5);
    // Half of them are back: the brake is off, and the others are lost.
    beat(registry, 3, |place| !(10..25).contains(&place), ALL).await;
    assert_eq!(count(registry, Liveness::Lost), 15);
    assert_eq!(registry.metrics.braked.get(), 0);
    assert!(event_kinds(registry).contains(&"MassLossRecovered".to_owned()));
    running.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_brake_ends_after_its_time_or_by_word() {
    const ALL: usize = 20;
    let mut config = config();
    config.mass_loss_hold = 60 * S;
    let store = store_of(ALL, |_| "dark".to_owned()).await;
    let running = Running::start(config.clone(), store).await;
    pass(55 * S).await;
    assert_eq!(count(&running.registry, Liveness::Suspect), ALL);
    pass(20 * S).await;
    assert_eq!(count(&running.registry, Liveness::Lost), ALL);
    running.crash().await;

    let store = store_of(ALL, |_| "dark".to_owned()).await;
    let running = Running::start(config, store).await;
    pass(20 * S).await;
    let by = By::new("alice", "they are gone");
    let held = running
        .registry
        .release_mass_loss("dark".into(), by)
        .await
        .unwrap();
    assert_eq!(held, ALL);
    pass(S).await;
    assert_eq!(count(&running.registry, Liveness::Lost), ALL);
    running.crash().await;
}

fn event_kinds(registry: &Registry) -> Vec<String> {
    let events = registry.hubs.events.after("", |_| true, 10_000);
    events
        .iter()
        .map(|event| event.0.kind.to_string())
        .collect()
}
