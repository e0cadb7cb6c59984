//! Puts the manager together, and serves until shutdown.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use muster_proto::replicas::v1::assignments_service_server::AssignmentsServiceServer;
use muster_proto::replicas::v1::peer_service_server::PeerServiceServer;
use muster_proto::replicas::v1::replicas_service_server::ReplicasServiceServer;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::context::Context;
use muster_runtime::health::Tier;
use muster_runtime::instances::Instances;
use muster_runtime::operations::{Operations, StoreBacking, Unavailable};
use muster_runtime::page::Sealer;
use muster_runtime::resume::Progress;
use muster_runtime::server::{Listeners, Server};
use muster_runtime::shutdown::Phase;
use muster_store::{Listing, Store, Watch};
use tokio::sync::watch;

use crate::config::Serving;
use crate::domain::time::Time;
use crate::engine::{Engine, Parts, passes};
use crate::fleet::Fleet;
use crate::grpc::peer::{self, Peers};
use crate::grpc::{Api, METHODS};
use crate::lead::Lead;
use crate::load::Loads;
use crate::metrics::Metrics;
use crate::registry::credentials::Credentials;
use crate::registry::watching::Follower;
use crate::state::hubs::Hubs;
use crate::state::keys;
use crate::state::record::Unreadable;
use crate::state::view::View;
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
/// The future is boxed, so that what it runs is compiled with this crate, and not once more in each program.
///
/// # Errors
/// The store cannot be read, or the server cannot be put together.
pub fn serve(
    config: Serving,
    context: Context,
    store: Store,
    listeners: Listeners,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        context.fail_when("store", store.failed());
        let instances = Instances::join(&context, &store, listeners.grpc_address()).await?;
        let operations = Operations::open(&context, StoreBacking::of(&instances, &context)).await?;
        let listing = store.list("").await?;
        let (engine, hubs) = assemble(&config, &context, &store, &listing)?;
        let registry = WorkersServiceClient::new(context.connector.channel(&config.workers));
        let watch = store.watch("", listing.revision).await?;
        let follower = Follower {
            engine: engine.clone(),
            hubs: hubs.clone(),
            registry: registry.clone(),
            claimed: watch::Sender::new(None),
        };
        run(
            &context,
            &follower,
            watch,
            &instances,
            config.report_interval,
        )
        .await;
        let (samples, to_pass_on) = peer::samples();
        let api = Api {
            engine,
            hubs,
            instances,
            samples,
            registry,
            offers: OffersServiceClient::new(context.connector.channel(&config.offers)),
            connector: context.connector.clone(),
            tasks: context.tasks.clone(),
            sealer: Sealer::random()?,
            epoch: Arc::from(store.epoch().to_string()),
        };
        run_loop(
            &context,
            "pass on samples",
            peer::pass_on(api.clone(), to_pass_on),
        );
        let mut records = listing.records.iter();
        let keys = records.find(|record| *record.key == *keys::CREDENTIAL_KEYS);
        let keys = keys.map_or(&[][..], |record| &record.value);
        let credentials = Credentials::new(api.engine.parts().fleet.clone(), keys);
        let following = credentials.clone().follow(api.registry.clone(), store);
        run_loop(&context, "credential keys", following);
        let server = Server::new(&context)
            .operations(&operations)
            .methods(METHODS)
            .verifier(Arc::new(credentials))
            .service(ReplicasServiceServer::new(api.clone()))
            .service(PeerServiceServer::new(Peers(api.clone())))
            .service(AssignmentsServiceServer::new(api));
        server.serve(listeners).await?;
        Ok(())
    })
}

/// The engine over what the store holds, and the hubs that tell of it.
fn assemble(
    config: &Serving,
    context: &Context,
    store: &Store,
    listing: &Listing,
) -> Result<(Engine, Hubs), Error> {
    let view = View::load(listing)?;
    let fleet = Fleet::new(Time::from(context.clock.now()));
    let since = listing.unchanged_since().0;
    let epoch = store.epoch().to_string();
    let hubs = Hubs::new(&view.read(), since, &epoch, fleet.clone());
    let parts = Parts {
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
    };
    Ok((Engine::new(parts, &context.identity.instance), hubs))
}

/// Starts every loop; the one that leads goes on with what was under way when the last leader ended.
async fn run(
    context: &Context,
    follower: &Follower,
    watch: Watch,
    instances: &Instances,
    every: Duration,
) {
    let (engine, hubs) = (&follower.engine, &follower.hubs);
    let following = passes::follow(engine.clone(), watch, hubs.clone());
    run_loop(context, "follow the store", following);
    let lead = Lead {
        follower: follower.clone(),
        tasks: context.tasks.clone(),
        every,
    };
    run_loop(context, "lead", lead.whenever(instances.clone()));
    if instances.leading().is_some() && !instances.store().is_shared() {
        // The only instance leads before it serves anyone: nobody else would plan what it is asked for.
        let mut duty = engine.on_duty();
        let _ = tokio::time::timeout(LEAD_WITHIN, duty.wait_for(Option::is_some)).await;
    }
    run_loop(context, "count time", passes::count_time(engine.clone()));
    let check = context.health.check("worker-registry", Tier::Auxiliary);
    run_loop(context, "follow workers", follower.clone().workers(check));
    let closing = hubs.clone();
    context
        .shutdown
        .step(Phase::Drain, "watches", CLOSE_WITHIN, move || async move {
            closing.close();
        });
}

/// How long the only instance waits to lead, which it is about to: it never waits for anyone.
const LEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long ending the watches may take: it only tells them.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

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
