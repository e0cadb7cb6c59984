//! Deadlines of calls and streams.

use std::time::Duration;

use http_body::Body as _;
use http_body_util::BodyExt as _;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::{GetStatusRequest, GetStatusResponse, StreamBackupRequest};
use tonic::{Code, Request};

use super::{Answer, Running, reason};
use crate::age::AGE;
use crate::auth::Roles;
use crate::connect::{Connector, Options};
use crate::deadline::Deadline;
use crate::layers::deadline::TimedBody;
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

/// The header that names whom a call is passed on to, one after the other.
const VIA: &str = "via";

/// Passes a call on to the next that its header names, as a component would: with what is left of
/// its time, less a margin to answer in.
pub(super) fn next_hop(
    request: &Request<GetStatusRequest>,
) -> Option<impl Future<Output = Answer<GetStatusResponse>> + use<>> {
    let via = request.metadata().get(VIA)?.to_str().unwrap().to_owned();
    let deadline = Deadline::of(request).unwrap();
    Some(async move {
        let (next, rest) = via.split_once(' ').unwrap_or((&via, ""));
        let channel = Connector::new(Options::default()).channel(&next.parse().unwrap());
        let mut onwards = Request::new(GetStatusRequest {});
        deadline.less(Duration::from_secs(1)).carry(&mut onwards);
        if !rest.is_empty() {
            onwards.metadata_mut().insert(VIA, rest.parse().unwrap());
        }
        OpsServiceClient::new(channel).get_status(onwards).await
    })
}

#[tokio::test]
async fn what_remains_of_the_time_is_read_three_hops_down() {
    let mut hops = Vec::new();
    for _ in 0..4 {
        hops.push(Running::start(Settings::default()).await);
    }
    let urls: Vec<&str> = hops[1..].iter().map(|hop| hop.url.as_str()).collect();
    let mut request = Request::new(GetStatusRequest {});
    request.set_timeout(Duration::from_secs(100));
    let via = urls.join(" ").parse().unwrap();
    request.metadata_mut().insert(VIA, via);
    let last = hops[0].client.get_status(request).await.unwrap();
    let left = last.into_inner().in_flight;
    // The default of the last one would be 30 s; each hop keeps one second for itself.
    assert!((80..=97).contains(&left), "{left} s");
}

#[tokio::test]
async fn answers_say_how_old_what_they_show_is() {
    let mut running = Running::start(Settings::default()).await;
    for (away, told) in [(0, None), (300, Some("1")), (12_900, Some("12")), (0, None)] {
        running.context.age.set(Duration::from_millis(away));
        let answer = running
            .client
            .get_status(GetStatusRequest {})
            .await
            .unwrap();
        let age = answer.metadata().get(AGE.as_str());
        assert_eq!(age.map(|age| age.to_str().unwrap()), told, "{away} ms");
    }
}

#[tokio::test]
async fn a_large_message_is_handed_out_frame_by_frame() {
    let message: Vec<u8> = (0..100_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let full = http_body_util::Full::new(bytes::Bytes::from(message.clone()));
    let mut body = std::pin::pin!(TimedBody::bare(full));
    let mut frames = Vec::new();
    while !body.is_end_stream() {
        let frame = body.frame().await.unwrap().unwrap();
        frames.push(frame.into_data().unwrap());
    }
    assert_eq!(frames.len(), 7);
    assert!(frames.iter().all(|frame| frame.len() <= 16_384));
    assert_eq!(frames.concat(), message);
}
