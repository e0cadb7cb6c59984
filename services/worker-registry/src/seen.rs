//! What readers are shown: durable records together with what is known in memory at the moment.

use std::sync::Arc;
use std::time::SystemTime;

use muster_runtime::watch::Resource;

use crate::domain::allocation::{Allocation, End};
use crate::domain::drain::Progress;
use crate::domain::event::Event;
use crate::domain::fleet::Entry;
use crate::domain::liveness::Liveness;
use crate::domain::room::Usage;
use crate::domain::worker::{Presence, Worker};

/// What is known of a worker's being there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) liveness: Liveness,
    pub(crate) since: SystemTime,
    pub(crate) heard: Option<SystemTime>,
}

impl Observed {
    /// What the record alone says; `pulse` is what is known in memory of a worker that is expected.
    pub(crate) fn of(worker: &Worker, pulse: Option<Self>) -> Self {
        let heard = pulse.and_then(|pulse| pulse.heard);
        let durable = |liveness, since| Self {
            liveness,
            since,
            heard,
        };
        match worker.presence {
            Presence::Lost { at, .. } => durable(Liveness::Lost, at),
            Presence::Left { at } => durable(Liveness::Left, at),
            Presence::Awaited => durable(Liveness::Unknown, worker.created),
            Presence::Expected => {
                pulse.unwrap_or_else(|| durable(Liveness::Unknown, worker.created))
            }
        }
    }
}

/// A worker at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) worker: Arc<Worker>,
    pub(crate) usage: Usage,
    pub(crate) observed: Observed,
    /// How far its running drain has come, as owners say.
    pub(crate) progress: Option<Arc<Progress>>,
}

impl Seen {
    pub(crate) fn new(entry: &Entry, observed: Observed, progress: Option<Arc<Progress>>) -> Self {
        Self {
            worker: Arc::clone(&entry.worker),
            usage: entry.usage(),
            observed,
            progress,
        }
    }
}

/// What the fixed fields of a worker take in a message, on average.
const WORKER_BASE: usize = 256;

/// What an accelerator takes beside its uuid and names.
const GPU_BASE: usize = 24;

impl Resource for Seen {
    /// An estimate that is rather too large: exact bytes would cost as much as rendering.
    fn encoded_len(&self) -> usize {
        let worker = &self.worker;
        let labels = worker.labels.iter().chain(&*worker.machine.labels);
        let labels: usize = labels.map(|(key, value)| key.len() + value.len() + 8).sum();
        let gpus = worker.machine.gpus.iter().map(|gpu| {
            GPU_BASE + gpu.uuid.len() + gpu.kind.name.as_str().len() + gpu.kind.product_name.len()
        });
        let checks = worker
            .checks
            .iter()
            .map(|check| check.name.len() + check.message.len() + 32);
        let blocked = self
            .progress
            .as_ref()
            .map_or(0, |progress| progress.blocked.len() * 160);
        let words = worker.state_by.reason.len() + worker.name.len() * 2;
        WORKER_BASE + labels + gpus.sum::<usize>() + checks.sum::<usize>() + blocked + words
    }
}

/// An allocation as its owner sees it.
#[derive(Clone, Debug)]
pub(crate) struct SeenAllocation {
    pub(crate) allocation: Arc<Allocation>,
    /// When and why force-disabling its worker took it.
    pub(crate) revoked: Option<End>,
}

impl SeenAllocation {
    pub(crate) fn new(allocation: &Arc<Allocation>, worker: Option<&Worker>) -> Self {
        let taken = worker.filter(|worker| allocation.is_revoked_through(worker.revoked_through));
        Self {
            allocation: Arc::clone(allocation),
            revoked: taken.map(|worker| End {
                at: worker.state_since,
                reason: worker.state_by.reason.clone(),
            }),
        }
    }
}

impl Resource for SeenAllocation {
    fn encoded_len(&self) -> usize {
        let allocation = &self.allocation;
        let gpus: usize = allocation.gpus.iter().map(|uuid| uuid.len() + 2).sum();
        let attributes = allocation.attributes.iter();
        let attributes: usize = attributes
            .map(|(key, value)| key.len() + value.len() + 8)
            .sum();
        256 + gpus + attributes + allocation.subject.len() + allocation.spread_key.len()
    }
}

/// An event, as its hub holds it.
#[derive(Clone, Debug)]
pub(crate) struct SeenEvent(pub(crate) Event);

impl Resource for SeenEvent {
    fn encoded_len(&self) -> usize {
        128 + self.0.message.len() + self.0.subject.len() * 2
    }
}
