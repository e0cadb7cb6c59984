//! How a service follows its load, with every part a process of its own: what its replicas export, and what
//! they use of the processors, is measured by the agent, judged by the manager, and answered with replicas.

use std::{fs, time::Duration};

use muster_proto::replicas::v1::{
    Placement, ReplicaCount, ScalingPolicy, ScalingStatus, ServicePhase, ServiceSpec,
    ServiceStatus, Spread, scaling_policy::Metric,
};
use muster_tests::fleet::{
    self, Fleet,
    metered::{METRIC, Metered},
    span,
    spec::service,
};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A delay within which a test sees what waits for it.
const LONG: Duration = Duration::from_secs(600);

/// One within which nothing but the next pass happens.
const SHORT: Duration = Duration::from_millis(500);

async fn fleet(agents: usize) -> Fleet {
    Fleet::start(env!("CARGO_BIN_EXE_component"), agents).await
}

/// From one replica to four, of which each should have ten requests waiting.
fn by_requests(metered: &Metered, up: Duration, down: Duration) -> ServiceSpec {
    ServiceSpec {
        replicas: Some(ReplicaCount {
            min: Some(1),
            max: Some(4),
        }),
        scaling: Some(ScalingPolicy {
            metric: Some(Metric::Prometheus(METRIC.to_owned())),
            target: 10.0,
            up_delay: span(up),
            down_delay: span(down),
            ..ScalingPolicy::default()
        }),
        placement: Some(Placement {
            spread: Spread::Worker.into(),
            ..Placement::default()
        }),
        ..metered.spec("chat")
    }
}

/// Waits until the autoscaler is as a test wants it.
async fn until(fleet: &Fleet, what: &str, test: impl Fn(&ScalingStatus) -> bool) -> ScalingStatus {
    let tested = |status: &ServiceStatus| status.scaling.as_ref().is_some_and(&test);
    let service = fleet.until_status("chat", what, tested).await;
    service.status.unwrap().scaling.unwrap()
}

/// Waits until so many replicas are asked for, run and are ready, and no others are there.
async fn until_ready(fleet: &Fleet, count: i32) {
    let what = format!("of {count} replicas");
    let reached = |status: &ServiceStatus| {
        let desired = status.scaling.as_ref().map(|scaling| scaling.desired);
        status.phase() == ServicePhase::Healthy
            && desired == Some(count)
            && status.counts.unwrap().ready == count
    };
    fleet.until_status("chat", &what, reached).await;
    let rooms = usize::try_from(count).unwrap();
    fleet.until_allocations(rooms, PATIENCE).await;
}

/// Lets a replica export something odd once, and waits until it was measured twice since then.
async fn one_odd_sample(metered: &Metered, ordinal: i32, value: f64) {
    let witness = &metered.witness;
    let before = witness.of(ordinal, "odd").len();
    metered.odd(ordinal, value);
    witness.until(ordinal, "odd", before + 1, PATIENCE).await;
    let scraped = witness.of(ordinal, "scraped").len();
    let again = scraped + 2;
    witness.until(ordinal, "scraped", again, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metric_that_rises_adds_replicas_after_up_delay_and_one_odd_sample_changes_nothing() {
    let fleet = fleet(1).await;
    let metered = Metered::new(fleet.path(), "chat");
    fleet.apply(by_requests(&metered, LONG, LONG)).await;
    until(&fleet, "measured", |scaling| scaling.metric == Some(0.0)).await;

    one_odd_sample(&metered, 0, 35.0).await;
    let settled = |scaling: &ScalingStatus| (scaling.desired, scaling.pending) == (1, 1);
    until(&fleet, "calm after one odd sample", settled).await;

    metered.load(0, 25.0);
    let waits = |scaling: &ScalingStatus| {
        let numbers = (scaling.desired, scaling.pending);
        numbers == (1, 3) && scaling.metric == Some(25.0) && scaling.pending_time.is_some()
    };
    let waiting = until(&fleet, "about to have three", waits).await;
    one_odd_sample(&metered, 0, 0.0).await;
    let still = until(&fleet, "still about to have three", waits).await;
    assert_eq!(still, waiting, "one odd sample put it off");
    assert_eq!(metered.witness.starts(), 1, "it did not wait");

    // The need is as old as it was; what it waits for is shorter now.
    fleet.apply(by_requests(&metered, SHORT, LONG)).await;
    until_ready(&fleet, 3).await;
    assert_eq!(metered.witness.starts(), 3, "one was restarted");
    // 25 in all, of which the new ones have nothing, is enough for three and no more.
    for ordinal in [1, 2] {
        let witness = &metered.witness;
        witness.until(ordinal, "scraped", 2, PATIENCE).await;
    }
    until(&fleet, "of three", |scaling| scaling.metric == Some(25.0)).await;
    metered.load(2, 8.0);
    until_ready(&fleet, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metric_that_falls_stops_replicas_after_down_delay_and_one_odd_sample_puts_nothing_off() {
    // Each agent measures the one replica on it, at a time of its own.
    let fleet = fleet(3).await;
    let metered = Metered::new(fleet.path(), "chat");
    metered.load(0, 25.0);
    fleet.apply(by_requests(&metered, SHORT, LONG)).await;
    until_ready(&fleet, 3).await;
    let before = fleet.processes("chat").await;

    metered.load(0, 4.0);
    metered.load(1, 2.0);
    let waits = |scaling: &ScalingStatus| {
        let numbers = (scaling.desired, scaling.pending);
        numbers == (3, 1) && scaling.metric == Some(6.0) && scaling.pending_time.is_some()
    };
    let waiting = until(&fleet, "about to have one", waits).await;
    // Enough for three: what was measured of the others meanwhile is no second word against it.
    one_odd_sample(&metered, 0, 23.0).await;
    let still = until(&fleet, "still about to have one", waits).await;
    assert_eq!(still, waiting, "one odd sample put it off");
    assert_eq!(fleet.processes("chat").await, before, "it did not wait");

    fleet.apply(by_requests(&metered, LONG, SHORT)).await;
    until_ready(&fleet, 1).await;
    let left = fleet.processes("chat").await;
    assert_eq!(left, [("chat/0".to_owned(), before["chat/0"])].into());
    let stops = [0, 1, 2].map(|ordinal| metered.witness.of(ordinal, "stop").len());
    assert_eq!(stops, [0, 1, 1], "{:#?}", metered.witness.marks());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_follow_the_use_of_their_processors() {
    let fleet = fleet(1).await;
    let busy = fleet.path().join("busy");
    // What the first one does alone counts: it spins while the file is there.
    let script = format!(
        "while :; do if [ $MUSTER_REPLICA = chat/0 ] && [ -e '{}' ]; then :; else sleep 0.5; fi; done",
        busy.display()
    );
    let mut spec = service("chat", 1, &script, fleet::retry());
    spec.resources.as_mut().unwrap().cpu_milli = 200;
    spec.replicas = Some(ReplicaCount {
        min: Some(1),
        max: Some(2),
    });
    spec.scaling = Some(ScalingPolicy {
        metric: Some(Metric::Cpu(true)),
        // Far above what idling takes, and far below what spinning gets of a busy machine.
        target: 40.0,
        up_delay: span(SHORT),
        down_delay: span(SHORT),
        ..ScalingPolicy::default()
    });
    fleet.apply(spec).await;
    let idle = |scaling: &ScalingStatus| scaling.metric.is_some_and(|used| used < 40.0);
    let measured = until(&fleet, "idle", idle).await;
    assert_eq!((measured.desired, measured.pending), (1, 1));

    fs::write(&busy, "").unwrap();
    until_ready(&fleet, 2).await;
    let before = fleet.processes("chat").await;
    fs::remove_file(&busy).unwrap();
    until_ready(&fleet, 1).await;
    let after = fleet.processes("chat").await;
    assert_eq!(after, [("chat/0".to_owned(), before["chat/0"])].into());
}
