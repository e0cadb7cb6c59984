//! What becomes of a service whose replicas fail, with every part a process of its own: the replicas
//! write down what happens to them, and watches see every state between.

use std::{collections::BTreeMap, time::Duration};

use muster_proto::replicas::v1::{
    Backoff, ExecProbe, FailureClass, ListEventsRequest, OnExhausted, Probe, Probes, Replica,
    ReplicaCount, ReplicaPhase, ReportLoadRequest, RetryPolicy, RolloutState, ScaleServiceRequest,
    ScalingPolicy, ServicePhase, ServiceSpec, ServiceStatus, UpdatePolicy, probe, scaling_policy,
};
use muster_tests::fleet::{self, Fleet, span, witness::Witness};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn fleet(agents: usize) -> Fleet {
    Fleet::start(env!("CARGO_BIN_EXE_component"), agents).await
}

/// A service of witnesses that is HEALTHY.
async fn healthy(
    fleet: &Fleet,
    replicas: i32,
    retry: Option<RetryPolicy>,
) -> (Witness, BTreeMap<String, i32>) {
    let witness = Witness::new(fleet.path(), "chat");
    fleet.apply(witness.spec("chat", replicas, retry)).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let processes = fleet.processes("chat").await;
    (witness, processes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retry_one_that_exits_ends_the_service_and_the_other_gracefully() {
    let fleet = fleet(1).await;
    let (witness, processes) = healthy(&fleet, 2, None).await;
    witness.fail(0);
    let failed = fleet.until("chat", ServicePhase::Failed, PATIENCE).await;
    let reason = failed.status.unwrap().reason;
    for part in ["chat/0", "code 3", "chat/0 cannot go on"] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    fleet.until_no_process(&processes, PATIENCE).await;
    assert_eq!(witness.of(1, "stop").len(), 1, "{:?}", witness.marks());
    assert_eq!(witness.starts(), 2, "something was started again");
    fleet.until_allocations(0, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_retry_the_other_is_untouched_and_the_failed_one_is_restarted_after_interval() {
    let fleet = fleet(1).await;
    let interval = Duration::from_secs(2);
    let (witness, before) = healthy(&fleet, 2, fleet::retry_every(interval)).await;
    let seen = fleet.statuses("chat");
    witness.fail(0);
    fleet.until("chat", ServicePhase::Degraded, PATIENCE).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let expected = [
        ServicePhase::Healthy,
        ServicePhase::Degraded,
        ServicePhase::Healthy,
    ];
    assert_eq!(seen.phases_like(&expected, PATIENCE).await, expected);
    let after = fleet.processes("chat").await;
    assert_eq!(after["chat/1"], before["chat/1"], "the other was touched");
    assert_ne!(after["chat/0"], before["chat/0"]);
    assert!(witness.of(1, "stop").is_empty());
    let restarted = fleet.until_replica("chat/0", "there", |_| true).await;
    assert_eq!((restarted.restarts, witness.of(0, "start").len()), (1, 2));
    let time = |at: Option<prost_types::Timestamp>| {
        std::time::SystemTime::try_from(at.expect("it is known")).unwrap()
    };
    let ended = time(restarted.previous_attempt.unwrap().end_time);
    let started = time(restarted.attempt.unwrap().start_time);
    let waited = started.duration_since(ended).unwrap();
    assert!(waited >= interval, "restarted after {waited:?}");
    witness.saw_no_overlap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_retry_when_both_fail_it_is_down_and_the_outage_is_recorded_with_its_length() {
    let fleet = fleet(1).await;
    let interval = Duration::from_secs(2);
    let (witness, _) = healthy(&fleet, 2, fleet::retry_every(interval)).await;
    let seen = fleet.statuses("chat");
    witness.fail(0);
    witness.fail(1);
    fleet.until("chat", ServicePhase::Down, PATIENCE).await;
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    let statuses = seen.stop().await;
    let mut out = statuses
        .into_iter()
        .skip_while(|status| status.phase() != ServicePhase::Down)
        .skip_while(|status| status.phase() == ServicePhase::Down);
    let after = out.next().expect("the outage ended");
    assert_eq!(after.outages, 1);
    let lasted = Duration::try_from(after.last_recovery.unwrap()).unwrap();
    // One may have failed a moment before the other.
    assert!(lasted >= interval / 2 && lasted < PATIENCE, "{lasted:?}");
    assert!(
        out.all(|status| status.outages == 1),
        "one outage, told as more"
    );
    let events = fleet
        .manager()
        .list_events(ListEventsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .events;
    let of = |kind: &str| events.iter().any(|event| event.kind == kind);
    assert!(of("ServiceDown") && of("ServiceHealthy"), "{events:#?}");
    for ordinal in [0, 1] {
        assert_eq!(witness.of(ordinal, "start").len(), 2);
    }
    witness.saw_no_overlap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_beside_a_healthy_sibling_backs_off_gives_up_and_holds_nothing_up() {
    let fleet = fleet(1).await;
    let retry = RetryPolicy {
        interval: span(Duration::from_millis(500)),
        max_duration: span(Duration::from_secs(15)),
        backoff: Some(Backoff {
            factor: 2.0,
            max: span(Duration::from_secs(4)),
            jitter: Some(0.2),
        }),
        exhausted: OnExhausted::Replica.into(),
        ..RetryPolicy::default()
    };
    let (witness, before) = healthy(&fleet, 2, Some(retry)).await;
    let seen = fleet.statuses("chat");
    witness.crash_loop(0);
    witness.until(0, "start", 3, PATIENCE).await;
    scale(&fleet, 3).await;
    let added = |one: &Replica| one.phase() == ReplicaPhase::Ready;
    fleet.until_replica("chat/2", "READY", added).await;
    let gave_up = |one: &Replica| one.phase() == ReplicaPhase::Failed;
    let failed = fleet.until_replica("chat/0", "FAILED", gave_up).await;
    assert_eq!(failed.failure_class(), FailureClass::Error);
    // Interval 0.5 s, then twice as long each time up to 4 s: 15 s hold at most eight of them, and a busy
    // machine fewer.
    let starts = witness.of(0, "start").len();
    assert!((3..=9).contains(&starts), "{starts} starts within 15 s");
    let service = fleet.until("chat", ServicePhase::Degraded, PATIENCE).await;
    assert_eq!(service.status.unwrap().counts.unwrap().ready, 2);
    assert_eq!(fleet.processes("chat").await["chat/1"], before["chat/1"]);
    let phases = seen.phases().await;
    assert!(!phases.contains(&ServicePhase::Down), "{phases:?}");
    assert!(!phases.contains(&ServicePhase::Failed), "{phases:?}");
    witness.saw_no_overlap();
}

async fn scale(fleet: &Fleet, replicas: i32) {
    let request = ScaleServiceRequest {
        name: "chat".to_owned(),
        replicas,
        ..ScaleServiceRequest::default()
    };
    fleet.manager().scale_service(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_whose_new_version_never_gets_ready_is_rolled_back() {
    let fleet = fleet(1).await;
    let (witness, before) = healthy(&fleet, 2, fleet::retry()).await;
    let seen = fleet.statuses("chat");
    let never = Probe {
        check: Some(probe::Check::Command(ExecProbe {
            command: vec!["/bin/false".to_owned()],
        })),
        interval: span(Duration::from_millis(200)),
        ..Probe::default()
    };
    fleet
        .apply(ServiceSpec {
            probes: Some(Probes {
                ready: Some(never),
                alive: None,
            }),
            update: Some(UpdatePolicy {
                min_ready: span(Duration::from_secs(1)),
                progress_deadline: span(Duration::from_secs(5)),
                ..UpdatePolicy::default()
            }),
            ..witness.spec("chat", 2, fleet::retry())
        })
        .await;
    let rolled_back = |service: &ServiceStatus| {
        let state = service.rollout.as_ref().map(|rollout| rollout.state());
        state == Some(RolloutState::RolledBack)
    };
    fleet.until_status("chat", "rolled back", rolled_back).await;
    let statuses = seen.stop().await;
    let least = statuses.iter().map(|status| status.counts.unwrap().ready);
    assert_eq!(least.min(), Some(2), "the old version was missed");
    assert!(statuses.iter().any(|status| status.updating));
    assert_eq!(fleet.processes("chat").await, before);
    assert_eq!(witness.starts(), 3, "one of the new version was tried");
    fleet.until("chat", ServicePhase::Healthy, PATIENCE).await;
    fleet.until_allocations(2, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_scales_to_zero_and_wakes_when_load_is_reported() {
    let fleet = fleet(1).await;
    let witness = Witness::new(fleet.path(), "chat");
    fleet
        .apply(ServiceSpec {
            replicas: Some(ReplicaCount {
                min: Some(0),
                max: Some(3),
            }),
            scaling: Some(ScalingPolicy {
                metric: Some(scaling_policy::Metric::Load(true)),
                target: 10.0,
                up_delay: span(Duration::ZERO),
                down_delay: span(Duration::from_secs(1)),
                ..ScalingPolicy::default()
            }),
            ..witness.spec("chat", 0, fleet::retry())
        })
        .await;
    let asleep =
        |status: &ServiceStatus| status.scaled_to_zero && status.counts.unwrap().ready == 0;
    report_load(&fleet, 0.0).await;
    fleet.until_status("chat", "asleep", asleep).await;
    assert_eq!(report_load(&fleet, 15.0).await, 15.0);
    let awake = |status: &ServiceStatus| {
        status.phase() == ServicePhase::Healthy && status.counts.unwrap().ready == 2
    };
    fleet.until_status("chat", "awake", awake).await;
    // What was reported once puts nothing to sleep: a gateway goes on reporting.
    let reporting = async {
        loop {
            report_load(&fleet, 0.0).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        _ = fleet.until_status("chat", "asleep", asleep) => {}
        () = reporting => {}
    }
    fleet.until_allocations(0, PATIENCE).await;
    let marks = witness.marks();
    let stopped = marks.iter().filter(|mark| mark.what == "stop").count();
    assert_eq!(
        stopped,
        witness.starts(),
        "not stopped gracefully: {marks:#?}"
    );
}

async fn report_load(fleet: &Fleet, value: f64) -> f64 {
    let request = ReportLoadRequest {
        name: "chat".to_owned(),
        reporter: "a-gateway".to_owned(),
        value,
        ..ReportLoadRequest::default()
    };
    let answer = fleet.manager().report_load(request).await.unwrap();
    answer.into_inner().total
}
