//! What a crowd of calls does to those that get in, to health, to heartbeats, and to memory.

use std::time::Duration;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::{GetMaintenanceRequest, SetMaintenanceRequest};
use tonic::Code;

use super::Running;
use crate::layers::shed::Lane;
use crate::server::Settings;

/// How long a call takes that waits, as one does for a disk or another component.
pub(super) const WORK: Duration = Duration::from_millis(50);

/// Calls in flight at once in the measurement: 1,000 calls a second.
const ROOM: u32 = 50;

/// What became of the calls of one load.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    refused: usize,
    other: Vec<Code>,
    /// How long each check of health took.
    health: Vec<Duration>,
    beats: usize,
}

impl Tally {
    fn count(&mut self, code: Code) {
        if code == Code::Ok {
            self.done += 1;
        } else if code == Code::Unavailable {
            self.refused += 1;
        } else {
            self.other.push(code);
        }
    }
}

/// Calls that begin `every` so often for `time`, whatever becomes of those before, while health is
/// asked for and a heartbeat sent every 20 ms.
async fn load(running: &Running, every: Duration, time: Duration) -> Tally {
    let (sender, mut codes) = tokio::sync::mpsc::channel(100_000);
    let calls = async {
        let mut ticks = tokio::time::interval(every);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < time {
            ticks.tick().await;
            let (sender, mut client) = (sender.clone(), running.client.clone());
            crate::task::spawn(async move {
                let request = SetMaintenanceRequest {
                    on: true,
                    reason: "wait".to_owned(),
                };
                let code = client
                    .set_maintenance(request)
                    .await
                    .map_or_else(|s| s.code(), |_| Code::Ok);
                let _ = sender.send(code).await;
            });
        }
        drop(sender);
    };
    let mut tally = Tally::default();
    let mut health = HealthClient::connect(running.url.clone()).await.unwrap();
    let mut beating = running.client.clone();
    let (mut beats, mut checks) = (0, Vec::new());
    let lives = async {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < time {
            let asked = tokio::time::Instant::now();
            health.check(HealthCheckRequest::default()).await.unwrap();
            checks.push(asked.elapsed());
            let mut beat = tonic::Request::new(GetMaintenanceRequest {});
            beat.metadata_mut().insert("beat", "1".parse().unwrap());
            beating.get_maintenance(beat).await.unwrap();
            beats += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(calls, lives);
    while let Some(code) = codes.recv().await {
        tally.count(code);
    }
    (tally.health, tally.beats) = (checks, beats);
    tally.health.sort();
    tally
}

/// Memory of this process in MiB, with the callers that are in it.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: u64 = line
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `just soak` runs it in a release build"]
async fn five_times_too_many_calls_cost_little_of_what_can_be_done() {
    if std::env::var_os("MUSTER_SOAK").is_none() || cfg!(debug_assertions) {
        println!("SKIPPED: it measures: MUSTER_SOAK has to be set, and the build to be a release");
        return;
    }
    let settings = Settings {
        max_in_flight: ROOM as usize,
        ..Settings::default()
    };
    let running = Running::start(settings).await;
    let time = Duration::from_secs(5);
    // A little below the capacity, at which nothing queues.
    let peak = load(&running, WORK * 21 / (20 * ROOM), time).await;
    let before = memory();
    let crowd = load(&running, WORK / (5 * ROOM), time).await;
    let grown = memory().saturating_sub(before);
    let p99 = crowd.health[crowd.health.len() * 99 / 100];
    println!(
        "goodput {} of {} calls at the capacity, {} of {} at five times; health p99 {p99:?}, {} heartbeats, {grown} MiB more",
        peak.done,
        peak.done + peak.refused,
        crowd.done,
        crowd.done + crowd.refused,
        crowd.beats
    );
    assert_eq!((&peak.other, &crowd.other), (&Vec::new(), &Vec::new()));
    assert!(crowd.refused > 2 * crowd.done, "it was no crowd");
    assert!(crowd.done * 10 >= peak.done * 8, "goodput fell");
    assert!(p99 <= Duration::from_millis(100), "health is slow: {p99:?}");
    assert!(grown < 64, "{grown} MiB more");
    assert_eq!(running.context.load.refused(Lane::Vital), 0);
}
