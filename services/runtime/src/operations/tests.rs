use std::sync::atomic::{AtomicU64, Ordering};

use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_store::{Options, Spec, Store, restore};
use tonic::transport::Channel;

use super::*;
use crate::health::Found;
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

#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_still_is_told_and_takes_no_readiness() {
    /// The disk has been at a write for so many seconds.
    #[derive(Debug)]
    struct Disk(Arc<AtomicU64>);
    #[tonic::async_trait]
    impl Backing for Disk {
        async fn load(&self) -> Result<Option<bytes::Bytes>, Unavailable> {
            Ok(None)
        }
        async fn keep(&self, _: bytes::Bytes) -> Result<(), Unavailable> {
            Ok(())
        }
        fn writing(&self) -> Option<Duration> {
            Some(Duration::from_secs(self.0.load(Ordering::Relaxed)))
        }
    }
    let found = |context: &Context| {
        let report = context.health.report();
        let disk = report.checks.iter().find(|check| check.name == "disk");
        disk.map(|check| (check.found, check.detail.clone()))
    };
    let context = Context::for_tests("sample");
    let seconds = Arc::<AtomicU64>::default();
    let _operations = Operations::open(&context, Disk(Arc::clone(&seconds)))
        .await
        .unwrap();
    context.health.started();
    for (writing, expected) in [
        (0, Found::Ok),
        (9, Found::Ok),
        (42, Found::Stuck),
        (0, Found::Ok),
    ] {
        seconds.store(writing, Ordering::Relaxed);
        tokio::time::sleep(2 * LOOK_EVERY).await;
        let (found, detail) = found(&context).unwrap();
        assert_eq!(found, expected, "at one write for {writing} s");
        assert_eq!(
            detail.contains("42 s"),
            expected == Found::Stuck,
            "{detail}"
        );
        assert!(context.health.is_ready());
    }
    let without = Context::for_tests("without");
    let _operations = Operations::open(&without, Unbacked).await.unwrap();
    assert_eq!(found(&without), None);
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

async fn kept(running: &mut Running) -> proto::Maintenance {
    let request = proto::GetMaintenanceRequest {};
    let answer = running.client.get_maintenance(request).await.unwrap();
    answer.into_inner().maintenance.unwrap()
}

/// The bytes of a backup, and its first message without its bytes.
async fn back_up(running: &mut Running) -> (Vec<u8>, proto::StreamBackupResponse) {
    let request = proto::StreamBackupRequest {};
    let answer = running.client.stream_backup(request).await.unwrap();
    let mut stream = answer.into_inner();
    let mut first = stream.message().await.unwrap().unwrap();
    let mut bytes = std::mem::take(&mut first.data);
    while let Some(part) = stream.message().await.unwrap() {
        bytes.extend(part.data);
    }
    (bytes, first)
}

#[tokio::test]
async fn maintenance_kept_in_a_store_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.db");
    let embedded = || Store::embedded(&path, Options::default()).unwrap();
    for (kind, store) in [("memory", Store::memory()), ("embedded", embedded())] {
        let mut first = start(StoreBacking::new(store.clone())).await;
        assert!(!kept(&mut first).await.on);
        let wanted = set(true, "disk swap");
        first.client.set_maintenance(wanted).await.unwrap();
        let on = kept(&mut first).await;
        assert_eq!((on.on, on.reason.as_str()), (true, "disk swap"));

        let mut second = start(StoreBacking::new(store.clone())).await;
        assert_eq!(kept(&mut second).await, on);
        let request = proto::GetStatusRequest {};
        let status = second.client.get_status(request).await.unwrap();
        let status = status.into_inner();
        assert_eq!(status.store, kind);
        assert_eq!(status.epoch, store.epoch().to_string());
        let instance = status.instance.unwrap();
        let revision = store.revision().await.unwrap().0;
        assert_eq!(u64::try_from(instance.revision).unwrap(), revision);
        assert!(instance.leader);

        store.close().await;
        let refused = second.client.set_maintenance(set(false, "")).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
        assert_eq!(
            kept(&mut second).await,
            on,
            "what was not kept is not shown"
        );
    }
    let mut reopened = start(StoreBacking::new(embedded())).await;
    assert_eq!(kept(&mut reopened).await.reason, "disk swap");
    assert!(!reopened.context.health.is_ready());
}

#[tokio::test]
async fn a_backup_of_a_store_restores_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let embedded = Store::embedded(at("sample.db"), Options::default()).unwrap();
    for store in [Store::memory(), embedded] {
        let value = bytes::Bytes::from(vec![7; 300_000]);
        for key in ["a", "b", "c"] {
            let put = muster_store::Transaction::new().put(key, value.clone());
            let _committed = store.commit(put).await.unwrap();
        }
        let mut running = start(StoreBacking::new(store.clone())).await;
        let wanted = set(true, "moving");
        running.client.set_maintenance(wanted).await.unwrap();
        let revision = store.revision().await.unwrap();
        let (bytes, first) = back_up(&mut running).await;
        assert_eq!(first.epoch, store.epoch().to_string());
        assert_eq!(u64::try_from(first.revision).unwrap(), revision.0);

        let (backup, target) = (at("backup"), at(&format!("{}.db", store.kind())));
        std::fs::write(&backup, bytes).unwrap();
        let spec = Spec::Embedded(target.clone());
        let restored = restore(&backup, &spec, Options::default()).await.unwrap();
        assert_eq!(restored.revision, revision);
        let store = Store::embedded(target, Options::default()).unwrap();
        assert_eq!(store.get("c").await.unwrap().unwrap().value, value);
        let mut moved = start(StoreBacking::new(store)).await;
        assert_eq!(kept(&mut moved).await.reason, "moving");
    }
}
