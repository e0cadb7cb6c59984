//! Allocations.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use muster_proto::workers::v1 as proto;
use muster_runtime::status::Violations;

use super::time::{parse_duration, parse_named_time, render_duration, render_time};
use super::{
    MAX_ID, parse_count, parse_generation, parse_required, parse_text, render_count,
    render_generation,
};
use crate::domain::allocation::{
    Allocation, Amounts, DEFAULT_STOP_GRACE, End, FencingToken, Life, OwnerTerm,
};
use crate::domain::text::Text;

/// An owner's term, which has to be set.
pub(crate) fn parse_term(
    term: Option<&proto::OwnerTerm>,
    violations: &mut Violations,
) -> OwnerTerm {
    let Some(term) = term else {
        violations.add("owner_term", "must be set");
        return OwnerTerm {
            epoch: "".into(),
            revision: 0,
        };
    };
    OwnerTerm {
        epoch: parse_required("owner_term.epoch", &term.epoch, MAX_ID, violations),
        revision: parse_generation("owner_term.revision", term.revision, violations),
    }
}

/// The term under which an allocation was made, as far as it is known: agents do not know it. Unknown is
/// before every other, so that no owner takes such an allocation for a leftover of its own.
fn parse_known_term(
    field: &str,
    term: Option<&proto::OwnerTerm>,
    violations: &mut Violations,
) -> OwnerTerm {
    let Some(term) = term else {
        return OwnerTerm {
            epoch: "".into(),
            revision: 0,
        };
    };
    let path = |name: &str| format!("{field}.{name}");
    OwnerTerm {
        epoch: parse_text(&path("epoch"), &term.epoch, MAX_ID, violations),
        revision: parse_generation(&path("revision"), term.revision, violations),
    }
}

/// An owner's term.
pub(crate) fn render_term(term: &OwnerTerm) -> proto::OwnerTerm {
    proto::OwnerTerm {
        epoch: term.epoch.to_string(),
        revision: render_generation(term.revision),
    }
}

/// An allocation; `revoked` if force-disabling its worker took it, whatever its own record says.
pub(crate) fn render_allocation(
    allocation: &Allocation,
    revoked: Option<&End>,
) -> proto::Allocation {
    use proto::AllocationState::{Held, Releasing, Revoked};
    let (state, end) = match (&allocation.life, revoked) {
        (_, Some(end)) => (Revoked, Some(end)),
        (Life::Held, None) => (Held, None),
        (Life::Releasing(end), None) => (Releasing, Some(end)),
        (Life::Revoked(end), None) => (Revoked, Some(end)),
    };
    proto::Allocation {
        id: allocation.id.to_string(),
        worker: allocation.worker.to_string(),
        worker_generation: render_generation(allocation.generation),
        state: state.into(),
        owner: allocation.owner.to_string(),
        owner_term: Some(render_term(&allocation.term)),
        subject: allocation.subject.to_string(),
        gpu_uuids: allocation.gpus.iter().map(ToString::to_string).collect(),
        cpu_milli: render_count(allocation.amounts.cpu_milli),
        memory_mib: render_count(allocation.amounts.memory_mib),
        disk_mib: render_count(allocation.amounts.disk_mib),
        host_ports: allocation
            .host_ports
            .iter()
            .map(|port| i32::from(*port))
            .collect(),
        spread_key: allocation.spread_key.to_string(),
        fencing_token: allocation.fencing.to_string(),
        replaces: allocation
            .replaces
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        attributes: allocation.attributes.clone(),
        fails_if_forced: allocation.fails_if_forced,
        stop_grace: Some(render_duration(allocation.stop_grace)),
        create_time: Some(render_time(allocation.created)),
        end_request_time: end.map(|end| render_time(end.at)),
        end_reason: end.map(|end| end.reason.to_string()).unwrap_or_default(),
        project: allocation.project.to_string(),
    }
}

/// An allocation as an agent, or our own record, has it; without the call that made it.
pub(crate) fn parse_allocation(
    field: &str,
    record: proto::Allocation,
    violations: &mut Violations,
) -> Arc<Allocation> {
    let path = |name: &str| format!("{field}.{name}");
    let life = parse_life(&record, field, violations);
    let fencing = violations.take(&path("fencing_token"), record.fencing_token.parse());
    let term = parse_known_term(&path("owner_term"), record.owner_term.as_ref(), violations);
    let grace = parse_duration(&path("stop_grace"), record.stop_grace.as_ref(), violations);
    let created = parse_named_time(
        &path("create_time"),
        record.create_time.as_ref(),
        violations,
    );
    let ports = record
        .host_ports
        .iter()
        .map(|port| parse_port(&path("host_ports"), *port, violations));
    Arc::new(Allocation {
        host_ports: ports.collect(),
        id: parse_required(&path("id"), &record.id, MAX_ID, violations),
        worker: parse_required(&path("worker"), &record.worker, MAX_ID, violations),
        generation: parse_generation(
            &path("worker_generation"),
            record.worker_generation,
            violations,
        ),
        life,
        owner: parse_required(&path("owner"), &record.owner, MAX_ID, violations),
        term,
        subject: record.subject.into(),
        gpus: record
            .gpu_uuids
            .iter()
            .map(|uuid| Text::from(uuid.as_str()))
            .collect(),
        amounts: Amounts {
            cpu_milli: parse_count(&path("cpu_milli"), record.cpu_milli, violations),
            memory_mib: parse_count(&path("memory_mib"), record.memory_mib, violations),
            disk_mib: parse_count(&path("disk_mib"), record.disk_mib, violations),
        },
        spread_key: record.spread_key.into(),
        fencing: fencing.unwrap_or(FencingToken {
            epoch: "".into(),
            revision: 0,
        }),
        replaces: Some(record.replaces)
            .filter(|id| !id.is_empty())
            .map(Text::from),
        attributes: record.attributes,
        fails_if_forced: record.fails_if_forced,
        stop_grace: grace.unwrap_or(DEFAULT_STOP_GRACE),
        created: created.unwrap_or(UNIX_EPOCH),
        project: record.project.into(),
        request: None,
    })
}

fn parse_life(record: &proto::Allocation, field: &str, violations: &mut Violations) -> Life {
    let asked = record.end_request_time.as_ref();
    let asked = parse_named_time(&format!("{field}.end_request_time"), asked, violations);
    let field = format!("{field}.state");
    let end = End {
        at: asked.unwrap_or(UNIX_EPOCH),
        reason: record.end_reason.as_str().into(),
    };
    match super::known(&field, record.state, violations) {
        proto::AllocationState::Held => Life::Held,
        proto::AllocationState::Releasing => Life::Releasing(end),
        proto::AllocationState::Revoked => Life::Revoked(end),
        proto::AllocationState::Unspecified => {
            violations.add(field, "must be set");
            Life::Held
        }
    }
}

/// A port of a host.
pub(crate) fn parse_port(field: &str, port: i32, violations: &mut Violations) -> u16 {
    match u16::try_from(port) {
        Ok(port) if port > 0 => port,
        Ok(_) | Err(_) => {
            violations.add(field, format!("{port} is no port"));
            0
        }
    }
}
