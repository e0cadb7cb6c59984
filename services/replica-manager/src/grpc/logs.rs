//! Output of replicas, from the agents that keep it, side by side. An agent that cannot be reached is
//! named in the stream, and costs only its own replicas.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use muster_proto::agents::v1 as agents;
use muster_proto::agents::v1::agents_service_client::AgentsServiceClient;
use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::{ErrorReason, ItemError};
use muster_runtime::connect::Channel;
use muster_runtime::status::{self, Details, Violations, reason_of};
use tonic::{Response, Status};

use super::convert::natural;
use super::reads::parse_replica_id;
use super::watches::Stream;
use super::{Api, errors, project};
use crate::domain::replica::attempt::Attempt;
use crate::domain::service::Service;

/// Agents that are asked at the same time; more replicas are read one after another.
const SIDE_BY_SIDE: usize = 64;

/// Whose output is read, and where.
struct Source {
    replica: String,
    attempt_id: String,
    worker: String,
    agent: Option<AgentsServiceClient<Channel>>,
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
        let sources = self.sources(asked)?;
        let asked = asked.clone();
        let streams = sources
            .into_iter()
            .map(move |source| read(source, asked.clone()));
        let merged = stream::iter(streams).flatten_unordered(SIDE_BY_SIDE);
        Ok(Response::new(Box::pin(merged.map(Ok))))
    }

    fn sources(&self, asked: &wire::StreamLogsRequest) -> Result<Vec<Source>, Status> {
        let project = project(&asked.project)?;
        let (service, only) = match parse_replica_id(&asked.target) {
            Some((name, ordinal)) => {
                let missing = || errors::no_replica(&asked.target);
                let (service, _) = self.find(project, name).map_err(|_| missing())?;
                service.replicas.get(&ordinal).ok_or_else(missing)?;
                (service, Some(ordinal))
            }
            None => (self.find(project, &asked.target)?.0, None),
        };
        let mut sources = Vec::new();
        for (ordinal, replica) in &service.replicas {
            if only.is_some_and(|only| only != *ordinal) {
                continue;
            }
            let attempt = match asked.previous {
                true => replica.previous.as_ref(),
                false => replica.last_placed(),
            };
            match attempt {
                Some(attempt) => sources.extend(self.source(&service, *ordinal, attempt)),
                None if only.is_some() => return Err(nothing_kept(&asked.target)),
                None => {}
            }
        }
        Ok(sources)
    }

    fn source(&self, service: &Arc<Service>, ordinal: u32, attempt: &Attempt) -> Option<Source> {
        let worker = attempt.allocation.as_ref()?.worker.clone();
        let fleet = &self.engine.parts().fleet;
        let address = fleet.with_worker(&worker, |worker| {
            worker.map_or_else(String::new, |worker| worker.agent_address.clone())
        });
        Some(Source {
            replica: service.replica_id(ordinal),
            attempt_id: service.attempt_id(ordinal, attempt.number),
            agent: self.agent(&address),
            worker,
        })
    }
}

fn nothing_kept(target: &str) -> Status {
    let message = format!("{target} has no such attempt");
    status::error(tonic::Code::NotFound, ErrorReason::LogNotFound, message).into_status()
}

/// One replica's output, to its end, or to the error that ends it.
fn read(
    source: Source,
    asked: wire::StreamLogsRequest,
) -> BoxStream<'static, wire::StreamLogsResponse> {
    Box::pin(stream::once(open(source, asked)).flatten())
}

async fn open(
    source: Source,
    asked: wire::StreamLogsRequest,
) -> BoxStream<'static, wire::StreamLogsResponse> {
    let Some(mut agent) = source.agent.clone() else {
        let message = format!("the agent of {} has no known address", source.worker);
        let error = failed(ErrorReason::PeerUnreachable, message);
        return Box::pin(stream::iter([of(&source, Vec::new(), Some(error))]));
    };
    let request = agents::StreamLogsRequest {
        attempt_id: source.attempt_id.clone(),
        follow: asked.follow,
        tail: asked.tail,
        since_time: asked.since_time,
    };
    match agent.stream_logs(request).await {
        Ok(response) => {
            let lines = response.into_inner();
            Box::pin(lines.map(move |message| match message {
                Ok(message) => of(&source, message.lines, None),
                Err(status) => of(&source, Vec::new(), Some(item_error(&source, &status))),
            }))
        }
        Err(status) => {
            let error = item_error(&source, &status);
            Box::pin(stream::iter([of(&source, Vec::new(), Some(error))]))
        }
    }
}

fn of(
    source: &Source,
    lines: Vec<agents::LogLine>,
    error: Option<ItemError>,
) -> wire::StreamLogsResponse {
    wire::StreamLogsResponse {
        replica: source.replica.clone(),
        attempt_id: source.attempt_id.clone(),
        lines,
        error,
    }
}

fn item_error(source: &Source, status: &Status) -> ItemError {
    let told = reason_of(&Details::of(status).reason);
    let reason = if told == ErrorReason::Unspecified {
        ErrorReason::PeerUnreachable
    } else {
        told
    };
    failed(
        reason,
        format!("the agent of {}: {}", source.worker, status.message()),
    )
}

fn failed(reason: ErrorReason, message: String) -> ItemError {
    ItemError {
        reason: reason.into(),
        message,
    }
}
