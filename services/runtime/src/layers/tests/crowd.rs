//! Limits of calls in flight, and what becomes of those that a stopping server still has.

use std::time::Duration;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::{GetMaintenanceRequest, SetMaintenanceRequest, StreamBackupRequest};
use tonic::Code;

use super::{Running, reason, waits_until};
use crate::layers::shed::Lane;
use crate::server::Settings;
use crate::shutdown::Cause;
use crate::status::Details;

#[tokio::test]
async fn calls_and_open_streams_beyond_the_limit_are_told_when_to_try_again() {
    let settings = Settings {
        max_in_flight: 2,
        max_vital_in_flight: 1,
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let open = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let _second = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let status = running.told("").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "OVERLOADED")
    );
    let delay = Details::of(&status).retry_delay.unwrap();
    assert!((500..=1000).contains(&delay.as_millis()), "{delay:?}");
    assert_eq!(running.context.load.refused(Lane::Shared), 1);

    let mut vital = running.client.clone();
    let beat = tokio::time::timeout(
        Duration::from_millis(50),
        vital.get_maintenance(GetMaintenanceRequest {}),
    );
    beat.await
        .expect_err("the vital lane has room of its own, and the handler hangs");
    assert_eq!(running.context.load.refused(Lane::Vital), 0);

    let mut health = HealthClient::connect(running.url.clone()).await.unwrap();
    health.check(HealthCheckRequest::default()).await.unwrap();

    drop(open);
    let load = running.context.load.clone();
    waits_until(|| load.in_flight(Lane::Shared) == 1).await;
    running.told("").await.unwrap();
}

#[tokio::test]
async fn a_stream_that_never_ends_is_ended_with_a_status_and_delays_nothing_else() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut stream = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    for _ in 0..2 {
        stream.message().await.unwrap();
    }
    running.context.shutdown.begin(Cause::asked("test"));
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    assert!(Details::of(&status).retry_delay.is_some());
    assert!(running.context.shutdown.finished().await.is_clean());
}

#[tokio::test]
async fn a_call_in_flight_finishes_and_one_that_hangs_is_cut() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let context = running.context.clone();
    let hanging = running.told("hang");
    let stop = async {
        waits_until(|| context.load.in_flight(Lane::Shared) == 1).await;
        context.shutdown.begin(Cause::asked("test"));
        context.shutdown.finished().await
    };
    let (outcome, report) = tokio::join!(hanging, stop);
    outcome.unwrap_err();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        context.load.in_flight(Lane::Shared),
        0,
        "the handler was dropped with its connection"
    );
}

#[tokio::test]
async fn open_streams_end_long_before_a_call_in_flight_is_cut() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(600),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut stream = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let context = running.context.clone();
    let begun = tokio::time::Instant::now();
    let hanging = async {
        running.told("hang").await.unwrap_err();
        begun.elapsed()
    };
    let streaming = async {
        waits_until(|| context.load.in_flight(Lane::Shared) == 2).await;
        context.shutdown.begin(Cause::asked("test"));
        while stream.message().await.is_ok() {}
        begun.elapsed()
    };
    let (cut, ended) = tokio::join!(hanging, streaming);
    // Due after 300 ms and 600 ms.
    let between = cut.checked_sub(ended).unwrap();
    assert!(between >= Duration::from_millis(200), "{ended:?}, {cut:?}");
}

/// How long a call takes that waits, as one does for a disk or another component.
pub(super) const WORK: Duration = Duration::from_millis(50);

/// Calls in flight at once in the measurement: so the capacity is 1,000 calls a second.
const ROOM: usize = 50;

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
        match code {
            Code::Ok => self.done += 1,
            Code::Unavailable => self.refused += 1,
            other => self.other.push(other),
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
    if std::env::var_os("MUSTER_SOAK").is_none() {
        println!("SKIPPED: MUSTER_SOAK is not set");
        return;
    }
    let settings = Settings {
        max_in_flight: ROOM,
        ..Settings::default()
    };
    let running = Running::start(settings).await;
    let time = Duration::from_secs(5);
    // A little below the capacity, at which nothing queues.
    let peak = load(&running, Duration::from_micros(1_050), time).await;
    let before = memory();
    let crowd = load(&running, Duration::from_micros(200), time).await;
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
