//! Services and their versions as the contract shows them.

use muster_proto::replicas::v1 as wire;
use muster_runtime::resume::Etag;

use super::spec::render_spec;
use super::{count, number, render_span, render_time};
use crate::domain::rollout::{Rollout, Stage};
use crate::domain::service::{Intent, Service};
use crate::domain::spec::diff::Effect;
use crate::domain::status::{Counts, ServicePhase};
use crate::domain::time::Time;
use crate::load::FORGOTTEN_AFTER;

/// `now` is when the answer is made; `None` for one that is shown until something changes.
pub(crate) fn render_service(service: &Service, epoch: &str, now: Option<Time>) -> wire::Service {
    let header = &service.header;
    wire::Service {
        project: header.project.clone(),
        name: header.name.clone(),
        uid: header.uid.clone(),
        etag: etag(service, epoch).into(),
        spec: Some(render_spec(service.spec())),
        version: number(header.version),
        intent: render_intent(header.intent).into(),
        scale: header.scale.map(count),
        status: Some(render_status(service, now)),
        create_time: Some(render_time(header.created)),
        update_time: Some(render_time(header.updated)),
    }
}

/// Covers what callers write.
pub(crate) fn etag(service: &Service, epoch: &str) -> Etag {
    Etag::new(epoch, &service.header.uid, service.header.writes)
}

fn render_intent(intent: Intent) -> wire::ServiceIntent {
    match intent {
        Intent::Run => wire::ServiceIntent::Run,
        Intent::Stop => wire::ServiceIntent::Stop,
        Intent::Failed => wire::ServiceIntent::Failed,
        Intent::Delete => wire::ServiceIntent::Delete,
    }
}

pub(crate) fn render_phase(phase: ServicePhase) -> wire::ServicePhase {
    match phase {
        ServicePhase::Pending => wire::ServicePhase::Pending,
        ServicePhase::Starting => wire::ServicePhase::Starting,
        ServicePhase::Healthy => wire::ServicePhase::Healthy,
        ServicePhase::Degraded => wire::ServicePhase::Degraded,
        ServicePhase::Down => wire::ServicePhase::Down,
        ServicePhase::Stopping => wire::ServicePhase::Stopping,
        ServicePhase::Stopped => wire::ServicePhase::Stopped,
        ServicePhase::Failed => wire::ServicePhase::Failed,
    }
}

fn render_status(service: &Service, now: Option<Time>) -> wire::ServiceStatus {
    let header = &service.header;
    let (status, totals) = (&header.status, &header.totals);
    let mode = match service.spec().retry {
        Some(_) => wire::FailureMode::Retry,
        None => wire::FailureMode::FailFast,
    };
    wire::ServiceStatus {
        phase: render_phase(status.phase).into(),
        since_time: Some(render_time(status.since)),
        reason: status.reason.clone(),
        counts: Some(render_counts(&status.counts)),
        updating: status.updating,
        scaled_to_zero: status.scaled_to_zero,
        failure_mode: mode.into(),
        rollout: header
            .rollout
            .as_ref()
            .map(|rollout| render_rollout(service, rollout)),
        scaling: service
            .spec()
            .scaling
            .as_ref()
            .map(|_| render_scaling_status(service, now)),
        restarts: number(totals.restarts),
        outages: number(totals.outages),
        degradations: number(totals.degradations),
        last_recovery: totals.last_recovery.map(render_span),
        running_version: number(running_version(service)),
        failure_reason: header
            .failure
            .as_ref()
            .map_or_else(String::new, |failure| failure.reason.word().to_owned()),
    }
}

fn render_counts(counts: &Counts) -> wire::ReplicaCounts {
    wire::ReplicaCounts {
        wanted: count(counts.wanted),
        ready: count(counts.ready),
        starting: count(counts.starting),
        unready: count(counts.unready),
        backoff: count(counts.backoff),
        failed: count(counts.failed),
        stopping: count(counts.stopping),
        copies: count(counts.copies),
    }
}

fn render_rollout(service: &Service, rollout: &Rollout) -> wire::Rollout {
    let state = match rollout.stage {
        Stage::Running => wire::RolloutState::Running,
        Stage::Paused { .. } => wire::RolloutState::Paused,
        Stage::Complete => wire::RolloutState::Complete,
        Stage::RollingBack => wire::RolloutState::RollingBack,
        Stage::RolledBack => wire::RolloutState::RolledBack,
    };
    let replicas = service.replicas.values();
    let updated = replicas.filter(|r| r.ready() && r.edition.same(&rollout.target));
    wire::Rollout {
        state: state.into(),
        target_version: number(rollout.target.version),
        stable_version: number(rollout.stable.map_or(0, |stable| stable.version)),
        updated_ready: i32::try_from(updated.count()).unwrap_or(i32::MAX),
        reason: rollout.reason.clone(),
        start_time: Some(render_time(rollout.began)),
        progress_time: Some(render_time(rollout.progress)),
    }
}

fn render_scaling_status(service: &Service, now: Option<Time>) -> wire::ScalingStatus {
    let scaler = &service.header.autoscaler;
    let bounds = service.bounds();
    let desired = scaler.desired.unwrap_or(bounds.min);
    let due = service
        .spec()
        .scaling
        .as_ref()
        .and_then(|scaling| scaler.due(scaling, bounds));
    let pending = scaler.pending.map_or(desired, |pending| pending.number);
    let reason = match (scaler.measure, scaler.pending) {
        (None, _) => "nothing was measured yet".to_owned(),
        (Some(measure), _) if now.is_some_and(|now| now.since(measure.at) >= FORGOTTEN_AFTER) => {
            format!("nothing is measured any more: the last measure asked for {desired}")
        }
        (Some(_), None) => format!("the load asks for {desired}"),
        (Some(_), Some(pending)) => format!("the load asks for {}", pending.number),
    };
    wire::ScalingStatus {
        metric: scaler.measure.map(|measure| measure.total),
        desired: count(desired),
        pending: count(pending),
        pending_time: due.filter(|_| pending != desired).map(render_time),
        reason,
    }
}

/// The version that most replicas run; the one that they are meant to, if none does.
fn running_version(service: &Service) -> u64 {
    let mut counts = std::collections::BTreeMap::new();
    for replica in service
        .replicas
        .values()
        .filter(|replica| !replica.at_rest())
    {
        *counts.entry(replica.edition.version).or_insert(0_u32) += 1;
    }
    let most = counts
        .into_iter()
        .max_by_key(|(version, count)| (*count, *version));
    most.map_or(service.aim().version, |(version, _)| version)
}

pub(crate) fn render_effect(effect: Effect) -> wire::UpdateEffect {
    match effect {
        Effect::None => wire::UpdateEffect::None,
        Effect::InPlace => wire::UpdateEffect::InPlace,
        Effect::Rolling => wire::UpdateEffect::Rolling,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::scaling::Measure;
    use crate::domain::service::command::Identity;
    use crate::domain::spec::testing::spec;

    #[test]
    fn a_load_that_nobody_reports_any_more_asks_for_nothing() {
        let identity = Identity {
            project: "default".to_owned(),
            uid: "uid".to_owned(),
        };
        let at = Time::default();
        let mut service = Service::create(identity, spec("chat"), true, at);
        let reason = |service: &Service, after: Option<u64>| {
            let now = after.map(|seconds| at + Duration::from_secs(seconds));
            render_scaling_status(service, now).reason
        };
        assert_eq!(reason(&service, Some(9)), "nothing was measured yet");
        service.header.autoscaler.desired = Some(3);
        service.header.autoscaler.measure = Some(Measure { total: 9.0, at });
        for fresh in [None, Some(59)] {
            assert_eq!(reason(&service, fresh), "the load asks for 3");
        }
        assert_eq!(
            reason(&service, Some(60)),
            "nothing is measured any more: the last measure asked for 3"
        );
    }
}
