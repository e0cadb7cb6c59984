//! Replicas in containers of a real engine. Needs `MUSTER_TEST_DOCKER`, the engine's socket, and
//! `MUSTER_TEST_IMAGE`, an image there with busybox as its shell; skipped without them.

use std::time::Duration;

use muster_proto::replicas::v1::run_spec::Runtime;
use muster_proto::replicas::v1::*;
use worker_agent::config::Config;
use worker_agent::log::reader;

use crate::support::fleet::{Agent, FOREVER, Fleet, assignment, exec_probe, until};

/// The socket and the image, if there are any.
fn engine() -> Option<(String, String)> {
    let found = std::env::var("MUSTER_TEST_DOCKER")
        .ok()
        .zip(std::env::var("MUSTER_TEST_IMAGE").ok());
    if found.is_none() {
        eprintln!("SKIPPED: MUSTER_TEST_DOCKER and MUSTER_TEST_IMAGE are not set");
    }
    found
}

fn config(fleet: &Fleet, socket: &str) -> Config {
    Config {
        docker_socket: socket.into(),
        ..fleet.config()
    }
}

fn container(id: &str, image: &str, script: &str) -> Assignment {
    let mut assignment = assignment(id, script);
    let run = assignment.run.as_mut().unwrap();
    run.runtime = Some(Runtime::Container(ContainerRuntime {
        image: image.into(),
    }));
    assignment
}

fn output(fleet: &Fleet, id: &str) -> Vec<String> {
    let folder = fleet.data().join("attempts").join(id);
    reader::last(&folder, 100)
        .unwrap()
        .into_iter()
        .map(|line| line.text)
        .collect()
}

#[tokio::test]
async fn a_container_serves_on_its_published_port_and_is_stopped() {
    let Some((socket, image)) = engine() else {
        return;
    };
    let fleet = Fleet::start().await;
    let agent = Agent::start(config(&fleet, &socket)).await;
    let script = "echo serving on $PORT; mkdir -p /tmp/www; echo well > /tmp/www/health; \
                  trap 'echo bye >&2; exit 5' TERM; httpd -f -p $PORT -h /tmp/www & wait";
    let mut wanted = container("serve.0.1", &image, script);
    wanted.memory_mib = 64;
    wanted.cpu_milli = 500;
    wanted.run.as_mut().unwrap().ports = vec![Port {
        number: 8000,
        ..Default::default()
    }];
    let probe = |check| Probe {
        check: Some(check),
        interval: Some(Duration::from_millis(200).try_into().unwrap()),
        ..Default::default()
    };
    let http = HttpProbe {
        port: 8000,
        path: "/health".into(),
    };
    wanted.probes = Some(Probes {
        ready: Some(probe(probe::Check::Http(http))),
        alive: Some(probe(probe::Check::Tcp(TcpProbe { port: 8000 }))),
    });
    fleet.assign(wanted);
    let ready = fleet.until_phase("serve.0.1", AttemptPhase::Ready).await;
    assert!(ready.addresses[0].address.starts_with("127.0.0.1:2"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fleet.phase("serve.0.1"), AttemptPhase::Ready, "it is alive");
    fleet.stop("serve.0.1");
    let ended = fleet.until_phase("serve.0.1", AttemptPhase::Ended).await;
    assert!(ended.stopped);
    assert_eq!(ended.exit.unwrap().code, Some(5), "{}", ended.message);
    assert_eq!(output(&fleet, "serve.0.1"), ["serving on 8000", "bye"]);
    agent.stop().await;
}

#[tokio::test]
async fn failures_have_their_class() {
    let Some((socket, image)) = engine() else {
        return;
    };
    let fleet = Fleet::start().await;
    let agent = Agent::start(config(&fleet, &socket)).await;
    let mut missing = container("missing.0.1", &image, "");
    missing.run.as_mut().unwrap().command = vec!["/no/such/program".into()];
    let mut unmounted = container("mount.0.1", &image, "exit 0");
    unmounted.run.as_mut().unwrap().volumes = vec![Volume {
        source: Some(volume::Source::HostPath("/no/such/folder".into())),
        mount_path: "/m".into(),
        read_only: true,
    }];
    let mut greedy = container("oom.0.1", &image, "tail /dev/zero");
    greedy.memory_mib = 16;
    for (wanted, class) in [
        (
            container("code.0.1", &image, "echo on my way out; exit 3"),
            FailureClass::Error,
        ),
        (
            container("image.0.1", "localhost:1/nowhere:2", ""),
            FailureClass::Image,
        ),
        (missing, FailureClass::Config),
        (unmounted, FailureClass::Config),
        (greedy, FailureClass::Oom),
    ] {
        let id = wanted.attempt_id.clone();
        fleet.assign(wanted);
        let ended = fleet.until_phase(&id, AttemptPhase::Ended).await;
        eprintln!("{id}: {} {:?}", ended.message, ended.exit);
        assert_eq!(ended.failure_class(), class, "{id}: {}", ended.message);
    }
    assert_eq!(fleet.report("code.0.1").last_log_lines, ["on my way out"]);
    agent.stop().await;
}

#[tokio::test]
async fn a_container_outlives_its_agent_and_a_tcp_probe_is_not_fooled() {
    let Some((socket, image)) = engine() else {
        return;
    };
    let fleet = Fleet::start().await;
    let first = Agent::start(config(&fleet, &socket)).await;
    let sign = fleet.folder.path().join("sign");
    std::fs::create_dir(&sign).unwrap();
    let mut wanted = container(
        "out.0.1",
        &image,
        &format!("until test -e /sign/go; do sleep 0.1; done; httpd -p 8000; {FOREVER}"),
    );
    let run = wanted.run.as_mut().unwrap();
    run.ports = vec![Port {
        number: 8000,
        ..Default::default()
    }];
    run.volumes = vec![Volume {
        source: Some(volume::Source::HostPath(sign.display().to_string())),
        mount_path: "/sign".into(),
        read_only: true,
    }];
    wanted.probes = Some(Probes {
        ready: Some(Probe {
            check: Some(probe::Check::Tcp(TcpProbe { port: 8000 })),
            interval: Some(Duration::from_millis(200).try_into().unwrap()),
            ..Default::default()
        }),
        alive: Some(exec_probe("test -e /sign/go")),
    });
    fleet.assign(wanted);
    until("it says why it is not ready", || {
        fleet.report("out.0.1").message.contains("closed at once")
    })
    .await;
    std::fs::write(sign.join("go"), "").unwrap();
    let before = fleet.until_phase("out.0.1", AttemptPhase::Ready).await;
    first.stop().await;
    fleet.manager().latest.clear();
    let second = Agent::start(config(&fleet, &socket)).await;
    let after = fleet.until_phase("out.0.1", AttemptPhase::Ready).await;
    assert_eq!(after.start_time, before.start_time);
    std::fs::remove_file(sign.join("go")).unwrap();
    let ended = fleet.until_phase("out.0.1", AttemptPhase::Ended).await;
    assert_eq!(ended.failure_class(), FailureClass::Probe);
    second.stop().await;
}
