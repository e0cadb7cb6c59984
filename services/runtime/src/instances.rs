//! The instances of a component on one store: this one's seat among them, whether it leads, and how the
//! others are reached. On a store of one process there is only this one, and it leads.
//!
//! It decides nothing about what a leader does: whoever does something for all of them runs it
//! [`Instances::while_leading`], and conditions its writes on the leadership that it was given.

pub mod barrier;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use muster_proto::types::v1::ErrorReason;
use muster_store::{Error, Instance, Leadership, Seat, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Status;

use crate::age::Age;
use crate::args::Reached;
use crate::connect::{Channel, Connector};
use crate::context::Context;
use crate::health::Tier;
use crate::shutdown::Phase;
use crate::status;

/// How often this instance looks whether it is in touch with its store.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Away from the store for longer, and it is said: a member of the store that ends costs others about
/// this long.
pub const AWAY: Duration = Duration::from_secs(3);

/// The wait before leadership is asked for again after the store could not be asked.
const AGAIN: Duration = Duration::from_millis(500);

/// When a caller that found no leader should try again.
const RETRY: Duration = Duration::from_millis(500);

/// This instance among those of its component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Instances(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    seat: Seat,
    address: String,
    leading: watch::Sender<Option<Leadership>>,
    connector: Connector,
    channels: Mutex<BTreeMap<Arc<str>, Peer>>,
}

/// Another instance.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its id.
    pub id: Arc<str>,
    /// What it says of itself.
    pub about: About,
    /// Calls it.
    pub channel: Channel,
}

/// What an instance says of itself to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Where it is reached, HOST:PORT.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it started, in milliseconds since 1970.
    started: u64,
}

impl About {
    /// When it started.
    pub fn started(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.started)
    }
}

impl Instances {
    /// Takes a seat for this instance, which is bound to `address`, and asks to lead for as long as the
    /// component runs. The future is boxed, so that it is compiled once.
    ///
    /// # Errors
    /// The store cannot be used.
    pub fn join<'a>(
        context: &'a Context,
        store: &'a Store,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<Self, Error>> {
        Box::pin(async move {
            let id = &context.identity.instance;
            let started = context.clock.started().duration_since(UNIX_EPOCH);
            let about = About {
                address: Reached::of(context.settings.advertise.as_ref(), address).address,
                version: context.identity.version.to_owned(),
                started: u64::try_from(started.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            };
            let value = serde_json::to_vec(&about).unwrap_or_default();
            let seat = store.join(id, value).await?;
            let first = match store.is_shared() {
                true => None,
                false => Some(store.lead(id).await?),
            };
            let instances = Self(Arc::new(Inner {
                store: store.clone(),
                seat,
                address: about.address,
                leading: watch::Sender::new(first),
                connector: context.connector.clone(),
                channels: Mutex::default(),
            }));
            if store.is_shared() {
                instances.spawn(context);
            }
            Ok(instances)
        })
    }

    fn spawn(&self, context: &Context) {
        let leading = self.clone();
        context
            .tasks
            .until(Phase::StepDown, "lead", async move { leading.lead().await });
        let touch = self.clone();
        let check = context.health.check("instance", Tier::Core);
        let contact = context.health.check("store-contact", Tier::Auxiliary);
        let age = context.age.clone();
        let looking = async move {
            loop {
                touch.look(&check, &contact, &age);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        context.tasks.until(Phase::Loops, "store contact", looking);
        // Before the loops end, so that another leads while this one still finishes its calls.
        let stepping = self.clone();
        let step = move || async move {
            stepping.0.leading.send_replace(None);
        };
        context
            .shutdown
            .step(Phase::StepDown, "leadership", AWAY, step);
    }

    /// Leads whenever it may, for ever.
    async fn lead(&self) {
        loop {
            let Ok(leadership) = self.0.store.lead(self.id()).await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            tracing::info!(term = %leadership.term().revision, "this instance leads");
            let lost = leadership.lost();
            self.0.leading.send_replace(Some(leadership));
            lost.await;
            tracing::warn!("this instance does not lead any more");
            self.0.leading.send_replace(None);
        }
    }

    fn look(&self, seat: &crate::health::Check, contact: &crate::health::Check, age: &Age) {
        match self.0.seat.holds() {
            true => seat.ok(""),
            false => seat.failed("cut off from the store for longer than the lease"),
        }
        let away = self.0.store.age();
        if away < AWAY {
            contact.ok("");
            age.set(Duration::ZERO);
        } else {
            contact.failed(format!(
                "not reached for {} s; reads show what was known then",
                away.as_secs()
            ));
            age.set(away);
        }
    }

    /// Where this instance is reached by the others, HOST:PORT.
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// This instance's id.
    pub fn id(&self) -> &str {
        self.0.seat.id()
    }

    /// Whether this instance may answer for what only the instances know: it holds its seat.
    pub fn may_answer(&self) -> bool {
        self.0.seat.holds()
    }

    /// The right to act for all instances, while this one has it.
    pub fn leading(&self) -> Option<Leadership> {
        let leading = self.0.leading.borrow();
        leading.as_ref().filter(|one| one.holds()).cloned()
    }

    /// Tells when this instance begins to lead, and when that ends.
    pub fn on_leading(&self) -> watch::Receiver<Option<Leadership>> {
        self.0.leading.subscribe()
    }

    /// Runs `work` with each leadership that this instance is given, until it is lost; for ever.
    pub async fn while_leading<F>(&self, mut work: impl FnMut(Leadership) -> F)
    where
        F: Future<Output = ()>,
    {
        let mut leading = self.on_leading();
        loop {
            let now = leading.borrow_and_update().clone();
            let Some(leadership) = now else {
                // The sender lives in `self`.
                let _ = leading.changed().await;
                continue;
            };
            let lost = leadership.lost();
            tokio::select! {
                biased;
                () = lost => {}
                _ = leading.changed() => continue,
                () = work(leadership) => {}
            }
            // Whether it was lost or the work is done: the next leadership is another.
            let _ = leading.changed().await;
        }
    }

    /// The other instances that hold seats.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn peers(&self) -> Result<Vec<Peer>, Error> {
        let all = self.0.store.instances().await?;
        let others = all.into_iter().filter(|one| *one.id != *self.id());
        let peers: Vec<_> = others.filter_map(|one| self.peer(&one)).collect();
        let mut channels = self.channels();
        channels.retain(|id, _| peers.iter().any(|peer| peer.id == *id));
        Ok(peers)
    }

    /// The other instance that leads.
    ///
    /// # Errors
    /// UNAVAILABLE (NO_LEADER): nobody leads, or this instance itself, which is to be looked at first.
    pub async fn leader(&self) -> Result<Peer, Status> {
        let all = self.0.store.instances().await;
        let all = all.map_err(|error| no_leader(error.to_string()))?;
        let leader = all
            .iter()
            .find(|one| one.leader && *one.id != *self.id())
            .and_then(|one| self.peer(one));
        leader.ok_or_else(|| no_leader("no instance leads at the moment".to_owned()))
    }

    /// What an instance with a seat says of itself.
    pub(crate) fn about(instance: &Instance) -> Option<About> {
        serde_json::from_slice(&instance.value).ok()
    }

    fn peer(&self, instance: &Instance) -> Option<Peer> {
        let about = Self::about(instance)?;
        let mut channels = self.channels();
        if let Some(known) = channels.get(&instance.id)
            && known.about == about
        {
            return Some(known.clone());
        }
        let endpoints = self.0.connector.peer(&about.address).ok()?;
        let peer = Peer {
            id: Arc::clone(&instance.id),
            about,
            channel: self.0.connector.channel(&endpoints),
        };
        channels.insert(Arc::clone(&instance.id), peer.clone());
        Some(peer)
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Peer>> {
        self.0
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The store that they are on.
    pub fn store(&self) -> &Store {
        &self.0.store
    }
}

/// UNAVAILABLE: only a leader can do it, and there is none to ask.
fn no_leader(message: String) -> Status {
    status::unavailable(ErrorReason::NoLeader, message, RETRY).into_status()
}

#[cfg(test)]
mod tests;
