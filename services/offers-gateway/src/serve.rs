//! Puts the gateway together and runs it until shutdown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::operations::{Operations, StoreBacking};
use muster_runtime::page::Sealer;
use muster_runtime::process::{Component, NoFile};
use muster_runtime::server::{Listeners, Server};
use muster_runtime::shutdown::Phase;
use muster_store::{Epoch, Options, Store};

use crate::board::Board;
use crate::config::{Args, Config};
use crate::domain::backend::Facts;
use crate::gather::Handles;
use crate::grpc::{METHODS, Offers, OffersServer, Parts};
use crate::keeper::Keeper;
use crate::outcomes::Outcomes;
use crate::refresher::Refresher;
use crate::source::Source;
use crate::spec::Spec;

/// How long the store may take to write what is queued when the process ends.
const STORE_CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// Serves offers until shutdown.
///
/// `store` holds what launches have taught; whoever opened it closes it, in [`Phase::Store`].
pub async fn serve(
    config: Config,
    context: Context,
    store: Store,
    listeners: Listeners,
) -> anyhow::Result<()> {
    context.fail_when("store", store.failed());
    let keeper = match &config.data {
        Some(folder) => Keeper::open(&folder.join("offers"))?,
        None => Keeper::none(),
    };
    let operations = Operations::open(&context, StoreBacking::new(store.clone())).await?;
    // Positions are in this process's own history: another start is another one.
    let epoch = Epoch::begin().to_string();
    let board = Board::new(
        epoch,
        context.clock.clone(),
        config.backends.iter().map(facts),
    );
    let outcomes =
        Outcomes::start(store, board.clone(), context.clock.clone(), config.outcomes).await?;
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
    let offers = Offers::new(Parts {
        handles: start(&config.backends, &board, &keeper, &context),
        board,
        outcomes,
        sealer: Sealer::random()?,
        clock: context.clock.clone(),
        shutdown: context.shutdown.clone(),
        backend_timeout: config.backend_timeout,
    });
    Server::new(&context)
        .operations(&operations)
        .methods(METHODS)
        .service(OffersServer::new(offers))
        .serve(listeners)
        .await?;
    Ok(())
}

/// Starts the task of every backend.
fn start(specs: &[Spec], board: &Board, keeper: &Keeper, context: &Context) -> Handles {
    let mut handles = BTreeMap::new();
    // What is disabled has no task: nothing would come of asking it.
    for spec in specs.iter().filter(|spec| spec.kind.disabled().is_none()) {
        let source = Source::new(spec);
        let refresher = Refresher::new(
            spec.name.clone(),
            spec.times.clone(),
            source,
            board.clone(),
            keeper.clone(),
            context.clock.clone(),
        );
        handles.insert(spec.name.clone(), refresher.handle());
        let stop = context.shutdown.reached(Phase::Loops);
        context
            .tasks
            .critical(format!("backend {}", spec.name), refresher.run(stop));
    }
    Arc::new(ArcSwap::from_pointee(handles))
}

fn facts(spec: &Spec) -> Facts {
    Facts {
        name: spec.name.clone(),
        kind: spec.kind.name(),
        source: spec.kind.source(),
        refresh_interval: spec.times.refresh_interval,
        drop_after: spec.times.drop_after,
        breaker: spec.times.breaker,
        disabled: spec.kind.disabled(),
    }
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
    type Args = Args;
    type File = NoFile;
    type Config = Config;

    fn configure(_: &CommonArgs, own: Args, _: NoFile) -> Result<Config, String> {
        Config::new(own)
    }

    async fn run(config: Config, context: Context, listeners: Listeners) -> anyhow::Result<()> {
        let store = Store::open(&config.store, Options::default()).await?;
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
        serve(config, context, store, listeners).await
    }
}
