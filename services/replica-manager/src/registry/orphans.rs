//! Allocations that the registry holds for us and that no record of ours knows: left by a call whose
//! answer was lost. Those of our own epoch are given back; older ones belong to replicas that a restored
//! store has forgotten, and are only listed.

use std::collections::HashSet;

use muster_proto::workers::v1 as wire;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::connect::Channel;
use tonic::Status;

use super::calls::{ATTEMPT, OWNER, Owner};
use crate::domain::replica::State;
use crate::engine::Engine;

const PAGE: i32 = 1000;

/// Gives back what is unknown. The registry is read first: what is made after that is in no list.
pub(crate) async fn give_back_unknown(
    engine: &Engine,
    mut registry: WorkersServiceClient<Channel>,
    owner: &Owner,
) -> Result<(), Status> {
    let held = held(&mut registry).await?;
    let known = Known::read(engine);
    let mut failed = None;
    for allocation in held {
        let ours = allocation
            .owner_term
            .as_ref()
            .is_some_and(|term| term.epoch == owner.epoch);
        if !ours || known.has(&allocation) {
            continue;
        }
        tracing::info!(allocation = %allocation.id, subject = %allocation.subject, "giving back unknown room");
        let request = wire::ReleaseRequest {
            allocation_id: allocation.id,
            owner: OWNER.to_owned(),
            owner_term: Some(owner.term()),
            stop_grace: allocation.stop_grace,
            reason: "no replica has it".to_owned(),
        };
        // One that is refused is no reason to keep the others.
        if let Err(status) = registry.release(request).await {
            failed.get_or_insert(status);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Everything that the registry holds for us.
pub(super) async fn held(
    registry: &mut WorkersServiceClient<Channel>,
) -> Result<Vec<wire::Allocation>, Status> {
    let filter = wire::AllocationFilter {
        owners: vec![OWNER.to_owned()],
        states: vec![wire::AllocationState::Held.into()],
        ..wire::AllocationFilter::default()
    };
    let mut request = wire::ListAllocationsRequest {
        filter: Some(filter),
        page_size: PAGE,
        ..wire::ListAllocationsRequest::default()
    };
    let mut all = Vec::new();
    loop {
        let page = registry
            .list_allocations(request.clone())
            .await?
            .into_inner();
        all.extend(page.allocations);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// What our records know of allocations.
struct Known {
    allocations: HashSet<String>,
    /// Attempts that are being asked room for: the answer may not be here yet.
    asked: HashSet<String>,
}

impl Known {
    fn read(engine: &Engine) -> Self {
        let mut known = Self {
            allocations: HashSet::new(),
            asked: HashSet::new(),
        };
        let view = engine.parts().view.read();
        for (_, service) in view.all() {
            for (ordinal, replica) in &service.replicas {
                known.allocations.extend(replica.releases.iter().cloned());
                match &replica.state {
                    State::Pending { hold } => known.allocations.extend(hold.clone()),
                    State::Backoff(backoff) => known.allocations.extend(backoff.hold.clone()),
                    State::Placing(placing) => {
                        known.allocations.extend(placing.hold.clone());
                        let id = service.attempt_id(*ordinal, replica.attempts);
                        known.asked.insert(id);
                    }
                    State::Running(_) => {
                        let attempt = replica.attempt.as_ref();
                        let room = attempt.and_then(|attempt| attempt.allocation.as_ref());
                        known.allocations.extend(room.map(|room| room.id.clone()));
                    }
                    State::Refused(_) | State::Ended | State::Stopped | State::Failed { .. } => {}
                }
            }
        }
        known
    }

    fn has(&self, allocation: &wire::Allocation) -> bool {
        let attempt = allocation.attributes.get(ATTEMPT);
        self.allocations.contains(&allocation.id)
            || attempt.is_some_and(|attempt| self.asked.contains(attempt))
    }
}
