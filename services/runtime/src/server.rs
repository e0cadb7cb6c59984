//! Serves gRPC on a listener until the component's shutdown: accepts, tracks and ends connections,
//! with the health protocol and reflection beside the component's own services. It decides how
//! connections end; what a call does is its service's affair.

mod connection;
mod entrance;
mod listener;
mod rewind;
mod routes;
mod settings;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_reflection::server::Builder as Reflection;

use crate::context::Context;
use crate::health::service::HealthService;
use crate::shutdown::Phase;
use crate::task;

pub use listener::{Accept, Accepted, Io, Listener, Listeners};
pub use routes::GrpcService;
pub use settings::Settings;

/// After an accept that failed for want of descriptors or memory, which time may give back.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What a shutdown step may take beyond what it waits for.
const STEP_MARGIN: Duration = Duration::from_secs(1);

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The contract's descriptors cannot be read.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A gRPC server that is being put together.
#[derive(Debug)]
pub struct Server {
    context: Context,
    routes: routes::Builder,
    names: Vec<&'static str>,
}

/// What the connections of a running server share.
#[derive(Debug)]
struct Serving {
    settings: Arc<Settings>,
    routes: routes::Routes,
    ends: Ends,
    connections: TaskTracker,
}

/// How connections are told to end.
#[derive(Debug, Clone, Default)]
struct Ends {
    /// Nothing new is accepted; connections finish what they have.
    graceful: CancellationToken,
    /// Connections end where they are.
    cut: CancellationToken,
}

impl Server {
    /// A server with the health protocol and no other service.
    pub fn new(context: &Context) -> Self {
        let mut server = Self {
            context: context.clone(),
            routes: routes::Routes::builder(),
            names: Vec::new(),
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

    /// Serves on `listeners` until shutdown has stopped it. Marks the component as started as soon
    /// as connections are accepted.
    pub async fn serve(mut self, listeners: Listeners) -> Result<(), Error> {
        self.reflect()?;
        let serving = Arc::new(Serving {
            settings: Arc::clone(&self.context.settings),
            routes: self.routes.build(),
            ends: Ends::default(),
            connections: TaskTracker::new(),
        });
        add_shutdown_steps(&self.context, &serving);
        self.context.health.started();
        accept(&serving, listeners.grpc).await;
        serving.connections.close();
        serving.connections.wait().await;
        Ok(())
    }

    fn add<S: GrpcService>(&mut self, service: S) {
        self.names.push(S::NAME);
        self.routes.add(service);
    }

    /// Adds reflection, in both versions that clients speak, of the services that are served.
    fn reflect(&mut self) -> Result<(), Error> {
        let builder = || {
            let builder = Reflection::configure()
                .register_encoded_file_descriptor_set(muster_proto::DESCRIPTORS);
            self.names
                .iter()
                .fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
        self.add(v1);
        self.add(v1alpha);
        Ok(())
    }
}

/// Accepts until the server drains. The listener closes when this returns.
async fn accept(serving: &Arc<Serving>, mut listener: Listener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = serving.ends.graceful.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, peer)) if serving.connections.len() < serving.settings.max_connections => {
                let connection = connection::serve(Arc::clone(serving), io, peer);
                task::spawn(serving.connections.track_future(connection));
            }
            Ok((_, peer)) => tracing::warn!(%peer, "connection refused: too many are open"),
            Err(error) => pause_after(&error).await,
        }
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

/// Lets connections finish for `patience`, then cuts what is left.
async fn drain(serving: &Serving, patience: Duration) {
    serving.ends.graceful.cancel();
    serving.connections.close();
    if tokio::time::timeout(patience, serving.connections.wait())
        .await
        .is_err()
    {
        let left = serving.connections.len();
        tracing::warn!(left, "connections cut that did not finish");
        serving.ends.cut.cancel();
        serving.connections.wait().await;
    }
}
