//! Calls that panic, fail or are given up, and how they are measured.

use std::time::Duration;

use muster_proto::ops::v1::{GetStatusResponse, SetMaintenanceResponse, StreamBackupRequest};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::{Running, reason, waits_until};
use crate::layers::shed::Lane;
use crate::server::Settings;

#[tokio::test]
async fn a_panic_is_internal_and_the_connection_goes_on() {
    let mut running = Running::start(Settings::default()).await;
    let status = running.told("panic").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Internal, "INTERNAL")
    );
    assert!(!status.message().contains("as you say"));
    running.told("").await.unwrap();
    assert_eq!(
        running.metric("rpc_server_panics_total"),
        "rpc_server_panics_total 1"
    );
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_it_with_internal() {
    let mut running = Running::start(Settings::default()).await;
    let mut request = Request::new(StreamBackupRequest {});
    request
        .metadata_mut()
        .insert("panic", "yes".parse().unwrap());
    let mut stream = running
        .client
        .stream_backup(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().revision, 1);
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal);
    assert_eq!(running.context.load.in_flight(Lane::Shared), 0);
}

#[tokio::test]
async fn each_call_is_measured_by_method_and_code() {
    let mut running = Running::start(Settings::default()).await;
    running.told("").await.unwrap();
    running.told("fail").await.unwrap_err();
    running.told("panic").await.unwrap_err();
    let count = |code: &str| {
        let method = "muster.ops.v1.OpsService/SetMaintenance";
        running.metric(&format!(
            "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",rpc_method=\"{method}\",rpc_response_status_code=\"{code}\"}}"
        ))
    };
    assert!(count("OK").ends_with(" 1"), "{}", running.metric(""));
    assert!(count("INTERNAL").ends_with(" 2"), "{}", running.metric(""));
    assert_eq!(
        running.metric("rpc_server_active_calls "),
        "rpc_server_active_calls 0"
    );
}

#[tokio::test]
async fn a_cancelled_call_is_measured_as_such() {
    let mut running = Running::start(Settings::default()).await;
    let hanging = running.told("hang");
    tokio::time::timeout(Duration::from_millis(50), hanging)
        .await
        .unwrap_err();
    let load = running.context.load.clone();
    waits_until(|| load.in_flight(Lane::Shared) == 0).await;
    assert!(
        running
            .metric("rpc_server_call_duration_seconds_count")
            .contains("CANCELLED")
    );
}

/// Sends messages of another kind than the method takes.
async fn send_wrongly(url: &str, method: &'static str, messages: usize) -> Status {
    let channel = Channel::from_shared(url.to_owned()).unwrap().connect_lazy();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let message = GetStatusResponse {
        component: "a text where a truth is expected".to_owned(),
        ..GetStatusResponse::default()
    };
    let messages = futures_util::stream::iter(vec![message; messages]);
    let codec = ProstCodec::<GetStatusResponse, SetMaintenanceResponse>::new();
    let path = http::uri::PathAndQuery::from_static(method);
    let answer = client.client_streaming(Request::new(messages), path, codec);
    answer.await.unwrap_err()
}

#[tokio::test]
async fn what_cannot_be_read_is_its_senders_mistake_and_has_a_reason() {
    const SET: &str = "/muster.ops.v1.OpsService/SetMaintenance";
    const NONE: &str = "/muster.ops.v1.OpsService/Nonesuch";
    let running = Running::start(Settings::default()).await;
    for (method, messages, code, told) in [
        (SET, 1, Code::InvalidArgument, "INVALID_FIELD"),
        (SET, 0, Code::InvalidArgument, "INVALID_FIELD"),
        (NONE, 1, Code::Unimplemented, "NOT_IMPLEMENTED"),
    ] {
        let status = send_wrongly(&running.url, method, messages).await;
        let found = (status.code(), reason(&status));
        assert_eq!(found, (code, told.to_owned()), "{status}");
    }
}
