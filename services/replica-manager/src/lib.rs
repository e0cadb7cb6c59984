//! The `replica-manager`: which replicas must run, and what to do when they do not.
//!
//! [`domain`] decides, and does nothing else. Around it: `state` is what is durable; `engine` changes it,
//! a service at a time, with the plan that follows from the change in the same transaction; `lead` is what one
//! instance does for all that are on one store; `executor` does at the worker-registry what records say;
//! `registry` tells what the registry tells; `grpc` is what users and agents speak to.

pub mod config;
pub mod crash;
pub mod domain;
mod engine;
mod executor;
mod fleet;
mod grpc;
mod ids;
mod lead;
mod load;
mod metrics;
mod registry;
mod serve;
mod state;
mod wakes;

use std::process::ExitCode;

use anyhow::Context as _;
use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::process::{self, Component, NoFile, Renewed};
use muster_runtime::server::Listeners;
use muster_runtime::shutdown::Phase;
use muster_store::Store;

pub use config::{Args, Config, Serving};
pub use serve::{Error, serve};

/// How long the store may take to close.
const CLOSE_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// The replica-manager as a program.
#[derive(Debug)]
pub struct ReplicaManager;

impl Component for ReplicaManager {
    const NAME: &'static str = "replica-manager";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Keeps services' replicas running";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("listen", "127.0.0.1:7402"),
        ("ops-listen", "127.0.0.1:7412"),
    ];
    type Args = Args;
    type File = NoFile;
    type Config = Config;

    fn configure(_: &CommonArgs, own: Args, _: NoFile) -> Result<Config, String> {
        Config::new(own)
    }

    async fn run(
        config: Config,
        _: Renewed<Config>,
        context: Context,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        let spec = config.store.part_of(Self::NAME);
        let opened = Store::open(&spec, config.store_options()).await;
        let store = opened.with_context(|| format!("opening {spec}"))?;
        if let Some(file) = config.store.file() {
            context
                .keep_reports_beside(file)
                .context("the report of the last shutdown")?;
        }
        let closing = store.clone();
        context
            .shutdown
            .step(Phase::Store, "store", CLOSE_WITHIN, move || async move {
                closing.close().await;
            });
        serve(config.serving, context, store, listeners).await?;
        Ok(())
    }
}

/// The whole of the program's `main`, compiled with this crate, and not once more in each program.
#[must_use]
pub fn main() -> ExitCode {
    process::main::<ReplicaManager>()
}
