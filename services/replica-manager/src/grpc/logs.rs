//! Output of replicas, from the agents that keep it, side by side. An agent that cannot be reached is
//! named in the stream, and costs only its own replicas.

mod follow;

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use muster_proto::agents::v1 as agents;
use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::{ErrorReason, ItemError};
use muster_runtime::status::{self, Details, Violations, reason_of};
use tonic::{Response, Status, Streaming};

use super::convert::natural;
use super::reads::parse_replica_id;
use super::watches::Stream;
use super::{Api, errors, project};
use crate::domain::replica::Replica;
use crate::domain::replica::attempt::Attempt;
use crate::domain::service::Service;

/// Agents that are asked at the same time for what there is; more replicas are read one after another.
const SIDE_BY_SIDE: usize = 64;

/// Whose output is read.
struct Source {
    uid: String,
    ordinal: u32,
    number: u32,
    replica: String,
    attempt_id: String,
    worker: String,
}

impl Source {
    /// The output of an attempt, if it has had a place.
    fn of(service: &Service, replica: &Replica, attempt: &Attempt) -> Option<Self> {
        Some(Self {
            uid: service.header.uid.clone(),
            ordinal: replica.ordinal,
            number: attempt.number,
            replica: service.replica_id(replica.ordinal),
            attempt_id: service.attempt_id(replica.ordinal, attempt.number),
            worker: attempt.allocation.as_ref()?.worker.clone(),
        })
    }

    /// What its agent is asked for.
    fn request(&self, asked: &wire::StreamLogsRequest) -> agents::StreamLogsRequest {
        let after = asked.after.get(&self.attempt_id).cloned();
        agents::StreamLogsRequest {
            attempt_id: self.attempt_id.clone(),
            follow: asked.follow,
            tail: asked.tail.filter(|_| asked.after.is_empty()),
            since_time: asked.since_time,
            after: after.unwrap_or_default(),
        }
    }

    fn told(&self, message: agents::StreamLogsResponse) -> wire::StreamLogsResponse {
        wire::StreamLogsResponse {
            replica: self.replica.clone(),
            attempt_id: self.attempt_id.clone(),
            lines: message.lines,
            error: None,
            position: message.position,
        }
    }

    fn failed(&self, status: &Status) -> wire::StreamLogsResponse {
        let told = reason_of(&Details::of(status).reason);
        let reason = if told == ErrorReason::Unspecified {
            ErrorReason::PeerUnreachable
        } else {
            told
        };
        let error = ItemError {
            reason: reason.into(),
            message: format!("the agent of {}: {}", self.worker, status.message()),
        };
        wire::StreamLogsResponse {
            replica: self.replica.clone(),
            attempt_id: self.attempt_id.clone(),
            error: Some(error),
            ..wire::StreamLogsResponse::default()
        }
    }
}

/// What a caller means: a service, or one replica of it.
struct Target {
    uid: String,
    only: Option<u32>,
}

impl Target {
    fn replicas<'a>(&self, service: &'a Service) -> impl Iterator<Item = &'a Replica> {
        let only = self.only;
        let all = service.replicas.values().map(Arc::as_ref);
        all.filter(move |replica| only.is_none_or(|only| only == replica.ordinal))
    }
}

impl Api {
    pub(super) fn stream_logs(
        &self,
        asked: &wire::StreamLogsRequest,
    ) -> Result<Response<Stream<wire::StreamLogsResponse>>, Status> {
        let mut faults = Violations::new();
        if let Some(tail) = asked.tail {
            natural(tail, "tail", &mut faults);
        }
        if asked.target.is_empty() {
            faults.add("target", "is required");
        }
        faults.into_result()?;
        let project = project(&asked.project)?;
        let (target, service) = self.target(project, &asked.target)?;
        // An earlier attempt has ended: nothing comes of it.
        if asked.follow && !asked.previous {
            let followed = follow::follow(self.clone(), target, asked.clone(), &service)?;
            return Ok(Response::new(followed));
        }
        let mut sources = Vec::new();
        for replica in target.replicas(&service) {
            let attempt = match asked.previous {
                true => replica.previous.as_ref(),
                false => replica.last_placed(),
            };
            match attempt {
                Some(attempt) => sources.extend(Source::of(&service, replica, attempt)),
                None if target.only.is_some() => return Err(nothing_kept(&asked.target)),
                None => {}
            }
        }
        let (api, asked) = (self.clone(), asked.clone());
        let streams = sources
            .into_iter()
            .map(move |source| read(api.clone(), source, &asked));
        let merged = stream::iter(streams).flatten_unordered(SIDE_BY_SIDE);
        Ok(Response::new(Box::pin(merged.map(Ok))))
    }

    fn target(&self, project: &str, name: &str) -> Result<(Target, Arc<Service>), Status> {
        let (service, only) = match parse_replica_id(name) {
            Some((service, ordinal)) => {
                let missing = || errors::no_replica(name);
                let (service, _) = self.find(project, service).map_err(|_| missing())?;
                service.replicas.get(&ordinal).ok_or_else(missing)?;
                (service, Some(ordinal))
            }
            None => (self.find(project, name)?.0, None),
        };
        let uid = service.header.uid.clone();
        Ok((Target { uid, only }, service))
    }

    /// Asks a source's agent, at the address that it has now.
    async fn open(
        &self,
        source: &Source,
        request: agents::StreamLogsRequest,
    ) -> Result<Streaming<agents::StreamLogsResponse>, Status> {
        let fleet = &self.engine.parts().fleet;
        let address = fleet.with_worker(&source.worker, |worker| {
            worker.map_or_else(String::new, |worker| worker.agent_address.clone())
        });
        let mut agent = self.agent(&address).ok_or_else(no_address)?;
        Ok(agent.stream_logs(request).await?.into_inner())
    }
}

fn nothing_kept(target: &str) -> Status {
    let message = format!("{target} has no such attempt");
    status::error(tonic::Code::NotFound, ErrorReason::LogNotFound, message).into_status()
}

fn no_address() -> Status {
    let reason = ErrorReason::PeerUnreachable;
    status::error(tonic::Code::Unavailable, reason, "has no known address").into_status()
}

/// What there is of one replica's output, to its end, or to the error that ends it.
fn read(
    api: Api,
    source: Source,
    asked: &wire::StreamLogsRequest,
) -> BoxStream<'static, wire::StreamLogsResponse> {
    let request = source.request(asked);
    let opened = async move {
        match api.open(&source, request).await {
            Ok(messages) => messages
                .map(move |message| match message {
                    Ok(message) => source.told(message),
                    Err(status) => source.failed(&status),
                })
                .boxed(),
            Err(status) => stream::iter([source.failed(&status)]).boxed(),
        }
    };
    stream::once(opened).flatten().boxed()
}
