//! How long events are kept.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures_util::StreamExt as _;
use muster_runtime::resume;
use muster_runtime::watch::{self, Filter, Messages};
use muster_store::Store;

use super::*;
use crate::domain::event::{Event, Severity};
use crate::domain::fleet::Change;
use crate::registry::hubs::EVENTS;
use crate::seen::SeenEvent;

/// The `number`th event, and the revision that tells of it.
fn told(number: u64) -> (u64, Vec<Change>) {
    let event = Event::of_zone(
        "eu-1",
        UNIX_EPOCH + Duration::from_secs(number),
        "MassLossReleased",
        Severity::Warning,
        number.to_string(),
        "alice".into(),
    );
    (1_000 + number, vec![Change::Event(Arc::new(event))])
}

/// The messages of the events that a watch tells until it is synced.
async fn watched(mut messages: Messages<SeenEvent>) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let message = messages.next().await.unwrap().unwrap();
        for change in &message.changes {
            let watch::Event::Put(event) = change else {
                panic!("events only come: {change:?}");
            };
            told.push(event.0.message.clone());
        }
        if message.synced {
            return told;
        }
    }
}

#[tokio::test]
async fn the_oldest_events_are_forgotten_and_nobody_is_told() {
    let running = Running::start(config(), Store::memory()).await;
    let registry = &running.registry;
    let count = u64::try_from(EVENTS).unwrap();
    registry.show((0..count).map(told).collect());
    let before = registry.hubs.events.resume_token();
    registry.show((count..count + 3).map(told).collect());

    let listed = registry.hubs.events.after("", |_| true, 2 * EVENTS);
    let listed: Vec<_> = listed.iter().map(|event| event.0.message.clone()).collect();
    assert_eq!(listed.len(), EVENTS);
    assert_eq!(listed[0], "3");
    let watch = |token: &str| registry.hubs.events.watch(token, Filter::all()).unwrap();
    assert_eq!(watched(watch("")).await, listed);
    assert_eq!(watched(watch(&before)).await, listed[EVENTS - 3..]);
    let oldest = resume::token(&registry.epoch, 1_000 + 2);
    assert_eq!(watched(watch(&oldest)).await, listed);
    running.crash().await;
}
