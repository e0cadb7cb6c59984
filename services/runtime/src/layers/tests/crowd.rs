//! Limits of calls in flight, and what becomes of those that a stopping server still has.

use std::time::Duration;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::{GetMaintenanceRequest, StreamBackupRequest};
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
