//! Serves gRPC on a listener until the component's shutdown: accepts, tracks and ends connections,
//! with the health protocol and reflection beside the component's own services. It decides how
//! connections end; what a call does is its service's affair.

mod connection;
mod entrance;
mod gather;
mod listener;
pub(crate) mod method;
mod metrics;
mod peers;
mod reflection;
mod rewind;
pub(crate) mod routes;
mod settings;
pub(crate) mod stuck;
mod whole;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Access, Verify};
use crate::context::Context;
use crate::health::Tier;
use crate::health::service::HealthService;
use crate::health::stall::Pulse;
use crate::layers::deadline::Times;
use crate::layers::observe::CallMetrics;
use crate::layers::{self, Stack};
use crate::operations::{self, Operations};
use crate::ops;
use crate::shutdown::Phase;
use crate::task;

pub use listener::{Accept, Accepted, Io, Listener, Listeners};
pub use method::Method;
pub use routes::GrpcService;
pub use settings::Settings;

/// The service that is exempt from all layers.
pub(crate) const HEALTH: &str = "grpc.health.v1.Health";

/// After an accept that failed for want of descriptors or memory, which time may give back.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long streams without a bound may take to end by themselves when the server stops.
const STREAMS_END_WITHIN: Duration = Duration::from_secs(2);

/// What a shutdown step may take beyond what it waits for.
const STEP_MARGIN: Duration = Duration::from_secs(1);

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A method is served that stands in no table, so nobody could call it.
    #[error("method {0} stands in no table of methods")]
    UntabledMethod(&'static str),
    /// Another process has come to listen where this one is to.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// A table names a method of a service that is not served.
    #[error("method {0} is of no service that is served")]
    UnknownMethod(&'static str),
}

/// A gRPC server that is being put together.
#[derive(Debug)]
pub struct Server {
    context: Context,
    routes: routes::Builder,
    names: Vec<&'static str>,
    methods: Vec<Method>,
    access: Access,
}

/// What the connections of a running server share.
#[derive(Debug)]
struct Serving {
    settings: Arc<Settings>,
    /// For health.
    routes: routes::Routes,
    methods: method::Table,
    /// For everything else.
    stack: Stack,
    /// For the requests of all calls that come.
    room: Arc<whole::Room>,
    ends: Ends,
    connections: TaskTracker,
    /// The other ends of those.
    peers: Arc<peers::Peers>,
    counts: metrics::Connections,
}

/// How connections are told to end.
#[derive(Debug, Clone, Default)]
struct Ends {
    /// Nothing new is accepted; connections finish what they have.
    graceful: CancellationToken,
    /// Streams without a bound end with a status; each connection has a child of it.
    last_call: CancellationToken,
    /// Connections end where they are.
    cut: CancellationToken,
}

impl Ends {
    /// Ends every connection where it is.
    fn cut(&self) {
        self.graceful.cancel();
        self.cut.cancel();
    }
}

impl Server {
    /// A server with the health protocol and no other service.
    pub fn new(context: &Context) -> Self {
        let mut server = Self {
            context: context.clone(),
            routes: routes::Routes::builder(),
            names: Vec::new(),
            methods: Vec::new(),
            access: context.settings.access.clone(),
        };
        server.add(HealthService::server(&context.health, &context.shutdown));
        server
    }

    /// Adds a generated tonic server; its health is that of the component.
    #[must_use]
    pub fn service<S: GrpcService>(mut self, service: S) -> Self {
        self.context.health.serve(S::NAME);
        self.add(service);
        self
    }

    /// Adds the operations service, with its methods.
    #[must_use]
    pub fn operations(self, operations: &Operations) -> Self {
        self.service(operations.server())
            .methods(&operations::METHODS)
    }

    /// Says who may call what, for every method of the services added.
    #[must_use]
    pub fn methods(mut self, methods: &[Method]) -> Self {
        self.methods.extend_from_slice(methods);
        self
    }

    /// Takes tokens that the component has issued itself.
    #[must_use]
    pub fn verifier(mut self, verifier: Arc<dyn Verify>) -> Self {
        self.access = self.access.with_verifier(verifier);
        self
    }

    /// Serves on `listeners` until shutdown has stopped it. Marks the component as started as soon
    /// as connections are accepted.
    ///
    /// The future is boxed, so that what it runs is compiled with this crate, and not once more in each component.
    pub fn serve(mut self, listeners: Listeners) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            // Both of what was added so far, which is all but reflection itself.
            let (v1, v1alpha) = (
                reflection::v1(&self.names),
                reflection::v1alpha(&self.names),
            );
            self.add(v1);
            self.add(v1alpha);
            let context = self.context.clone();
            let access = Arc::new(self.access.clone());
            let serving = Arc::new(self.assemble(Arc::clone(&access))?);
            let address = listeners.grpc_address();
            let listening = |error| Error::Listen(address, error);
            let connections = listeners.grpc.listen().map_err(listening)?;
            // The first server of a component is the one that its address is of.
            let _ = context.bound.set(address);
            let peers = Arc::clone(&serving.peers);
            context
                .tasks
                .until(Phase::Loops, "callers", peers.follow(access));
            add_shutdown_steps(&context, &serving);
            if let Some(ops) = listeners.ops {
                let pulse = Pulse::new();
                task::spawn(ops::serve(context.clone(), ops, pulse.clone()));
                context.tasks.until(Phase::Loops, "pulse", pulse.beat());
            }
            if let Some(tls) = context.settings.tls.clone() {
                let check = context.health.check("certificates", Tier::Auxiliary);
                context
                    .tasks
                    .until(Phase::Loops, "certificates", tls.follow(check));
            }
            context.health.started();
            let served = async {
                accept(&serving, connections).await;
                serving.connections.close();
                serving.connections.wait().await;
            };
            let mut served = std::pin::pin!(served);
            tokio::select! {
                () = served.as_mut() => return Ok(()),
                // The step that drains was cut short or skipped, or was over before the last connection came.
                () = context.shutdown.reached(Phase::Loops) => serving.ends.cut(),
            }
            served.await;
            Ok(())
        })
    }

    fn assemble(self, access: Arc<Access>) -> Result<Serving, Error> {
        let settings = Arc::clone(&self.context.settings);
        let metrics = CallMetrics::new(
            &self.context.metrics,
            self.context.load.clone(),
            self.context.age.clone(),
        );
        let ends = Ends::default();
        let times = Times {
            default: settings.default_deadline,
            max: settings.max_deadline,
        };
        let routes = self.routes.build();
        let stack = layers::stack(routes.clone(), access, times, self.context.load.clone());
        Ok(Serving {
            methods: method::Table::new(&self.methods, &self.names, &metrics)?,
            room: Arc::new(whole::Room::new(settings.max_incoming)),
            settings,
            routes,
            stack,
            ends,
            connections: TaskTracker::new(),
            peers: Arc::default(),
            counts: metrics::Connections::new(&self.context.metrics),
        })
    }

    fn add<S: GrpcService>(&mut self, service: S) {
        self.names.push(S::NAME);
        self.routes.add(service);
    }
}

/// Accepts until the server drains, and then whoever waits already. The listener closes when this returns,
/// and resets those who come later.
async fn accept(serving: &Arc<Serving>, mut listener: Box<dyn Accept>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = serving.ends.graceful.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => enter(serving, accepted),
            Err(error) => pause_after(&error).await,
        }
    }
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        enter(serving, accepted);
    }
}

/// Serves a connection beside the others, if there is room.
fn enter(serving: &Arc<Serving>, (io, peer): Accepted) {
    if serving.connections.len() < serving.settings.max_connections {
        let connection = connection::serve(Arc::clone(serving), io, peer);
        task::spawn(serving.connections.track_future(connection));
    } else {
        serving.counts.refused();
        tracing::debug!(%peer, "connection refused: too many are open");
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "connection not accepted");
    // Others concern only the connection that failed.
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}

fn add_shutdown_steps(context: &Context, serving: &Arc<Serving>) {
    let Settings {
        lame_duck,
        drain_timeout,
        ..
    } = *context.settings;
    if !lame_duck.is_zero() {
        let wait = move || tokio::time::sleep(lame_duck);
        context
            .shutdown
            .step(Phase::LameDuck, "lame duck", lame_duck + STEP_MARGIN, wait);
    }
    let serving = Arc::clone(serving);
    let drain = move || async move { drain(&serving, drain_timeout).await };
    context.shutdown.step(
        Phase::Drain,
        "connections",
        drain_timeout + STEP_MARGIN,
        drain,
    );
}

/// Lets connections finish for `patience`, ends streams that would not, then cuts what is left.
async fn drain(serving: &Serving, patience: Duration) {
    serving.ends.graceful.cancel();
    serving.connections.close();
    let streams = STREAMS_END_WITHIN.min(patience / 2);
    let steps = [
        (streams, &serving.ends.last_call),
        (patience.saturating_sub(streams), &serving.ends.cut),
    ];
    for (wait, next) in steps {
        if timeout(wait, serving.connections.wait()).await.is_ok() {
            return;
        }
        next.cancel();
    }
    let left = serving.connections.len();
    tracing::warn!(left, "connections cut that did not finish");
    serving.connections.wait().await;
}
