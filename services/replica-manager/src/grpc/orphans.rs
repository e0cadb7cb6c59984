//! Replicas on workers of which no record of a service knows: kept as their agents report them, at
//! whichever instance, listed, and, when an operator says so, adopted or removed. They are never stopped
//! unasked.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as workers;
use muster_runtime::status;
use muster_store::Transaction;
use tonic::{Request, Response, Status};

use super::agents::Sorted;
use super::convert::replica::render_replica;
use super::convert::report::{AttemptId, parse_attempt_id, parse_report};
use super::errors::Stopped;
use super::peer::REMOVE_ORPHAN;
use super::{Api, actor, errors, project};
use crate::domain::replica::attempt::Allocation;
use crate::domain::service::Service;
use crate::domain::service::adopt::Orphan;
use crate::domain::time::Time;
use crate::registry::calls::{self, OWNER};
use crate::state::view::Inner;
use crate::state::{keys, record};

/// The longest id of an attempt that is kept: ours are shorter by far.
const LONGEST_ID: usize = 128;

/// Orphans kept of one worker: more are a mistake, or an attack on the store.
const MOST_ON_ONE_WORKER: usize = 1000;

/// Records deleted in one transaction.
const AT_ONCE: usize = 50;

impl Api {
    pub(super) async fn list_orphans(
        &self,
        request: Request<wire::ListOrphansRequest>,
    ) -> Result<Response<wire::ListOrphansResponse>, Status> {
        let (asked, page) = self.page("ListOrphans", request).await?;
        project(&asked.project)?;
        let mut all: Vec<_> = {
            let view = self.engine.parts().view.read();
            let orphans = view.orphans.iter();
            orphans
                .map(|((worker, id), report)| (id.clone(), Reported::of(worker, report)))
                .collect()
        };
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let all = all.into_iter();
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
        let key = keys::orphan(&reported.worker, &asked.attempt_id);
        self.put_orphans(Transaction::new().delete(key)).await?;
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
        let Some(duty) = self.engine.duty() else {
            return self.forward(REMOVE_ORPHAN, request).await;
        };
        let actor = actor(&request);
        let asked = request.into_inner();
        project(&asked.project)?;
        let (_, reported) = self.orphan(&asked.attempt_id)?;
        let release = workers::ReleaseRequest {
            allocation_id: reported.report.allocation_id.clone(),
            owner: OWNER.to_owned(),
            owner_term: Some(duty.owner.term()),
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

    /// Keeps what a worker runs that nobody knows, and lets go of what is no orphan: of everything else on
    /// that worker if `whole` is all that it runs.
    pub(super) async fn keep_orphans(
        &self,
        worker: &str,
        sorted: &Sorted,
        whole: Option<&BTreeSet<String>>,
    ) -> Result<(), Status> {
        for report in &sorted.unknown {
            if let Some(put) = self.fresh_orphan(worker, report) {
                self.put_orphans(put).await?;
            }
        }
        let gone: Vec<String> = {
            let view = self.engine.parts().view.read();
            let here = orphans_on(&view, worker).map(|(id, _)| id.as_str());
            let gone = here.filter(|id| {
                sorted.no_orphans.iter().any(|known| known == id)
                    || whole.is_some_and(|whole| !whole.contains(*id))
            });
            gone.map(|id| keys::orphan(worker, id)).collect()
        };
        for some in gone.chunks(AT_ONCE) {
            let delete = |transaction: Transaction, key: &String| transaction.delete(key.clone());
            let transaction = some.iter().fold(Transaction::new(), delete);
            self.put_orphans(transaction).await?;
        }
        Ok(())
    }

    /// The write by which a report is kept; `None` if it is known, or cannot be kept.
    fn fresh_orphan(&self, worker: &str, report: &wire::AttemptReport) -> Option<Transaction> {
        let id = &report.attempt_id;
        if parse_attempt_id(id).is_none() || id.len() > LONGEST_ID {
            return None;
        }
        let view = self.engine.parts().view.read();
        let known = orphans_on(&view, worker).find(|(known, _)| *known == id);
        let known = known.map(|(_, report)| report);
        if known.is_none() && orphans_on(&view, worker).count() >= MOST_ON_ONE_WORKER {
            return None;
        }
        let kept = kept(report, known.map(AsRef::as_ref));
        let same = known.is_some_and(|known| **known == kept);
        let put = Transaction::new().put(keys::orphan(worker, id), record::to_report(&kept));
        (!same).then_some(put)
    }

    async fn put_orphans(&self, transaction: Transaction) -> Result<(), Status> {
        match self.engine.write(transaction).await {
            // Larger than a record may be: nobody ever told an agent to run such a thing.
            Ok(()) | Err(muster_store::Error::TooLarge { .. }) => Ok(()),
            Err(error) => Err(errors::store(&error)),
        }
    }

    fn orphan(&self, attempt_id: &str) -> Result<(AttemptId, Reported), Status> {
        let missing = || errors::not_found(format!("there is no orphan {attempt_id:?}"));
        let reported = {
            let view = self.engine.parts().view.read();
            let mut orphans = view.orphans.iter();
            let found = orphans.find(|((_, known), _)| known == attempt_id);
            found.map(|((worker, _), report)| Reported::of(worker, report))
        };
        let reported = reported.ok_or_else(missing)?;
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
        let worker = fleet.with_worker(&reported.worker, |worker| {
            worker.map(|worker| (worker.generation, worker.region.clone()))
        });
        // Of generation 0 it would count as revoked.
        let unknown = || {
            let worker = &reported.worker;
            errors::wrong_state(format!(
                "nothing is known of worker {worker} yet: try again in a moment"
            ))
        };
        let (generation, region) = worker.ok_or_else(unknown)?;
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

/// One attempt as its agent reported it.
#[derive(Clone, Debug)]
struct Reported {
    worker: String,
    report: Arc<wire::AttemptReport>,
}

impl Reported {
    fn of(worker: &str, report: &Arc<wire::AttemptReport>) -> Self {
        Self {
            worker: worker.to_owned(),
            report: Arc::clone(report),
        }
    }
}

fn orphans_on<'a>(
    view: &'a Inner,
    worker: &str,
) -> impl Iterator<Item = (&'a String, &'a Arc<wire::AttemptReport>)> {
    let worker = worker.to_owned();
    let orphans = view.orphans.range((worker.clone(), String::new())..);
    let orphans = orphans.take_while(move |((of, _), _)| *of == worker);
    orphans.map(|((_, id), report)| (id, report))
}

/// What is kept of a report: nothing that changes by itself, and of the assignment what was told before if
/// a short report does not repeat it.
fn kept(report: &wire::AttemptReport, known: Option<&wire::AttemptReport>) -> wire::AttemptReport {
    let before = || known.and_then(|known| known.assignment.clone());
    wire::AttemptReport {
        assignment: report.assignment.clone().or_else(before),
        sample: None,
        last_log_lines: Vec::new(),
        ..report.clone()
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
