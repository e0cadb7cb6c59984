//! Workers: as the contract shows them, and as they are kept.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use muster_model::constraints::Labels;
use muster_proto::workers::v1 as proto;
use muster_runtime::resume::Etag;
use muster_runtime::status::Violations;

use super::drain::{parse_drain, render_drain};
use super::enums::{
    known, parse_capacity_type, parse_state, render_capacity_type, render_liveness, render_state,
};
use super::history::{parse_transition, take_told};
use super::machine::{parse_machine, parse_price, render_capacity, render_price};
use super::time::{
    is_told, parse_duration, parse_named_time, parse_time, read_duration, render_duration,
    render_time,
};
use super::{MAX_ID, MAX_REASON, parse_required, parse_text, render_count, render_generation};
use crate::domain::machine::{Machine, common_labels};
use crate::domain::room::Usage;
use crate::domain::text::{Text, common};
use crate::domain::worker::{By, Check, CheckStatus, Presence, Worker};
use crate::seen::Seen;

/// The most start-up checks of a worker.
const MAX_CHECKS: usize = 64;

/// The longest message of a check, in characters.
const MAX_MESSAGE: usize = 1024;

/// A worker as callers see it, without its history.
pub(crate) fn render_worker(seen: &Seen, epoch: &str) -> proto::Worker {
    proto::Worker {
        capacity: Some(render_capacity(&seen.worker.machine)),
        ..render_worker_around(seen, epoch)
    }
}

/// The same without what the machine has.
fn render_worker_around(seen: &Seen, epoch: &str) -> proto::Worker {
    let worker = &seen.worker;
    let mut shown = render_record_around(worker);
    shown.etag = Etag::new(epoch, &worker.uid, worker.writes).into();
    shown.price = render_price(worker.effective_price());
    shown.capacity_type = render_capacity_type(worker.effective_capacity_type()).into();
    shown.liveness = render_liveness(seen.observed.liveness).into();
    shown.liveness_time = Some(render_time(seen.observed.since));
    shown.heartbeat_time = seen.observed.heard.map(render_time);
    shown.usage = Some(render_usage(seen.usage));
    shown.drain = render_seen_drain(seen);
    shown.simulated = worker.machine.is_simulated();
    shown
}

/// The drain of a worker, with how far it has come.
pub(crate) fn render_seen_drain(seen: &Seen) -> Option<proto::Drain> {
    let drain = seen.worker.drain.as_ref()?;
    let left = seen.usage.allocations;
    Some(render_drain(drain, seen.progress.as_deref(), left))
}

pub(crate) fn render_usage(usage: Usage) -> proto::WorkerUsage {
    proto::WorkerUsage {
        allocations: render_count(usage.allocations),
        gpus: render_count(usage.gpus),
        cpu_milli: render_count(usage.amounts.cpu_milli),
        memory_mib: render_count(usage.amounts.memory_mib),
        disk_mib: render_count(usage.amounts.disk_mib),
    }
}

/// What of a worker's record the contract's message holds, without its history and what the machine has:
/// price and capacity type are the agent's.
pub(crate) fn render_record_around(worker: &Worker) -> proto::Worker {
    let machine = &worker.machine;
    let text = |text: &Text| text.to_string();
    proto::Worker {
        name: text(&worker.name),
        uid: text(&worker.uid),
        generation: render_generation(worker.generation),
        state: render_state(worker.state).into(),
        state_time: Some(render_time(worker.state_since)),
        state_reason: text(&worker.state_by.reason),
        state_actor: text(&worker.state_by.actor),
        unconfirmed: worker.unconfirmed,
        fenced: matches!(worker.presence, Presence::Lost { fenced: true, .. }),
        labels: Labels::clone(&worker.labels),
        agent_labels: Labels::clone(&machine.labels),
        capacity_type: render_capacity_type(machine.capacity_type).into(),
        price: render_price(machine.price),
        backend: text(&machine.backend),
        region: text(&machine.region),
        zone: text(&machine.zone),
        agent_version: text(&machine.agent_version),
        agent_address: text(&machine.agent_address),
        advertise_host: text(&machine.advertise_host),
        drain: worker
            .drain
            .as_ref()
            .map(|drain| render_drain(drain, None, 0)),
        checks: worker.checks.iter().map(render_check).collect(),
        revoked_through: render_generation(worker.revoked_through),
        create_time: Some(render_time(worker.created)),
        update_time: Some(render_time(worker.updated)),
        ..proto::Worker::default()
    }
}

/// What the contract's message holds of a worker's record; what it does not hold is left as in a record
/// made ahead. None if the record is damaged.
pub(crate) fn parse_worker_record(mut record: proto::Worker) -> Option<Worker> {
    take_told(&mut record);
    let mut violations = Violations::new();
    let state = parse_state(record.state())?;
    let by = By::new(record.state_actor.as_str(), record.state_reason.as_str());
    let name: Text = record.name.as_str().into();
    let created = parse_time(record.create_time.as_ref())?;
    let mut worker = Worker::ahead(name, record.uid.as_str().into(), by, created);
    worker.generation = u64::try_from(record.generation).ok()?;
    worker.state = state;
    worker.state_since = parse_time(record.state_time.as_ref())?;
    worker.unconfirmed = record.unconfirmed;
    worker.revoked_through = u64::try_from(record.revoked_through).ok()?;
    worker.updated = parse_time(record.update_time.as_ref())?;
    worker.drain = record.drain.as_ref().and_then(parse_drain);
    worker.history = record.history.iter().filter_map(parse_transition).collect();
    worker.set_labels(record.labels.clone());
    let mut checks = record.checks.clone();
    for check in &mut checks {
        // They were taken when callers were not held to a range.
        check.duration = check.duration.filter(|one| read_duration(one).is_some());
        check.end_time = check.end_time.filter(is_told);
    }
    worker.checks = parse_checks(checks, &mut violations).into();
    worker.set_machine(Arc::new(parse_record_machine(record, &mut violations)));
    violations.is_empty().then_some(worker)
}

fn parse_record_machine(record: proto::Worker, violations: &mut Violations) -> Machine {
    let mut machine = Machine {
        capacity_type: parse_capacity_type(record.capacity_type()),
        price: parse_price("price", record.price, violations),
        labels: common_labels(record.agent_labels),
        backend: common(&record.backend),
        region: common(&record.region),
        zone: common(&record.zone),
        agent_version: common(&record.agent_version),
        agent_address: common(&record.agent_address),
        advertise_host: common(&record.advertise_host),
        ..Machine::default()
    };
    parse_machine(
        "capacity",
        record.capacity.unwrap_or_default(),
        &mut machine,
        violations,
    );
    machine
}

/// Start-up checks as an agent, or our own record, has them.
pub(crate) fn parse_checks(
    checks: Vec<proto::WorkerCheck>,
    violations: &mut Violations,
) -> Vec<Check> {
    if checks.len() > MAX_CHECKS {
        violations.add("checks", format!("must be at most {MAX_CHECKS}"));
    }
    let mut parsed = Vec::with_capacity(checks.len().min(MAX_CHECKS));
    for (place, check) in checks.into_iter().take(MAX_CHECKS).enumerate() {
        let path = |name: &str| format!("checks[{place}].{name}");
        let status = match known(&path("status"), check.status, violations) {
            proto::CheckStatus::Running => CheckStatus::Running,
            proto::CheckStatus::Passed => CheckStatus::Passed,
            proto::CheckStatus::Failed => CheckStatus::Failed,
            proto::CheckStatus::Unspecified => {
                violations.add(path("status"), "must be set");
                CheckStatus::Running
            }
        };
        let duration = parse_duration(&path("duration"), check.duration.as_ref(), violations);
        let ended = parse_named_time(&path("end_time"), check.end_time.as_ref(), violations);
        parsed.push(Check {
            // Every machine runs the same checks, and most find the same.
            name: common(&parse_required(
                &path("name"),
                &check.name,
                MAX_ID,
                violations,
            )),
            status,
            message: common(&parse_text(
                &path("message"),
                &check.message,
                MAX_MESSAGE.max(MAX_REASON),
                violations,
            )),
            duration: duration.unwrap_or(Duration::ZERO),
            ended: ended.filter(|end| *end > UNIX_EPOCH),
        });
    }
    parsed
}

pub(crate) fn render_check(check: &Check) -> proto::WorkerCheck {
    let status = match check.status {
        CheckStatus::Running => proto::CheckStatus::Running,
        CheckStatus::Passed => proto::CheckStatus::Passed,
        CheckStatus::Failed => proto::CheckStatus::Failed,
    };
    proto::WorkerCheck {
        name: check.name.to_string(),
        status: status.into(),
        message: check.message.to_string(),
        duration: Some(render_duration(check.duration)),
        end_time: check.ended.map(render_time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_ran_the_same_checks_share_their_words() {
        let check = proto::WorkerCheck {
            name: "gpu-inventory".to_owned(),
            status: proto::CheckStatus::Passed.into(),
            message: "eight of eight".to_owned(),
            ..proto::WorkerCheck::default()
        };
        let mut violations = Violations::new();
        let mut parse = || parse_checks(vec![check.clone()], &mut violations).remove(0);
        let (one, other) = (parse(), parse());
        assert!(Arc::ptr_eq(&one.name, &other.name));
        assert!(Arc::ptr_eq(&one.message, &other.message));
        assert_eq!(
            (&*one.name, &*one.message),
            ("gpu-inventory", "eight of eight")
        );
        assert!(violations.is_empty());
    }
}
