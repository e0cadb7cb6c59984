//! A manager as a child, and what users ask of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_proto::replicas::v1::replicas_service_client::ReplicasServiceClient;
use muster_proto::replicas::v1::{
    DeleteServiceRequest, ListServicesRequest, RetryPolicy, ServicePhase, ServiceSpec,
    WatchServicesRequest, service_change,
};
use tokio::time::timeout;

use super::super::child::{Child, Plan};
use super::super::component::Component;
use super::super::connection::Connection;
use crate::fleet::spec;

/// How long anything may take before the bench gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Where the store of a manager in `folder` is.
pub(super) const STORE: &str = "replicas.db";

pub(super) type Client = ReplicasServiceClient<Connection>;

pub(super) fn plan(folder: &Path, registry: &Child) -> Plan {
    Plan::new(Component::Manager, folder)
        .arg(
            "store",
            format!("embedded:{}", folder.join(STORE).display()),
        )
        .arg("workers-addr", registry.url())
}

/// Replicas that need no accelerator and are restarted at once.
pub(super) fn service(name: &str, replicas: i32, script: &str) -> ServiceSpec {
    let retry = RetryPolicy {
        interval: spec::span(Duration::ZERO),
        ..RetryPolicy::default()
    };
    ServiceSpec {
        resources: None,
        ..spec::service(name, replicas, script, Some(retry))
    }
}

/// Waits until the one service that there is is HEALTHY.
pub(super) async fn until_healthy(client: &mut Client) -> anyhow::Result<()> {
    let request = WatchServicesRequest::default();
    let mut stream = client.watch_services(request).await?.into_inner();
    let waiting = async {
        while let Some(message) = stream.message().await? {
            for change in message.changes {
                if let Some(service_change::Change::Put(service)) = change.change
                    && service.status.context("no status")?.phase() == ServicePhase::Healthy
                {
                    return Ok(());
                }
            }
        }
        bail!("the watch ended")
    };
    timeout(PATIENCE, waiting).await.context("not HEALTHY")?
}

/// Deletes a service, and waits until none is left.
pub(super) async fn delete(client: &mut Client, name: &str) -> anyhow::Result<()> {
    let request = DeleteServiceRequest {
        name: name.to_owned(),
        ..DeleteServiceRequest::default()
    };
    client.delete_service(request).await?;
    let waiting = async {
        loop {
            let request = ListServicesRequest::default();
            let left = client.list_services(request).await?.into_inner();
            if left.services.is_empty() {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.context("not deleted")?
}
