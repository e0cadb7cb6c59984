use muster_proto::ops::v1::ListInstancesRequest;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::{GetMaintenanceRequest, SetMaintenanceRequest, StreamBackupRequest};
use muster_store::{
    Condition, Link, MemoryCluster, Options, Outcome, Store, TERM_KEY, Transaction,
};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel as Transport;

use super::*;
use crate::operations::{Operations, StoreBacking};
use crate::server::{Listeners, Server};
use crate::shutdown::Cause;

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 7409);

#[tokio::test]
async fn the_only_instance_leads_at_once_until_its_store_ends() {
    let context = Context::for_tests("sample");
    let store = Store::memory();
    let instances = Instances::join(&context, &store, ADDRESS.into())
        .await
        .unwrap();
    assert!(instances.may_answer());
    assert_eq!(instances.address(), "127.0.0.1:7409");
    assert!(instances.peers().await.unwrap().is_empty());
    assert_eq!(
        instances.leader().await.unwrap_err().code(),
        Code::Unavailable
    );

    let leadership = instances.leading().unwrap();
    let put = Transaction::new().put("a", "1");
    let outcome = store.commit(leadership.fence(put)).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
    let term = store.get(TERM_KEY).await.unwrap().unwrap();
    let same = Condition::ModifiedAt(leadership.term().revision);
    assert_eq!(same, Condition::ModifiedAt(term.modified));

    store.close().await;
    assert!(!instances.may_answer());
    assert!(instances.leading().is_none());
}

#[tokio::test]
async fn work_of_a_leader_begins_at_once_and_ends_with_it() {
    let context = Context::for_tests("sample");
    let store = Store::memory();
    let instances = Instances::join(&context, &store, ADDRESS.into())
        .await
        .unwrap();
    let (begun, mut runs) = watch::channel(0);
    let leading = instances.clone();
    let work = crate::task::spawn(async move {
        let work = |_| {
            begun.send_modify(|count| *count += 1);
            std::future::pending::<()>()
        };
        leading.while_leading(work).await;
    });
    runs.wait_for(|count| *count == 1).await.unwrap();
    instances.0.leading.send_replace(None);
    let again = store.lead(instances.id()).await.unwrap();
    instances.0.leading.send_replace(Some(again));
    runs.wait_for(|count| *count == 2).await.unwrap();
    work.abort();
}

/// One of several instances of a component that does nothing.
struct Running {
    context: Context,
    instances: Instances,
    client: OpsServiceClient<Transport>,
    link: Link,
}

async fn start(cluster: &MemoryCluster) -> Running {
    let context = Context::for_tests("sample");
    let leases = muster_store::Leases {
        instance: Duration::from_millis(2_000),
        leader: Duration::from_millis(600),
    };
    let options = Options {
        leases,
        ..Options::default()
    };
    let (store, link) = cluster.open("/sample/", options).await.unwrap();
    let listeners = Listeners::loopback().await.unwrap();
    let url = format!("http://{}", listeners.grpc_address());
    let instances = Instances::join(&context, &store, listeners.grpc_address())
        .await
        .unwrap();
    let backing = StoreBacking::of(&instances, &context);
    let operations = Operations::open(&context, backing).await.unwrap();
    let server = Server::new(&context).operations(&operations);
    context.tasks.critical("server", server.serve(listeners));
    context.health.until_ready().await;
    let client = OpsServiceClient::connect(url).await.unwrap();
    Running {
        context,
        instances,
        client,
        link,
    }
}

async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !test().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), reached)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn several_instances_know_each_other_and_hand_over() {
    let cluster = MemoryCluster::new();
    let mut one = start(&cluster).await;
    until("one leads", async || one.instances.leading().is_some()).await;
    let mut two = start(&cluster).await;
    let three = start(&cluster).await;
    until("all are known", async || {
        one.instances.peers().await.unwrap().len() == 2
    })
    .await;
    for running in [&two, &three] {
        until("the leader is known", async || {
            let leader = running.instances.leader().await;
            leader.is_ok_and(|leader| &*leader.id == one.instances.id())
        })
        .await;
        assert!(running.instances.leading().is_none());
    }

    let listed = two.client.list_instances(ListInstancesRequest {}).await;
    let listed = listed.unwrap().into_inner().instances;
    assert_eq!(listed.len(), 3);
    for instance in &listed {
        assert!(
            instance.revision > 0 && instance.lag.is_some(),
            "{instance:?}"
        );
        assert_eq!(instance.leader, instance.id == one.instances.id());
    }

    let set = SetMaintenanceRequest {
        on: true,
        reason: "new disks".to_owned(),
    };
    one.client.set_maintenance(set).await.unwrap();
    until("maintenance is of all of them", async || {
        let got = two.client.get_maintenance(GetMaintenanceRequest {}).await;
        let kept = got.unwrap().into_inner().maintenance.unwrap();
        kept.on && kept.reason == "new disks" && !two.context.health.is_ready()
    })
    .await;

    one.context.shutdown.begin(Cause::asked("it is over"));
    until("another leads", async || {
        two.instances.leading().is_some() != three.instances.leading().is_some()
    })
    .await;
    assert!(one.instances.leading().is_none());
}

#[tokio::test]
async fn an_instance_that_is_cut_off_says_so() {
    let cluster = MemoryCluster::new();
    let mut one = start(&cluster).await;
    until("it leads", async || one.instances.leading().is_some()).await;
    one.link.cut();
    until("it leads no more", async || {
        one.instances.leading().is_none()
    })
    .await;
    until("it may not answer", async || !one.instances.may_answer()).await;
    until("it is not ready", async || !one.context.health.is_ready()).await;
    until("answers say how old they are", async || {
        let got = one.client.get_maintenance(GetMaintenanceRequest {}).await;
        got.unwrap().metadata().contains_key("muster-age")
    })
    .await;
    one.link.heal();
    until("all is well again", async || {
        let got = one.client.get_maintenance(GetMaintenanceRequest {}).await;
        one.context.health.is_ready()
            && one.instances.leading().is_some()
            && !got.unwrap().metadata().contains_key("muster-age")
    })
    .await;
}

#[tokio::test]
async fn a_backup_holds_all_that_was_there_when_it_was_asked_for_or_is_refused() {
    let cluster = MemoryCluster::new();
    let one = start(&cluster).await;
    let mut behind = start(&cluster).await;
    behind.link.cut();
    let put = Transaction::new().put("a", "1");
    let written = one.instances.store().commit(put).await.unwrap();
    let Outcome::Committed(written) = written else {
        panic!("{written:?}");
    };
    let refused = behind.client.stream_backup(StreamBackupRequest {}).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    behind.link.heal();
    let backup = behind.client.stream_backup(StreamBackupRequest {}).await;
    let first = backup.unwrap().into_inner().message().await.unwrap();
    let revision = u64::try_from(first.unwrap().revision).unwrap();
    assert!(revision >= written.0, "{revision}, not {written}");
}
