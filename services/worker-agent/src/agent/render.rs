//! What is held, in the words of those who are told.

use std::sync::Arc;
use std::time::SystemTime;

use muster_proto::agents::v1::RunningAttempt;
use muster_proto::replicas::v1::{AttemptReport, PortAddress};
use muster_proto::workers::v1::HeldAllocation;

use super::{Books, Local};
use crate::attempt_dir::Running;
use crate::domain::holdings::{Held, Holdings};
use crate::grpc::convert;
use crate::view::Seen;

/// The longest of a failure's last lines, in characters.
const LONGEST_LINE: usize = 1024;

/// What the registry is told. Of an end that could not be kept yet it is told nothing: absence frees
/// nothing.
pub(super) fn held(holdings: &Holdings, books: &Books) -> Vec<HeldAllocation> {
    let each = holdings.held().into_iter();
    let each = each.filter(|(id, _)| !books.lack(id));
    each.map(|(id, phase)| HeldAllocation {
        allocation_id: id.as_str().to_owned(),
        phase: convert::render_held_phase(phase).into(),
        record: None,
    })
    .collect()
}

/// What others see of an attempt.
pub(super) fn seen(held: &Held, local: &Local, revision: (u64, u64), host: &str) -> Seen {
    Seen {
        revision,
        settled: held.is_settled(),
        report: report(held, local, host),
        assignment: Arc::clone(&local.assignment),
        ports: local.ports.clone(),
        running: running(held, local),
    }
}

fn report(held: &Held, local: &Local, host: &str) -> AttemptReport {
    let attempt = held.attempt();
    let end = attempt.end();
    let time = |time: Option<SystemTime>| time.map(convert::render_time);
    let failed = end.is_some_and(|end| end.class.is_some());
    let lines = local.last_lines.iter().filter(|_| failed);
    AttemptReport {
        attempt_id: local.assignment.attempt_id.clone(),
        allocation_id: local.assignment.allocation_id.clone(),
        phase: convert::render_phase(attempt.phase()).into(),
        start_time: time(attempt.start_time()),
        ready_time: time(attempt.ready_time()),
        phase_time: time(Some(attempt.phase_time())),
        end_time: time(end.map(|end| end.time)),
        exit: end.map(convert::render_exit),
        failure_class: convert::render_class(end.and_then(|end| end.class)).into(),
        message: end.map_or(attempt.said(), |end| &end.message).to_owned(),
        last_log_lines: lines
            .map(|line| line.chars().take(LONGEST_LINE).collect())
            .collect(),
        addresses: addresses(local, host),
        sample: local.sample.filter(|_| end.is_none()),
        stopped: end.is_some_and(|end| end.stopped),
        interrupted: end.is_some_and(|end| end.interrupted),
        assignment: None,
    }
}

fn addresses(local: &Local, host: &str) -> Vec<PortAddress> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let each = local.ports.iter();
    each.map(|port| PortAddress {
        number: i32::from(port.logical),
        name: port.name.clone(),
        address: format!("{host}:{}", port.real),
    })
    .collect()
}

fn running(held: &Held, local: &Local) -> RunningAttempt {
    let attempt = held.attempt();
    let live = local.running.as_ref().filter(|_| !attempt.is_ended());
    let pid = |of: fn(&Running) -> i32| live.map_or(0, of);
    RunningAttempt {
        attempt_id: local.assignment.attempt_id.clone(),
        replica: local.assignment.replica.clone(),
        allocation_id: local.assignment.allocation_id.clone(),
        phase: convert::phase_name(attempt.phase()).to_owned(),
        pid: pid(|running| running.process.unwrap_or(0)),
        supervisor_pid: pid(|running| running.supervisor),
        start_time: attempt.start_time().map(convert::render_time),
    }
}
