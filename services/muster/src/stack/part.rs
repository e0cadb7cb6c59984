//! One part of a stack: a component with its surroundings, from its start to its
//! end.

use std::{future::Future, net::SocketAddr, time::Duration};

use muster_runtime::{
    connect::Endpoints,
    context::Context,
    server::{Listeners, Settings},
    shutdown::{Cause, Outcome, Phase},
};
use muster_store::Store;

use crate::failure::Failure;

/// How long a part may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a store may take to write what is queued.
const STORE_CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// Where a part listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    grpc: SocketAddr,
    ops: Option<SocketAddr>,
}

/// A running component.
pub(super) struct Part {
    name: String,
    context: Context,
    at: At,
}

/// The surroundings of a component that listens there.
pub(super) fn surroundings(name: &'static str, listeners: &Listeners) -> (Context, At) {
    let context = Context::new(name, crate::VERSION, Settings::default());
    (
        context,
        At {
            grpc: listeners.grpc_address(),
            ops: listeners.ops_address(),
        },
    )
}

/// Closes a store once nobody writes to it any more.
pub(super) fn close_with(context: &Context, store: Store) {
    context.shutdown.step(
        Phase::Store,
        "close the store",
        STORE_CLOSES_WITHIN,
        move || async move {
            store.close().await;
        },
    );
}

impl Part {
    /// Runs a component; if it ends unasked, so does the part.
    pub(super) fn start(
        name: String,
        context: Context,
        at: At,
        serving: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        let shutdown = context.shutdown.clone();
        context.tasks.spawn("component", async move {
            let words = match serving.await {
                Ok(()) => "it ended without being asked to".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if !shutdown.is_begun() {
                shutdown.begin(Cause::failed(words));
            }
        });
        Self { name, context, at }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn grpc(&self) -> SocketAddr {
        self.at.grpc
    }

    pub(super) fn ops(&self) -> Option<SocketAddr> {
        self.at.ops
    }

    /// Where others call it.
    pub(super) fn endpoints(&self) -> Result<Endpoints, Failure> {
        let url = format!("http://{}", self.at.grpc);
        url.parse()
            .map_err(|error| Failure::Failed(format!("{url}: {error}")))
    }

    /// Waits until it is ready for traffic.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        tokio::select! {
            () = self.context.health.until_ready() => Ok(()),
            failure = self.failed() => Err(failure),
            () = tokio::time::sleep(READY_WITHIN) => {
                Err(Failure::Failed(format!("{} is not ready after {READY_WITHIN:?}", self.name)))
            }
        }
    }

    /// Ends when it has ended, with why.
    pub(super) async fn failed(&self) -> Failure {
        let report = self.context.shutdown.finished().await;
        Failure::Failed(format!("{} ended: {}", self.name, report.cause))
    }

    /// Stops it and waits for its end.
    pub(super) async fn stop(&self) -> Result<(), Failure> {
        self.context
            .shutdown
            .begin(Cause::asked("the stack is stopped"));
        let report = self.context.shutdown.finished().await;
        if report.is_clean() {
            return Ok(());
        }
        let steps = report
            .steps
            .iter()
            .filter(|step| step.outcome != Outcome::Ok);
        let steps: Vec<String> = steps
            .map(|step| format!("{}: {}", step.name, step.outcome.name()))
            .collect();
        Err(Failure::Failed(format!(
            "{} did not stop well: {}",
            self.name,
            steps.join(", ")
        )))
    }
}
