//! The backing of a component with a store: what is kept is a record among the component's own, and the
//! backup is the store's. It knows no other key, and components pass over this one.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use muster_proto::ops::v1::GetStatusRequest;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_store::{Error, Outcome, Revision, Store, Transaction, Watch};
use tonic::Request;

use super::backing::{Backing, Backup, Instance, Position, Unavailable};
use crate::context::Context;
use crate::instances::{Instances, Peer};

/// Where maintenance is kept; no component has keys of its own under `ops/`.
const MAINTENANCE: &str = "ops/maintenance";

/// How long another instance may take to say where it stands.
const PEER_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// For a component with a store: a record in it.
#[derive(Debug, Clone)]
pub struct StoreBacking {
    store: Store,
    /// Who else is on the store, and which of them this is.
    shared: Option<(Instances, Context)>,
}

impl StoreBacking {
    /// In `store`, which whoever opened it closes.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            shared: None,
        }
    }

    /// In the store of `instances`, of which the one with this context is one.
    pub fn of(instances: &Instances, context: &Context) -> Self {
        Self {
            store: instances.store().clone(),
            shared: Some((instances.clone(), context.clone())),
        }
    }

    /// Where this instance stands as one of several.
    async fn seen_here(&self, instances: &Instances, context: &Context) -> Instance {
        Instance {
            id: context.identity.instance.to_string(),
            address: instances.address().to_owned(),
            version: context.identity.version.to_owned(),
            started: context.clock.started(),
            position: self.position().await,
        }
    }
}

#[tonic::async_trait]
impl Backing for StoreBacking {
    async fn load(&self) -> Result<Option<Bytes>, Unavailable> {
        let record = self.store.get(MAINTENANCE).await?;
        Ok(record.map(|record| record.value))
    }

    async fn keep(&self, record: Bytes) -> Result<(), Unavailable> {
        let put = Transaction::new().put(MAINTENANCE, record);
        match self.store.commit(put).await? {
            Outcome::Committed(_) => Ok(()),
            // Nothing was required, so nothing can conflict.
            Outcome::Conflict { key, .. } => Err(Unavailable(format!("{key} has changed"))),
        }
    }

    async fn position(&self) -> Position {
        let shared = self.store.is_shared();
        let instances = self.shared.as_ref().map(|(instances, _)| instances);
        Position {
            store: self.store.kind(),
            epoch: self.store.epoch().to_string(),
            revision: self.store.revision().await.map_or(0, number),
            leader: match instances {
                Some(instances) => instances.leading().is_some(),
                None => !shared,
            },
            lag: shared.then(|| self.store.age()),
        }
    }

    fn writing(&self) -> Option<Duration> {
        self.store.writing()
    }

    async fn instances(&self) -> Result<Option<Vec<Instance>>, Unavailable> {
        let Some((instances, context)) = &self.shared else {
            return Ok(None);
        };
        if !self.store.is_shared() {
            return Ok(None);
        }
        let peers = instances.peers().await?;
        let mut all = join_all(peers.into_iter().map(ask)).await;
        let leads = instances.leader().await.ok().map(|leader| leader.id);
        for one in &mut all {
            one.position.leader = leads.as_deref() == Some(one.id.as_str());
        }
        all.push(self.seen_here(instances, context).await);
        Ok(Some(all))
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        if !self.store.is_shared() {
            return stream::empty().boxed();
        }
        let begin = (self.store.clone(), None::<Watch>);
        stream::unfold(begin, |(store, watch)| async move {
            match watch {
                Some(mut watch) => match watch.next().await {
                    Ok(_) => Some(((), (store, Some(watch)))),
                    Err(Error::Closed | Error::Failed(_)) => None,
                    // What was missed is read when the watch begins anew.
                    Err(_) => Some(((), (store, None))),
                },
                None => {
                    let now = store.revision().await.ok()?;
                    let watch = store.watch(MAINTENANCE, now).await.ok();
                    Some(((), (store, watch)))
                }
            }
        })
        .boxed()
    }

    async fn backup(&self) -> Result<Option<Backup>, Unavailable> {
        let backup = self.store.backup().await?;
        Ok(Some(Backup {
            epoch: backup.epoch().to_string(),
            revision: number(backup.revision()),
            chunks: Box::new(backup),
        }))
    }
}

/// Where another instance stands, as it says itself; without that if it does not answer.
async fn ask(peer: Peer) -> Instance {
    let mut request = Request::new(GetStatusRequest {});
    request.set_timeout(PEER_ANSWERS_WITHIN);
    let answer = OpsServiceClient::new(peer.channel)
        .get_status(request)
        .await;
    let told = answer.ok().and_then(|answer| answer.into_inner().instance);
    let told = told.unwrap_or_default();
    Instance {
        id: peer.id.to_string(),
        started: peer.about.started(),
        address: peer.about.address,
        version: peer.about.version,
        position: Position {
            revision: told.revision,
            lag: told.lag.and_then(|lag| lag.try_into().ok()),
            ..Position::default()
        },
    }
}

impl From<Error> for Unavailable {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

fn number(Revision(revision): Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
