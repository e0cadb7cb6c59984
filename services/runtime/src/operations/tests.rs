use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use tonic::transport::Channel;

use super::*;
use crate::server::{Listeners, Server};

struct Running {
    context: Context,
    client: OpsServiceClient<Channel>,
}

async fn start(backing: impl Backing) -> Running {
    let context = Context::for_tests("sample");
    let operations = Operations::open(&context, backing).await.unwrap();
    let listeners = Listeners::loopback().await.unwrap();
    let url = format!("http://{}", listeners.grpc_address());
    let server = Server::new(&context).operations(&operations);
    context.tasks.critical("server", server.serve(listeners));
    let client = OpsServiceClient::connect(url).await.unwrap();
    Running { context, client }
}

fn set(on: bool, reason: &str) -> proto::SetMaintenanceRequest {
    proto::SetMaintenanceRequest {
        on,
        reason: reason.to_owned(),
    }
}

#[tokio::test]
async fn maintenance_survives_a_restart_and_takes_readiness_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(File::in_folder(folder.path())).await;
    first.context.health.until_ready().await;
    let on = first
        .client
        .set_maintenance(set(true, "disk swap"))
        .await
        .unwrap()
        .into_inner();
    let on = on.maintenance.unwrap();
    assert_eq!(
        (on.on, on.reason.as_str(), on.actor.as_str()),
        (true, "disk swap", "admin:local")
    );
    assert!(on.since_time.is_some());
    assert!(!first.context.health.is_ready() && first.context.health.is_live());

    let mut second = start(File::in_folder(folder.path())).await;
    let kept = second
        .client
        .get_maintenance(proto::GetMaintenanceRequest {})
        .await
        .unwrap();
    assert_eq!(
        kept.into_inner().maintenance.unwrap(),
        on,
        "calls are still served"
    );
    assert!(!second.context.health.is_ready());
    let again = second
        .client
        .set_maintenance(set(true, "longer"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.maintenance.unwrap().since_time, on.since_time);
    let off = second
        .client
        .set_maintenance(set(false, ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(off.maintenance.unwrap().since_time, None);
    assert!(second.context.health.is_ready());

    let third = start(File::in_folder(folder.path())).await;
    third.context.health.until_ready().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_kept_is_not_shown() {
    #[derive(Debug)]
    struct Full;
    #[tonic::async_trait]
    impl Backing for Full {
        async fn load(&self) -> Result<Option<bytes::Bytes>, Unavailable> {
            Ok(None)
        }
        async fn keep(&self, _: bytes::Bytes) -> Result<(), Unavailable> {
            Err(Unavailable("disk full".to_owned()))
        }
    }
    let mut running = start(Full).await;
    let status = running
        .client
        .set_maintenance(set(true, "x"))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "disk full")
    );
    running.context.health.until_ready().await;
}

#[tokio::test]
async fn turning_it_on_needs_a_reason_of_bounded_length() {
    let mut running = start(Unbacked).await;
    for reason in ["", "  ", &"x".repeat(257)] {
        let status = running
            .client
            .set_maintenance(set(true, reason))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    running
        .client
        .set_maintenance(set(true, &"x".repeat(256)))
        .await
        .unwrap();
}

#[tokio::test]
async fn status_and_instances_tell_this_one() {
    let mut running = start(Unbacked).await;
    running.context.health.until_ready().await;
    let status = running
        .client
        .get_status(proto::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.component.as_str(), status.ready, status.live),
        ("sample", true, true)
    );
    assert_eq!(status.in_flight, 1, "this call");
    let names: Vec<&str> = status
        .checks
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    assert_eq!(names, ["event-loop", "maintenance", "shutdown", "startup"]);
    let instance = status.instance.unwrap();
    assert_eq!(
        instance.address,
        running.context.bound.get().unwrap().to_string()
    );
    let listed = running
        .client
        .list_instances(proto::ListInstancesRequest {})
        .await
        .unwrap();
    assert_eq!(listed.into_inner().instances, [instance]);
}

#[tokio::test]
async fn a_backup_comes_whole_with_its_checksum() {
    #[derive(Debug)]
    struct State;
    #[tonic::async_trait]
    impl Backing for State {
        async fn load(&self) -> Result<Option<bytes::Bytes>, Unavailable> {
            Ok(None)
        }
        async fn keep(&self, _: bytes::Bytes) -> Result<(), Unavailable> {
            Ok(())
        }
        async fn backup(&self) -> Result<Option<Backup>, Unavailable> {
            let chunks = (0..5_u8).map(|number| bytes::Bytes::from(vec![number; 200_000]));
            Ok(Some(Backup {
                epoch: "e".to_owned(),
                revision: 7,
                chunks: Box::new(chunks),
            }))
        }
    }
    let mut running = start(State).await;
    let mut stream = running
        .client
        .stream_backup(proto::StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let (mut bytes, mut sums, mut heads) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(part) = stream.message().await.unwrap() {
        heads.push((part.revision, part.epoch));
        bytes.extend(part.data);
        sums.push(part.sha256);
    }
    assert_eq!(
        (bytes.len(), heads[0].clone()),
        (1_000_000, (7, "e".to_owned()))
    );
    assert!(heads[1..].iter().all(|head| *head == (0, String::new())));
    assert_eq!(sums.pop().unwrap(), Sha256::digest(&bytes).to_vec());
    assert!(sums.iter().all(Vec::is_empty));

    let mut none = start(Unbacked).await;
    let status = none
        .client
        .stream_backup(proto::StreamBackupRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
