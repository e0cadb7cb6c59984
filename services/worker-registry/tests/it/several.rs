//! Several instances of the registry on one store, as their callers and agents see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::WorkerLiveness;
use muster_store::{Leases, Link, MemoryCluster, Options};
use tokio::task::JoinSet;
use worker_registry::Config;

use crate::support::{Agent, Client, Registry, get};

mod behind;
mod judging;
mod sharing;
mod writing;

const LEASES: Leases = Leases {
    instance: Duration::from_secs(3),
    leader: Duration::from_secs(1),
};

/// Instances on one store.
struct Several {
    cluster: MemoryCluster,
    all: Vec<Instance>,
}

struct Instance {
    registry: Registry,
    link: Link,
    client: Client,
}

impl Instance {
    /// Ends it as a crash would: nothing is finished, and nothing given back.
    fn kill(&self) {
        self.link.cut();
        self.registry.context.tasks.cut();
    }

    async fn leads(&self) -> bool {
        let term = self.registry.store.instances().await.unwrap();
        let id = &self.registry.context.identity.instance;
        term.iter().any(|one| one.leader && one.id == *id)
    }

    async fn worker(&self, name: &str) -> proto::Worker {
        get(&mut self.client.clone(), name).await.unwrap()
    }

    async fn liveness(&self, name: &str) -> WorkerLiveness {
        self.worker(name).await.liveness()
    }

    async fn events(&self, kind: &str) -> Vec<String> {
        let request = proto::ListWorkerEventsRequest {
            page_size: 1000,
            ..proto::ListWorkerEventsRequest::default()
        };
        let answer = self.client.clone().list_worker_events(request).await;
        let events = answer.unwrap().into_inner().events;
        let of_kind = events.into_iter().filter(|event| event.kind == kind);
        of_kind.map(|event| event.id).collect()
    }
}

/// Judged quickly, yet slowly enough for a machine that has much to do.
fn quick() -> Config {
    let mut config = crate::support::config();
    config.rules.lost_after = Duration::from_secs(4);
    config.rules.fence_after = Duration::from_secs(5);
    config.rules.fence_margin = Duration::from_millis(50);
    config.patience.silent_after = Duration::from_secs(2);
    config.patience.lease = LEASES.instance;
    config.leader_lease = LEASES.leader;
    config
}

impl Several {
    async fn start(count: usize) -> Self {
        Self::with(quick(), count).await
    }

    async fn with(config: Config, count: usize) -> Self {
        Self::with_leases(config, LEASES, count).await
    }

    async fn with_leases(config: Config, leases: Leases, count: usize) -> Self {
        let cluster = MemoryCluster::new();
        let mut all = Vec::new();
        for _ in 0..count {
            let options = Options {
                leases,
                ..Options::default()
            };
            let (store, link) = cluster.open("/registry/", options).await.unwrap();
            let registry = Registry::with(config.clone(), store).await;
            let client = registry.client().await;
            all.push(Instance {
                registry,
                link,
                client,
            });
        }
        let several = Self { cluster, all };
        several.leader(&[]).await;
        several
    }

    /// Waits for a leader other than those.
    async fn leader(&self, except: &[usize]) -> usize {
        let mut found = 0;
        until("an instance leads", async || {
            for (place, one) in self.all.iter().enumerate() {
                if !except.contains(&place) && one.leads().await {
                    return true;
                }
            }
            false
        })
        .await;
        for (place, one) in self.all.iter().enumerate() {
            if !except.contains(&place) && one.leads().await {
                found = place;
            }
        }
        found
    }

    /// Those that do not lead.
    async fn followers(&self) -> Vec<usize> {
        let leader = self.leader(&[]).await;
        (0..self.all.len())
            .filter(|place| *place != leader)
            .collect()
    }

    fn client(&self, place: usize) -> Client {
        self.all[place].client.clone()
    }

    /// Joins a worker at an instance, and lets it beat there, and at another when it is refused.
    async fn join(&self, name: &str, place: usize) -> Beating {
        let agent = Agent::join(&mut self.client(place), name).await;
        let at = Arc::new(AtomicUsize::new(place));
        let clients: Vec<_> = self.all.iter().map(|one| one.client.clone()).collect();
        let place = Arc::clone(&at);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let now = place.load(Ordering::Relaxed);
                let mut client = clients[now].clone();
                let beat = agent.beat(&mut client, &[]);
                match tokio::time::timeout(Duration::from_secs(1), beat).await {
                    Ok(Ok(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
                    _ => {
                        place.store((now + 1) % clients.len(), Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Beating { at, _task: task }
    }
}

/// A worker that beats until this is dropped.
struct Beating {
    at: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Beating {
    fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }
}

/// Waits until `test` says yes, for as long as a slow machine may take.
async fn until(what: &str, mut test: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !test().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
