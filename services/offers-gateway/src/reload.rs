//! Reads the configuration again when SIGHUP asks for it. A configuration with any fault changes
//! nothing, and the log tells every fault; a good one is taken whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Again, Config, Timeouts};
use crate::metrics::Metrics;
use crate::roster::Roster;

/// What can be changed while the gateway serves.
#[derive(Debug)]
pub struct Reload {
    /// The backends.
    pub roster: Roster,
    /// How long callers wait.
    pub timeouts: Arc<ArcSwap<Timeouts>>,
    /// Counts what came of it.
    pub metrics: Metrics,
    /// What is in force.
    pub current: Config,
}

impl Reload {
    /// Serves SIGHUP for ever.
    pub async fn run(mut self, again: Again) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        while hangup.recv().await.is_some() {
            let again = again.clone();
            let read = tokio::task::spawn_blocking(move || again.read()).await;
            match read.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(config) => self.take(config).await,
                Err(error) => {
                    self.metrics.reloaded(false);
                    tracing::error!(error, "configuration refused; what was in force stays");
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self, mut config: Config) {
        config.keep_away(&self.current.backends);
        let changes = self.roster.apply(&config.backends).await;
        self.timeouts.store(Arc::new(config.timeouts));
        self.metrics.reloaded(true);
        let current = &self.current;
        let restart = [
            ("data", current.data != config.data),
            ("store", current.store != config.store),
            ("outcomes", current.outcomes != config.outcomes),
        ];
        let restart = restart.into_iter().filter(|(_, differs)| *differs);
        let mut restart: Vec<_> = restart.map(|(name, _)| name).collect();
        if let (Some(current), Some(config)) = (&current.lasting, &config.lasting) {
            restart.extend(current.differs(config));
        }
        self.current.backends = config.backends;
        tracing::info!(
            added = ?changes.added,
            changed = ?changes.changed,
            removed = ?changes.removed,
            "configuration taken"
        );
        if !restart.is_empty() {
            tracing::warn!(keys = ?restart, "these differ too, and take a restart");
        }
    }
}
