//! Several managers on one store, with one registry and agents that are played.

use std::time::Duration;

use muster_proto::replicas::v1::*;
use muster_store::{Leases, Link, MemoryCluster, Options, Store};
use replica_manager::Serving;
use tokio::time::Instant;

use super::agent::Agent;
use super::registry::Registry;
use super::sandbox::{Sandbox, serving};

/// How long anything that is awaited may take: elections included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a leader that is away keeps others from leading.
pub(crate) const LEADER_LEASE: Duration = Duration::from_millis(1500);

/// The managers and what they share.
pub(crate) struct Several {
    pub(crate) cluster: MemoryCluster,
    pub(crate) registry: Registry,
    pub(crate) managers: Vec<Sandbox>,
    pub(crate) links: Vec<Link>,
    pub(crate) agents: Vec<Agent>,
    serving: Serving,
    leader_lease: Duration,
}

impl Several {
    /// So many managers, the first of which leads.
    pub(crate) async fn start(count: usize) -> Self {
        Self::with_lease(count, LEADER_LEASE).await
    }

    /// The same, where a leader that is away keeps others from leading for so long.
    pub(crate) async fn with_lease(count: usize, leader_lease: Duration) -> Self {
        let registry = Registry::new();
        let mut several = Self {
            cluster: MemoryCluster::new(),
            serving: serving(&registry).await,
            registry,
            managers: Vec::new(),
            links: Vec::new(),
            agents: Vec::new(),
            leader_lease,
        };
        for _ in 0..count {
            several.add().await;
            several.until_led().await;
        }
        several
    }

    /// One more manager.
    pub(crate) async fn add(&mut self) {
        let (store, link) = self.open().await;
        let mut manager = Sandbox::over(&self.registry, &self.serving, store).await;
        manager.patience = PATIENCE;
        self.managers.push(manager);
        self.links.push(link);
    }

    async fn open(&self) -> (Store, Link) {
        let leases = Leases {
            instance: self.leader_lease.max(Duration::from_secs(10)),
            leader: self.leader_lease,
        };
        let options = Options {
            leases,
            ..Options::default()
        };
        self.cluster.open("/manager/", options).await.unwrap()
    }

    /// A worker with so many slots, whose agent is connected to the manager `at`.
    pub(crate) fn add_worker(&mut self, slots: usize, at: usize) {
        let name = format!("w{}", self.agents.len() + 1);
        self.registry.add_worker(&name, slots, "");
        let channel = self.managers[at].channel.clone();
        self.agents.push(Agent::start(&name, channel));
    }

    pub(crate) fn agent(&self, worker: &str) -> &Agent {
        let mut agents = self.agents.iter();
        agents.find(|agent| agent.worker == worker).unwrap()
    }

    /// Which manager leads, as the store of the manager `seen_by` has it.
    pub(crate) async fn leader(&self, seen_by: usize) -> Option<usize> {
        let instances = self.managers[seen_by].store.instances().await.unwrap();
        let leader = instances.iter().find(|instance| instance.leader)?;
        let mut managers = self.managers.iter();
        managers.position(|manager| *manager.context.identity.instance == *leader.id)
    }

    /// Waits until every manager knows that one of them leads, and the registry has its term.
    pub(crate) async fn until_led(&self) {
        let deadline = Instant::now() + PATIENCE;
        for seen_by in 0..self.managers.len() {
            while self.leader(seen_by).await.is_none() || self.registry.claims().is_empty() {
                assert!(Instant::now() < deadline, "nobody leads");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits until the registry has taken so many terms.
    pub(crate) async fn until_claims(&self, count: usize) {
        until("claimed", || self.registry.claims().len() >= count).await;
    }

    /// Ends a manager without any step of shutdown, and without giving anything back.
    pub(crate) async fn kill(&self, which: usize) {
        self.links[which].cut();
        self.managers[which].context.tasks.cut();
        self.managers[which].context.tasks.ended().await;
    }

    /// Waits until nothing is written any more, and answers the position.
    pub(crate) async fn until_quiet(&self, seen_by: usize) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let now = self.managers[seen_by].store.revision().await.unwrap();
            if before == Some(now) {
                return now.0;
            }
            before = Some(now);
            assert!(Instant::now() < deadline, "it never gets quiet");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What runs on all workers, as "chat/0", each once if all is well.
    pub(crate) fn running(&self) -> Vec<Assignment> {
        let mut running: Vec<_> = self.agents.iter().flat_map(Agent::running).collect();
        running.sort_by(|one, other| one.replica.cmp(&other.replica));
        running
    }

    /// Every attempt that any agent has started, in order of its id.
    pub(crate) fn started(&self) -> Vec<String> {
        let mut started: Vec<_> = self.agents.iter().flat_map(Agent::started).collect();
        started.sort();
        started
    }

    pub(crate) async fn stop(&self) {
        for manager in &self.managers {
            manager.stop().await;
        }
    }
}

/// Waits until a test holds.
pub(crate) async fn until(what: &str, test: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
