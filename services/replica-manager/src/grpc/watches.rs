//! Watches: the hubs' messages as the contract's responses.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::{Event as WireEvent, EventChange, event_change};
use muster_runtime::watch::{Event, Filter};
use tonic::{Request, Response, Status};

use super::reads::{EventFilter, ReplicaFilter, ServiceFilter};
use super::sight::Sight;
use super::{Api, project};

/// What a watch answers with.
pub(super) type Stream<T> = BoxStream<'static, Result<T, Status>>;

impl Api {
    pub(super) fn watch_services(
        &self,
        request: Request<wire::WatchServicesRequest>,
    ) -> Result<Response<Stream<wire::WatchServicesResponse>>, Status> {
        let sight = Sight::of(&request);
        let asked = request.into_inner();
        let prefix = format!("{}/", project(&asked.project)?);
        let test = ServiceFilter::parse(asked.filter)?;
        let filter = Filter::all()
            .prefix(prefix)
            .durable(move |service| test.admits(service));
        let messages = self.hubs.services.watch(&asked.resume_token, filter)?;
        let render = move |event: &Event<wire::Service>| render_service_change(event, sight);
        Ok(Response::new(Box::pin(messages.map(move |message| {
            message.map(|message| wire::WatchServicesResponse {
                changes: message.changes.iter().map(render).collect(),
                resume_token: message.resume_token,
                synced: message.synced,
            })
        }))))
    }

    pub(super) fn watch_replicas(
        &self,
        asked: wire::WatchReplicasRequest,
    ) -> Result<Response<Stream<wire::WatchReplicasResponse>>, Status> {
        let prefix = format!("{}/", project(&asked.project)?);
        let test = ReplicaFilter::parse(asked.filter)?;
        let filter = Filter::all()
            .prefix(prefix)
            .durable(move |replica| test.admits(replica));
        let messages = self.hubs.replicas.watch(&asked.resume_token, filter)?;
        Ok(Response::new(Box::pin(messages.map(|message| {
            message.map(|message| wire::WatchReplicasResponse {
                changes: message.changes.iter().map(render_replica_change).collect(),
                resume_token: message.resume_token,
                synced: message.synced,
            })
        }))))
    }

    pub(super) fn watch_endpoints(
        &self,
        asked: &wire::WatchEndpointsRequest,
    ) -> Result<Response<Stream<wire::WatchEndpointsResponse>>, Status> {
        let (service, _) = self.find(project(&asked.project)?, &asked.service)?;
        let filter = Filter::all().prefix(format!("{}/", service.header.uid));
        let messages = self.hubs.endpoints.watch(&asked.resume_token, filter)?;
        Ok(Response::new(Box::pin(messages.map(|message| {
            message.map(|message| wire::WatchEndpointsResponse {
                changes: message.changes.iter().map(render_endpoint_change).collect(),
                resume_token: message.resume_token,
                synced: message.synced,
            })
        }))))
    }

    pub(super) fn watch_events(
        &self,
        asked: wire::WatchEventsRequest,
    ) -> Result<Response<Stream<wire::WatchEventsResponse>>, Status> {
        let test = EventFilter::parse(asked.filter, project(&asked.project)?)?;
        let filter = Filter::all().durable(move |event| test.admits(event));
        let messages = self.hubs.events.watch(&asked.resume_token, filter)?;
        Ok(Response::new(Box::pin(messages.map(|message| {
            message.map(|message| wire::WatchEventsResponse {
                changes: message
                    .changes
                    .iter()
                    .filter_map(render_event_change)
                    .collect(),
                resume_token: message.resume_token,
                synced: message.synced,
            })
        }))))
    }
}

fn render_service_change(event: &Event<wire::Service>, sight: Sight) -> wire::ServiceChange {
    use wire::service_change::Change;
    let service = sight.service((**event.resource()).clone());
    wire::ServiceChange {
        change: Some(match event {
            Event::Put(_) | Event::Observed(_) => Change::Put(service),
            Event::Deleted(_) => Change::Deleted(service),
        }),
    }
}

fn render_replica_change(event: &Event<wire::Replica>) -> wire::ReplicaChange {
    use wire::replica_change::Change;
    let replica = (**event.resource()).clone();
    wire::ReplicaChange {
        change: Some(match event {
            Event::Put(_) | Event::Observed(_) => Change::Put(replica),
            Event::Deleted(_) => Change::Deleted(replica),
        }),
    }
}

fn render_endpoint_change(event: &Event<wire::Endpoint>) -> wire::EndpointChange {
    use wire::endpoint_change::Change;
    let endpoint = (**event.resource()).clone();
    wire::EndpointChange {
        change: Some(match event {
            Event::Put(_) | Event::Observed(_) => Change::Put(endpoint),
            Event::Deleted(_) => Change::Deleted(endpoint),
        }),
    }
}

/// Events are only ever added: that an old one is forgotten is no change.
fn render_event_change(event: &Event<WireEvent>) -> Option<EventChange> {
    match event {
        Event::Put(event) | Event::Observed(event) => Some(EventChange {
            change: Some(event_change::Change::Put((**event).clone())),
        }),
        Event::Deleted(_) => None,
    }
}
