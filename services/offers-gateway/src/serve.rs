//! Puts the gateway together and runs it until shutdown.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::instances::Instances;
use muster_runtime::operations::{Operations, StoreBacking};
use muster_runtime::page::Sealer;
use muster_runtime::process::{self, Component, Renewed};
use muster_runtime::server::{Listeners, Server};
use muster_runtime::shutdown::Phase;
use muster_runtime::signals::Hangup;
use muster_store::{Epoch, Options, Store};

use crate::board::Board;
use crate::config::{Args, Config};
use crate::grpc::{METHODS, Offers, OffersServer, Parts};
use crate::keeper::{self, Keeper};
use crate::metrics::Metrics;
use crate::outcomes::Outcomes;
use crate::reload::{Reload, TAKES};
use crate::roster::{self, Roster};

/// How long the store may take to write what is queued when the process ends.
const STORE_CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// Serves offers until shutdown.
///
/// `store` holds what launches have taught; whoever opened it closes it, in [`Phase::Store`].
///
/// `renewed` are the settings that are read again, if any are.
///
/// The future is boxed, so that what it runs is compiled with this crate, and not once more in each program.
pub fn serve(
    config: Config,
    renewed: Option<Renewed<Config>>,
    context: Context,
    store: Store,
    listeners: Listeners,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        context.fail_when("store", store.failed());
        let keeper = keeper(config.data.as_deref())?;
        let instances = Instances::join(&context, &store, listeners.grpc_address()).await?;
        let backing = StoreBacking::of(&instances, &context);
        let operations = Operations::open(&context, backing).await?;
        // Positions are in this process's own history: another start is another one.
        let epoch = Epoch::begin().to_string();
        let board = Board::new(
            epoch,
            context.clock.clone(),
            config.backends.iter().map(roster::facts),
        );
        let outcomes =
            Outcomes::start(store, board.clone(), context.clock.clone(), config.outcomes).await?;
        keep_going(&context, &board, &outcomes);
        let metrics = Metrics::new(&context.metrics, &board, &context.clock);
        let roster = Roster::start(
            &config.backends,
            board.clone(),
            keeper,
            metrics.clone(),
            context.clone(),
        );
        let timeouts = Arc::new(ArcSwap::from_pointee(config.timeouts));
        let offers = Offers::new(Parts {
            handles: roster.handles(),
            board,
            metrics: metrics.clone(),
            outcomes,
            sealer: Sealer::random()?,
            clock: context.clock.clone(),
            shutdown: context.shutdown.clone(),
            timeouts: Arc::clone(&timeouts),
        });
        if let Some(renewed) = renewed {
            let reload = Reload {
                roster,
                timeouts,
                backends: config.backends,
            };
            context
                .tasks
                .until(Phase::Loops, "backends", reload.run(renewed));
        }
        Server::new(&context)
            .operations(&operations)
            .methods(METHODS)
            .service(OffersServer::new(offers))
            .serve(listeners)
            .await?;
        Ok(())
    })
}

/// Where offers are kept: in `data`, if there is such a folder.
fn keeper(data: Option<&Path>) -> anyhow::Result<Keeper> {
    let Some(data) = data else {
        return Ok(Keeper::none());
    };
    let folder = data.join(keeper::FOLDER);
    Keeper::open(&folder).with_context(|| {
        let folder = folder.display();
        format!("offers cannot be kept in {folder}: give --data a folder that can be written")
    })
}

/// Outcomes fade while the gateway runs, and watches end before it does.
fn keep_going(context: &Context, board: &Board, outcomes: &Outcomes) {
    context.tasks.critical(
        "outcomes",
        outcomes.clone().run(context.shutdown.reached(Phase::Loops)),
    );
    let watches = board.clone();
    context.shutdown.step(
        Phase::Drain,
        "watches",
        STORE_CLOSES_WITHIN,
        move || async move {
            watches.backends().close();
        },
    );
}

/// The gateway as a program.
#[derive(Debug)]
pub struct Gateway;

impl Component for Gateway {
    const NAME: &'static str = "offers-gateway";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "What machines could be had, where, at what price, and how sure we are";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("listen", "127.0.0.1:7400"),
        ("ops-listen", "127.0.0.1:7410"),
    ];
    // Price lists are read again also where there is no file.
    const ON_HANGUP: Hangup = Hangup::Reloads;
    const TAKES: &'static [&'static str] = TAKES;
    type Args = Args;
    type File = toml::Table;
    type Config = Config;

    fn configure(common: &CommonArgs, own: Args, file: toml::Table) -> Result<Config, String> {
        Config::read(common, own, &file)
    }

    async fn run(
        config: Config,
        renewed: Renewed<Config>,
        context: Context,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        let spec = config.store.part_of(Self::NAME);
        let store = Store::open(&spec, Options::default()).await?;
        if let Some(file) = config.store.file() {
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
        serve(config, Some(renewed), context, store, listeners).await
    }
}

/// The whole of the program's `main`, compiled with this crate, and not once more in each program.
#[must_use]
pub fn main() -> ExitCode {
    process::main::<Gateway>()
}
