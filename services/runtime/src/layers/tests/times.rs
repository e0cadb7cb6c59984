//! Deadlines of calls and streams.

use std::time::Duration;

use muster_proto::ops::v1::{GetStatusRequest, StreamBackupRequest};
use tonic::{Code, Request};

use super::{Running, reason};
use crate::auth::Roles;
use crate::layers::shed::Lane;
use crate::server::{Method, Settings};

#[tokio::test]
async fn deadlines_come_from_the_caller_the_default_and_the_maximum() {
    let settings = Settings {
        default_deadline: Duration::from_secs(20),
        max_deadline: Duration::from_secs(60),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    for (asked, seconds) in [(None, 19), (Some(10), 9), (Some(3600), 59)] {
        let mut request = Request::new(GetStatusRequest {});
        if let Some(asked) = asked {
            request.set_timeout(Duration::from_secs(asked));
        }
        let left = running
            .client
            .get_status(request)
            .await
            .unwrap()
            .into_inner()
            .in_flight;
        assert_eq!(left, seconds, "{asked:?}");
    }
}

/// Sends `grpc-timeout` as it is: tonic's own client would give up by itself.
fn timeout<T>(message: T, value: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("grpc-timeout", value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_past_its_deadline_is_deadline_exceeded() {
    let settings = Settings {
        default_deadline: Duration::from_millis(50),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let status = running.told("hang").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    assert_eq!(running.context.load.in_flight(Lane::Shared), 0);
}

#[tokio::test]
async fn a_malformed_timeout_is_refused() {
    let mut running = Running::start(Settings::default()).await;
    for value in ["5", "soon", "999999999S", "-1S"] {
        let request = timeout(GetStatusRequest {}, value);
        let status = running.client.get_status(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value}");
    }
}

#[tokio::test]
async fn a_stream_is_bounded_where_its_caller_asks_and_only_there() {
    let settings = Settings {
        default_deadline: Duration::from_millis(20),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut free = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let asked = timeout(StreamBackupRequest {}, "100m");
    let mut bounded = running
        .client
        .stream_backup(asked)
        .await
        .unwrap()
        .into_inner();
    for stream in [&mut free, &mut bounded] {
        for revision in [1, 2] {
            assert_eq!(stream.message().await.unwrap().unwrap().revision, revision);
        }
    }
    assert_eq!(
        bounded.message().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    assert_eq!(
        running.context.load.in_flight(Lane::Shared),
        1,
        "the other stream is open still"
    );
}

#[tokio::test]
async fn a_stream_that_the_table_bounds_has_the_default_deadline() {
    let settings = Settings {
        default_deadline: Duration::from_millis(50),
        ..Settings::default()
    };
    let bounded = [Method::new("/muster.ops.v1.OpsService/StreamBackup", Roles::READ).bounded()];
    let mut running = Running::start_with(settings, |server| server.methods(&bounded)).await;
    let mut stream = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap();
    stream.message().await.unwrap();
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
}
