//! Who may call what.

use std::sync::Arc;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::ops_service_server::OpsServiceServer;
use muster_proto::ops::v1::{
    GetStatusRequest, GetStatusResponse, ListInstancesRequest, StreamBackupRequest,
    StreamBackupResponse,
};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use super::{METHODS, Puppet, Running, SERVICE, reason};
use crate::auth::{Access, Entry, Principal, Proof, Role, Roles, Verify};
use crate::context::Context;
use crate::server::{Error, Listeners, Method, Server, Settings};

/// A server behind credentials, one of which is the token `looks` of a viewer.
pub(crate) async fn guarded() -> Running {
    struct Tokens;
    impl Verify for Tokens {
        fn verify(&self, token: &str) -> Option<Principal> {
            (token == "looks").then(|| Principal::new(Role::Viewer, "v"))
        }
    }
    let settings = Settings {
        access: Access::new(Vec::new(), true, false),
        ..Settings::default()
    };
    Running::start_with(settings, |server| server.verifier(Arc::new(Tokens))).await
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

#[tokio::test]
async fn roles_decide_what_a_caller_may_do() {
    let mut running = guarded().await;
    let anonymous = running
        .client
        .list_instances(ListInstancesRequest {})
        .await
        .unwrap_err();
    assert_eq!(
        (anonymous.code(), reason(&anonymous).as_str()),
        (Code::Unauthenticated, "CREDENTIAL_INVALID")
    );
    for (token, code, why) in [
        ("looks", Code::PermissionDenied, "ROLE_DENIED"),
        ("guess", Code::Unauthenticated, "CREDENTIAL_INVALID"),
    ] {
        let request = with_token(ListInstancesRequest {}, token);
        let refused = running.client.list_instances(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why));
    }
    let free = running
        .client
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(free.component, "anonymous:");
    for _ in 0..2 {
        let request = with_token(GetStatusRequest {}, "looks");
        let known = running
            .client
            .get_status(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(known.component, "viewer:v");
    }
}

#[tokio::test]
async fn only_the_known_learn_which_methods_there_are_and_anyone_gets_health() {
    let running = guarded().await;
    let channel = Channel::from_shared(running.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    for (token, code) in [
        ("looks", Code::Unimplemented),
        ("guess", Code::Unauthenticated),
    ] {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/muster.ops.v1.OpsService/Nothing");
        let codec = tonic_prost::ProstCodec::<GetStatusRequest, GetStatusResponse>::default();
        let answer = client
            .unary(with_token(GetStatusRequest {}, token), path, codec)
            .await;
        assert_eq!(answer.unwrap_err().code(), code);
    }
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_method_in_no_table_stops_the_start() {
    let context = Context::for_tests("sample");
    let server = || Server::new(&context).service(OpsServiceServer::new(Puppet));
    let listeners = Listeners::loopback().await.unwrap();
    let missing = server()
        .methods(&METHODS[1..])
        .serve(listeners)
        .await
        .unwrap_err();
    assert!(
        matches!(&missing, Error::UntabledMethod(path) if path.starts_with(SERVICE)),
        "{missing}"
    );
    let foreign = [Method::new("/other.Service/Call", Roles::READ)];
    let listeners = Listeners::loopback().await.unwrap();
    let foreign = server()
        .methods(&METHODS)
        .methods(&foreign)
        .serve(listeners)
        .await
        .unwrap_err();
    assert!(
        matches!(foreign, Error::UnknownMethod("/other.Service/Call")),
        "{foreign}"
    );
}

/// Someone whose token is their name.
fn known(name: &str, role: Role) -> Entry {
    Entry {
        name: name.to_owned(),
        role,
        proof: Proof::Token(Sha256::digest(name).into()),
    }
}

async fn caller(running: &mut Running, token: Option<&str>) -> Result<String, Code> {
    let request = match token {
        Some(token) => with_token(GetStatusRequest {}, token),
        None => Request::new(GetStatusRequest {}),
    };
    let answer = running.client.get_status(request).await;
    answer
        .map(|answer| answer.into_inner().component)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn who_is_replaced_is_refused_at_once_also_on_a_connection_that_knew_them() {
    let access = Access::new(Vec::new(), false, false);
    let settings = Settings {
        access: access.clone(),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    assert_eq!(caller(&mut running, None).await.unwrap(), "admin:local");
    access.replace(vec![known("old", Role::Operator)]);
    assert_eq!(caller(&mut running, None).await.unwrap(), "anonymous:");
    for _ in 0..2 {
        let who = caller(&mut running, Some("old")).await;
        assert_eq!(who.unwrap(), "operator:old");
    }
    access.replace(vec![known("new", Role::Viewer)]);
    let refused = caller(&mut running, Some("old")).await.unwrap_err();
    assert_eq!(refused, Code::Unauthenticated);
    assert_eq!(
        caller(&mut running, Some("new")).await.unwrap(),
        "viewer:new"
    );
    access.replace(vec![known("new", Role::Operator)]);
    assert_eq!(
        caller(&mut running, Some("new")).await.unwrap(),
        "operator:new"
    );
}

/// A stream of `token` on a connection of its own, which has sent all that it has.
async fn open_stream(url: &str, token: &str) -> Streaming<StreamBackupResponse> {
    let mut client = OpsServiceClient::connect(url.to_owned()).await.unwrap();
    let request = with_token(StreamBackupRequest {}, token);
    let mut stream = client.stream_backup(request).await.unwrap().into_inner();
    for revision in [1, 2] {
        assert_eq!(stream.message().await.unwrap().unwrap().revision, revision);
    }
    stream
}

#[tokio::test]
async fn streams_of_who_is_gone_or_has_another_role_end_and_those_of_others_go_on() {
    let all = ["gone", "moved", "stays"].map(|name| known(name, Role::Viewer));
    let access = Access::new(all.into(), false, false);
    let settings = Settings {
        access: access.clone(),
        ..Settings::default()
    };
    let running = Running::start(settings).await;
    let mut gone = open_stream(&running.url, "gone").await;
    let mut moved = open_stream(&running.url, "moved").await;
    let mut stays = open_stream(&running.url, "stays").await;
    access.replace(vec![
        known("stays", Role::Viewer),
        known("moved", Role::Operator),
    ]);
    for stream in [&mut gone, &mut moved] {
        let patience = std::time::Duration::from_secs(20);
        let ended = tokio::time::timeout(patience, stream.message()).await;
        let ended = ended.expect("it ends").unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable, "it is to be opened again");
        assert_eq!(reason(&ended), "SHUTTING_DOWN");
    }
    let later = std::time::Duration::from_millis(100);
    let end = tokio::time::timeout(later, stays.message()).await;
    assert!(end.is_err(), "{end:?}");
    open_stream(&running.url, "moved").await;
    let mut client = OpsServiceClient::connect(running.url.clone())
        .await
        .unwrap();
    let request = with_token(StreamBackupRequest {}, "gone");
    let refused = client.stream_backup(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
