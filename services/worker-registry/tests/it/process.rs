//! The program itself: killed in the middle of its work, and stopped for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use muster_proto::workers::v1 as proto;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use crate::support::{Agent, Client, allocate, get, until};

/// A registry as a process of its own.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(store: &Path, flags: &[&str]) -> Self {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_worker-registry"))
            .args([
                "--listen",
                &address,
                "--ops-listen",
                "off",
                "--insecure-join",
            ])
            .args([
                "--store",
                &format!("embedded:{}", store.display()),
                "--log",
                "json",
            ])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Whatever it logs is read and dropped, so that it never waits for us.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1));
        for _ in 0..400 {
            if let Ok(channel) = endpoint.connect().await {
                return Client::new(channel);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the registry did not start");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended in the tests that end well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn listed(client: &mut Client) -> BTreeMap<String, proto::Allocation> {
    let mut all = BTreeMap::new();
    let mut request = proto::ListAllocationsRequest {
        page_size: 1000,
        ..Default::default()
    };
    loop {
        let answer = client
            .list_allocations(request.clone())
            .await
            .unwrap()
            .into_inner();
        all.extend(
            answer
                .allocations
                .into_iter()
                .map(|one| (one.id.clone(), one)),
        );
        if answer.next_page_token.is_empty() {
            return all;
        }
        request.page_token = answer.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_amid_a_thousand_allocations_it_loses_none_and_gives_none_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.db");
    let process = Process::start(&store, &[]);
    let mut client = process.client().await;
    for number in 0..125 {
        Agent::join(&mut client, &format!("w{number:03}")).await;
    }
    let calls = (0..1000).map(|number| {
        let mut client = client.clone();
        async move { allocate(&mut client, &format!("r{number}"), 1).await }
    });
    let calls = futures_util::future::join_all(calls);
    let killing = async {
        // Some are answered, some are on their way to the disk, some have not begun.
        until("some are acknowledged", async || {
            let request = proto::ListAllocationsRequest {
                page_size: 1,
                ..Default::default()
            };
            let answer = client.clone().list_allocations(request).await;
            answer.is_ok_and(|answer| answer.into_inner().total_size >= 100)
        })
        .await;
        process.kill();
    };
    let (answers, ()) = tokio::join!(calls, killing);
    let acknowledged: BTreeMap<_, _> = answers
        .into_iter()
        .filter_map(Result::ok)
        .map(|one| (one.id.clone(), one))
        .collect();

    let process = Process::start(&store, &[]);
    let mut client = process.client().await;
    let there = listed(&mut client).await;
    for (id, allocation) in &acknowledged {
        assert_eq!(there.get(id), Some(allocation), "acknowledged and lost");
    }
    assert!(there.len() >= acknowledged.len() && !acknowledged.is_empty());
    let repeated = (0..1000).map(|number| {
        let mut client = client.clone();
        async move {
            allocate(&mut client, &format!("r{number}"), 1)
                .await
                .unwrap()
        }
    });
    let all = futures_util::future::join_all(repeated).await;
    let gpus: BTreeSet<_> = all.iter().flat_map(|one| one.gpu_uuids.clone()).collect();
    assert_eq!(gpus.len(), 1000, "each accelerator is given once");
    assert_eq!(listed(&mut client).await.len(), 1000);
    process.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_for_longer_than_lost_after_it_declares_nobody_lost() {
    let flags = [
        "--heartbeat-interval",
        "200ms",
        "--lost-after",
        "1s",
        "--fence-after",
        "2s",
    ];
    stop_and_go_on(&flags, Duration::from_secs(3), Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and a half, at the leases that users have"]
async fn stopped_for_half_a_minute_it_declares_nobody_lost() {
    for pause in [5, 30] {
        stop_and_go_on(&[], Duration::from_secs(pause), Duration::from_secs(25)).await;
    }
}

/// Stops a registry for `pause`, and looks for `after` that nobody who beats is lost for it.
async fn stop_and_go_on(flags: &[&str], pause: Duration, after: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder.path().join("registry.db"), flags);
    let mut client = process.client().await;
    let mut agents = Vec::new();
    for number in 0..8 {
        agents.push(Agent::join(&mut client, &format!("w{number}")).await);
    }
    beat_all(&client, &agents).await;
    process.signal("-STOP");
    let end = Instant::now() + pause;
    while Instant::now() < end {
        beat_all(&client, &agents).await;
    }
    process.signal("-CONT");
    let end = Instant::now() + after;
    while Instant::now() < end {
        beat_all(&client, &agents).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for agent in &agents {
            let worker = get(&mut client, &agent.name).await.unwrap();
            assert_ne!(
                worker.liveness(),
                proto::WorkerLiveness::Lost,
                "{}",
                agent.name
            );
        }
    }
    process.kill();
}

/// While the registry is stopped nobody answers.
async fn beat_all(client: &Client, agents: &[Agent]) {
    for agent in agents {
        let mut client = client.clone();
        let _ =
            tokio::time::timeout(Duration::from_millis(100), agent.beat(&mut client, &[])).await;
    }
}

#[test]
fn wrong_settings_end_it_before_it_opens_anything() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("registry.db");
    let output = Command::new(env!("CARGO_BIN_EXE_worker-registry"))
        .args([
            "--store",
            &format!("embedded:{}", store.display()),
            "--lost-after",
            "90s",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("--fence-after must not be under --lost-after"),
        "{words}"
    );
    assert!(!store.exists());
}
