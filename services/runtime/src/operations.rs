//! The operations service that every component serves: maintenance, status, instances, backup. It
//! knows the component through [`Backing`], and decides nothing about what a component is for.

mod backing;
mod convert;
mod maintenance;
mod store_backing;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use muster_proto::ops::v1 as proto;
use muster_proto::ops::v1::ops_service_server::{OpsService, OpsServiceServer};
use muster_proto::types::v1::ErrorReason;
use sha2::{Digest as _, Sha256};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use crate::auth::{Principal, Roles};
use crate::context::Context;
use crate::health::{Check, Tier};
use crate::server::Method;
use crate::shutdown::Phase;
use crate::status;
use crate::task::Failed;

pub use backing::{Backing, Backup, File, Instance, Position, Unavailable, Unbacked};
pub use maintenance::Maintenance;
pub use store_backing::StoreBacking;

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A disk that is at one write for so long is not only busy: as long as callers wait by default.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// Who may call what. A backup holds everything, keys too.
pub(crate) const METHODS: [Method; 5] = [
    Method::new("/muster.ops.v1.OpsService/SetMaintenance", Roles::OPERATE),
    Method::new("/muster.ops.v1.OpsService/GetMaintenance", Roles::READ),
    Method::new("/muster.ops.v1.OpsService/GetStatus", Roles::READ),
    Method::new("/muster.ops.v1.OpsService/ListInstances", Roles::READ),
    Method::new("/muster.ops.v1.OpsService/StreamBackup", Roles::ADMIN),
];

/// The operations service of one component; [`crate::server::Server::operations`] serves it. Cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct Operations {
    context: Context,
    backing: Arc<dyn Backing>,
    maintenance: Maintenance,
}

impl Operations {
    /// Reads from `backing` whether maintenance is on, which health shows from now on.
    pub fn open(
        context: &Context,
        backing: impl Backing,
    ) -> BoxFuture<'_, Result<Self, Unavailable>> {
        Self::over(context, Arc::new(backing))
    }

    /// The future is boxed, so that it is compiled once.
    fn over(
        context: &Context,
        backing: Arc<dyn Backing>,
    ) -> BoxFuture<'_, Result<Self, Unavailable>> {
        Box::pin(async move {
            // From before the first reading, so that no change is missed.
            let changes = backing.changes();
            let maintenance = Maintenance::open(context, Arc::clone(&backing)).await?;
            let follow = maintenance.clone().follow(changes);
            context.tasks.until(Phase::Loops, "maintenance", follow);
            if backing.writing().is_some() {
                let check = context.health.check("disk", Tier::Auxiliary);
                check.ok("");
                let look = look_at_disk(Arc::clone(&backing), check);
                context.tasks.until(Phase::Loops, "disk", look);
            }
            Ok(Self {
                context: context.clone(),
                backing,
                maintenance,
            })
        })
    }

    /// Maintenance, for a component that hears of its change by another instance.
    pub fn maintenance(&self) -> &Maintenance {
        &self.maintenance
    }

    pub(crate) fn server(&self) -> OpsServiceServer<Self> {
        OpsServiceServer::new(self.clone())
    }

    async fn this_instance(&self) -> Instance {
        let Context {
            identity,
            clock,
            bound,
            ..
        } = &self.context;
        Instance {
            id: identity.instance.to_string(),
            address: bound.get().map(ToString::to_string).unwrap_or_default(),
            version: identity.version.to_owned(),
            started: clock.started(),
            position: self.backing.position().await,
        }
    }
}

/// Tells by `check` when the disk does not end a write, which no error ever says, for ever. What is read comes from
/// memory, and who only reads is served: the component stays ready.
async fn look_at_disk(backing: Arc<dyn Backing>, check: Check) {
    loop {
        match backing.writing().filter(|since| *since >= STANDS_STILL) {
            Some(since) => check.stuck(format!(
                "the disk has been at one write for {} s; changes wait for it",
                since.as_secs()
            )),
            None => check.ok(""),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OpsService for Operations {
    async fn set_maintenance(
        &self,
        request: Request<proto::SetMaintenanceRequest>,
    ) -> Answer<proto::SetMaintenanceResponse> {
        let actor = Principal::of(&request).id().to_owned();
        let wanted = convert::parse_wanted(request.into_inner(), actor)?;
        let maintenance = self.maintenance.clone();
        // Not undone half way by a caller that goes away.
        let set =
            self.context.tasks.spawn(
                "set maintenance",
                async move { maintenance.set(wanted).await },
            );
        let state = set
            .await
            .map_err(|failed| not_done(&failed))?
            .map_err(unavailable)?;
        Ok(Response::new(proto::SetMaintenanceResponse {
            maintenance: Some(state),
        }))
    }

    async fn get_maintenance(
        &self,
        _: Request<proto::GetMaintenanceRequest>,
    ) -> Answer<proto::GetMaintenanceResponse> {
        let maintenance = Some(self.maintenance.state());
        Ok(Response::new(proto::GetMaintenanceResponse { maintenance }))
    }

    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Answer<proto::GetStatusResponse> {
        let instance = self.this_instance().await;
        let state = self.maintenance.state();
        Ok(Response::new(convert::render_status(
            &self.context,
            instance,
            state,
        )))
    }

    async fn list_instances(
        &self,
        _: Request<proto::ListInstancesRequest>,
    ) -> Answer<proto::ListInstancesResponse> {
        let mut instances = match self.backing.instances().await.map_err(unavailable)? {
            Some(instances) => instances,
            None => vec![self.this_instance().await],
        };
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        let instances = instances
            .into_iter()
            .map(convert::render_instance)
            .collect();
        Ok(Response::new(proto::ListInstancesResponse { instances }))
    }

    type StreamBackupStream =
        Pin<Box<dyn Stream<Item = Result<proto::StreamBackupResponse, Status>> + Send>>;

    async fn stream_backup(
        &self,
        _: Request<proto::StreamBackupRequest>,
    ) -> Answer<Self::StreamBackupStream> {
        match self.backing.backup().await.map_err(unavailable)? {
            Some(backup) => Ok(Response::new(Box::pin(parts(backup)))),
            None => Err(no_state()),
        }
    }
}

/// The messages of a backup: its bytes, the first with what they are of, then their checksum.
fn parts(backup: Backup) -> impl Stream<Item = Result<proto::StreamBackupResponse, Status>> + Send {
    let Backup {
        epoch,
        revision,
        chunks,
    } = backup;
    let first = proto::StreamBackupResponse {
        revision,
        epoch,
        ..Default::default()
    };
    let bytes = futures_util::stream::iter(chunks).map(Some);
    let all = bytes.chain(futures_util::stream::iter([None]));
    all.scan((Sha256::new(), Some(first)), |(sum, first), chunk| {
        let mut part = first.take().unwrap_or_default();
        match chunk {
            Some(bytes) => {
                sum.update(&bytes);
                part.data = bytes.into();
            }
            None => part.sha256 = std::mem::take(sum).finalize().to_vec(),
        }
        std::future::ready(Some(Ok(part)))
    })
}

fn unavailable(error: Unavailable) -> Status {
    status::error(Code::Unavailable, ErrorReason::StoreUnavailable, error.0).into_status()
}

fn not_done(failed: &Failed) -> Status {
    tracing::error!(%failed, "maintenance not set");
    status::internal()
}

fn no_state() -> Status {
    const MESSAGE: &str = "this component has no state to back up";
    status::error(Code::Unimplemented, ErrorReason::NotImplemented, MESSAGE).into_status()
}
