//! What agents ask and tell: AssignmentsService.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use muster_model::name;
use muster_proto::replicas::v1 as wire;
use muster_proto::replicas::v1::assignments_service_server::AssignmentsService;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::{Principal, Role};
use muster_runtime::status::{self, Violations};
use muster_runtime::watch::{Event, Filter};
use tonic::{Code, Request, Response, Status};

use super::convert::parse_time;
use super::convert::report::{AttemptId, parse_attempt_id, parse_report};
use super::watches::Stream;
use super::{Api, errors};
use crate::crash::Step;
use crate::domain::replica::observe::Observation;
use crate::domain::service::epoch::Knowledge;
use crate::domain::spec::Metric;
use crate::engine::Error;
use crate::engine::learning::{Learnt, Overtaken, Source, What};
use crate::load::Sample;

/// Replicas of one service that are learnt of together at the least: with as many more as a plan touches at once, they
/// fit a transaction whatever was printed.
pub(crate) const AT_ONCE: usize = 12;

/// Services of one report that are changed side by side.
const SIDE_BY_SIDE: usize = 32;

#[tonic::async_trait]
impl AssignmentsService for Api {
    type WatchAssignmentsStream = Stream<wire::WatchAssignmentsResponse>;

    async fn watch_assignments(
        &self,
        request: Request<wire::WatchAssignmentsRequest>,
    ) -> Result<Response<Self::WatchAssignmentsStream>, Status> {
        speaks_for_itself(&Principal::of(&request), &request.get_ref().worker)?;
        let asked = request.into_inner();
        let mut faults = Violations::new();
        is_worker(&asked.worker, &mut faults);
        faults.into_result()?;
        self.refuse_fenced(&asked.worker, asked.generation)?;
        // An agent that comes from another instance must not be told what was true before that.
        self.in_step().await?;
        let filter = Filter::all().prefix(format!("{}/", asked.worker));
        let messages = self.hubs.assignments.watch(&asked.resume_token, filter)?;
        let epoch = self.epoch.to_string();
        Ok(Response::new(Box::pin(messages.map(move |message| {
            message.map(|message| wire::WatchAssignmentsResponse {
                changes: message.changes.iter().map(render_change).collect(),
                resume_token: message.resume_token,
                synced: message.synced,
                epoch: epoch.clone(),
            })
        }))))
    }

    async fn report_replicas(
        &self,
        request: Request<wire::ReportReplicasRequest>,
    ) -> Result<Response<wire::ReportReplicasResponse>, Status> {
        speaks_for_itself(&Principal::of(&request), &request.get_ref().worker)?;
        let asked = request.into_inner();
        let mut faults = Violations::new();
        is_worker(&asked.worker, &mut faults);
        let now = self.engine.now();
        let mut sorted = Sorted::default();
        for (index, report) in asked.reports.iter().enumerate() {
            if parse_report(report, now).is_none() {
                faults.add(format!("reports[{index}].phase"), "is required");
            }
        }
        faults.into_result()?;
        self.refuse_fenced(&asked.worker, asked.generation)?;
        if !self.all_current(&asked.worker, &asked.reports) {
            // Another instance may know what this one has not seen yet.
            self.in_step().await?;
        }
        let ids = asked.reports.iter().map(|report| report.attempt_id.clone());
        let whole = asked.whole.then(|| ids.collect::<BTreeSet<String>>());
        for report in asked.reports {
            self.sort(&asked.worker, report, &mut sorted);
        }
        self.keep_orphans(&asked.worker, &sorted, whole.as_ref())
            .await?;
        if !self.leads() {
            self.pass_on_samples(&asked.worker, asked.generation, &sorted);
        }
        self.take_known(sorted.known, &mut sorted.forgotten).await?;
        Ok(Response::new(wire::ReportReplicasResponse {
            unknown_attempts: ids_of(&sorted.unknown),
            forgotten_attempts: sorted.forgotten,
        }))
    }
}

/// Reports by what they are about.
#[derive(Default)]
pub(super) struct Sorted {
    /// By the uid of the service.
    pub(super) known: BTreeMap<String, Vec<(AttemptId, wire::AttemptReport)>>,
    pub(super) unknown: Vec<wire::AttemptReport>,
    forgotten: Vec<String>,
    /// What is no orphan, or none any more.
    pub(super) no_orphans: Vec<String>,
}

fn ids_of(reports: &[wire::AttemptReport]) -> Vec<String> {
    let ids = reports.iter().map(|report| report.attempt_id.clone());
    ids.collect()
}

impl Api {
    /// An incarnation of a worker that a later one has followed is not listened to.
    fn refuse_fenced(&self, worker: &str, generation: i64) -> Result<(), Status> {
        let fleet = &self.engine.parts().fleet;
        let current = fleet.with_worker(worker, |known| known.map_or(0, |known| known.generation));
        if u64::try_from(generation).unwrap_or(0) >= current {
            return Ok(());
        }
        let message = format!("generation {generation} of {worker} was followed by {current}");
        let error = status::error(Code::FailedPrecondition, ErrorReason::Fenced, message);
        Err(error
            .metadata("generation", current.to_string())
            .into_status())
    }

    /// Whether each report is about an attempt that is known to run on this worker.
    fn all_current(&self, worker: &str, reports: &[wire::AttemptReport]) -> bool {
        reports.iter().all(|report| {
            let id = parse_attempt_id(&report.attempt_id);
            id.is_some_and(|id| self.knowledge(worker, &id) == Knowledge::Current)
        })
    }

    fn sort(&self, worker: &str, report: wire::AttemptReport, sorted: &mut Sorted) {
        let ended = report.phase == i32::from(wire::AttemptPhase::Ended);
        let id = parse_attempt_id(&report.attempt_id);
        match id.map(|id| (self.knowledge(worker, &id), id)) {
            Some((Knowledge::Current, id)) => {
                sorted.no_orphans.push(report.attempt_id.clone());
                sorted
                    .known
                    .entry(id.uid.clone())
                    .or_default()
                    .push((id, report));
            }
            // Its agent says so again, and may not forget its end until that is recorded.
            Some((Knowledge::Early, _)) => sorted.no_orphans.push(report.attempt_id),
            // It is another worker's to speak of. What ended here was not what runs there.
            Some((Knowledge::Elsewhere, _)) => {
                sorted.no_orphans.push(report.attempt_id.clone());
                if ended {
                    sorted.forgotten.push(report.attempt_id);
                }
            }
            // Its end is stored already; what still runs of it, its allocation's end will stop.
            Some((Knowledge::Past, _)) if ended => sorted.forgotten.push(report.attempt_id),
            Some((Knowledge::Past, _)) => {}
            // What has ended needs no keeping, whoever it was.
            Some((Knowledge::None, _)) | None if ended => {
                sorted.no_orphans.push(report.attempt_id.clone());
                sorted.forgotten.push(report.attempt_id);
            }
            Some((Knowledge::None, _)) | None => sorted.unknown.push(report),
        }
    }

    /// Lets the leader know what was measured for scaling, which is judged there.
    fn pass_on_samples(&self, worker: &str, generation: i64, sorted: &Sorted) {
        let view = &self.engine.parts().view;
        let measured = sorted.known.iter().filter(|(uid, _)| {
            let stored = view.get(uid);
            let scaling = stored.and_then(|stored| stored.service.spec().scaling.clone());
            scaling.is_some_and(|scaling| scaling.metric != Metric::Load)
        });
        let reports = measured.flat_map(|(_, reports)| reports);
        let sampled = reports.filter(|(_, report)| report.sample.is_some());
        let reports: Vec<_> = sampled
            .map(|(_, report)| wire::AttemptReport {
                attempt_id: report.attempt_id.clone(),
                sample: report.sample,
                ..wire::AttemptReport::default()
            })
            .collect();
        if !reports.is_empty() {
            self.samples.put(wire::ReportReplicasRequest {
                worker: worker.to_owned(),
                generation,
                reports,
                whole: false,
            });
        }
    }

    /// What the records know of an attempt that a worker speaks of.
    pub(super) fn knowledge(&self, worker: &str, id: &AttemptId) -> Knowledge {
        let stored = self.engine.parts().view.get(&id.uid);
        stored.map_or(Knowledge::None, |stored| {
            let epoch = self.engine.epoch();
            let attempt = (id.ordinal, id.number);
            stored.service.knows_on(worker, attempt, epoch)
        })
    }

    /// Records what was reported, service by service; what ended may be forgotten by its agent.
    async fn take_known(
        &self,
        known: BTreeMap<String, Vec<(AttemptId, wire::AttemptReport)>>,
        forgotten: &mut Vec<String>,
    ) -> Result<(), Status> {
        let changes = known.into_iter().map(|(uid, reports)| async move {
            let ended: Vec<String> = reports
                .iter()
                .filter(|(_, report)| report.phase == i32::from(wire::AttemptPhase::Ended))
                .map(|(_, report)| report.attempt_id.clone())
                .collect();
            self.take(&uid, reports).await.map(|()| ended)
        });
        let mut outcomes = futures_util::stream::iter(changes).buffer_unordered(SIDE_BY_SIDE);
        let mut failed = None;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(ended) => forgotten.extend(ended),
                Err(status) => failed = Some(status),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn take(
        &self,
        uid: &str,
        reports: Vec<(AttemptId, wire::AttemptReport)>,
    ) -> Result<(), Status> {
        let (mut left, mut at_once) = (&reports[..], AT_ONCE);
        while !left.is_empty() {
            let (some, rest) = left.split_at(at_once.min(left.len()));
            match self.take_some(uid, some).await {
                // Records may be of before they were bounded as they are now.
                Err(muster_store::Error::TooLarge { .. }) if at_once > 1 => at_once /= 2,
                taken => {
                    taken.map_err(|error| errors::store(&error))?;
                    left = rest;
                }
            }
        }
        Ok(())
    }

    /// `TooLarge`: they do not fit one transaction.
    async fn take_some(
        &self,
        uid: &str,
        reports: &[(AttemptId, wire::AttemptReport)],
    ) -> Result<(), muster_store::Error> {
        for (id, report) in reports {
            self.take_sample(id, report);
            let ended = report.phase == i32::from(wire::AttemptPhase::Ended);
            let step = if ended {
                Step::EndReported
            } else {
                Step::RunReported
            };
            self.engine.parts().crash.at(step);
        }
        let now = self.engine.now();
        let learnt = reports.iter().filter_map(|(id, report)| {
            let report = parse_report(report, now)?;
            Some(Learnt {
                ordinal: id.ordinal,
                what: What::Of(id.number, Observation::Reported(report)),
            })
        });
        let learnt = self.engine.learn(uid, Source::Agents, learnt.collect());
        match learnt.await {
            Ok(()) | Err(Error::Gone) => Ok(()),
            Err(Error::Refused(Overtaken)) => {
                let words = "what was reported has changed meanwhile, it has to be told anew";
                Err(muster_store::Error::Unavailable(words.to_owned()))
            }
            // No request id is used here, and no leadership asked for.
            Err(Error::Repeated | Error::NotLeading) => Err(muster_store::Error::Closed),
            Err(Error::Store(error)) => Err(error),
        }
    }

    pub(super) fn take_sample(&self, id: &AttemptId, report: &wire::AttemptReport) {
        let Some(sample) = &report.sample else { return };
        let now = self.engine.now();
        let taken = sample.time.as_ref().and_then(parse_time);
        let sample = Sample {
            at: now,
            taken: taken.unwrap_or(now),
            metric: sample.metric,
            cpu_percent: sample.cpu_percent,
            gpu_percent: sample.gpu_percent,
        };
        self.engine
            .parts()
            .loads
            .sample(&id.uid, id.ordinal, sample);
    }
}

/// What is no worker's name could be taken for a part of another's key.
fn is_worker(name: &str, faults: &mut Violations) {
    if let Err(error) = name::check(name) {
        faults.add("worker", error.to_string());
    }
}

/// A worker's identity binds it.
fn speaks_for_itself(principal: &Principal, worker: &str) -> Result<(), Status> {
    if principal.role() == Role::Agent && principal.name() != worker {
        let message = format!("{} speaks for itself only", principal.name());
        let error = status::error(Code::PermissionDenied, ErrorReason::NotYourself, message);
        return Err(error.into_status());
    }
    Ok(())
}

fn render_change(event: &Event<wire::Assignment>) -> wire::AssignmentChange {
    use wire::assignment_change::Change;
    let assignment = (**event.resource()).clone();
    wire::AssignmentChange {
        change: Some(match event {
            Event::Put(_) | Event::Observed(_) => Change::Put(assignment),
            Event::Deleted(_) => Change::Deleted(assignment),
        }),
    }
}
