//! Replicas, attempts and endpoints as the contract shows them.

use muster_proto::replicas::v1 as wire;

use super::spec::render_class;
use super::{count, number, render_time};
use crate::domain::replica::attempt::{Address, Attempt, Exit};
use crate::domain::replica::{Phase, Replica, Role, State};
use crate::domain::service::Service;
use crate::domain::status;
use crate::domain::world::{Liveness, Worker};

pub(crate) fn render_replica(service: &Service, replica: &Replica) -> wire::Replica {
    let header = &service.header;
    let episode = replica.episode.as_ref();
    let of = replica.role.of();
    wire::Replica {
        id: service.replica_id(replica.ordinal),
        project: header.project.clone(),
        service: header.name.clone(),
        service_uid: header.uid.clone(),
        ordinal: count(replica.ordinal),
        version: number(replica.edition.version),
        phase: render_phase(replica).into(),
        since_time: Some(render_time(replica.since)),
        reason: reason(replica),
        role: render_role(replica.role).into(),
        replaces: of.map_or_else(String::new, |of| service.replica_id(of)),
        attempt: replica
            .attempt
            .as_ref()
            .map(|a| render_attempt(service, replica, a)),
        previous_attempt: replica
            .previous
            .as_ref()
            .map(|a| render_attempt(service, replica, a)),
        next_attempt_time: next_attempt(replica),
        episode_failures: episode.map_or(0, |episode| count(episode.failures)),
        episode_start_time: episode.map(|episode| render_time(episode.began)),
        stage: episode.map_or(0, |episode| stage(service, episode.stage)),
        failure_class: render_class(episode.map(|episode| episode.last)).into(),
        restarts: count(replica.restarts),
        members: render_members(replica),
        create_time: Some(render_time(replica.created)),
    }
}

fn render_phase(replica: &Replica) -> wire::ReplicaPhase {
    use wire::ReplicaPhase as Wire;
    if replica.stop.is_some_and(|stop| stop.told) && replica.live() {
        return Wire::Stopping;
    }
    match &replica.state {
        State::Placing(placing) if placing.ahead_of.is_some() => Wire::Backoff,
        State::Pending { .. } | State::Placing(_) | State::Refused(_) => Wire::Pending,
        State::Running(Phase::Allocated) => Wire::Allocated,
        State::Running(Phase::Starting) => Wire::Starting,
        State::Running(Phase::Ready) => Wire::Ready,
        State::Running(Phase::Unready | Phase::Unreachable | Phase::Revoked) => Wire::Unready,
        State::Ended | State::Backoff(_) => Wire::Backoff,
        State::Stopped => Wire::Stopped,
        State::Failed { .. } => Wire::Failed,
    }
}

fn reason(replica: &Replica) -> String {
    match replica.stop {
        Some(stop) if replica.live() && stop.told => format!("being stopped: {}", stop.why),
        Some(stop) if replica.live() => format!("about to be stopped: {}", stop.why),
        Some(stop) => stop.why.to_string(),
        None => status::words(replica),
    }
}

fn render_role(role: Role) -> wire::ReplicaRole {
    match role {
        Role::Member => wire::ReplicaRole::Member,
        Role::Spare { .. } => wire::ReplicaRole::Spare,
        Role::Surge { .. } => wire::ReplicaRole::Surge,
        Role::Move { .. } => wire::ReplicaRole::Move,
    }
}

fn next_attempt(replica: &Replica) -> Option<prost_types::Timestamp> {
    match &replica.state {
        State::Backoff(backoff) => Some(render_time(backoff.due)),
        State::Placing(placing) => placing.ahead_of.map(render_time),
        State::Pending { .. }
        | State::Refused(_)
        | State::Running(_)
        | State::Ended
        | State::Stopped
        | State::Failed { .. } => None,
    }
}

/// The stage from 1; 0 without stages.
fn stage(service: &Service, index: usize) -> i32 {
    let stages = service
        .spec()
        .retry
        .as_ref()
        .map_or(0, |retry| retry.stages.len());
    match stages {
        0 => 0,
        stages => i32::try_from(index.min(stages - 1) + 1).unwrap_or(i32::MAX),
    }
}

fn render_attempt(service: &Service, replica: &Replica, attempt: &Attempt) -> wire::Attempt {
    let room = attempt.allocation.as_ref();
    let end = attempt.end.as_ref();
    wire::Attempt {
        id: service.attempt_id(replica.ordinal, attempt.number),
        number: count(attempt.number),
        version: number(attempt.version),
        allocation_id: room.map_or_else(String::new, |room| room.id.clone()),
        worker: room.map_or_else(String::new, |room| room.worker.clone()),
        gpu_uuids: room.map_or_else(Vec::new, |room| room.gpu_uuids.clone()),
        allocate_time: room.map(|room| render_time(room.at)),
        start_time: attempt.started.map(render_time),
        ready_time: attempt.ready.map(render_time),
        end_time: end.map(|end| render_time(end.at)),
        exit: end.and_then(|end| end.exit).map(render_exit),
        failure_class: render_class(end.and_then(|end| end.class)).into(),
        message: end.map_or_else(String::new, |end| end.message.clone()),
        last_log_lines: end.map_or_else(Vec::new, |end| end.last_log_lines.clone()),
    }
}

fn render_exit(exit: Exit) -> wire::ExitStatus {
    wire::ExitStatus {
        code: exit.code,
        signal: exit.signal,
        out_of_memory: exit.out_of_memory,
    }
}

fn render_members(replica: &Replica) -> Vec<wire::ReplicaMember> {
    let attempt = replica
        .attempt
        .as_ref()
        .filter(|attempt| attempt.end.is_none());
    let placed = attempt.and_then(|attempt| Some((attempt, attempt.allocation.as_ref()?)));
    let members = placed
        .into_iter()
        .map(|(attempt, room)| wire::ReplicaMember {
            rank: 0,
            worker: room.worker.clone(),
            allocation_id: room.id.clone(),
            addresses: attempt.addresses.iter().map(render_address).collect(),
        });
    members.collect()
}

fn render_address(address: &Address) -> wire::PortAddress {
    wire::PortAddress {
        number: count(address.number),
        name: address.name.clone(),
        address: address.address.clone(),
    }
}

/// An endpoint; `worker` is what is known of where it runs.
pub(crate) fn render_endpoint(
    service: &Service,
    replica: &Replica,
    attempt: &Attempt,
    weight: u32,
    worker: Option<&Worker>,
) -> wire::Endpoint {
    let room = attempt.allocation.as_ref();
    wire::Endpoint {
        replica: service.replica_id(replica.ordinal),
        attempt_id: service.attempt_id(replica.ordinal, attempt.number),
        addresses: attempt.addresses.iter().map(render_address).collect(),
        worker: room.map_or_else(String::new, |room| room.worker.clone()),
        region: worker.map_or_else(String::new, |worker| worker.region.clone()),
        zone: worker.map_or_else(String::new, |worker| worker.zone.clone()),
        weight: count(weight),
        suspect: worker.is_some_and(|worker| worker.liveness == Liveness::Suspect),
        version: number(replica.edition.version),
    }
}
