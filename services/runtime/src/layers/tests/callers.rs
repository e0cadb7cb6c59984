//! Who may call what.

use std::sync::Arc;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::ops_service_server::OpsServiceServer;
use muster_proto::ops::v1::{GetStatusRequest, GetStatusResponse, ListInstancesRequest};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::{METHODS, Puppet, Running, SERVICE, reason};
use crate::auth::{Access, Principal, Role, Roles, Verify};
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
