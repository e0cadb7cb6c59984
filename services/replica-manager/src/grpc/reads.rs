//! Gets and lists: from the view, at one revision.

use std::sync::Arc;

use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::{Event, EventSeverity};
use muster_runtime::status::Violations;
use tonic::{Request, Response, Status};

use super::convert::replica::{render_endpoint, render_replica};
use super::convert::{known, parse_time};
use super::peer::REPORT_LOAD;
use super::sight::Sight;
use super::{Api, errors, project};
use crate::domain::endpoints;
use crate::domain::service::Service;
use crate::domain::time::Time;

/// The longest name of a reporter of load, in characters.
const LONGEST_REPORTER: usize = 128;

/// Which services, checked.
pub(super) struct ServiceFilter(Option<wire::ServiceFilter>);

/// Which replicas, checked.
pub(super) struct ReplicaFilter(Option<wire::ReplicaFilter>);

/// Which events, checked.
pub(super) struct EventFilter {
    filter: wire::EventFilter,
    since: Option<Time>,
    project: &'static str,
}

/// The parts of a replica's id.
pub(super) fn parse_replica_id(id: &str) -> Option<(&str, u32)> {
    let (service, ordinal) = id.split_once('/')?;
    Some((service, ordinal.parse().ok()?))
}

impl ServiceFilter {
    pub(super) fn parse(filter: Option<wire::ServiceFilter>) -> Result<Self, Status> {
        let mut faults = Violations::new();
        for phase in filter.iter().flat_map(|filter| &filter.phases) {
            let _: wire::ServicePhase = known(*phase, "filter.phases", &mut faults);
        }
        faults.into_result().map(|()| Self(filter))
    }

    pub(super) fn admits(&self, service: &wire::Service) -> bool {
        let Some(filter) = &self.0 else { return true };
        let phase = service.status.as_ref().map_or(0, |status| status.phase);
        let labels = service.spec.as_ref().map(|spec| &spec.labels);
        let labelled = |(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value));
        (filter.phases.is_empty() || filter.phases.contains(&phase))
            && (filter.names.is_empty() || filter.names.contains(&service.name))
            && filter.labels.iter().all(labelled)
    }
}

impl ReplicaFilter {
    pub(super) fn parse(filter: Option<wire::ReplicaFilter>) -> Result<Self, Status> {
        let mut faults = Violations::new();
        for phase in filter.iter().flat_map(|filter| &filter.phases) {
            let _: wire::ReplicaPhase = known(*phase, "filter.phases", &mut faults);
        }
        faults.into_result().map(|()| Self(filter))
    }

    pub(super) fn admits(&self, replica: &wire::Replica) -> bool {
        let Some(filter) = &self.0 else { return true };
        let on = |worker: &String| {
            replica
                .members
                .iter()
                .any(|member| member.worker == *worker)
        };
        (filter.phases.is_empty() || filter.phases.contains(&replica.phase))
            && (filter.services.is_empty() || filter.services.contains(&replica.service))
            && (filter.workers.is_empty() || filter.workers.iter().any(on))
    }
}

impl EventFilter {
    pub(super) fn parse(
        filter: Option<wire::EventFilter>,
        project: &'static str,
    ) -> Result<Self, Status> {
        let filter = filter.unwrap_or_default();
        let mut faults = Violations::new();
        let _: EventSeverity = known(filter.min_severity, "filter.min_severity", &mut faults);
        faults.into_result()?;
        let since = filter.since_time.as_ref().and_then(parse_time);
        Ok(Self {
            filter,
            since,
            project,
        })
    }

    pub(super) fn admits(&self, event: &Event) -> bool {
        let about = |service: &String| {
            let subject = event.subject.as_str();
            let name = subject.strip_prefix("service/").or_else(|| {
                let replica = subject.strip_prefix("replica/")?;
                replica.split_once('/').map(|(service, _)| service)
            });
            name == Some(service)
        };
        let filter = &self.filter;
        let at = event.time.as_ref().and_then(parse_time);
        event.project == self.project
            && (filter.services.is_empty() || filter.services.iter().any(about))
            && (filter.kinds.is_empty() || filter.kinds.contains(&event.kind))
            && event.severity >= filter.min_severity
            && self
                .since
                .is_none_or(|since| at.is_some_and(|at| at >= since))
    }
}

impl Api {
    /// A service by name, with the position of the answer.
    pub(super) fn find(&self, project: &str, name: &str) -> Result<(Arc<Service>, u64), Status> {
        let view = self.engine.parts().view.read();
        let stored = view
            .named(project, name)
            .ok_or_else(|| errors::no_service(name))?;
        Ok((Arc::clone(&stored.service), view.revision))
    }

    pub(super) async fn get_service(
        &self,
        request: Request<wire::GetServiceRequest>,
    ) -> Result<Response<wire::GetServiceResponse>, Status> {
        let asked = request.get_ref();
        self.not_before(&request, &asked.not_before).await?;
        let (service, revision) = self.find(project(&asked.project)?, &asked.name)?;
        let shown = Sight::of(&request).service(self.shown(&service));
        Ok(Response::new(wire::GetServiceResponse {
            service: Some(shown),
            resume_token: self.token(revision),
        }))
    }

    pub(super) async fn list_services(
        &self,
        request: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        let sight = Sight::of(&request);
        let (asked, page) = self.page("ListServices", request).await?;
        let project = project(&asked.project)?;
        let filter = ServiceFilter::parse(asked.filter)?;
        let view = self.engine.parts().view.read();
        let services = view.services_from(project, "");
        let rendered = services.map(|service| sight.service(self.shown(service)));
        let all: Vec<_> = rendered.filter(|service| filter.admits(service)).collect();
        let total = all.len();
        let cut = page.fill(
            all.into_iter()
                .map(|service| (service.name.clone(), service)),
        );
        Ok(Response::new(wire::ListServicesResponse {
            services: cut.items,
            next_page_token: cut.next_page_token,
            total_size: i32::try_from(total).unwrap_or(i32::MAX),
            resume_token: self.token(view.revision),
        }))
    }

    pub(super) async fn list_service_versions(
        &self,
        request: Request<wire::ListServiceVersionsRequest>,
    ) -> Result<Response<wire::ListServiceVersionsResponse>, Status> {
        let sight = Sight::of(&request);
        let (asked, page) = self.page("ListServiceVersions", request).await?;
        let (service, _) = self.find(project(&asked.project)?, &asked.name)?;
        let view = self.engine.parts().view.read();
        let versions = view.versions(&service.header.uid);
        let newest_first = versions
            .into_iter()
            .flat_map(|versions| versions.iter().rev());
        let keyed = newest_first.map(|(number, version)| {
            // Keys of pages ascend; versions are told newest first.
            (
                format!("{:020}", u64::MAX - number),
                sight.version((*version.stored).clone()),
            )
        });
        let cut = page.fill(keyed);
        Ok(Response::new(wire::ListServiceVersionsResponse {
            versions: cut.items,
            next_page_token: cut.next_page_token,
            resume_token: self.token(view.revision),
        }))
    }

    pub(super) async fn get_replica(
        &self,
        request: Request<wire::GetReplicaRequest>,
    ) -> Result<Response<wire::GetReplicaResponse>, Status> {
        let asked = request.get_ref();
        self.not_before(&request, &asked.not_before).await?;
        let project = project(&asked.project)?;
        let missing = || errors::no_replica(&asked.id);
        let (name, ordinal) = parse_replica_id(&asked.id).ok_or_else(missing)?;
        let (service, revision) = self.find(project, name).map_err(|_| missing())?;
        let replica = service.replicas.get(&ordinal).ok_or_else(missing)?;
        Ok(Response::new(wire::GetReplicaResponse {
            replica: Some(render_replica(&service, replica)),
            resume_token: self.token(revision),
        }))
    }

    pub(super) async fn list_replicas(
        &self,
        request: Request<wire::ListReplicasRequest>,
    ) -> Result<Response<wire::ListReplicasResponse>, Status> {
        let (asked, page) = self.page("ListReplicas", request).await?;
        let project = project(&asked.project)?;
        let filter = ReplicaFilter::parse(asked.filter)?;
        let view = self.engine.parts().view.read();
        let mut all = Vec::new();
        for service in view.services_from(project, "") {
            for replica in service.replicas.values() {
                let rendered = render_replica(service, replica);
                if filter.admits(&rendered) {
                    let key = format!("{}/{:010}", service.header.name, replica.ordinal);
                    all.push((key, rendered));
                }
            }
        }
        let total = all.len();
        let cut = page.fill(all.into_iter());
        Ok(Response::new(wire::ListReplicasResponse {
            replicas: cut.items,
            next_page_token: cut.next_page_token,
            total_size: i32::try_from(total).unwrap_or(i32::MAX),
            resume_token: self.token(view.revision),
        }))
    }

    pub(super) async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        let (asked, page) = self.page("ListEvents", request).await?;
        let filter = EventFilter::parse(asked.filter, project(&asked.project)?)?;
        let view = self.engine.parts().view.read();
        let events = view.events.iter().filter(|(_, event)| filter.admits(event));
        let cut = page.fill(events.map(|(id, event)| (id.to_string(), (**event).clone())));
        Ok(Response::new(wire::ListEventsResponse {
            events: cut.items,
            next_page_token: cut.next_page_token,
            resume_token: self.token(view.revision),
        }))
    }

    pub(super) async fn list_endpoints(
        &self,
        request: Request<wire::ListEndpointsRequest>,
    ) -> Result<Response<wire::ListEndpointsResponse>, Status> {
        let (asked, page) = self.page("ListEndpoints", request).await?;
        let (service, revision) = self.find(project(&asked.project)?, &asked.service)?;
        let fleet = &self.engine.parts().fleet;
        let rendered = endpoints::endpoints(&service).map(|(replica, attempt, weight)| {
            let worker = replica.worker().unwrap_or_default();
            let endpoint = fleet.with_worker(worker, |worker| {
                render_endpoint(&service, replica, attempt, weight, worker)
            });
            (format!("{:010}", replica.ordinal), endpoint)
        });
        let cut = page.fill(rendered);
        Ok(Response::new(wire::ListEndpointsResponse {
            endpoints: cut.items,
            next_page_token: cut.next_page_token,
            resume_token: self.token(revision),
        }))
    }

    pub(super) async fn report_load(
        &self,
        request: Request<wire::ReportLoadRequest>,
    ) -> Result<Response<wire::ReportLoadResponse>, Status> {
        if !self.leads() {
            return self.forward(REPORT_LOAD, request).await;
        }
        let asked = request.into_inner();
        let mut faults = Violations::new();
        if asked.reporter.is_empty() {
            faults.add("reporter", "is required");
        }
        if asked.reporter.chars().count() > LONGEST_REPORTER {
            let message = format!("must be at most {LONGEST_REPORTER} characters");
            faults.add("reporter", message);
        }
        if !(asked.value.is_finite() && asked.value >= 0.0) {
            faults.add("value", format!("must be 0 or more, is {}", asked.value));
        }
        faults.into_result()?;
        let (service, _) = self.find(project(&asked.project)?, &asked.name)?;
        let uid = &service.header.uid;
        let parts = self.engine.parts();
        let now = self.engine.now();
        let total = parts.loads.report(uid, &asked.reporter, asked.value, now);
        let Some(total) = total else {
            let message = "too many reporters of one service";
            return Err(muster_runtime::status::invalid_field("reporter", message));
        };
        if service.spec().scaling.is_some() {
            self.engine.wake([Arc::from(uid.as_str())]);
        }
        Ok(Response::new(wire::ReportLoadResponse { total }))
    }
}
