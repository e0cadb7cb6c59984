//! The agent between a registry and a manager made by hand, with real processes.

use std::time::Duration;

use muster_proto::agents::v1::{LogStream, StreamLogsRequest, StreamLogsResponse};
use muster_proto::replicas::v1::*;
use muster_proto::workers::v1::*;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;
use worker_agent::attempt_dir::AttemptDir;
use worker_agent::record;

use crate::support::fleet::{
    Agent, Cleared, FOREVER, Fleet, assignment, exec_probe, kill_all, runs, until,
};

#[tokio::test]
async fn it_registers_proves_itself_and_beats() {
    let fleet = Fleet::start().await;
    let mut config = fleet.config();
    config.labels.insert("tier".into(), "gold".into());
    config.simulated_gpus = Some(worker_agent::config::parse_gpus("H100:2").unwrap());
    let mut agent = Agent::start(config).await;
    until("it is active and beats", || {
        let state = fleet.registry();
        state.state == WorkerState::Active && state.beats.len() > 2
    })
    .await;
    assert_eq!(fleet.registry().registrations.len(), 1);
    let registration = fleet.registry().registrations[0].clone();
    assert_eq!(
        (registration.name.as_str(), registration.last_generation),
        ("w1", 0)
    );
    assert_eq!(registration.agent_labels["tier"], "gold");
    assert_eq!(registration.advertise_host, "127.0.0.1");
    let capacity = registration.capacity.unwrap();
    assert_eq!(capacity.gpus.len(), 2);
    assert!(
        capacity
            .gpus
            .iter()
            .all(|gpu| gpu.simulated && gpu.name == "H100")
    );
    assert!(capacity.cpu_milli >= 1000 && capacity.memory_mib > 0);
    let checks = fleet.registry().checks.clone();
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "data-directory",
            "clock",
            "gpu-inventory",
            "ports",
            "supervisor",
            "container-engine"
        ]
    );
    assert!(
        checks
            .iter()
            .all(|check| check.duration.is_some() && check.end_time.is_some())
    );
    let told = agent.about().await;
    assert_eq!((told.worker.as_str(), told.generation), ("w1", 1));
    assert!(told.lease_left.unwrap().seconds > 50);
    assert!(told.registry_silence.is_some());
    let report = agent.stop().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(
        !fleet.registry().left,
        "it falls silent, and leaves nothing"
    );
}

#[tokio::test]
async fn a_replica_runs_gets_ready_and_is_stopped() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["run.0.1"]);
    let mut agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment(
        "run.0.1",
        "echo hello; trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done",
    ));
    let ready = fleet.until_phase("run.0.1", AttemptPhase::Ready).await;
    assert!(ready.start_time.is_some() && ready.ready_time.is_some());
    assert_eq!(fleet.held("a-run.0.1"), Some(HeldPhase::Running));
    let told = agent.about().await;
    assert_eq!(told.attempts.len(), 1);
    assert_eq!(told.attempts[0].phase, "ready");
    assert!(told.attempts[0].pid > 0 && told.attempts[0].supervisor_pid > 0);
    fleet.stop("run.0.1");
    let ended = fleet.until_phase("run.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped && !ended.interrupted);
    assert_eq!(ended.failure_class(), FailureClass::Unspecified);
    assert_eq!(
        (ended.exit.unwrap().code, ended.message.as_str()),
        (Some(0), "the test says so")
    );
    until("the registry has heard it", || {
        fleet.named_ended("a-run.0.1")
    })
    .await;
    until("it is forgotten", || fleet.held("a-run.0.1").is_none()).await;
    assert!(!runs("run.0.1"));
    let request = StreamLogsRequest {
        attempt_id: "run.0.1".into(),
        ..Default::default()
    };
    let mut logs = agent
        .client
        .stream_logs(request)
        .await
        .unwrap()
        .into_inner();
    let lines = logs.message().await.unwrap().unwrap().lines;
    let texts: Vec<&str> = lines
        .iter()
        .map(|line| line.text.as_str())
        .filter(|text| *text != "Terminated")
        .collect();
    assert_eq!(texts, ["hello", "bye"]);
    assert_eq!(lines[0].stream(), LogStream::Stdout);
    agent.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_within_milliseconds_with_its_last_lines() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["fail.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment(
        "fail.0.1",
        "echo it works; echo it fails >&2; exec sleep 1000",
    ));
    fleet.until_phase("fail.0.1", AttemptPhase::Ready).await;
    let killed = Instant::now();
    kill_all("fail.0.1");
    let ended = fleet.until_phase("fail.0.1", AttemptPhase::Ended).await;
    let told = fleet
        .manager()
        .reports
        .iter()
        .rev()
        .find_map(|(at, _)| *at)
        .unwrap()
        - killed;
    eprintln!("kill to report: {told:?}");
    assert!(told < Duration::from_secs(1), "{told:?}");
    assert_eq!(ended.failure_class(), FailureClass::Error);
    assert_eq!(ended.exit.unwrap().signal, 9);
    assert_eq!(ended.message, "killed by SIGKILL");
    assert_eq!(ended.last_log_lines.len(), 2);
    assert!(!ended.stopped && !ended.interrupted);
    agent.stop().await;
}

#[tokio::test]
async fn what_cannot_be_executed_is_config() {
    let fleet = Fleet::start().await;
    let agent = Agent::start(fleet.config()).await;
    let mut wrong = assignment("conf.0.1", "");
    wrong.run.as_mut().unwrap().command = vec!["/no/such/program".into()];
    fleet.assign(wrong);
    let mut unfit = assignment("unfit.0.1", "");
    unfit.run.as_mut().unwrap().runtime = None;
    fleet.assign(unfit);
    for id in ["conf.0.1", "unfit.0.1"] {
        let ended = fleet.until_phase(id, AttemptPhase::Ended).await;
        assert_eq!(
            ended.failure_class(),
            FailureClass::Config,
            "{}",
            ended.message
        );
        until("the registry has heard it", || {
            fleet.named_ended(&format!("a-{id}"))
        })
        .await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn notices_of_the_registry_end_what_runs_and_what_does_not() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["rel.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("rel.0.1", FOREVER));
    fleet.until_phase("rel.0.1", AttemptPhase::Ready).await;
    let notice = |id: &str| AllocationNotice {
        allocation_id: id.into(),
        state: AllocationState::Revoked.into(),
        stop_grace: None,
    };
    fleet.registry().notices = vec![notice("a-rel.0.1"), notice("a-unknown")];
    let ended = fleet.until_phase("rel.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped && ended.interrupted);
    until("both are named ended", || {
        fleet.named_ended("a-rel.0.1") && fleet.named_ended("a-unknown")
    })
    .await;
    let mut late = assignment("late.0.1", FOREVER);
    late.allocation_id = "a-unknown".into();
    fleet.assign(late);
    let refused = fleet.until_phase("late.0.1", AttemptPhase::Ended).await;
    assert!(refused.interrupted && refused.start_time.is_none());
    agent.stop().await;
}

#[tokio::test]
async fn what_a_deleted_worker_of_its_name_was_given_is_not_run() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["old.0.1", "new.0.1", "unsaid.0.1"]);
    {
        let mut registry = fleet.registry();
        (registry.generation, registry.revoked_through) = (2, 2);
    }
    // The manager was away when that was deleted, and assigns what it knows.
    for (id, worker_generation) in [("old.0.1", 2), ("new.0.1", 3), ("unsaid.0.1", 0)] {
        fleet.assign(Assignment {
            worker_generation,
            ..assignment(id, FOREVER)
        });
    }
    let agent = Agent::start(fleet.config()).await;
    let old = fleet.until_phase("old.0.1", AttemptPhase::Ended).await;
    assert!(old.interrupted && old.start_time.is_none(), "{old:?}");
    fleet.until_phase("new.0.1", AttemptPhase::Ready).await;
    fleet.until_phase("unsaid.0.1", AttemptPhase::Ready).await;
    until("the room is named ended", || fleet.named_ended("a-old.0.1")).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_finds_everything_again() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["keep.0.1", "gone.0.1"]);
    let first = Agent::start(fleet.config()).await;
    fleet.assign(assignment("keep.0.1", FOREVER));
    fleet.assign(assignment("gone.0.1", FOREVER));
    let before = fleet.until_phase("keep.0.1", AttemptPhase::Ready).await;
    let gone = fleet.until_phase("gone.0.1", AttemptPhase::Ready).await;
    first.stop().await;
    assert!(
        runs("keep.0.1") && runs("gone.0.1"),
        "they run on without an agent"
    );
    kill_all("gone.0.1");
    fleet.manager().latest.clear();
    fleet.manager().reports.clear();

    let mut second = Agent::start(fleet.config()).await;
    let after = fleet.until_phase("keep.0.1", AttemptPhase::Ready).await;
    assert_eq!(after.start_time, before.start_time);
    assert_eq!(after.ready_time, before.ready_time);
    let ended = fleet.until_phase("gone.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.exit.unwrap().signal, 9);
    assert_eq!(ended.ready_time, gone.ready_time);
    check_second_start(&fleet);
    let told = second.about().await;
    let kept = told
        .attempts
        .iter()
        .find(|one| one.attempt_id == "keep.0.1");
    kill_process(Pid::from_raw(kept.unwrap().pid).unwrap(), Signal::KILL).unwrap();
    fleet.until_phase("keep.0.1", AttemptPhase::Ended).await;
    second.stop().await;
}

fn check_second_start(fleet: &Fleet) {
    let manager = fleet.manager();
    let first = &manager.reports[0].1;
    assert!(first.whole && first.reports.len() == 2);
    let all = manager
        .reports
        .iter()
        .flat_map(|(_, request)| &request.reports);
    let mut of_kept = all.filter(|report| report.attempt_id == "keep.0.1");
    assert!(
        of_kept.all(|report| report.phase() == AttemptPhase::Ready),
        "it was never anything else"
    );
    let registry = fleet.registry();
    assert_eq!(registry.registrations.len(), 2);
    assert_eq!(registry.tokens[1].as_deref(), Some("Bearer credential-1"));
    assert_eq!(registry.registrations[1].last_generation, 1);
    let held = &registry.registrations[1].held;
    let kept = held
        .iter()
        .find(|held| held.allocation_id == "a-keep.0.1")
        .unwrap();
    assert_eq!(kept.record.as_ref().unwrap().owner, "replica-manager");
    assert_eq!(kept.record.as_ref().unwrap().worker_generation, 1);
}

#[tokio::test]
async fn readiness_comes_and_goes_and_liveness_ends_it() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["probe.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    let mut probed = assignment("probe.0.1", FOREVER);
    let sign = |name: &str| fleet.folder.path().join(name);
    let unless = |name: &str| {
        exec_probe(&format!(
            "echo {name} >&2; test ! -e {}",
            sign(name).display()
        ))
    };
    std::fs::write(sign("unready"), "").unwrap();
    probed.probes = Some(Probes {
        ready: Some(unless("unready")),
        alive: Some(unless("dead")),
    });
    fleet.assign(probed);
    until("it says why not", || {
        fleet.report("probe.0.1").message.ends_with("unready")
    })
    .await;
    assert_eq!(fleet.phase("probe.0.1"), AttemptPhase::Starting);
    std::fs::remove_file(sign("unready")).unwrap();
    let ready = fleet.until_phase("probe.0.1", AttemptPhase::Ready).await;
    assert_eq!(ready.message, "");
    std::fs::write(sign("unready"), "").unwrap();
    fleet.until_phase("probe.0.1", AttemptPhase::Unready).await;
    std::fs::remove_file(sign("unready")).unwrap();
    fleet.until_phase("probe.0.1", AttemptPhase::Ready).await;
    std::fs::write(sign("dead"), "").unwrap();
    let ended = fleet.until_phase("probe.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Probe);
    assert!(ended.message.ends_with("dead"), "{}", ended.message);
    assert_eq!(ended.ready_time, ready.ready_time);
    agent.stop().await;
}

#[tokio::test]
async fn without_a_probe_it_is_ready_after_a_second() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["plain.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    let mut plain = assignment("plain.0.1", FOREVER);
    plain.probes = None;
    fleet.assign(plain);
    let ready = fleet.until_phase("plain.0.1", AttemptPhase::Ready).await;
    let time = |time: Option<prost_types::Timestamp>| {
        std::time::SystemTime::try_from(time.unwrap()).unwrap()
    };
    let took = time(ready.ready_time)
        .duration_since(time(ready.start_time))
        .unwrap();
    assert!(
        took >= Duration::from_millis(990) && took < Duration::from_secs(3),
        "{took:?}"
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_start_that_takes_too_long_is_ended() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["slow.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    let mut slow = assignment("slow.0.1", FOREVER);
    slow.probes = Some(Probes {
        ready: Some(exec_probe("exit 1")),
        alive: None,
    });
    slow.start = Some(StartPolicy {
        timeout: Some(Duration::from_millis(500).try_into().unwrap()),
    });
    fleet.assign(slow);
    let ended = fleet.until_phase("slow.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::StartTimeout);
    agent.stop().await;
}

#[tokio::test]
async fn changed_terms_count_at_once_and_for_the_next_agent() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["terms.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    let duration = |time: Duration| Some(time.try_into().unwrap());
    let within = |timeout, grace| Assignment {
        start: Some(StartPolicy {
            timeout: duration(timeout),
        }),
        stop: Some(StopPolicy {
            grace: duration(grace),
        }),
        probes: Some(Probes {
            ready: Some(exec_probe("echo unready >&2; exit 1")),
            alive: None,
        }),
        ..assignment("terms.0.1", &format!("trap '' TERM; {FOREVER}"))
    };
    let (long, short) = (Duration::from_secs(3600), Duration::from_millis(300));
    fleet.assign(within(long, long));
    until("it runs", || {
        fleet.report("terms.0.1").message.ends_with("unready")
    })
    .await;
    let changed = within(long, short);
    fleet.assign(changed.clone());
    let dir = AttemptDir::new(fleet.data().join("attempts/terms.0.1"));
    until("the grace is kept", || {
        record::assignment(&dir).unwrap().as_ref() == Some(&changed)
    })
    .await;
    assert_eq!(dir.grace().unwrap(), Some(short), "its supervisor is told");
    agent.stop().await;
    // What was assigned is all that the next agent can go by.
    fleet.fail_manager(Some(tonic::Status::unavailable("away")));
    let agent = Agent::start(fleet.config()).await;
    assert!(runs("terms.0.1"));
    fleet.registry().notices = vec![AllocationNotice {
        allocation_id: "a-terms.0.1".into(),
        state: AllocationState::Revoked.into(),
        stop_grace: None,
    }];
    until("it is killed", || !runs("terms.0.1")).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_changed_start_timeout_ends_a_start_that_has_begun() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["brief.0.1"]);
    let agent = Agent::start(fleet.config()).await;
    let mut slow = assignment("brief.0.1", FOREVER);
    slow.probes = Some(Probes {
        ready: Some(exec_probe("echo unready >&2; exit 1")),
        alive: None,
    });
    fleet.assign(slow.clone());
    until("it runs", || {
        fleet.report("brief.0.1").message.ends_with("unready")
    })
    .await;
    slow.start = Some(StartPolicy {
        timeout: Some(Duration::from_millis(1).try_into().unwrap()),
    });
    fleet.assign(slow);
    let ended = fleet.until_phase("brief.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::StartTimeout);
    agent.stop().await;
}

#[tokio::test]
async fn three_copies_fit_on_one_host() {
    let fleet = Fleet::start().await;
    let ids = ["three.0.1", "three.1.1", "three.2.1"];
    let _cleared = Cleared(&ids);
    let agent = Agent::start(fleet.config()).await;
    for id in ids {
        let mut copy = assignment(
            id,
            "echo $PORT $MUSTER_PORT_8000 $MUSTER_REPLICA; exec sleep 1000",
        );
        copy.run.as_mut().unwrap().ports = vec![Port {
            number: 8000,
            name: "http".into(),
            ..Default::default()
        }];
        fleet.assign(copy);
    }
    let mut addresses = std::collections::BTreeSet::new();
    for id in ids {
        let ready = fleet.until_phase(id, AttemptPhase::Ready).await;
        assert_eq!(
            (ready.addresses[0].number, ready.addresses[0].name.as_str()),
            (8000, "http")
        );
        let address = ready.addresses[0].address.clone();
        let port = address.strip_prefix("127.0.0.1:").unwrap().to_owned();
        let folder = fleet.data().join("attempts").join(id);
        let said = worker_agent::log::reader::last(&folder, 1)
            .unwrap()
            .remove(0)
            .text;
        assert_eq!(said, format!("{port} {port} chat/0"));
        addresses.insert(address);
    }
    assert_eq!(addresses.len(), 3);
    agent.stop().await;
}

#[tokio::test]
async fn a_retry_waits_for_the_attempt_that_it_replaces() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["swap.0.1", "swap.0.2"]);
    let agent = Agent::start(fleet.config()).await;
    fleet.assign(assignment("swap.0.1", FOREVER));
    fleet.until_phase("swap.0.1", AttemptPhase::Ready).await;
    let mut next = assignment("swap.0.2", FOREVER);
    next.replaces_allocation = "a-swap.0.1".into();
    fleet.assign(next);
    fleet.until_phase("swap.0.2", AttemptPhase::Waiting).await;
    until("it is held", || {
        fleet.held("a-swap.0.2") == Some(HeldPhase::Waiting)
    })
    .await;
    kill_all("swap.0.1");
    fleet.until_phase("swap.0.2", AttemptPhase::Ready).await;
    assert_eq!(fleet.phase("swap.0.1"), AttemptPhase::Ended);
    agent.stop().await;
}

/// What an agent answers, to its end.
async fn all_of(agent: &mut Agent, request: &StreamLogsRequest) -> Vec<StreamLogsResponse> {
    let stream = agent.client.stream_logs(request.clone()).await.unwrap();
    let mut stream = stream.into_inner();
    let mut messages = vec![];
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

fn texts(messages: &[StreamLogsResponse]) -> Vec<&str> {
    let lines = messages.iter().flat_map(|message| &message.lines);
    lines.map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn logs_are_followed_to_the_end() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["log.0.1"]);
    let mut agent = Agent::start(fleet.config()).await;
    let script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo end >&2; exit 1";
    fleet.assign(assignment("log.0.1", script));
    fleet.until_phase("log.0.1", AttemptPhase::Ready).await;
    let mut request = StreamLogsRequest {
        attempt_id: "log.0.1".into(),
        follow: true,
        ..Default::default()
    };
    let all = all_of(&mut agent, &request).await;
    let lines = ["line 1", "line 2", "line 3", "line 4", "line 5", "end"];
    assert_eq!(texts(&all), lines);
    // At once after what was told, since it has ended.
    for (told, message) in all.iter().enumerate() {
        let goes_on = StreamLogsRequest {
            after: message.position.clone(),
            ..request.clone()
        };
        let rest = all_of(&mut agent, &goes_on).await;
        assert_eq!(texts(&rest), texts(&all[told + 1..]));
    }
    request.tail = Some(2);
    let last = all_of(&mut agent, &request).await;
    assert_eq!(texts(&last), ["line 5", "end"]);
    assert_eq!(last[0].lines[1].stream(), LogStream::Stderr);
    for (id, after, code) in [
        ("no.such.1", "", tonic::Code::NotFound),
        ("../x", "", tonic::Code::InvalidArgument),
        ("log.0.1", "1:x", tonic::Code::InvalidArgument),
    ] {
        request.attempt_id = id.into();
        request.after = after.into();
        let refused = agent.client.stream_logs(request.clone()).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
    agent.stop().await;
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Answers every request on a port with some metrics.
async fn serve_metrics(fleet: &Fleet, port: u16) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    fleet.tasks.spawn("replica", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let body = "waiting{model=\"a\"} 3\nwaiting{model=\"b\"} 4\n";
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
}

#[tokio::test]
async fn what_a_replica_uses_is_measured_and_its_metric_scraped() {
    let fleet = Fleet::start().await;
    let _cleared = Cleared(&["use.0.1"]);
    let port = free_port();
    let mut config = fleet.config();
    config.ports = port..=port;
    let agent = Agent::start(config).await;
    let mut scaled = assignment("use.0.1", "while :; do :; done");
    scaled.cpu_milli = 1000;
    scaled.run.as_mut().unwrap().ports = vec![Port {
        number: 8000,
        ..Default::default()
    }];
    let http = HttpProbe {
        port: 8000,
        path: "/health".into(),
    };
    let ready = Probe {
        check: Some(probe::Check::Http(http)),
        ..Default::default()
    };
    scaled.probes = Some(Probes {
        ready: Some(ready),
        alive: None,
    });
    scaled.scaling = Some(ScalingPolicy {
        metric: Some(scaling_policy::Metric::Prometheus("waiting".into())),
        target: 1.0,
        ..Default::default()
    });
    fleet.assign(scaled);
    fleet.until_phase("use.0.1", AttemptPhase::Starting).await;
    until("it runs", || runs("use.0.1")).await;
    serve_metrics(&fleet, port).await;
    let ready = fleet.until_phase("use.0.1", AttemptPhase::Ready).await;
    assert_eq!(ready.addresses[0].address, format!("127.0.0.1:{port}"));
    until("it is measured", || {
        let sample = fleet.report("use.0.1").sample.unwrap_or_default();
        sample.metric == Some(7.0)
            && sample.cpu_percent.is_some_and(|percent| percent > 10.0)
            && sample.memory_used_mib.is_some()
    })
    .await;
    agent.stop().await;
}
