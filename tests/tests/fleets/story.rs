//! The product's story with every part a process of its own: three components on
//! separate stores, and agents; the replica-manager is killed in the middle, and
//! nothing is lost.

use std::{collections::BTreeMap, time::Duration};

use muster_proto::{
    offers::v1::Offer,
    replicas::v1::{FailureMode, ReplicaPhase, ServicePhase},
    types::v1::Availability,
    workers::v1::WorkerState,
};
use muster_tests::fleet::{self, Fleet};
use tokio::time::{Instant, sleep};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_holds_between_processes() {
    let mut fleet = Fleet::start(env!("CARGO_BIN_EXE_component"), 3).await;
    offers_come_in_order_of_price(&fleet).await;
    idle_machines_of_our_own_are_on_offer(&fleet).await;
    let running = a_service_outlives_its_manager(&mut fleet).await;
    a_failed_replica_costs_its_siblings_nothing(&fleet, &running).await;
    a_drain_goes_on_after_its_manager_was_killed(&mut fleet).await;
    without_retry_the_first_failure_ends_it(&fleet).await;
    what_runs_outlives_everything(&mut fleet).await;
}

/// Offers come in order of price, with a report of each backend.
async fn offers_come_in_order_of_price(fleet: &Fleet) {
    let offers = fleet.cheapest("H100", 10).await;
    assert_eq!(offers.offers.len(), 10);
    let price = |offer: &Offer| offer.price.unwrap().micro_usd_per_hour;
    let prices: Vec<i64> = offers.offers.iter().map(price).collect();
    assert!(prices.is_sorted(), "{prices:?}");
    assert!(offers.backends.len() >= 6, "{:?}", offers.backends);
}

/// Every worker is on offer for nothing, as idle, since nothing runs yet.
async fn idle_machines_of_our_own_are_on_offer(fleet: &Fleet) {
    let end = Instant::now() + PATIENCE;
    let mut idle = fleet.idle_machines().await;
    while idle.offers.len() < 3 {
        assert!(Instant::now() < end, "{idle:?}");
        sleep(Duration::from_millis(50)).await;
        idle = fleet.idle_machines().await;
    }
    for offer in &idle.offers {
        assert_eq!(offer.availability(), Availability::Idle, "{offer:?}");
        assert_eq!(offer.price.unwrap().micro_usd_per_hour, 0);
        assert!(offer.memory_mib.unwrap() > 0, "{offer:?}");
    }
}

/// Three replicas become HEALTHY; the manager is killed and comes back, and the same processes run.
async fn a_service_outlives_its_manager(fleet: &mut Fleet) -> BTreeMap<String, i32> {
    let chat = fleet
        .apply(fleet::sleeping("chat", 3, fleet::retry()))
        .await;
    assert_eq!(chat.status.unwrap().failure_mode(), FailureMode::Retry);
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let before = fleet.processes("chat").await;
    assert_eq!(before.len(), 3);
    fleet.manager.kill();
    assert_eq!(
        fleet.processes_of(&before),
        before,
        "a replica ended with the manager"
    );
    fleet.manager.start().await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    assert_eq!(
        fleet.processes("chat").await,
        before,
        "a replica was restarted"
    );
    before
}

/// A replica that is killed is restarted, and its siblings are not touched.
async fn a_failed_replica_costs_its_siblings_nothing(
    fleet: &Fleet,
    before: &BTreeMap<String, i32>,
) {
    let victim = before.keys().next().unwrap();
    fleet::kill(before[victim]);
    fleet.until("chat", ServicePhase::Degraded, PATIENCE).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let after = fleet.processes("chat").await;
    for (replica, pid) in before {
        assert_eq!(after[replica] == *pid, replica != victim, "{replica}");
    }
}

/// The manager is killed in the middle of a drain; never fewer than three are ready.
async fn a_drain_goes_on_after_its_manager_was_killed(fleet: &mut Fleet) {
    let worker = fleet.holds_most("chat").await;
    let seen = fleet.statuses("chat");
    fleet.drain(&worker).await;
    fleet.until_moving("chat", PATIENCE).await;
    fleet.manager.kill();
    fleet.manager.start().await;
    fleet
        .until_worker(&worker, WorkerState::Disabled, PATIENCE)
        .await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    assert!(
        seen.least_ready().await >= 3,
        "the drain lowered the ready replicas"
    );
    let replicas = fleet.replicas("chat").await;
    let ready: Vec<_> = replicas
        .iter()
        .filter(|r| r.phase() == ReplicaPhase::Ready)
        .collect();
    assert_eq!(ready.len(), 3);
    assert!(
        ready
            .iter()
            .all(|r| r.attempt.as_ref().unwrap().worker != worker)
    );
    fleet.no_room_is_held_twice().await;
}

/// Without retry the first failure ends the service, and says why.
async fn without_retry_the_first_failure_ends_it(fleet: &Fleet) {
    let batch = fleet.apply(fleet::sleeping("batch", 2, None)).await;
    assert_eq!(batch.status.unwrap().failure_mode(), FailureMode::FailFast);
    fleet.until("batch", ServicePhase::Healthy, PATIENCE).await;
    let running = fleet.processes("batch").await;
    fleet::kill(*running.values().next().unwrap());
    let failed = fleet.until("batch", ServicePhase::Failed, PATIENCE).await;
    let reason = failed.status.unwrap().reason;
    assert!(reason.contains("batch/"), "{reason}");
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert!(
        reason.contains("batch is up"),
        "the last lines of output are missing: {reason}"
    );
    fleet.until_no_process(&running, PATIENCE).await;
}

/// Everything stops as asked; what should run on, does.
async fn what_runs_outlives_everything(fleet: &mut Fleet) {
    let running = fleet.processes("chat").await;
    fleet.stop_components().await;
    assert_eq!(
        fleet.processes_of(&running),
        running,
        "a replica ended with the control plane"
    );
    fleet.end(&running).await;
}
