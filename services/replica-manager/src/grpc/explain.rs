//! Why a service is as it is: its own reasons, what the workers would say to one more replica, and what
//! could be had elsewhere. The other components are asked side by side, within bounds, and a silent one
//! costs only its part of the answer.

use std::time::Duration;

use muster_proto::offers::v1 as offers;
use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::{Availability, CapacityType};
use muster_proto::workers::v1 as workers;
use muster_runtime::deadline::Deadline;
use muster_runtime::status;
use tonic::{Request, Response, Status};

use super::convert::resources::{render_capacity_type, render_price, render_requirements};
use super::convert::spec::parse_spec;
use super::reads::parse_replica_id;
use super::{Api, errors, project};
use crate::domain::plan::{self, Reason};
use crate::domain::service::Service;
use crate::domain::service::command::Identity;
use crate::domain::spec::Spec;
use crate::domain::status as domain_status;
use crate::domain::world::World;
use crate::registry::calls::{self, OWNER};

/// How long the others are asked.
const WITHIN: Duration = Duration::from_secs(2);

/// Offers that are named.
const MOST_OFFERS: i32 = 5;

/// What is explained.
struct Subject {
    service: Service,
    ordinal: Option<u32>,
    /// It has not been applied.
    only_spec: bool,
}

impl Subject {
    /// What it runs or would: after a rollback that is not what was applied last.
    fn version(&self) -> u64 {
        let replicas = &self.service.replicas;
        let replica = self.ordinal.and_then(|ordinal| replicas.get(&ordinal));
        let aim = self.service.aim().version;
        replica.map_or(aim, |replica| replica.edition.version)
    }
}

impl Api {
    pub(super) async fn explain_service(
        &self,
        request: Request<wire::ExplainServiceRequest>,
    ) -> Result<Response<wire::ExplainServiceResponse>, Status> {
        self.not_before(&request, &request.get_ref().not_before)
            .await?;
        let asked = request.into_inner();
        let project = project(&asked.project)?;
        let (subject, revision) = self.subject(project, asked.target)?;
        let spec = subject.service.spec_of(subject.version());
        let (fit, offers) = tokio::join!(self.ask_workers(&subject), self.ask_offers(spec));
        let mut explanation = self.own_words(&subject);
        match fit {
            Ok(fit) => {
                explanation.workers_fitting = fit.fitting;
                explanation.workers_considered = fit.considered;
                explanation.refusals = fit.refusals;
            }
            Err(why) => explanation
                .reasons
                .push(format!("the worker-registry: {why}")),
        }
        match offers {
            Ok(offers) => explanation.offers = offers,
            Err(why) => explanation.offers_error = why,
        }
        Ok(Response::new(wire::ExplainServiceResponse {
            explanation: Some(explanation),
            resume_token: self.token(revision),
        }))
    }

    fn subject(
        &self,
        project: &str,
        target: Option<wire::explain_service_request::Target>,
    ) -> Result<(Subject, u64), Status> {
        use wire::explain_service_request::Target;
        match target {
            None => Err(status::invalid_field("target", "is required")),
            Some(Target::Spec(spec)) => {
                let spec = parse_spec(spec).map_err(|faults| faults.into_status())?;
                let identity = Identity {
                    project: project.to_owned(),
                    uid: "unapplied".to_owned(),
                };
                let subject = Subject {
                    service: Service::create(identity, spec, true, self.engine.now()),
                    ordinal: None,
                    only_spec: true,
                };
                Ok((subject, self.engine.parts().progress.current()))
            }
            Some(Target::Service(name)) => {
                let (service, ordinal) = match parse_replica_id(&name) {
                    Some((service, ordinal)) => (service, Some(ordinal)),
                    None => (name.as_str(), None),
                };
                let (service, revision) = self.find(project, service)?;
                if ordinal.is_some_and(|ordinal| !service.replicas.contains_key(&ordinal)) {
                    return Err(errors::no_replica(&name));
                }
                let subject = Subject {
                    service: (*service).clone(),
                    ordinal,
                    only_spec: false,
                };
                Ok((subject, revision))
            }
        }
    }

    /// What our own records and the plan say.
    fn own_words(&self, subject: &Subject) -> wire::Explanation {
        let service = &subject.service;
        if subject.only_spec {
            return wire::Explanation {
                summary: format!("{} has not been applied", service.header.name),
                ..wire::Explanation::default()
            };
        }
        let status = &service.header.status;
        let replica = subject
            .ordinal
            .and_then(|ordinal| service.replicas.get(&ordinal));
        let summary = match replica {
            Some(replica) => format!(
                "{} {}",
                service.replica_id(replica.ordinal),
                domain_status::words(replica)
            ),
            None => format!(
                "{} is {}: {}",
                service.header.name,
                status.phase.word(),
                status.reason
            ),
        };
        let mut reasons: Vec<String> = Vec::new();
        for replica in service.replicas.values().filter(|replica| !replica.ready()) {
            if subject
                .ordinal
                .is_none_or(|ordinal| ordinal == replica.ordinal)
            {
                let id = service.replica_id(replica.ordinal);
                reasons.push(format!("{id} {}", domain_status::words(replica)));
            }
        }
        for reason in self.planned(service) {
            if subject.ordinal.is_none() || reason.ordinal() == subject.ordinal {
                let words = match reason.ordinal() {
                    Some(ordinal) => format!("{} {reason}", service.replica_id(ordinal)),
                    None => reason.to_string(),
                };
                if !reasons.contains(&words) {
                    reasons.push(words);
                }
            }
        }
        wire::Explanation {
            summary,
            reasons,
            ..wire::Explanation::default()
        }
    }

    /// Why the planner does, and leaves, what it does now.
    fn planned(&self, service: &Service) -> Vec<Reason> {
        let parts = self.engine.parts();
        let fleet = parts.fleet.read();
        let world = World {
            workers: fleet.workers(),
            position: &fleet.position,
            room: fleet.room,
            moves_elsewhere: &std::collections::BTreeMap::new(),
            measure: None,
            since: self.engine.leads_since(),
            terms: &parts.terms,
        };
        plan::plan(parts.clock.now(), service, &world).reasons
    }

    async fn ask_workers(&self, subject: &Subject) -> Result<Fit, String> {
        let service = &subject.service;
        let request = workers::AllocateRequest {
            owner: OWNER.to_owned(),
            // A question takes nothing, so nobody's term matters.
            owner_term: None,
            spec: Some(calls::question(service, subject.version())),
            validate_only: true,
        };
        let mut registry = self.registry.clone();
        let answer = registry.allocate(timely(request)).await;
        let answer = answer
            .map_err(|status| status.message().to_owned())?
            .into_inner();
        let total = self.count_workers();
        let refused: i32 = answer.refusals.iter().map(|refusal| refusal.count).sum();
        Ok(Fit {
            fitting: (total - refused).max(i32::from(answer.allocation.is_some())),
            considered: total.max(refused),
            refusals: answer.refusals,
        })
    }

    fn count_workers(&self) -> i32 {
        let fleet = self.engine.parts().fleet.read();
        let workers = fleet.workers().map_or(0, std::collections::BTreeMap::len);
        i32::try_from(workers).unwrap_or(i32::MAX)
    }

    async fn ask_offers(&self, spec: &Spec) -> Result<Vec<wire::OfferHint>, String> {
        let mut gateway = self.offers.clone();
        let answer = gateway.list_offers(timely(elsewhere(spec))).await;
        let answer = answer
            .map_err(|status| status.message().to_owned())?
            .into_inner();
        Ok(answer.offers.iter().map(render_hint).collect())
    }
}

/// Asks for the cheapest machines that a replica would fit on and that are not ours yet: what our own
/// workers have is their answer to give, and they may have refused.
fn elsewhere(spec: &Spec) -> offers::ListOffersRequest {
    let constraints = &spec.placement.constraints;
    let known = (1..).map_while(|number| Availability::try_from(number).ok());
    let not_ours = known.filter(|availability| *availability != Availability::Idle);
    let filter = offers::OfferFilter {
        backends: constraints.backends.clone(),
        regions: constraints.regions.clone(),
        zones: constraints.zones.clone(),
        requirements: Some(render_requirements(&spec.resources)),
        capacity_type: render_capacity_type(constraints.capacity_type).into(),
        max_price: constraints.max_price.map(render_price),
        availabilities: not_ours.map(i32::from).collect(),
        ..offers::OfferFilter::default()
    };
    offers::ListOffersRequest {
        filter: Some(filter),
        page_size: MOST_OFFERS,
        ..offers::ListOffersRequest::default()
    }
}

/// What the workers said.
struct Fit {
    fitting: i32,
    considered: i32,
    refusals: Vec<workers::Refusal>,
}

fn timely<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    Deadline::after(WITHIN).carry(&mut request);
    request
}

fn render_hint(offer: &offers::Offer) -> wire::OfferHint {
    let gpus = offer
        .gpus
        .iter()
        .map(|group| format!("{} x {}", group.count, group.name));
    let mut gpus = gpus.collect::<Vec<_>>().join(", ");
    if offer.capacity_type == i32::from(CapacityType::Spot) {
        gpus.push_str(" (spot)");
    }
    wire::OfferHint {
        id: offer.id.clone(),
        gpus,
        price: offer.price,
        availability: offer.availability,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::replica::{Replica, Role};
    use crate::domain::rollout::{Edition, Rollout, Stage};
    use crate::domain::time::Time;

    #[test]
    fn what_is_asked_for_is_what_runs_not_what_was_rolled_back() {
        let spec = crate::domain::spec::testing::spec("chat");
        let identity = Identity {
            project: "default".to_owned(),
            uid: "uid".to_owned(),
        };
        let mut service = Service::create(identity, spec, true, Time::default());
        let stable = service.header.edition;
        let target = Edition {
            template: 2,
            version: 2,
            ..stable
        };
        service.header.version = 2;
        service.header.edition = target;
        service.header.rollout = Some(Rollout {
            stage: Stage::RolledBack,
            target,
            stable: Some(stable),
            reason: String::new(),
            began: Time::default(),
            progress: Time::default(),
        });
        let replica = Replica::new(4, Role::Member, target, Time::default());
        service.replicas.insert(4, Arc::new(replica));
        let version = |ordinal| {
            let (service, only_spec) = (service.clone(), false);
            let subject = Subject {
                service,
                ordinal,
                only_spec,
            };
            subject.version()
        };
        assert_eq!([version(None), version(Some(4))], [1, 2]);
    }

    #[test]
    fn what_our_own_workers_have_is_no_offer() {
        let spec = parse_spec(wire::ServiceSpec {
            name: "chat".to_owned(),
            run: Some(wire::RunSpec {
                command: vec!["serve".to_owned()],
                runtime: Some(wire::run_spec::Runtime::Process(wire::ProcessRuntime {})),
                ..wire::RunSpec::default()
            }),
            ..wire::ServiceSpec::default()
        });
        let filter = elsewhere(&spec.unwrap()).filter.unwrap();
        let asked: Vec<Availability> = filter.availabilities().collect();
        assert_eq!(
            asked,
            [
                Availability::Unknown,
                Availability::Available,
                Availability::NoCapacity,
                Availability::NoQuota,
                Availability::NoBalance,
            ]
        );
    }
}
