//! Maintenance of a component: on or off, durable, shown by health. It changes health answers only;
//! calls are still served.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use muster_proto::ops::v1 as proto;
use prost::Message as _;
use tokio::sync::{Mutex, watch};

use super::backing::{Backing, Unavailable};
use crate::clock::Clock;
use crate::context::Context;
use crate::health::Health;

/// Whether maintenance is on, and the way to change it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Maintenance {
    backing: Arc<dyn Backing>,
    health: Health,
    clock: Clock,
    state: watch::Sender<proto::Maintenance>,
    /// One change at a time, so that what is kept last is what is shown.
    changing: Arc<Mutex<()>>,
}

/// A change that someone wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) on: bool,
    pub(super) reason: String,
    pub(super) actor: String,
}

impl Maintenance {
    pub(super) async fn open(
        context: &Context,
        backing: Arc<dyn Backing>,
    ) -> Result<Self, Unavailable> {
        let maintenance = Self {
            backing,
            health: context.health.clone(),
            clock: context.clock.clone(),
            state: watch::Sender::new(proto::Maintenance::default()),
            changing: Arc::default(),
        };
        maintenance.reload().await?;
        Ok(maintenance)
    }

    /// As it is now.
    pub fn state(&self) -> proto::Maintenance {
        self.state.borrow().clone()
    }

    /// Reads again what is kept, after another instance may have changed it.
    pub async fn reload(&self) -> Result<(), Unavailable> {
        let _changing = self.changing.lock().await;
        let state = match self.backing.load().await? {
            None => proto::Maintenance::default(),
            Some(bytes) => proto::Maintenance::decode(bytes)
                .map_err(|error| Unavailable(format!("what is kept of maintenance: {error}")))?,
        };
        self.show(state);
        Ok(())
    }

    /// Shows what other instances make of it, as they change it.
    pub(super) async fn follow(self, mut changes: BoxStream<'static, ()>) {
        while changes.next().await.is_some() {
            if let Err(error) = self.reload().await {
                tracing::warn!(%error, "maintenance could not be read again");
            }
        }
    }

    /// Keeps the change, then shows it. What is on already keeps the time since when it is.
    pub(super) async fn set(&self, wanted: Wanted) -> Result<proto::Maintenance, Unavailable> {
        let _changing = self.changing.lock().await;
        let before = self.state();
        let since = before
            .since_time
            .filter(|_| before.on)
            .unwrap_or(self.clock.now().into());
        let Wanted { on, reason, actor } = wanted;
        let after = proto::Maintenance {
            on,
            reason,
            actor,
            since_time: on.then_some(since),
        };
        self.backing.keep(after.encode_to_vec().into()).await?;
        tracing::info!(
            on,
            reason = after.reason,
            actor = after.actor,
            "maintenance was set"
        );
        self.show(after.clone());
        Ok(after)
    }

    fn show(&self, state: proto::Maintenance) {
        let told = format!("{} (by {})", state.reason, state.actor);
        self.health.maintenance(state.on.then_some(told.as_str()));
        self.state.send_replace(state);
    }
}
