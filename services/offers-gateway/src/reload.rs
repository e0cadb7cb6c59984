//! Takes the configuration that was read again, as far as it can while the gateway serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_runtime::process::{Renewal, Renewed};

use crate::config::{Config, Timeouts};
use crate::roster::Roster;
use crate::spec::Spec;

/// The flags and keys of the file that are taken.
pub const TAKES: &[&str] = &[
    "backend",
    "backend_timeout",
    "catalog",
    "max_backend_timeout",
    "workers_addr",
];

/// What can be changed while the gateway serves.
#[derive(Debug)]
pub struct Reload {
    /// The backends.
    pub roster: Roster,
    /// How long callers wait.
    pub timeouts: Arc<ArcSwap<Timeouts>>,
    /// The backends in force.
    pub backends: Vec<Spec>,
}

impl Reload {
    /// Takes each that comes.
    pub async fn run(mut self, mut renewed: Renewed<Config>) {
        while let Some(Renewal { config, taken }) = renewed.next().await {
            self.take(config).await;
            drop(taken);
        }
    }

    async fn take(&mut self, mut config: Config) {
        config.keep_away(&self.backends);
        let changes = self.roster.apply(&config.backends).await;
        self.timeouts.store(Arc::new(config.timeouts));
        self.backends = config.backends;
        if !changes.is_empty() {
            tracing::info!(
                added = ?changes.added,
                changed = ?changes.changed,
                removed = ?changes.removed,
                "backends changed"
            );
        }
    }
}
