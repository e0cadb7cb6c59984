//! Replicas on workers of which the store knows nothing: listed, and, when an operator says so, adopted
//! or removed.

use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as workers;
use muster_runtime::auth::Principal;
use muster_runtime::page::Asked;
use muster_runtime::status;
use tonic::{Request, Response, Status};

use super::convert::replica::render_replica;
use super::convert::report::{AttemptId, parse_attempt_id, parse_report};
use super::errors::Stopped;
use super::pages::Page;
use super::{Api, actor, errors, project};
use crate::domain::replica::attempt::Allocation;
use crate::domain::service::Service;
use crate::domain::service::adopt::Orphan;
use crate::domain::time::Time;
use crate::registry::calls::{self, OWNER};
use crate::unknown::Reported;

impl Api {
    pub(super) async fn list_orphans(
        &self,
        request: Request<wire::ListOrphansRequest>,
    ) -> Result<Response<wire::ListOrphansResponse>, Status> {
        self.not_before(&request, &request.get_ref().not_before)
            .await?;
        let principal = Principal::of(&request);
        let mut asked = request.into_inner();
        asked.not_before.clear();
        let page = Page::open(
            &self.sealer,
            "ListOrphans",
            &principal,
            &mut asked,
            |r, faults| Asked::take(&mut r.page_size, &mut r.page_token, faults),
        )?;
        project(&asked.project)?;
        let all = self.unknown.all().into_iter();
        let cut = page.fill(all.map(|(id, reported)| (id, render_orphan(&reported))));
        Ok(Response::new(wire::ListOrphansResponse {
            orphans: cut.items,
            next_page_token: cut.next_page_token,
            resume_token: self.token(self.engine.parts().progress.current()),
        }))
    }

    pub(super) async fn adopt_orphan(
        &self,
        request: Request<wire::AdoptOrphanRequest>,
    ) -> Result<Response<wire::AdoptOrphanResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let (id, reported) = self.orphan(&asked.attempt_id)?;
        let (service, _) = self.find(project(&asked.project)?, &asked.service)?;
        if service.header.uid != id.uid {
            let message = format!(
                "{} was started for another service than {}: another uid",
                asked.attempt_id, asked.service
            );
            return Err(errors::wrong_state(message));
        }
        let orphan = self.parse_orphan(&id, &reported)?;
        let act = |service: &mut Service, now: Time| -> Result<(), Stopped> {
            Ok(service.adopt(orphan.clone(), now)?)
        };
        let target = (asked.project.as_str(), asked.service.as_str(), "");
        let changed = self.command(target, &actor, act).await?;
        self.unknown.remove(&asked.attempt_id);
        let replica = changed.service.as_deref().and_then(|service| {
            let replica = service.replicas.get(&id.ordinal)?;
            Some(render_replica(service, replica))
        });
        Ok(Response::new(wire::AdoptOrphanResponse {
            replica,
            resume_token: self.token(changed.revision),
        }))
    }

    /// Gives the orphan's room back: its agent then stops it, as it stops everything whose room is gone.
    pub(super) async fn remove_orphan(
        &self,
        request: Request<wire::RemoveOrphanRequest>,
    ) -> Result<Response<wire::RemoveOrphanResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        project(&asked.project)?;
        let (_, reported) = self.orphan(&asked.attempt_id)?;
        let release = workers::ReleaseRequest {
            allocation_id: reported.report.allocation_id.clone(),
            owner: OWNER.to_owned(),
            owner_term: Some(self.owner.term()),
            stop_grace: None,
            reason: format!("an orphan, removed by {actor}"),
        };
        if !calls::give_back(self.registry.clone(), release).await {
            let message = "the worker-registry does not take its room back now";
            let reason = ErrorReason::PeerUnreachable;
            let retry = std::time::Duration::from_secs(1);
            return Err(status::unavailable(reason, message, retry).into_status());
        }
        tracing::info!(attempt = %asked.attempt_id, actor, "orphan removed");
        Ok(Response::new(wire::RemoveOrphanResponse {
            resume_token: self.token(self.engine.parts().progress.current()),
        }))
    }

    fn orphan(&self, attempt_id: &str) -> Result<(AttemptId, Reported), Status> {
        let missing = || errors::not_found(format!("there is no orphan {attempt_id:?}"));
        let reported = self.unknown.get(attempt_id).ok_or_else(missing)?;
        let id = parse_attempt_id(attempt_id).ok_or_else(missing)?;
        Ok((id, reported))
    }

    /// What its agent told of it whole; without that it cannot be taken back.
    fn parse_orphan(&self, id: &AttemptId, reported: &Reported) -> Result<Orphan, Status> {
        let now = self.engine.now();
        let report = &reported.report;
        let untold =
            || errors::wrong_state("its agent has not told all of it yet: try again in a moment");
        let known = report.assignment.as_ref().ok_or_else(untold)?;
        let told = parse_report(report, now).ok_or_else(untold)?;
        let fleet = &self.engine.parts().fleet;
        let (generation, region) = fleet.with_worker(&reported.worker, |worker| {
            worker.map_or((0, String::new()), |worker| {
                (worker.generation, worker.region.clone())
            })
        });
        Ok(Orphan {
            ordinal: id.ordinal,
            number: id.number,
            version: u64::try_from(known.version).unwrap_or(0),
            room: Allocation {
                id: known.allocation_id.clone(),
                worker: reported.worker.clone(),
                generation,
                region,
                gpu_uuids: known.gpu_uuids.clone(),
                fencing_token: known.fencing_token.clone(),
                replaces: known.replaces_allocation.clone(),
                host_ports: Vec::new(),
                at: told.started.unwrap_or(now),
            },
            report: told,
        })
    }
}

fn render_orphan(reported: &Reported) -> wire::Orphan {
    let report = &reported.report;
    let assignment = report.assignment.as_ref();
    let allocation = workers::Allocation {
        id: report.allocation_id.clone(),
        worker: reported.worker.clone(),
        gpu_uuids: assignment.map_or_else(Vec::new, |known| known.gpu_uuids.clone()),
        fencing_token: assignment.map_or_else(String::new, |known| known.fencing_token.clone()),
        subject: assignment.map_or_else(String::new, |known| known.replica.clone()),
        ..workers::Allocation::default()
    };
    wire::Orphan {
        attempt_id: report.attempt_id.clone(),
        replica: assignment.map_or_else(String::new, |known| known.replica.clone()),
        service_uid: assignment.map_or_else(String::new, |known| known.service_uid.clone()),
        worker: reported.worker.clone(),
        allocation: Some(allocation),
        start_time: report.start_time,
    }
}
