//! The wire side: thin handlers that parse, call once, and render.

pub(crate) mod agents;
pub(crate) mod convert;
mod errors;
mod explain;
mod logs;
mod methods;
mod orphans;
mod pages;
pub(crate) mod peer;
mod reads;
mod replicas_service;
mod sight;
mod watches;
mod writes;

use std::sync::Arc;

use muster_proto::agents::v1::agents_service_client::AgentsServiceClient;
use muster_proto::offers::v1::offers_service_client::OffersServiceClient;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::auth::Principal;
use muster_runtime::connect::{Channel, Connector};
use muster_runtime::deadline::Deadline;
use muster_runtime::instances::Instances;
use muster_runtime::page::Sealer;
use muster_runtime::task::Tasks;
use tonic::{Request, Status};

use crate::engine::Engine;
use crate::state::hubs::Hubs;

pub(crate) use methods::METHODS;

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) engine: Engine,
    pub(crate) hubs: Hubs,
    pub(crate) instances: Instances,
    pub(crate) samples: peer::Samples,
    pub(crate) registry: WorkersServiceClient<Channel>,
    pub(crate) offers: OffersServiceClient<Channel>,
    pub(crate) connector: Connector,
    pub(crate) tasks: Tasks,
    pub(crate) sealer: Sealer,
    pub(crate) epoch: Arc<str>,
}

/// The time of a call that brings no deadline of its own.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The only project there is yet.
const PROJECT: &str = "default";

/// The header by which a trusted caller names the person behind a call.
const ACTOR: &str = "x-muster-actor";

/// The longest name of an actor that is kept.
const LONGEST_ACTOR: usize = 128;

impl Api {
    /// Waits until this instance shows what `not_before` names.
    pub(crate) async fn not_before<T>(
        &self,
        request: &Request<T>,
        token: &str,
    ) -> Result<(), Status> {
        let deadline = deadline(request);
        let progress = &self.engine.parts().progress;
        progress.not_before(token, &self.epoch, deadline).await
    }

    /// The token of a position of ours.
    pub(crate) fn token(&self, revision: u64) -> String {
        muster_runtime::resume::token(&self.epoch, revision)
    }

    pub(crate) fn agent(&self, address: &str) -> Option<AgentsServiceClient<Channel>> {
        let endpoints = self.connector.peer(address).ok()?;
        Some(AgentsServiceClient::new(self.connector.channel(&endpoints)))
    }
}

fn deadline<T>(request: &Request<T>) -> Deadline {
    Deadline::of(request).unwrap_or_else(|| Deadline::after(WITHIN))
}

/// Whom events name as the one who caused a change.
fn actor<T>(request: &Request<T>) -> String {
    let named = request
        .metadata()
        .get(ACTOR)
        .and_then(|value| value.to_str().ok());
    let principal = Principal::of(request);
    match (named, principal.name()) {
        (Some(named), "") if !named.is_empty() => named.chars().take(LONGEST_ACTOR).collect(),
        (_, "") => "anonymous".to_owned(),
        (_, name) => name.to_owned(),
    }
}

/// The project that a request means.
fn project(asked: &str) -> Result<&'static str, Status> {
    if asked.is_empty() || asked == PROJECT {
        Ok(PROJECT)
    } else {
        let message = format!("must be empty or {PROJECT:?} yet");
        Err(muster_runtime::status::invalid_field("project", message))
    }
}
