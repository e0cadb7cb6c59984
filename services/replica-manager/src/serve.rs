//! Puts the manager together, and serves until shutdown.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use muster_proto::replicas::v1::assignments_service_server::AssignmentsServiceServer;
use muster_proto::replicas::v1::replicas_service_server::ReplicasServiceServer;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::context::Context;
use muster_runtime::health::Tier;
use muster_runtime::operations::{Operations, StoreBacking, Unavailable};
use muster_runtime::page::Sealer;
use muster_runtime::resume::Progress;
use muster_runtime::server::{Listeners, Server};
use muster_runtime::shutdown::Phase;
use muster_store::{Listing, Store, Watch};
use tokio::sync::watch;

use crate::config::Serving;
use crate::engine::{Engine, Parts, forget, passes};
use crate::executor::Executor;
use crate::fleet::Fleet;
use crate::grpc::{Api, METHODS};
use crate::load::Loads;
use crate::metrics::Metrics;
use crate::registry::calls::Owner;
use crate::registry::credentials::Credentials;
use crate::registry::drains::Drains;
use crate::registry::watching::Follower;
use crate::state::hubs::Hubs;
use crate::state::record::Unreadable;
use crate::state::view::View;
use crate::unknown::Unknown;
use crate::wakes::Wakes;

/// Why the manager could not serve.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("the store cannot be read")]
    Store(#[from] muster_store::Error),
    #[error("the store cannot be read")]
    Operations(#[from] Unavailable),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the system has no randomness")]
    Randomness(#[from] getrandom::Error),
    #[error(transparent)]
    Server(#[from] muster_runtime::server::Error),
}

impl<E: Into<Cause>> From<E> for Error {
    fn from(cause: E) -> Self {
        Self(cause.into())
    }
}

/// Serves until shutdown.
///
/// # Errors
/// The store cannot be read, or the server cannot be put together.
pub async fn serve(
    config: Serving,
    context: Context,
    store: Store,
    listeners: Listeners,
) -> Result<(), Error> {
    context.fail_when("store", store.failed());
    let operations = Operations::open(&context, StoreBacking::new(store.clone())).await?;
    let listing = store.list("").await?;
    let (engine, hubs) = assemble(&config, &context, &store, &listing).await?;
    let term = engine.parts().leadership.term();
    let owner = Owner {
        epoch: term.epoch.to_string(),
        revision: term.revision.0,
    };
    let registry = WorkersServiceClient::new(context.connector.channel(&config.workers));
    let watch = store.watch("", listing.revision).await?;
    let api = Api {
        engine: engine.clone(),
        hubs: hubs.clone(),
        registry: registry.clone(),
        offers: OffersServiceClient::new(context.connector.channel(&config.offers)),
        connector: context.connector.clone(),
        tasks: context.tasks.clone(),
        sealer: Sealer::random()?,
        owner: owner.clone(),
        unknown: Unknown::default(),
        epoch: Arc::from(owner.epoch.as_str()),
    };
    let follower = Follower {
        engine,
        hubs,
        registry,
        owner,
        claimed: watch::Sender::new(false),
    };
    run(&context, &follower, watch, config.report_interval);
    let credentials = Credentials::default();
    let following = credentials.clone().follow(api.registry.clone());
    run_loop(&context, "credential keys", following);
    let server = Server::new(&context)
        .operations(&operations)
        .methods(METHODS)
        .verifier(Arc::new(credentials))
        .service(ReplicasServiceServer::new(api.clone()))
        .service(AssignmentsServiceServer::new(api));
    server.serve(listeners).await?;
    Ok(())
}

/// The engine over what the store holds, and the hubs that tell of it.
async fn assemble(
    config: &Serving,
    context: &Context,
    store: &Store,
    listing: &Listing,
) -> Result<(Engine, Hubs), Error> {
    let view = View::load(listing)?;
    let fleet = Fleet::default();
    let hubs = Hubs::new(&view.read(), &store.epoch().to_string(), fleet.clone());
    let engine = Engine::new(Parts {
        leadership: store.lead(&context.identity.instance).await?,
        progress: Progress::new(listing.revision.0),
        view,
        clock: context.clock.clone(),
        fleet,
        loads: Loads::default(),
        wakes: Wakes::default(),
        terms: config.terms.clone(),
        crash: config.crash,
        metrics: Metrics::new(&context.metrics),
        store: store.clone(),
    });
    Ok((engine, hubs))
}

/// Starts every loop, and goes on with what was under way when the last process ended.
fn run(context: &Context, follower: &Follower, watch: Watch, every: Duration) {
    let (engine, hubs) = (&follower.engine, &follower.hubs);
    let claimed = follower.claimed.subscribe();
    let executor = Executor::new(
        follower.registry.clone(),
        context.tasks.clone(),
        follower.owner.clone(),
        claimed,
    );
    executor.attach(engine.clone());
    let following = passes::follow(engine.clone(), watch, hubs.clone(), executor.clone());
    run_loop(context, "follow the store", following);
    run_loop(context, "plan", passes::plan_due(engine.clone()));
    run_loop(context, "count time", passes::count_time(engine.clone()));
    let check = context.health.check("worker-registry", Tier::Auxiliary);
    run_loop(context, "follow workers", follower.clone().workers(check));
    run_loop(
        context,
        "follow allocations",
        follower.clone().allocations(),
    );
    run_loop(context, "reconcile", follower.clone().reconcile(every));
    let drains = Drains::default();
    let (registry, owner) = (follower.registry.clone(), follower.owner.clone());
    let reporting = drains.report(engine.clone(), registry, owner, every);
    run_loop(context, "report drains", reporting);
    run_loop(context, "forget", forget::old(engine.clone(), FORGET_EVERY));
    begin(engine, &executor);
    let closing = hubs.clone();
    context
        .shutdown
        .step(Phase::Drain, "watches", CLOSE_WITHIN, move || async move {
            closing.close();
        });
}

/// How often old events and request ids are let go of.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How long ending the watches may take: it only tells them.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What was under way when the last process ended goes on.
fn begin(engine: &Engine, executor: &Executor) {
    let parts = engine.parts();
    let services: Vec<_> = {
        let view = parts.view.read();
        view.all()
            .map(|(uid, service)| (Arc::clone(uid), Arc::clone(service)))
            .collect()
    };
    let known = services
        .iter()
        .map(|(uid, service)| (uid, service.as_ref()));
    parts.metrics.begin(known, engine.now());
    for (_, service) in &services {
        executor.consider(service);
    }
    parts
        .wakes
        .wake_all(services.into_iter().map(|(uid, _)| uid));
}

/// Runs a loop that the manager cannot do without, until loops are stopped.
fn run_loop<F>(context: &Context, name: &'static str, work: F)
where
    F: Future + Send + 'static,
    F::Output: muster_runtime::task::Ending + Send,
{
    let stop = context.shutdown.reached(Phase::Loops);
    context.tasks.critical(name, async move {
        tokio::select! {
            () = stop => None,
            ended = work => muster_runtime::task::Ending::into_error(ended),
        }
        .map_or(Ok(()), Err::<(), String>)
    });
}
