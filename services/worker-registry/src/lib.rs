//! The worker-registry: what machines there are, what state they are in, and what may run on them.
//!
//! [`serve`] is the whole component as a function of its settings, its surroundings, its store and its
//! listeners. `domain` decides, `registry` makes decisions durable and shows them, `grpc` speaks.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use muster_proto::workers::v1::peer_service_server::PeerServiceServer;
use muster_proto::workers::v1::workers_service_server::WorkersServiceServer;
use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::instances::Instances;
use muster_runtime::operations::{Operations, StoreBacking};
use muster_runtime::process::{self, Component, NoFile, Renewed};
use muster_runtime::server::{Listeners, Server};
use muster_runtime::shutdown::Phase;
use muster_store::{HistoryLimits, Options, Spec, Store};

mod config;
mod credential;
pub mod domain;
mod grpc;
mod record;
mod registry;
mod seen;

pub use config::{Args, Config};

use grpc::{AgentVerifier, METHODS, Peers, Workers};
use registry::Registry;

/// Pages of the store's file in memory, beside its records: what is written is read again only at a start.
const STORE_CACHE: usize = 4 << 20;

/// How long the store may take to write what is queued when the process ends.
const STORE_CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// How to open a registry's store. Alone on it, the registry keeps a history of its own for watchers, and
/// follows the store by what it commits; one of several follows the store's.
#[must_use]
pub fn store_options(spec: &Spec, config: &Config) -> Options {
    let history = match spec {
        Spec::Memory | Spec::Embedded(_) => HistoryLimits::NONE,
        Spec::Etcd(_) => HistoryLimits::default(),
    };
    Options {
        history,
        cache_bytes: STORE_CACHE,
        leases: config.leases(),
        ..Options::default()
    }
}

/// Serves until shutdown. The store stays open: whoever opened it closes it, in a step of
/// [`Phase::Store`] or later.
///
/// The future is boxed, so that what it runs is compiled with this crate, and not once more in each program.
///
/// # Errors
/// The store cannot be read, or the server cannot be put together.
pub fn serve(
    config: Config,
    context: Context,
    store: Store,
    listeners: Listeners,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        context.fail_when("store", store.failed());
        let instances = Instances::join(&context, &store, listeners.grpc_address())
            .await
            .context("cannot take its place among the instances on the store")?;
        let backing = StoreBacking::of(&instances, &context);
        let operations = Operations::open(&context, backing).await?;
        let registry = Registry::start(config, &context, instances)
            .await
            .context("cannot start")?;
        Server::new(&context)
            .operations(&operations)
            .methods(METHODS)
            .verifier(Arc::new(AgentVerifier(registry.clone())))
            .service(WorkersServiceServer::new(Workers(registry.clone())))
            .service(PeerServiceServer::new(Peers(registry)))
            .serve(listeners)
            .await?;
        Ok(())
    })
}

/// The worker-registry as a program.
#[derive(Debug)]
pub struct WorkerRegistry;

impl Component for WorkerRegistry {
    const NAME: &'static str = "worker-registry";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "Keeps the machines of the fleet, their state, and what may run on them";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("listen", "127.0.0.1:7401"),
        ("ops-listen", "127.0.0.1:7411"),
    ];
    type Args = Args;
    type File = NoFile;
    type Config = (Spec, Config);

    fn configure(_: &CommonArgs, own: Args, _: NoFile) -> Result<Self::Config, String> {
        let config = Config::new(&own)?;
        Ok((own.store, config))
    }

    async fn run(
        (spec, config): Self::Config,
        _: Renewed<Self::Config>,
        context: Context,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        let spec = spec.part_of(Self::NAME);
        let store = Store::open(&spec, store_options(&spec, &config)).await?;
        if let Some(file) = spec.file() {
            context
                .keep_reports_beside(file)
                .context("the report of the last shutdown")?;
        }
        let closing = store.clone();
        context.shutdown.step(
            Phase::Store,
            "store",
            STORE_CLOSES_WITHIN,
            move || async move {
                closing.close().await;
            },
        );
        serve(config, context, store, listeners).await
    }
}

/// The whole of the program's `main`, compiled with this crate, and not once more in each program.
#[must_use]
pub fn main() -> ExitCode {
    process::main::<WorkerRegistry>()
}
