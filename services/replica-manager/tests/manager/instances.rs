//! Several managers on one store: all serve, one plans, and whoever is cut off, killed or paused does no
//! harm.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_proto::replicas::v1::assignments_service_client::AssignmentsServiceClient;
use muster_proto::replicas::v1::*;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1::WorkerLiveness;
use muster_runtime::status::Details;
use muster_store::{Store, TERM_KEY, Transaction};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::agent::Agent;
use crate::support::sandbox::{Sandbox, at_once, spec};
use crate::support::several::{PATIENCE, Several, until};

fn retried(name: &str, replicas: i32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.retry = Some(at_once());
    spec
}

fn create_once(name: &str, replicas: i32) -> CreateServiceRequest {
    CreateServiceRequest {
        spec: Some(retried(name, replicas)),
        request_id: format!("make {name}"),
        ..CreateServiceRequest::default()
    }
}

/// Every replica runs once, on room of its own, and no other room is held.
async fn all_is_well(several: &Several, replicas: usize) {
    until("nothing left", || {
        several.registry.allocations().len() == replicas && several.running().len() == replicas
    })
    .await;
    let running = several.running();
    let distinct: BTreeSet<_> = running.iter().map(|one| &one.replica).collect();
    assert_eq!(distinct.len(), replicas, "{running:#?}");
    let room: BTreeSet<_> = several
        .registry
        .allocations()
        .into_iter()
        .map(|a| a.id)
        .collect();
    let used: BTreeSet<_> = running
        .iter()
        .map(|one| one.allocation_id.clone())
        .collect();
    assert_eq!(room, used);
    let started = several.started();
    let once: BTreeSet<_> = started.iter().collect();
    assert_eq!(once.len(), started.len(), "started twice: {started:?}");
}

/// The call fails with this, and says when to try again.
fn assert_unavailable(status: &Status, reason: ErrorReason) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = Details::of(status);
    assert!(details.is(reason), "{status:?}");
    assert!(details.retry_delay.is_some(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_is_asked_for_the_leader_plans_and_all_show() {
    let mut several = Several::start(3).await;
    several.cluster.pass_revisions(7);
    several.add_worker(2, 1);
    several.add_worker(2, 2);
    let made = several.managers[2]
        .client
        .create_service(create_once("chat", 3))
        .await;
    let made = made.unwrap().into_inner();
    let service = made.service.unwrap();
    for manager in &mut several.managers {
        let read = GetServiceRequest {
            name: "chat".to_owned(),
            not_before: made.resume_token.clone(),
            ..GetServiceRequest::default()
        };
        let read = manager.client.get_service(read).await.unwrap().into_inner();
        assert_eq!(read.service.unwrap().uid, service.uid);
        manager.until_phase("chat", ServicePhase::Healthy).await;
        manager.until("ready", |replicas| replicas.len() == 3).await;
        // The same request, at whichever instance, is the same service.
        let again = manager.client.create_service(create_once("chat", 3)).await;
        assert_eq!(
            again.unwrap().into_inner().service.unwrap().uid,
            service.uid
        );
    }
    all_is_well(&several, 3).await;
    assert_eq!(several.registry.claims().len(), 1);

    // An end that is reported to an instance that does not lead is answered by the one that does.
    let ended = several.running()[0].clone();
    let on = several.managers[0].replicas().await[0].members[0]
        .worker
        .clone();
    several.agent(&on).exit(&ended.attempt_id, 1).await;
    for manager in &mut several.managers {
        manager
            .until("restarted", |replicas| {
                let attempt = replicas[0].attempt.as_ref();
                attempt.is_some_and(|attempt| attempt.number == 2)
                    && replicas[0].phase == i32::from(ReplicaPhase::Ready)
            })
            .await;
        assert!(
            manager
                .events()
                .await
                .contains(&"ReplicaFailed replica/chat/0".to_owned())
        );
    }
    all_is_well(&several, 3).await;
    // What one has planned makes nobody plan again and again.
    several.until_quiet(1).await;
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_all_instances_stand_in_one_order_everywhere() {
    let mut several = Several::start(2).await;
    several.add_worker(3, 1);
    several.managers[1].create(retried("chat", 1)).await;
    several.managers[0]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    for (at, replicas) in [(1, 2), (0, 3), (1, 1), (0, 2)] {
        several.managers[at].scale("chat", replicas).await.unwrap();
        let wanted = usize::try_from(replicas).unwrap();
        for manager in &mut several.managers {
            manager.until("scaled", |seen| seen.len() == wanted).await;
            manager.until_phase("chat", ServicePhase::Healthy).await;
        }
    }
    several.until_quiet(1).await;
    let (here, there) = (
        several.managers[0].events().await,
        several.managers[1].events().await,
    );
    assert_eq!(here, there);
    assert_eq!(here[0], "ServiceCreated service/chat", "{here:#?}");
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_cut_off_another_goes_on_and_nothing_is_restarted() {
    let mut several = Several::start(3).await;
    several.add_worker(2, 1);
    several.add_worker(2, 2);
    several.managers[1].create(retried("chat", 3)).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    several.until_quiet(1).await;
    let before = several.started();

    several.links[0].cut();
    several.until_claims(2).await;
    several.managers[2].create(retried("more", 1)).await;
    several.managers[2]
        .until_phase("more", ServicePhase::Healthy)
        .await;
    let ended = several.running()[0].clone();
    let worker = several.managers[1].replicas().await[0].members[0]
        .worker
        .clone();
    several.agent(&worker).exit(&ended.attempt_id, 1).await;
    several.managers[1]
        .until("restarted", |replicas| {
            let attempt = replicas[0].attempt.as_ref();
            attempt.is_some_and(|attempt| attempt.number == 2)
        })
        .await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;

    // The one that is cut off shows what it knew, takes nothing, and sends nobody astray.
    assert_eq!(several.managers[0].replicas().await.len(), 3);
    let refused = several.managers[0].scale("chat", 1).await.unwrap_err();
    assert_unavailable(&refused, ErrorReason::StoreUnavailable);

    several.links[0].heal();
    several.managers[0]
        .until("caught up", |replicas| replicas.len() == 4)
        .await;
    several.managers[0]
        .until_phase("more", ServicePhase::Healthy)
        .await;
    several.managers[0].scale("more", 0).await.unwrap();
    several.managers[2]
        .until("scaled", |replicas| replicas.len() == 3)
        .await;
    all_is_well(&several, 3).await;
    // One start for the new service and one for the end that was reported, and no other.
    assert_eq!(several.started().len(), before.len() + 2);
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_at_any_moment_leaves_nothing_doubled_or_behind() {
    for moment in [0, 2, 5, 13, 30] {
        let mut several = Several::start(2).await;
        several.add_worker(2, 1);
        several.add_worker(2, 1);
        several.managers[0].create(retried("chat", 3)).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        several.kill(0).await;
        several.managers[1]
            .until_phase("chat", ServicePhase::Healthy)
            .await;
        several.until_claims(2).await;
        several.until_quiet(1).await;
        all_is_well(&several, 3).await;
        several.managers[1].stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_nobody_leads_is_planned_by_who_leads_next() {
    let mut several = Several::start(2).await;
    several.add_worker(3, 1);
    several.managers[1].create(retried("chat", 1)).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    several.kill(0).await;
    // Its key stands for a while: whoever asks for the leader meets nobody.
    let made = several.managers[1].create(retried("more", 1)).await;
    assert_eq!(made.name, "more");
    several.managers[1].scale("chat", 2).await.unwrap();
    let report = ReportLoadRequest {
        name: "chat".to_owned(),
        reporter: "gateway".to_owned(),
        value: 1.0,
        ..ReportLoadRequest::default()
    };
    if let Err(refused) = several.managers[1].client.report_load(report).await {
        assert_unavailable(&refused, ErrorReason::NoLeader);
    }
    several.managers[1]
        .until_phase("more", ServicePhase::Healthy)
        .await;
    several.managers[1]
        .until("scaled", |replicas| replicas.len() == 3)
        .await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    all_is_well(&several, 3).await;
    several.managers[1].stop().await;
}

/// A service of one to three replicas that have 10 of what is measured each.
fn scaled(name: &str, metric: scaling_policy::Metric) -> ServiceSpec {
    let mut wanted = retried(name, 1);
    wanted.replicas.as_mut().unwrap().max = Some(3);
    wanted.scaling = Some(ScalingPolicy {
        metric: Some(metric),
        target: 10.0,
        up_delay: Some(prost_types::Duration::default()),
        ..ScalingPolicy::default()
    });
    wanted
}

#[tokio::test(flavor = "multi_thread")]
async fn load_reported_at_any_instance_is_judged_by_the_leader() {
    let mut several = Several::start(2).await;
    several.add_worker(9, 1);
    let wanted = scaled("chat", scaling_policy::Metric::Load(true));
    several.managers[1].create(wanted).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let report = ReportLoadRequest {
        name: "chat".to_owned(),
        reporter: "gateway".to_owned(),
        value: 25.0,
        ..ReportLoadRequest::default()
    };
    let mut client = several.managers[1].client.clone();
    let taken = client.report_load(report.clone()).await.unwrap();
    assert!((taken.into_inner().total - 25.0).abs() < f64::EPSILON);
    // What is wrong with a call is told as where it is taken.
    let nameless = ReportLoadRequest {
        reporter: String::new(),
        ..report
    };
    let refused = client.report_load(nameless).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let violations = Details::of(&refused).violations;
    assert_eq!(violations[0].field, "reporter", "{refused:?}");
    several.managers[0]
        .until("scaled", |replicas| replicas.len() == 3)
        .await;
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_reported_at_any_instance_are_judged_by_the_leader() {
    let mut several = Several::start(2).await;
    several.add_worker(9, 1);
    let mut wanted = scaled("chat", scaling_policy::Metric::Cpu(true));
    wanted.resources.get_or_insert_default().cpu_milli = 100;
    several.managers[1].create(wanted).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let replicas = several.managers[1].replicas().await;
        if replicas.len() == 3 {
            break;
        }
        assert!(Instant::now() < deadline, "not scaled: {replicas:#?}");
        for attempt in replicas.into_iter().filter_map(|one| one.attempt) {
            let report = AttemptReport {
                attempt_id: attempt.id,
                phase: AttemptPhase::Ready.into(),
                sample: Some(AttemptSample {
                    cpu_percent: Some(25.0),
                    ..AttemptSample::default()
                }),
                ..AttemptReport::default()
            };
            several.agents[0].report(report).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_reads_go_on_and_all_goes_on_after() {
    let mut several = Several::start(2).await;
    several.add_worker(4, 1);
    several.managers[0].create(retried("chat", 3)).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    several.until_quiet(1).await;
    let before = several.managers[1].replicas().await;

    several.cluster.stop();
    for manager in &mut several.managers {
        let refused = manager.scale("chat", 1).await.unwrap_err();
        assert_unavailable(&refused, ErrorReason::StoreUnavailable);
        assert_eq!(manager.replicas().await, before);
    }
    // Longer than the leader's lease, by its own count: nobody leads now.
    until("unled", || {
        several
            .managers
            .iter()
            .all(|one| one.store.age() > Duration::from_secs(3))
    })
    .await;
    let ended = several.running()[0].clone();
    let agent = several.agents[0].clone();
    let reporting = async move { agent.exit(&ended.attempt_id, 1).await };
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        several.cluster.start();
    };
    tokio::join!(reporting, back);

    let after = several.managers[1]
        .until("restarted", |replicas| {
            let attempt = replicas[0].attempt.as_ref();
            attempt.is_some_and(|attempt| attempt.number == 2)
                && replicas[0].phase == i32::from(ReplicaPhase::Ready)
        })
        .await;
    assert_eq!(after[1].attempt, before[1].attempt);
    assert_eq!(after[2].attempt, before[2].attempt);
    several.managers[0].scale("chat", 2).await.unwrap();
    several.managers[1]
        .until("scaled", |replicas| replicas.len() == 2)
        .await;
    all_is_well(&several, 2).await;
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_be_behind_calls_no_attempt_unknown() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 0);
    several.links[1].cut();
    several.managers[0].create(retried("chat", 1)).await;
    several.managers[0]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let attempt = several.running()[0].attempt_id.clone();
    let mut behind = plain_client(&several, 1).await;
    let report = end_of(&attempt);
    // The end would be forgotten, or the attempt kept as an orphan.
    let refused = behind.report_replicas(report.clone()).await.unwrap_err();
    assert_unavailable(&refused, ErrorReason::StoreUnavailable);
    let watched = WatchAssignmentsRequest {
        worker: "w1".to_owned(),
        generation: 1,
        ..WatchAssignmentsRequest::default()
    };
    let refused = behind.watch_assignments(watched).await.unwrap_err();
    assert_unavailable(&refused, ErrorReason::StoreUnavailable);
    several.links[1].heal();
    until_forgotten(&mut behind, report).await;
    until_second_attempt(&mut several.managers[1]).await;
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_not_seen_the_room_of_an_attempt_forgets_no_end_of_it() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 0);
    several.registry.set_down(true);
    several.managers[0].create(retried("chat", 1)).await;
    several.managers[1]
        .until("begun", |replicas| {
            replicas.len() == 1 && replicas[0].attempt.is_some()
        })
        .await;
    several.links[1].cut();
    several.registry.set_down(false);
    several.managers[0]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let attempt = several.running()[0].attempt_id.clone();
    let mut behind = plain_client(&several, 1).await;
    let report = end_of(&attempt);
    let refused = behind.report_replicas(report.clone()).await.unwrap_err();
    assert_unavailable(&refused, ErrorReason::StoreUnavailable);
    several.links[1].heal();
    until_forgotten(&mut behind, report).await;
    until_second_attempt(&mut several.managers[1]).await;
    several.stop().await;
}

/// A client that does not try again by itself.
async fn plain_client(several: &Several, of: usize) -> AssignmentsServiceClient<Channel> {
    let address = several.managers[of].context.bound.get().unwrap();
    let connected = AssignmentsServiceClient::connect(format!("http://{address}"));
    connected.await.unwrap()
}

/// What the agent of `w1` reports of an attempt that has ended.
fn end_of(attempt: &str) -> ReportReplicasRequest {
    ReportReplicasRequest {
        worker: "w1".to_owned(),
        generation: 1,
        reports: vec![AttemptReport {
            attempt_id: attempt.to_owned(),
            phase: AttemptPhase::Ended.into(),
            failure_class: FailureClass::Error.into(),
            ..AttemptReport::default()
        }],
        whole: false,
    }
}

/// Reports until it is taken, which is when the agent may forget it.
async fn until_forgotten(
    client: &mut AssignmentsServiceClient<Channel>,
    report: ReportReplicasRequest,
) {
    let deadline = Instant::now() + PATIENCE;
    let taken = loop {
        match client.report_replicas(report.clone()).await {
            Ok(taken) => break taken.into_inner(),
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(taken.forgotten_attempts, [&*report.reports[0].attempt_id]);
    assert!(taken.unknown_attempts.is_empty());
}

async fn until_second_attempt(manager: &mut Sandbox) {
    manager
        .until("restarted", |replicas| {
            let attempt = replicas[0].attempt.as_ref();
            attempt.is_some_and(|attempt| attempt.number == 2)
        })
        .await;
}

async fn orphans(manager: &mut Sandbox) -> Vec<String> {
    let listed = manager
        .client
        .list_orphans(ListOrphansRequest::default())
        .await;
    let orphans = listed.unwrap().into_inner().orphans;
    orphans
        .into_iter()
        .map(|orphan| orphan.attempt_id)
        .collect()
}

async fn until_orphans(several: &mut Several, wanted: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    for manager in &mut several.managers {
        loop {
            let seen = orphans(manager).await;
            if seen == wanted {
                break;
            }
            assert!(Instant::now() < deadline, "{seen:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn until_blocked(several: &Several, subject: &str, reason: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let drains = several.registry.drains();
        let mut blocks = drains.last().into_iter().flat_map(|report| &report.blocked);
        if blocks.any(|block| block.subject == subject && block.reason == reason) {
            return;
        }
        assert!(Instant::now() < deadline, "{drains:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_known_to_all_and_removed_through_any() {
    let mut several = Several::start(3).await;
    several.add_worker(2, 1);
    // Its agent has told all that it runs by the time that it is told to run something.
    several.managers[1].create(retried("chat", 1)).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let older = "000000000000-00000000";
    several.registry.plant("a-1", "gone.0.1", older);
    several.registry.plant("a-2", "gone.1.1", older);
    let report = |attempt: &str, room: &str, phase: AttemptPhase| AttemptReport {
        attempt_id: attempt.to_owned(),
        allocation_id: room.to_owned(),
        phase: phase.into(),
        ..AttemptReport::default()
    };
    let agent: Agent = several.agents[0].clone();
    let told = agent
        .report(report("gone.0.1", "a-1", AttemptPhase::Ready))
        .await;
    assert_eq!(told.unknown_attempts, ["gone.0.1"]);
    agent
        .report(report("gone.1.1", "a-2", AttemptPhase::Ready))
        .await;
    until_orphans(&mut several, &["gone.0.1", "gone.1.1"]).await;
    let removal = RemoveOrphanRequest {
        attempt_id: "gone.0.1".to_owned(),
        ..RemoveOrphanRequest::default()
    };
    several.managers[2]
        .client
        .remove_orphan(removal)
        .await
        .unwrap();
    let left = several.registry.allocations();
    let left: Vec<_> = left.iter().map(|room| room.id.as_str()).collect();
    assert!(!left.contains(&"a-1") && left.contains(&"a-2"), "{left:?}");
    let told = agent
        .report(report("gone.0.1", "a-1", AttemptPhase::Ended))
        .await;
    assert_eq!(told.forgotten_attempts, ["gone.0.1"]);
    until_orphans(&mut several, &["gone.1.1"]).await;
    // Whoever leads next knows of them without being told again.
    several.kill(0).await;
    several.until_claims(2).await;
    several.managers.remove(0);
    until_orphans(&mut several, &["gone.1.1"]).await;
    // A drain tells that it waits for somebody to decide about it.
    several.registry.drain("w1");
    until_blocked(&several, "gone.1.1", "ORPHAN").await;
    for manager in &several.managers {
        manager.stop().await;
    }
}

fn metric(manager: &Sandbox, name: &str) -> f64 {
    let text = manager.context.metrics.render().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

/// How often the manager has planned for a service.
fn passes(manager: &Sandbox) -> f64 {
    metric(manager, "muster_planner_pass_duration_seconds_count ")
}

fn calls_in_flight(manager: &Sandbox) -> f64 {
    metric(manager, "muster_in_flight{lane=\"vital\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_while_another_took_over_does_nothing() {
    let mut sandbox = Sandbox::with_store(&[4], Store::memory()).await;
    sandbox.create(retried("chat", 2)).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    // By its own count it leads still; the store and the registry know another.
    let taken = Transaction::new().put(TERM_KEY, "another");
    let _ = sandbox.store.commit(taken).await.unwrap();
    sandbox.registry.usurp();
    let (asked, started) = (
        sandbox.registry.allocate_calls(),
        sandbox.agent("w1").started(),
    );
    let attempt = sandbox.replicas().await[0].attempt.clone().unwrap();
    // What callers and agents say is recorded, since everyone may do that, and planned by nobody here.
    sandbox.agent("w1").exit(&attempt.id, 1).await;
    sandbox.scale("chat", 3).await.unwrap();
    for region in ["elsewhere", "nowhere"] {
        let planned = passes(&sandbox);
        let region = region.to_owned();
        sandbox.registry.set("w1", |worker| worker.region = region);
        until("planned again", || passes(&sandbox) > planned).await;
    }
    let replicas = sandbox.replicas().await;
    let ended = replicas[0].attempt.clone().unwrap();
    assert_eq!((ended.id, replicas.len()), (attempt.id, 2), "{replicas:#?}");
    assert_eq!(sandbox.registry.allocate_calls(), asked);
    assert_eq!(sandbox.agent("w1").started(), started);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stale_owner_asks_of_the_registry_is_refused_and_asked_again() {
    let mut sandbox = Sandbox::with_store(&[4], Store::memory()).await;
    sandbox.create(retried("chat", 1)).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    sandbox.registry.usurp();
    sandbox.scale("chat", 2).await.unwrap();
    until("refused", || sandbox.registry.stale_calls() >= 2).await;
    assert_eq!(sandbox.registry.allocations().len(), 1);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_made_at_two_instances_at_once_is_made_once() {
    let several = Several::start(3).await;
    let (mut one, mut other) = (
        several.managers[1].client.clone(),
        several.managers[2].client.clone(),
    );
    for round in 0..20 {
        let name = format!("chat-{round}");
        let made = tokio::join!(
            one.create_service(create_once(&name, 1)),
            other.create_service(create_once(&name, 1)),
        );
        let uid = |made: CreateServiceResponse| made.service.unwrap().uid;
        let made = (made.0.unwrap().into_inner(), made.1.unwrap().into_inner());
        assert_eq!(uid(made.0), uid(made.1));

        let mut wanted = retried(&name, 1);
        wanted.labels.insert("round".to_owned(), round.to_string());
        let update = UpdateServiceRequest {
            spec: Some(wanted),
            request_id: format!("change {name}"),
            ..UpdateServiceRequest::default()
        };
        let changed = tokio::join!(
            one.update_service(update.clone()),
            other.update_service(update),
        );
        let changed = (changed.0.unwrap(), changed.1.unwrap());
        let changed = [changed.0.into_inner(), changed.1.into_inner()];
        let did = changed.iter().filter(|one| !one.changed_paths.is_empty());
        assert_eq!(did.count(), 1, "{changed:#?}");
    }
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_hands_over_without_waiting_for_its_lease() {
    let mut several = Several::with_lease(2, Duration::from_secs(3600)).await;
    several.add_worker(3, 1);
    several.managers[1].create(retried("chat", 1)).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    several.managers[0].stop().await;
    several.managers[1].scale("chat", 2).await.unwrap();
    several.until_claims(2).await;
    several.managers[1]
        .until("scaled", |replicas| replicas.len() == 2)
        .await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    all_is_well(&several, 2).await;
    several.managers[1].stop().await;
}

async fn create_stopped(manager: &mut Sandbox, name: &str) {
    let request = CreateServiceRequest {
        spec: Some(spec(name, 1)),
        no_start: true,
        ..CreateServiceRequest::default()
    };
    manager.client.create_service(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_another_instance_and_a_page_begins_anew() {
    let mut several = Several::start(2).await;
    for name in ["a", "b"] {
        create_stopped(&mut several.managers[0], name).await;
        several.cluster.pass_revisions(5);
    }
    several.until_quiet(0).await;
    let page = ListServicesRequest {
        page_size: 1,
        ..ListServicesRequest::default()
    };
    let first = several.managers[0].client.list_services(page.clone()).await;
    let first = first.unwrap().into_inner();
    let next = ListServicesRequest {
        page_token: first.next_page_token,
        ..page
    };
    let here = several.managers[0].client.list_services(next.clone()).await;
    assert_eq!(here.unwrap().into_inner().services[0].name, "b");
    let refused = several.managers[1].client.list_services(next).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert!(Details::of(&refused).is(ErrorReason::PageTokenExpired));

    let watch = WatchServicesRequest {
        resume_token: first.resume_token,
        ..WatchServicesRequest::default()
    };
    let watched = several.managers[1].client.watch_services(watch).await;
    let mut watched = watched.unwrap().into_inner();
    create_stopped(&mut several.managers[0], "c").await;
    let told = loop {
        let message = watched.message().await.unwrap().unwrap();
        if let Some(change) = message.changes.into_iter().next() {
            break change;
        }
    };
    let Some(service_change::Change::Put(service)) = told.change else {
        panic!("{told:?}");
    };
    assert_eq!(service.name, "c");
    several.stop().await;
}

/// A client of an instance that does not try again by itself.
async fn plain_replicas(
    several: &Several,
    of: usize,
) -> replicas_service_client::ReplicasServiceClient<Channel> {
    let address = several.managers[of].context.bound.get().unwrap();
    let url = format!("http://{address}");
    let connected = replicas_service_client::ReplicasServiceClient::connect(url);
    connected.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_takes_no_change_for_one_that_is_made() {
    let mut several = Several::start(2).await;
    let label = |round: &str| {
        let mut wanted = retried("chat", 1);
        wanted.labels.insert("round".to_owned(), round.to_owned());
        UpdateServiceRequest {
            spec: Some(wanted),
            allow_missing: true,
            no_start: true,
            ..UpdateServiceRequest::default()
        }
    };
    let mut leader = plain_replicas(&several, 0).await;
    let made = leader.update_service(label("one")).await.unwrap();
    let read = GetServiceRequest {
        name: "chat".to_owned(),
        not_before: made.into_inner().resume_token,
        ..GetServiceRequest::default()
    };
    several.managers[1].client.get_service(read).await.unwrap();
    let mut behind = plain_replicas(&several, 1).await;
    several.links[1].cut();
    leader.update_service(label("two")).await.unwrap();
    // The last word: one again.
    let updated = behind.update_service(label("one")).await;
    several.links[1].heal();
    let service = several.managers[0].service("chat").await;
    let is = service.spec.unwrap().labels["round"].clone();
    match updated {
        Err(status) => assert_unavailable(&status, ErrorReason::StoreUnavailable),
        Ok(_) => assert_eq!(is, "one"),
    }
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_takes_no_stop_for_done() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 0);
    create_stopped(&mut several.managers[0], "chat").await;
    let mut behind = plain_replicas(&several, 1).await;
    let read = GetServiceRequest {
        name: "chat".to_owned(),
        ..GetServiceRequest::default()
    };
    let deadline = Instant::now() + PATIENCE;
    while behind.get_service(read.clone()).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    several.links[1].cut();
    let start = StartServiceRequest {
        name: "chat".to_owned(),
        ..StartServiceRequest::default()
    };
    several.managers[0]
        .client
        .start_service(start)
        .await
        .unwrap();
    let stop = StopServiceRequest {
        name: "chat".to_owned(),
        ..StopServiceRequest::default()
    };
    let stopped = behind.stop_service(stop).await;
    several.links[1].heal();
    match stopped {
        Err(status) => assert_unavailable(&status, ErrorReason::StoreUnavailable),
        Ok(_) => {
            several.managers[0]
                .until_phase("chat", ServicePhase::Stopped)
                .await;
        }
    }
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_takes_no_report_for_known() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 0);
    several.managers[0].create(retried("chat", 1)).await;
    several.managers[1]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    several.links[1].cut();
    let attempt = several.running()[0].attempt_id.clone();
    let phase = |phase: AttemptPhase| AttemptReport {
        attempt_id: attempt.clone(),
        phase: phase.into(),
        ..AttemptReport::default()
    };
    let agent = several.agents[0].clone();
    agent.report(phase(AttemptPhase::Unready)).await;
    several.managers[0]
        .until("unready", |replicas| {
            replicas[0].phase == i32::from(ReplicaPhase::Unready)
        })
        .await;
    // Its agent comes here next, with what is told once.
    let mut behind = plain_client(&several, 1).await;
    let report = ReportReplicasRequest {
        worker: "w1".to_owned(),
        generation: 1,
        reports: vec![phase(AttemptPhase::Ready)],
        whole: false,
    };
    let taken = behind.report_replicas(report).await;
    several.links[1].heal();
    match taken {
        Err(status) => assert_unavailable(&status, ErrorReason::StoreUnavailable),
        Ok(_) => {
            several.managers[0].patience = Duration::from_secs(5);
            several.managers[0]
                .until("ready again", |replicas| {
                    replicas[0].phase == i32::from(ReplicaPhase::Ready)
                })
                .await;
        }
    }
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_calls_no_name_taken_that_is_free() {
    let mut several = Several::start(2).await;
    create_stopped(&mut several.managers[0], "chat").await;
    let (mut leader, mut behind) = (
        plain_replicas(&several, 0).await,
        plain_replicas(&several, 1).await,
    );
    let read = GetServiceRequest {
        name: "chat".to_owned(),
        ..GetServiceRequest::default()
    };
    let deadline = Instant::now() + PATIENCE;
    while behind.get_service(read.clone()).await.is_err() {
        assert!(Instant::now() < deadline, "it is not known");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    several.links[1].cut();
    let delete = DeleteServiceRequest {
        name: "chat".to_owned(),
        ..DeleteServiceRequest::default()
    };
    leader.delete_service(delete).await.unwrap();
    while leader.get_service(read.clone()).await.is_ok() {
        assert!(Instant::now() < deadline, "it is not deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let made = behind.create_service(create_once("chat", 1)).await;
    assert_unavailable(&made.unwrap_err(), ErrorReason::StoreUnavailable);
    several.links[1].heal();
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = behind.create_service(create_once("chat", 1)).await {
        assert_unavailable(&status, ErrorReason::StoreUnavailable);
        assert!(Instant::now() < deadline, "{status:?}");
    }
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_overtaken_by_a_later_one_is_not_taken() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 0);
    several.managers[0].create(retried("chat", 1)).await;
    several.managers[1]
        .until("ready", |replicas| {
            replicas.len() == 1 && replicas[0].phase == i32::from(ReplicaPhase::Ready)
        })
        .await;
    let attempt = several.running()[0].attempt_id.clone();
    let phase = |phase: AttemptPhase| ReportReplicasRequest {
        worker: "w1".to_owned(),
        generation: 1,
        reports: vec![AttemptReport {
            attempt_id: attempt.clone(),
            phase: phase.into(),
            ..AttemptReport::default()
        }],
        whole: false,
    };
    let (mut one, mut other) = (
        plain_client(&several, 0).await,
        plain_client(&several, 1).await,
    );
    several.links[1].cut();
    let in_flight = calls_in_flight(&several.managers[1]);
    // One is on its way to the store at an instance when the agent tells what is newer at another.
    let later = async {
        until("called", || {
            calls_in_flight(&several.managers[1]) > in_flight
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let newer = one.report_replicas(phase(AttemptPhase::Unready)).await;
        newer.unwrap();
        several.links[1].heal();
    };
    let (told, ()) = tokio::join!(other.report_replicas(phase(AttemptPhase::Starting)), later);
    assert_unavailable(&told.unwrap_err(), ErrorReason::StoreUnavailable);
    let unready = |replicas: &[Replica]| replicas[0].phase == i32::from(ReplicaPhase::Unready);
    for manager in &mut several.managers {
        manager.until("unready", unready).await;
    }
    several.until_quiet(0).await;
    assert!(unready(&several.managers[0].replicas().await));
    // Who means it says so again.
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = other.report_replicas(phase(AttemptPhase::Ready)).await {
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    several.managers[0]
        .until("ready again", |replicas| !unready(replicas))
        .await;
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_the_next_attempt_takes_over_is_kept_wherever_the_end_is_told() {
    for told_at in [0, 1] {
        let mut several = Several::start(2).await;
        several.add_worker(12, told_at);
        let mut wanted = retried("chat", 12);
        wanted.retry = Some(RetryPolicy {
            interval: Some(prost_types::Duration {
                seconds: 5,
                nanos: 0,
            }),
            ..RetryPolicy::default()
        });
        several.managers[0].create(wanted).await;
        several.managers[0]
            .until_phase("chat", ServicePhase::Healthy)
            .await;
        let rooms = |several: &Several| -> BTreeSet<String> {
            let rooms = several.registry.allocations().into_iter();
            rooms.map(|one| one.id).collect()
        };
        let before = rooms(&several);
        // All at once, as when something that they share is gone.
        let ends = several.running().into_iter();
        let mut report = end_of("");
        report.reports = ends
            .flat_map(|one| end_of(&one.attempt_id).reports)
            .collect();
        let mut client = plain_client(&several, told_at).await;
        client.report_replicas(report).await.unwrap();
        several.managers[0]
            .until("all wait", |replicas| {
                let backoff = i32::from(ReplicaPhase::Backoff);
                replicas.iter().all(|one| one.phase == backoff)
            })
            .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let kept = rooms(&several);
        assert_eq!(
            before.difference(&kept).count(),
            0,
            "told at {told_at}: {kept:?}"
        );
        several.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_gives_no_room_back_before_it_has_read_who_has_it() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 0);
    several.links[1].cut();
    // What takes a while to be read.
    let long = AttemptReport {
        attempt_id: "gone.0.1".to_owned(),
        last_log_lines: vec!["x".to_owned(); 30_000],
        ..AttemptReport::default()
    };
    let long = prost::Message::encode_to_vec(&long);
    for _ in 0..100 {
        let put = Transaction::new().put("orphan/w9/gone.0.1", long.clone());
        let _ = several.managers[0].store.commit(put).await.unwrap();
    }
    // The one that leads has read all of it by then.
    tokio::time::sleep(Duration::from_secs(8)).await;
    several.managers[0].create(retried("chat", 1)).await;
    several.managers[0]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let room = several.registry.allocations()[0].id.clone();
    several.kill(0).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    several.links[1].heal();
    several.until_claims(2).await;
    several.managers[1]
        .until("it is known here", |replicas| replicas.len() == 1)
        .await;
    let held = several.registry.allocations();
    assert!(held.iter().any(|one| one.id == room), "{held:?}");
    several.managers[1].stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_that_is_adopted_before_its_worker_is_known_runs_on() {
    let mut sandbox = Sandbox::with_store(&[1], Store::memory()).await;
    let uid = sandbox.create(retried("chat", 2)).await.uid;
    sandbox
        .until("one runs, one waits for room", |replicas| {
            let ready = i32::from(ReplicaPhase::Ready);
            replicas.len() == 2 && replicas.iter().filter(|one| one.phase == ready).count() == 1
        })
        .await;
    // Nothing is known here of its worker yet.
    let mut agent = AssignmentsServiceClient::new(sandbox.channel.clone());
    let attempt = format!("{uid}.5.1");
    let report = ReportReplicasRequest {
        worker: "w9".to_owned(),
        generation: 1,
        reports: vec![AttemptReport {
            attempt_id: attempt.clone(),
            allocation_id: "a-99".to_owned(),
            phase: AttemptPhase::Ready.into(),
            assignment: Some(Assignment {
                attempt_id: attempt.clone(),
                allocation_id: "a-99".to_owned(),
                replica: "chat/5".to_owned(),
                service: "chat".to_owned(),
                service_uid: uid,
                version: 1,
                ..Assignment::default()
            }),
            ..AttemptReport::default()
        }],
        whole: false,
    };
    let told = agent.report_replicas(report).await.unwrap().into_inner();
    assert_eq!(told.unknown_attempts, std::slice::from_ref(&attempt));
    let adopt = AdoptOrphanRequest {
        attempt_id: attempt.clone(),
        service: "chat".to_owned(),
        ..AdoptOrphanRequest::default()
    };
    // It may be refused until its worker is known.
    if sandbox.client.adopt_orphan(adopt.clone()).await.is_err() {
        sandbox.registry.add_worker("w9", 0, "");
        tokio::time::sleep(Duration::from_millis(500)).await;
        sandbox.client.adopt_orphan(adopt).await.unwrap();
    } else {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let here =
            |one: &Replica| one.id == "chat/5" && one.phase == i32::from(ReplicaPhase::Ready);
        assert!(sandbox.replicas().await.iter().any(here), "not adopted");
        sandbox.registry.add_worker("w9", 0, "");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let replicas = sandbox.replicas().await;
    let adopted = replicas.iter().find(|one| one.id == "chat/5");
    let adopted = adopted.and_then(|one| {
        one.attempt
            .clone()
            .filter(|_| one.phase == i32::from(ReplicaPhase::Ready))
    });
    assert_eq!(adopted.map(|one| one.id), Some(attempt), "{replicas:#?}");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_could_not_be_stored_takes_no_retry_away() {
    let mut several = Several::with_lease(1, Duration::from_secs(3600)).await;
    several.add_worker(1, 0);
    let mut wanted = retried("chat", 1);
    wanted.retry = Some(RetryPolicy {
        interval: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
        ..RetryPolicy::default()
    });
    several.managers[0].create(wanted).await;
    several.managers[0]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    let attempt = several.running()[0].attempt_id.clone();
    several.agent("w1").exit(&attempt, 1).await;
    several.managers[0]
        .until("it waits", |replicas| {
            replicas[0].phase == i32::from(ReplicaPhase::Backoff)
        })
        .await;
    several.links[0].cut();
    let mut client = plain_replicas(&several, 0).await;
    let stop = StopServiceRequest {
        name: "chat".to_owned(),
        ..StopServiceRequest::default()
    };
    let refused = client.stop_service(stop).await.unwrap_err();
    assert_unavailable(&refused, ErrorReason::StoreUnavailable);
    several.links[0].heal();
    several.managers[0].patience = Duration::from_secs(20);
    until_second_attempt(&mut several.managers[0]).await;
    several.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_leader_knew_of_workers_before_it_led_ends_nothing() {
    let mut several = Several::start(2).await;
    several.add_worker(2, 1);
    several.managers[0].create(retried("chat", 1)).await;
    several.managers[0]
        .until_phase("chat", ServicePhase::Healthy)
        .await;
    several.managers[1]
        .until("ready", |replicas| {
            replicas.len() == 1 && replicas[0].phase == i32::from(ReplicaPhase::Ready)
        })
        .await;
    let attempt = several.managers[1].replicas().await[0].attempt.clone();
    several.links[1].cut();
    several.kill(0).await;
    let now_is = |liveness: WorkerLiveness, region: &str| {
        several.registry.set("w1", |worker| {
            worker.liveness = liveness.into();
            worker.region = region.to_owned();
        });
    };
    // It is lost, which the other one hears, and back, which it does not hear before it leads.
    now_is(WorkerLiveness::Lost, "lost");
    let request = ListEndpointsRequest {
        service: "chat".to_owned(),
        ..ListEndpointsRequest::default()
    };
    let deadline = Instant::now() + PATIENCE;
    let mut client = several.managers[1].client.clone();
    loop {
        let listed = client.list_endpoints(request.clone()).await.unwrap();
        if listed.into_inner().endpoints[0].region == "lost" {
            break;
        }
        assert!(Instant::now() < deadline, "it is not heard");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    several.registry.fall_behind();
    now_is(WorkerLiveness::Alive, "");
    several.links[1].heal();
    several.until_claims(2).await;
    let (registry, watches) = (several.registry.clone(), several.registry.watches());
    several.managers[1]
        .until("watched again", |replicas| {
            assert_eq!(replicas[0].attempt, attempt);
            registry.watches() >= watches + 2
        })
        .await;
    several.registry.catch_up();
    several.managers[1].create(retried("more", 1)).await;
    several.managers[1]
        .until_phase("more", ServicePhase::Healthy)
        .await;
    assert_eq!(several.managers[1].replicas().await[0].attempt, attempt);
    several.managers[1].stop().await;
}
