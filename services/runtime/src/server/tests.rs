use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_client::HealthClient;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::shutdown::Cause;

/// A server on port 0 that runs.
struct Running {
    context: Context,
    client: HealthClient<Channel>,
}

async fn start(context: Context) -> Running {
    let listeners = Listeners::loopback().await.unwrap();
    let url = format!("http://{}", listeners.grpc_address());
    let server = Server::new(&context);
    context.tasks.critical("server", server.serve(listeners));
    context.health.until_ready().await;
    let client = HealthClient::connect(url).await.unwrap();
    Running { context, client }
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn check_and_list_follow_the_protocol() {
    let Running {
        context,
        mut client,
    } = start(Context::for_tests("sample")).await;
    for (service, status) in [
        ("", ServingStatus::Serving),
        ("liveness", ServingStatus::Serving),
    ] {
        assert_eq!(
            client
                .check(of(service))
                .await
                .unwrap()
                .into_inner()
                .status(),
            status
        );
    }
    let unknown = client.check(of("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    context.health.maintenance(Some("test"));
    let status = client
        .check(of("readiness"))
        .await
        .unwrap()
        .into_inner()
        .status();
    assert_eq!(status, ServingStatus::NotServing);
    let listed = client
        .list(muster_proto::health::v1::HealthListRequest {})
        .await
        .unwrap();
    let names: Vec<String> = listed.into_inner().statuses.into_keys().collect();
    assert_eq!(names, ["", "liveness", "readiness"]);
}

#[tokio::test]
async fn watch_stays_open_repeats_nothing_and_ends_with_the_server() {
    let Running {
        context,
        mut client,
    } = start(Context::for_tests("sample")).await;
    let mut ready = client.watch(of("")).await.unwrap().into_inner();
    let mut unknown = client.watch(of("late.Service")).await.unwrap().into_inner();
    assert_eq!(
        ready.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    assert_eq!(
        unknown.message().await.unwrap().unwrap().status(),
        ServingStatus::ServiceUnknown
    );
    context.health.serve("late.Service");
    assert_eq!(
        unknown.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    context.shutdown.begin(Cause::asked("test"));
    for stream in [&mut ready, &mut unknown] {
        assert_eq!(
            stream.message().await.unwrap().unwrap().status(),
            ServingStatus::NotServing
        );
        assert_eq!(
            stream.message().await.unwrap_err().code(),
            Code::Unavailable
        );
    }
    let report = context.shutdown.finished().await;
    assert!(report.is_clean(), "{report:?}");
}
