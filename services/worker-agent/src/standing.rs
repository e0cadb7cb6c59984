//! What the agent is to the registry and the manager: registered as what, heard when. Shared by
//! the loops that talk to them and by those who are asked about it. It decides nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_proto::types::v1::{Gpu, MachineCapacity};
use muster_proto::workers::v1::WorkerState;
use tokio::sync::watch;

use crate::domain::lease::Lease;
use crate::machine;

/// What the registry knows this agent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The generation; what is of an earlier one is refused.
    pub(crate) generation: i64,
    /// All that the worker was given up to this generation is revoked.
    pub(crate) revoked_through: i64,
    /// Its state, as last heard.
    pub(crate) state: WorkerState,
    /// Whether a heartbeat of this generation has been answered.
    pub(crate) beaten: bool,
}

/// The facts. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    boot_id: String,
    capacity: watch::Sender<Arc<MachineCapacity>>,
    registered: watch::Sender<Option<Registered>>,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    registry: Option<Duration>,
    manager: Option<Duration>,
    lease: Option<Lease>,
    cpu_used_milli: Option<i32>,
}

impl Standing {
    /// An agent that has not registered yet, on a machine with `capacity`.
    pub(crate) fn new(capacity: MachineCapacity) -> Self {
        Self(Arc::new(Inner {
            boot_id: machine::boot_id(),
            capacity: watch::Sender::new(Arc::new(capacity)),
            registered: watch::Sender::new(None),
            heard: Mutex::default(),
        }))
    }

    /// The machine's boot, which leases are counted in.
    pub(crate) fn boot_id(&self) -> &str {
        &self.0.boot_id
    }

    /// What the machine has.
    pub(crate) fn capacity(&self) -> Arc<MachineCapacity> {
        Arc::clone(&self.0.capacity.borrow())
    }

    /// The same, as it changes.
    pub(crate) fn watch_capacity(&self) -> watch::Receiver<Arc<MachineCapacity>> {
        self.0.capacity.subscribe()
    }

    /// Notes the accelerators that the machine has now.
    pub(crate) fn set_gpus(&self, gpus: Vec<Gpu>) {
        self.0.capacity.send_modify(|capacity| {
            Arc::make_mut(capacity).gpus = gpus;
        });
    }

    /// What the registry knows this agent as, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Registered>> {
        self.0.registered.subscribe()
    }

    /// The generation; 0 before the first registration.
    pub(crate) fn generation(&self) -> i64 {
        self.0
            .registered
            .borrow()
            .map_or(0, |registered| registered.generation)
    }

    /// Notes what the registry has said.
    pub(crate) fn set_registered(&self, registered: Option<Registered>) {
        self.0.registered.send_if_modified(|before| {
            let changed = *before != registered;
            *before = registered;
            changed
        });
    }

    /// Notes that a heartbeat of this generation was answered, with the worker's state.
    pub(crate) fn note_beaten(&self, state: WorkerState) {
        self.0.registered.send_if_modified(|now| match now {
            Some(now) if !now.beaten || now.state != state => {
                (now.beaten, now.state) = (true, state);
                true
            }
            Some(_) | None => false,
        });
    }

    /// Notes the state that a generation is in.
    pub(crate) fn set_state(&self, generation: i64, state: WorkerState) {
        self.0.registered.send_if_modified(|now| match now {
            Some(now) if now.generation == generation && now.state != state => {
                now.state = state;
                true
            }
            Some(_) | None => false,
        });
    }

    /// Notes that the registry has answered, and the lease that its answer gave.
    pub(crate) fn note_registry(&self, lease: Option<Lease>) {
        let mut heard = self.heard();
        heard.registry = Some(machine::since_boot());
        heard.lease = lease.or(heard.lease.take());
    }

    /// Notes that the manager has said something.
    pub(crate) fn note_manager(&self) {
        self.heard().manager = Some(machine::since_boot());
    }

    /// Time since the registry last answered, the manager was last heard, and what is left of the
    /// lease; absent where there is none.
    pub(crate) fn silences(&self) -> (Option<Duration>, Option<Duration>, Option<Duration>) {
        let now = machine::since_boot();
        let heard = self.heard();
        let since = |at: Option<Duration>| at.map(|at| now.saturating_sub(at));
        let left = heard
            .lease
            .as_ref()
            .map(|lease| lease.left(&self.0.boot_id, now));
        (since(heard.registry), since(heard.manager), left)
    }

    /// Notes how much of the machine's processors is in use.
    pub(crate) fn set_cpu_used_milli(&self, used: Option<i32>) {
        self.heard().cpu_used_milli = used;
    }

    /// How much of the machine's processors is in use, in thousandths; absent if not measured.
    pub(crate) fn cpu_used_milli(&self) -> Option<i32> {
        self.heard().cpu_used_milli
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
