//! A service from its creation to its deletion, over gRPC, with a played registry and played agents.

use std::time::Duration;

use muster_proto::ops::v1::SetMaintenanceRequest;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::replicas::v1::assignments_service_client::AssignmentsServiceClient;
use muster_proto::replicas::v1::*;

use crate::support::sandbox::{PATIENCE, Sandbox, at_once, spec};

#[tokio::test(flavor = "multi_thread")]
async fn from_creation_to_healthy_to_gone() {
    let mut sandbox = Sandbox::start(&[2, 2]).await;
    let created = sandbox.create(spec("chat", 3)).await;
    assert_eq!(created.version, 1);
    let status = created.status.unwrap();
    assert_eq!(status.failure_mode, i32::from(FailureMode::FailFast));
    let service = sandbox.until_phase("chat", ServicePhase::Healthy).await;
    assert_eq!(service.status.unwrap().counts.unwrap().ready, 3);
    assert_eq!(sandbox.endpoints("chat").await.len(), 3);
    let request = DeleteServiceRequest {
        name: "chat".to_owned(),
        ..DeleteServiceRequest::default()
    };
    sandbox.client.delete_service(request).await.unwrap();
    sandbox.until("gone", |replicas| replicas.is_empty()).await;
    assert!(sandbox.registry.allocations().is_empty());
    let events = sandbox.events().await;
    for kind in [
        "ServiceCreated",
        "ServiceHealthy",
        "ServiceDeleting",
        "ServiceDeleted",
    ] {
        let event = format!("{kind} service/chat");
        assert!(events.contains(&event), "{event} is not in {events:#?}");
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_replaced_and_the_other_untouched() {
    let mut sandbox = Sandbox::start(&[1, 1]).await;
    let mut wanted = spec("chat", 2);
    wanted.retry = Some(at_once());
    sandbox.create(wanted).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let before = sandbox.replicas().await;
    let attempt = before[0].attempt.clone().unwrap();
    sandbox.agent(&attempt.worker).exit(&attempt.id, 1).await;
    let after = sandbox
        .until("restarted", |replicas| {
            let attempt = replicas[0].attempt.as_ref().unwrap();
            attempt.number == 2 && replicas[0].phase == i32::from(ReplicaPhase::Ready)
        })
        .await;
    assert_eq!(after[0].restarts, 1);
    assert_eq!(after[0].attempt.as_ref().unwrap().worker, attempt.worker);
    assert_eq!(after[1].attempt, before[1].attempt);
    let previous = after[0].previous_attempt.clone().unwrap();
    assert_eq!(previous.exit.unwrap().code, Some(1));
    assert_eq!(previous.last_log_lines, ["boom"]);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_retry_the_first_failure_ends_the_service() {
    let mut sandbox = Sandbox::start(&[2]).await;
    sandbox.create(spec("chat", 2)).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let replicas = sandbox.replicas().await;
    let attempt = replicas[1].attempt.clone().unwrap();
    sandbox.agent("w1").exit(&attempt.id, 3).await;
    let failed = sandbox.until_phase("chat", ServicePhase::Failed).await;
    let status = failed.status.unwrap();
    assert_eq!(status.failure_reason, "REPLICA_FAILED");
    for part in ["chat/1", "code 3", "boom"] {
        assert!(
            status.reason.contains(part),
            "{part} is not in {}",
            status.reason
        );
    }
    sandbox
        .until("all stopped", |replicas| {
            let stopped = i32::from(ReplicaPhase::Stopped);
            replicas.iter().all(|replica| replica.phase == stopped)
        })
        .await;
    assert!(sandbox.agent("w1").running().is_empty());
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_moves_replicas_one_at_a_time() {
    let mut sandbox = Sandbox::start(&[2, 2]).await;
    sandbox.create(spec("chat", 2)).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    sandbox.registry.drain("w1");
    sandbox
        .until("moved", |replicas| {
            replicas.len() == 2
                && replicas.iter().all(|replica| {
                    replica.phase == i32::from(ReplicaPhase::Ready)
                        && replica.members[0].worker == "w2"
                })
        })
        .await;
    let service = sandbox.service("chat").await;
    assert_eq!(
        service.status.unwrap().phase,
        i32::from(ServicePhase::Healthy)
    );
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_a_place_do_not_make_each_other_ask() {
    let mut sandbox = Sandbox::start(&[1]).await;
    for name in ["chat", "code"] {
        let mut wanted = spec(name, 3);
        wanted.retry = Some(at_once());
        sandbox.create(wanted).await;
    }
    let waits = i32::from(ReplicaPhase::Backoff);
    let wait = |replicas: &[Replica]| replicas.iter().filter(|r| r.phase == waits).count() == 5;
    sandbox.until("five wait", wait).await;
    let before = sandbox.registry.allocate_calls();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Each once a second.
    let asked = sandbox.registry.allocate_calls() - before;
    assert!((1..=25).contains(&asked), "asked {asked} times");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_takes_readiness_and_services_go_on() {
    let mut sandbox = Sandbox::start(&[1]).await;
    let mut ops = OpsServiceClient::new(sandbox.channel.clone());
    let wanted = SetMaintenanceRequest {
        on: true,
        reason: "disk swap".to_owned(),
    };
    ops.set_maintenance(wanted).await.unwrap();
    assert!(!sandbox.context.health.is_ready());
    sandbox.create(spec("chat", 1)).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_tell_of_more_replicas_than_one_transaction_takes() {
    let mut sandbox = Sandbox::start(&[65]).await;
    sandbox.agent("w1").never_ready(true);
    let mut wanted = spec("chat", 65);
    wanted.retry = Some(at_once());
    sandbox.create(wanted).await;
    let agent = sandbox.agents.remove(0);
    sandbox
        .until("started", |_| agent.running().len() == 65)
        .await;
    agent.never_ready(false);
    // A new connection begins with one report of everything.
    sandbox
        .agents
        .push(agent.reconnect(sandbox.channel.clone()));
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_replicas_of_one_service_start_and_go() {
    const EACH: usize = 100;
    let mut sandbox = Sandbox::start(&[EACH; 3]).await;
    sandbox.patience = Duration::from_mins(1);
    sandbox.create(spec("chat", 300)).await;
    let service = sandbox.until_phase("chat", ServicePhase::Healthy).await;
    assert_eq!(service.status.unwrap().counts.unwrap().ready, 300);
    for agent in &sandbox.agents {
        assert_eq!(agent.started().len(), EACH, "started on {}", agent.worker);
    }
    let request = DeleteServiceRequest {
        name: "chat".to_owned(),
        ..DeleteServiceRequest::default()
    };
    sandbox.client.delete_service(request).await.unwrap();
    sandbox.until("gone", |replicas| replicas.is_empty()).await;
    assert!(sandbox.registry.allocations().is_empty());
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_bounds_what_a_user_scales_to_and_a_fixed_number_does_not() {
    let mut sandbox = Sandbox::start(&[9]).await;
    let mut ranged = spec("ranged", 1);
    ranged.replicas = Some(ReplicaCount {
        min: Some(1),
        max: Some(4),
    });
    sandbox.create(ranged).await;
    let mut none = spec("none", 0);
    none.replicas = Some(ReplicaCount {
        min: Some(0),
        max: None,
    });
    sandbox.create(none).await;
    let refused = sandbox.scale("ranged", 5).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    for part in ["replicas", "at most 4", "is 5", "replicas.max"] {
        let words = refused.message();
        assert!(words.contains(part), "{part} is not in {words}");
    }
    for (name, replicas) in [("ranged", 4), ("none", 3)] {
        sandbox.scale(name, replicas).await.unwrap();
    }
    sandbox
        .until("scaled", |replicas| {
            let ready = i32::from(ReplicaPhase::Ready);
            replicas.len() == 7 && replicas.iter().all(|replica| replica.phase == ready)
        })
        .await;
    sandbox.stop().await;
}

/// A retry that nobody lives to see.
fn much_later() -> RetryPolicy {
    RetryPolicy {
        interval: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..RetryPolicy::default()
    }
}

/// One call in which an agent tells of the end of all that runs there, each with all output that is allowed.
async fn all_end(sandbox: &Sandbox, replicas: &[Replica], letter: &str) {
    let attempts = replicas.iter().filter_map(|r| r.attempt.as_ref());
    let reports = attempts.map(|attempt| AttemptReport {
        attempt_id: attempt.id.clone(),
        phase: AttemptPhase::Ended.into(),
        failure_class: FailureClass::Error.into(),
        last_log_lines: vec![letter.repeat(1024); 20],
        message: letter.repeat(1024),
        ..AttemptReport::default()
    });
    let request = ReportReplicasRequest {
        worker: "w1".to_owned(),
        generation: 1,
        reports: reports.collect(),
        whole: false,
    };
    let mut client = AssignmentsServiceClient::new(sandbox.channel.clone());
    let answer = client.report_replicas(request).await.unwrap().into_inner();
    assert_eq!(answer.forgotten_attempts.len(), replicas.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_many_replicas_print_at_once_is_recorded_and_they_can_be_stopped() {
    const COUNT: usize = 40;
    for letter in ["\u{1f980}", "\u{1b}", "\"", "x"] {
        let mut sandbox = Sandbox::start(&[COUNT]).await;
        let mut wanted = spec("chat", i32::try_from(COUNT).unwrap());
        wanted.retry = Some(much_later());
        sandbox.create(wanted).await;
        sandbox.until_phase("chat", ServicePhase::Healthy).await;
        let replicas = sandbox.replicas().await;
        all_end(&sandbox, &replicas, letter).await;
        let waits = i32::from(ReplicaPhase::Backoff);
        sandbox
            .until("all wait", |replicas| {
                replicas.iter().all(|replica| replica.phase == waits)
            })
            .await;
        let stop = StopServiceRequest {
            name: "chat".to_owned(),
            ..StopServiceRequest::default()
        };
        sandbox.client.stop_service(stop).await.unwrap();
        sandbox.until_phase("chat", ServicePhase::Stopped).await;
        sandbox.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_speaks_for_what_has_its_room_there_alone() {
    let mut sandbox = Sandbox::start(&[1, 1]).await;
    sandbox.create(spec("chat", 1)).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let attempt = sandbox.replicas().await[0].attempt.clone().unwrap();
    let other = ["w1", "w2"].into_iter().find(|w| *w != attempt.worker);
    let other = sandbox.agent(other.unwrap()).clone();
    let before = sandbox.endpoints("chat").await;
    let report = |phase: AttemptPhase| AttemptReport {
        attempt_id: attempt.id.clone(),
        phase: phase.into(),
        addresses: vec![PortAddress {
            number: 8000,
            name: String::new(),
            address: "6.6.6.6:666".to_owned(),
        }],
        ..AttemptReport::default()
    };
    let told = other.report(report(AttemptPhase::Ready)).await;
    assert_eq!(told, ReportReplicasResponse::default());
    // What ended there was not what runs here, and need not be told again.
    let told = other.report(report(AttemptPhase::Ended)).await;
    assert_eq!(told.forgotten_attempts, std::slice::from_ref(&attempt.id));
    assert_eq!(sandbox.endpoints("chat").await, before);
    assert_eq!(sandbox.replicas().await[0].attempt, Some(attempt));
    let orphans = ListOrphansRequest::default();
    let orphans = sandbox.client.list_orphans(orphans).await.unwrap();
    assert_eq!(orphans.into_inner().orphans, []);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_workers_name_reports_nothing() {
    let sandbox = Sandbox::start(&[]).await;
    let mut client = AssignmentsServiceClient::new(sandbox.channel.clone());
    for name in ["", "gho/st/", "Ghost"] {
        let report = ReportReplicasRequest {
            worker: name.to_owned(),
            ..ReportReplicasRequest::default()
        };
        let refused = client.report_replicas(report).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        let watch = WatchAssignmentsRequest {
            worker: name.to_owned(),
            ..WatchAssignmentsRequest::default()
        };
        let refused = client.watch_assignments(watch).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    }
    sandbox.stop().await;
}

/// Waits until room is held whose answer was lost, then changes the service in place: the same question is
/// another one from then on. The id of the room.
async fn lose_an_answer(sandbox: &mut Sandbox) -> String {
    sandbox.registry.lose_answers(true);
    let mut wanted = spec("chat", 1);
    sandbox.create(wanted.clone()).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let room = loop {
        if let Some(room) = sandbox.registry.allocations().first() {
            break room.id.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "no room is given");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    wanted.stop = Some(StopPolicy {
        grace: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
    });
    let request = UpdateServiceRequest {
        spec: Some(wanted),
        ..UpdateServiceRequest::default()
    };
    let updated = sandbox.client.update_service(request).await.unwrap();
    let effect = updated.into_inner().effect;
    assert_eq!(effect, i32::from(UpdateEffect::InPlace));
    room
}

#[tokio::test(flavor = "multi_thread")]
async fn room_whose_answer_was_lost_is_taken_though_the_question_is_another_by_now() {
    let mut sandbox = Sandbox::start(&[2]).await;
    let room = lose_an_answer(&mut sandbox).await;
    sandbox.registry.lose_answers(false);
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let attempt = sandbox.replicas().await[0].attempt.clone().unwrap();
    assert_eq!((attempt.number, attempt.allocation_id), (1, room));
    assert_eq!(sandbox.registry.allocations().len(), 1);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_that_room_is_gone_another_attempt_follows_and_nothing_has_failed() {
    let mut sandbox = Sandbox::start(&[2]).await;
    let room = lose_an_answer(&mut sandbox).await;
    sandbox.registry.take_back(&room);
    sandbox.registry.lose_answers(false);
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let replica = sandbox.replicas().await.remove(0);
    assert_eq!(replica.attempt.unwrap().number, 2);
    assert_eq!((replica.restarts, replica.previous_attempt), (0, None));
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_update_of_the_count_gives_up_what_a_user_scaled_to() {
    let mut sandbox = Sandbox::start(&[4]).await;
    let mut wanted = spec("chat", 1);
    sandbox.create(wanted.clone()).await;
    sandbox.scale("chat", 3).await.unwrap();
    for (mask, scale) in [
        (vec!["labels"], Some(3)),
        (vec!["labels", "retry"], Some(3)),
        (vec!["labels", "replicas.max"], None),
    ] {
        wanted
            .labels
            .insert("mask".to_owned(), mask.len().to_string());
        let paths = mask.iter().map(ToString::to_string).collect();
        let request = UpdateServiceRequest {
            spec: Some(wanted.clone()),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..UpdateServiceRequest::default()
        };
        let updated = sandbox.client.update_service(request).await.unwrap();
        let updated = updated.into_inner();
        assert_eq!(updated.service.unwrap().scale, scale, "{mask:?}");
        let notes = updated.notes.iter().filter(|note| note.contains("scaling"));
        assert_eq!(notes.count(), usize::from(scale.is_none()), "{mask:?}");
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_in_words() {
    let mut sandbox = Sandbox::start(&[1]).await;
    let mut large = spec("large", 1);
    large.run.as_mut().unwrap().command = vec!["x".repeat(600 * 1024)];
    let request = CreateServiceRequest {
        spec: Some(large),
        ..CreateServiceRequest::default()
    };
    let refused = sandbox.client.create_service(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("524288 bytes"), "{refused}");
    sandbox.create(spec("chat", 1)).await;
    for (letters, code) in [(128, None), (129, Some(tonic::Code::InvalidArgument))] {
        let request = ReportLoadRequest {
            name: "chat".to_owned(),
            reporter: "é".repeat(letters),
            value: 1.0,
            ..ReportLoadRequest::default()
        };
        let answer = sandbox.client.report_load(request).await;
        assert_eq!(answer.err().map(|status| status.code()), code);
    }
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_place_reaches_more_replicas_than_one_transaction_takes() {
    const COUNT: usize = 100;
    let mut sandbox = Sandbox::start(&[COUNT]).await;
    let mut wanted = spec("chat", i32::try_from(COUNT).unwrap());
    sandbox.create(wanted.clone()).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    wanted.stop = Some(StopPolicy {
        grace: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
    });
    let request = UpdateServiceRequest {
        spec: Some(wanted),
        ..UpdateServiceRequest::default()
    };
    let updated = sandbox.client.update_service(request).await.unwrap();
    let effect = updated.into_inner().effect;
    assert_eq!(effect, i32::from(UpdateEffect::InPlace));
    sandbox
        .until("all of the new version", |replicas| {
            replicas.iter().all(|replica| replica.version == 2)
        })
        .await;
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_that_are_given_back_hold_up_no_other_service() {
    let mut sandbox = Sandbox::start(&[100]).await;
    let mut few = spec("few", 1);
    few.retry = Some(at_once());
    sandbox.create(few).await;
    sandbox.create(spec("many", 90)).await;
    sandbox.until_phase("few", ServicePhase::Healthy).await;
    sandbox.until_phase("many", ServicePhase::Healthy).await;
    sandbox.registry.hold_releases(true);
    let request = DeleteServiceRequest {
        name: "many".to_owned(),
        ..DeleteServiceRequest::default()
    };
    sandbox.client.delete_service(request).await.unwrap();
    let stopped = i32::from(ReplicaPhase::Stopped);
    let replicas = sandbox
        .until("stopped", |replicas| {
            replicas[1..].iter().all(|replica| replica.phase == stopped)
        })
        .await;
    let attempt = replicas[0].attempt.clone().unwrap();
    sandbox.agent("w1").exit(&attempt.id, 1).await;
    sandbox
        .until("restarted", |replicas| {
            let attempt = replicas[0].attempt.as_ref().unwrap();
            attempt.number == 2 && replicas[0].phase == i32::from(ReplicaPhase::Ready)
        })
        .await;
    // It was given room before all that came back earlier was taken.
    let calls = sandbox.registry.release_calls();
    assert!(calls <= 64, "{calls} of 90");
    sandbox.registry.hold_releases(false);
    sandbox.until("gone", |replicas| replicas.len() == 1).await;
    sandbox.stop().await;
}
