//! Allocate and Release: the requests that records make, and what the answers mean. It repeats nothing.

use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as wire;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::connect::Channel;
use muster_runtime::deadline::Deadline;
use muster_runtime::status::Details;
use tonic::{Code, Request, Status};

use super::orphans;
use crate::domain::replica::attempt::Allocation;
use crate::domain::replica::{Place, State};
use crate::domain::service::Service;
use crate::domain::time::Time;
use crate::grpc::convert::resources::{render_constraints, render_requirements};
use crate::grpc::convert::{count, render_span};

/// Under which name the manager holds allocations.
pub(crate) const OWNER: &str = "replica-manager";

/// The allocation's attribute that names its attempt.
pub(crate) const ATTEMPT: &str = "attempt_id";

/// How long one call may take.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Who we are to the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Our store's epoch.
    pub(crate) epoch: String,
    /// The revision of our leader record.
    pub(crate) revision: u64,
}

impl Owner {
    pub(crate) fn term(&self) -> wire::OwnerTerm {
        wire::OwnerTerm {
            epoch: self.epoch.clone(),
            revision: i64::try_from(self.revision).unwrap_or(i64::MAX),
        }
    }
}

/// What the registry said to a question for room.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// It is given.
    Given(Allocation),
    /// There is none at that place.
    Refused(String),
    /// It was given once, and taken back.
    Void,
    /// The attempt's id was used up by another question, and no room is held under it.
    UsedUp,
    /// Nothing is known: it has to be asked again.
    Unknown,
}

/// The question that a replica's record makes; `None` if it asks for nothing.
pub(crate) fn allocate(
    service: &Service,
    ordinal: u32,
    owner: &Owner,
) -> Option<wire::AllocateRequest> {
    let replica = service.replicas.get(&ordinal)?;
    let State::Placing(placing) = &replica.state else {
        return None;
    };
    let attempt = replica.attempt.as_ref()?;
    let place = placing.choices.first().map(|choice| &choice.place);
    let id = service.attempt_id(ordinal, attempt.number);
    let mut asked = question(service, attempt.version);
    asked.request_id.clone_from(&id);
    asked.subject = service.replica_id(ordinal);
    asked.attributes = [(ATTEMPT.to_owned(), id)].into();
    match place {
        Some(Place::Same { worker }) => {
            asked.worker.clone_from(worker);
            asked.replaces = placing.hold.clone().unwrap_or_default();
        }
        Some(Place::Avoid { workers, regions }) => {
            asked.avoid_workers = workers.iter().cloned().collect();
            asked.avoid_regions = regions.iter().cloned().collect();
        }
        Some(Place::Anywhere) | None => {}
    }
    Some(wire::AllocateRequest {
        owner: OWNER.to_owned(),
        owner_term: Some(owner.term()),
        spec: Some(asked),
        validate_only: false,
    })
}

/// What a replica of a version needs, wherever it may be.
pub(crate) fn question(service: &Service, version: u64) -> wire::AllocationSpec {
    let spec = service.spec_of(version);
    let uid = &service.header.uid;
    wire::AllocationSpec {
        requirements: Some(render_requirements(&spec.resources)),
        constraints: Some(render_constraints(&spec.placement.constraints)),
        spread_key: if spec.placement.packed {
            String::new()
        } else {
            uid.clone()
        },
        host_ports: spec.host_ports().into_iter().map(count).collect(),
        fails_if_forced: service.spec().retry.is_none(),
        stop_grace: Some(render_span(spec.stop_grace)),
        project: service.header.project.clone(),
        ..wire::AllocationSpec::default()
    }
}

/// Asks for room once.
pub(crate) async fn ask(
    mut registry: WorkersServiceClient<Channel>,
    request: wire::AllocateRequest,
    now: Time,
) -> Answer {
    let attempt = request.spec.as_ref().map(|spec| spec.request_id.clone());
    match registry.allocate(timely(request)).await {
        Ok(response) => match response.into_inner().allocation {
            Some(allocation) => Answer::Given(parse_allocation(allocation, now)),
            None => Answer::Unknown,
        },
        Err(status) if Details::of(&status).is(ErrorReason::RequestIdReused) => {
            given_before(registry, &attempt.unwrap_or_default(), now).await
        }
        Err(status) => judge(&status),
    }
}

/// The room that an attempt got by an answer that was lost, to a question that a change in place has altered
/// since.
async fn given_before(
    mut registry: WorkersServiceClient<Channel>,
    attempt: &str,
    now: Time,
) -> Answer {
    let held = match orphans::held(&mut registry).await {
        Ok(held) => held,
        Err(status) => {
            tracing::debug!(%status, "what is held cannot be read");
            return Answer::Unknown;
        }
    };
    let is_its =
        |room: &wire::Allocation| room.attributes.get(ATTEMPT).is_some_and(|a| a == attempt);
    match held.into_iter().find(is_its) {
        Some(room) => Answer::Given(parse_allocation(room, now)),
        None => Answer::UsedUp,
    }
}

fn judge(status: &Status) -> Answer {
    let told = Details::of(status);
    if told.is(ErrorReason::AlreadyReleased) {
        return Answer::Void;
    }
    if told.is(ErrorReason::StaleOwner) {
        tracing::error!("the registry has a newer owner than this instance");
        return Answer::Unknown;
    }
    // The worker or the held room that was asked for is not to be had, or there is no room at all.
    let judged = [
        Code::FailedPrecondition,
        Code::NotFound,
        Code::InvalidArgument,
    ];
    if told.is(ErrorReason::NoCapacity) || judged.contains(&status.code()) {
        return refused(status);
    }
    tracing::debug!(%status, "asking for room failed");
    Answer::Unknown
}

fn refused(status: &Status) -> Answer {
    Answer::Refused(status.message().to_owned())
}

/// The request that gives an allocation back.
pub(crate) fn release(service: &Service, allocation: &str, owner: &Owner) -> wire::ReleaseRequest {
    wire::ReleaseRequest {
        allocation_id: allocation.to_owned(),
        owner: OWNER.to_owned(),
        owner_term: Some(owner.term()),
        stop_grace: Some(render_span(service.spec().stop_grace)),
        reason: "its attempt has ended".to_owned(),
    }
}

/// Gives an allocation back, once; true if it is done.
pub(crate) async fn give_back(
    mut registry: WorkersServiceClient<Channel>,
    request: wire::ReleaseRequest,
) -> bool {
    match registry.release(timely(request)).await {
        Ok(_) => true,
        // One that is gone is as good.
        Err(status) => status.code() == Code::NotFound,
    }
}

fn timely<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    Deadline::after(WITHIN).carry(&mut request);
    request
}

fn parse_allocation(allocation: wire::Allocation, now: Time) -> Allocation {
    let ports = allocation.host_ports.into_iter();
    Allocation {
        id: allocation.id,
        worker: allocation.worker,
        generation: u64::try_from(allocation.worker_generation).unwrap_or(0),
        region: String::new(),
        gpu_uuids: allocation.gpu_uuids,
        fencing_token: allocation.fencing_token,
        replaces: allocation.replaces,
        host_ports: ports.filter_map(|port| u32::try_from(port).ok()).collect(),
        at: now,
    }
}
