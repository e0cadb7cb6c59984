//! Attempts as their agents are told of them.

use muster_proto::replicas::v1 as wire;

use super::resources::render_requirements;
use super::spec::{
    render_on_disconnect, render_probes, render_run, render_scaling, render_start, render_stop,
};
use super::{count, number};
use crate::domain::replica::{Phase, Replica, State};
use crate::domain::service::Service;
use crate::domain::spec::Metric;

/// What the agent of its worker is told; `None` while it has no place, and once it has ended or has lost it.
pub(crate) fn render_assignment(service: &Service, replica: &Replica) -> Option<wire::Assignment> {
    match replica.state {
        // An agent that is back must not start it; what runs of it, the registry tells it to stop.
        State::Running(Phase::Revoked) => return None,
        State::Running(_) => {}
        State::Pending { .. }
        | State::Placing(_)
        | State::Refused(_)
        | State::Ended
        | State::Backoff(_)
        | State::Stopped
        | State::Failed { .. } => return None,
    }
    let attempt = replica.attempt.as_ref()?;
    let room = attempt.allocation.as_ref()?;
    let spec = service.spec_of(attempt.version);
    // What is changed in place counts for every version that runs, also for one that was gone back to.
    let applied = service.spec();
    let needs = render_requirements(&spec.resources);
    let stop = replica.stop.filter(|stop| stop.told);
    let intent = match stop {
        Some(_) => wire::AssignmentIntent::Stop,
        None => wire::AssignmentIntent::Run,
    };
    let scraped = |metric: &Metric| !matches!(metric, Metric::Load);
    let scaling = service
        .spec()
        .scaling
        .as_ref()
        .filter(|s| scraped(&s.metric));
    Some(wire::Assignment {
        attempt_id: service.attempt_id(replica.ordinal, attempt.number),
        intent: intent.into(),
        allocation_id: room.id.clone(),
        fencing_token: room.fencing_token.clone(),
        replaces_allocation: room.replaces.clone(),
        replica: service.replica_id(replica.ordinal),
        service: service.header.name.clone(),
        service_uid: service.header.uid.clone(),
        project: service.header.project.clone(),
        ordinal: count(replica.ordinal),
        attempt_number: count(attempt.number),
        version: number(attempt.version),
        run: Some(render_run(&spec.run)),
        start: Some(render_start(applied)),
        probes: Some(render_probes(&spec.probes)),
        stop: Some(render_stop(applied)),
        on_disconnect: render_on_disconnect(spec.on_disconnect).into(),
        gpu_uuids: room.gpu_uuids.clone(),
        cpu_milli: needs.cpu_milli,
        memory_mib: needs.memory_mib,
        scaling: scaling.map(render_scaling),
        reason: stop.map_or_else(String::new, |stop| stop.why.to_string()),
        worker_generation: number(room.generation),
    })
}
