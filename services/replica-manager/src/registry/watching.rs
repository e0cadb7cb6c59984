//! Follows the registry for ever: each worker as it is told goes into the fleet, and the services that
//! it concerns are planned again, if this instance leads. A registry that is away changes nothing: what was
//! known stays so. An instance that begins to lead claims its term there before it reads anything.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as wire;
use muster_proto::workers::v1::allocation_change::Change as AllocationChange;
use muster_proto::workers::v1::worker_change::Change as WorkerChange;
use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::backoff::{Backoff, Policy};
use muster_runtime::connect::Channel;
use muster_runtime::health::Check;
use muster_runtime::resume;
use muster_runtime::status::Details;
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::calls::Owner;
use super::{claim, orphans};
use crate::crash::Step;
use crate::domain::world::{Drain, Liveness, Position, Worker, WorkerState};
use crate::engine::Engine;
use crate::fleet::{Told, Traits};
use crate::grpc::convert::parse_time;
use crate::state::hubs::Hubs;

/// The delays between tries to reach the registry.
const AGAIN: Policy = Policy::doubling(Duration::from_millis(50), Duration::from_secs(2));

/// How the registry is followed.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    pub(crate) engine: Engine,
    pub(crate) hubs: Hubs,
    pub(crate) registry: WorkersServiceClient<Channel>,
    /// Told when the registry has taken a term of ours.
    pub(crate) claimed: watch::Sender<Option<Owner>>,
}

/// How far a follower has come.
#[derive(Debug, Default)]
struct Place {
    token: String,
    /// The registry's epoch; another one than before begins anew.
    epoch: String,
    /// Told since the start of the current state, until it is complete and new enough.
    whole: Option<BTreeMap<String, (Worker, Traits)>>,
    /// Told since the last position of those that are gone or given up: plans go by it once they know how new it
    /// is.
    ending: BTreeSet<String>,
}

/// A term that the registry has taken.
#[derive(Debug)]
struct Claimed {
    owner: Owner,
    /// How far the registry's history was by then. The instance that answered may not be the one that is watched.
    position: Position,
}

/// The place that a resume token names; nowhere if the registry has not said.
fn position_of(token: &str) -> Position {
    let position = resume::Position::parse(token);
    position.map_or_else(
        |_| Position::default(),
        |position| Position {
            epoch: position.epoch,
            revision: position.revision,
        },
    )
}

impl Follower {
    /// Follows the workers. `check` tells how the registry is reached.
    pub(crate) async fn workers(self, check: Check) {
        let mut place = Place::default();
        let mut backoff = Backoff::new(AGAIN, 1);
        let mut duty = self.engine.on_duty();
        loop {
            duty.mark_unchanged();
            let followed = tokio::select! {
                biased;
                // Claimed and read anew, from the place that was reached.
                _ = duty.changed() => continue,
                followed = self.follow_workers(&mut place, &check, &mut backoff) => followed,
            };
            check.failed(match followed {
                Ok(()) => "the worker-registry is away: the watch ended".to_owned(),
                Err(status) => {
                    if status.code() == Code::OutOfRange {
                        place.token.clear();
                    }
                    trouble(&status)
                }
            });
            tokio::select! {
                _ = duty.changed() => {}
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Tells the registry that this instance leads, if it does.
    async fn claim(&self, place: &mut Place) -> Result<Option<Claimed>, Status> {
        let Some(duty) = self.engine.duty() else {
            return Ok(None);
        };
        let response = claim::claim(self.registry.clone(), &duty.owner).await?;
        self.engine.parts().crash.at(Step::TermClaimed);
        if place.epoch != response.epoch && !place.epoch.is_empty() {
            place.token.clear();
        }
        place.epoch = response.epoch;
        self.claimed.send_replace(Some(duty.owner.clone()));
        Ok(Some(Claimed {
            owner: duty.owner,
            position: position_of(&response.resume_token),
        }))
    }

    async fn follow_workers(
        &self,
        place: &mut Place,
        check: &Check,
        backoff: &mut Backoff,
    ) -> Result<(), Status> {
        let mut claimed = self.claim(place).await?;
        if place.token.is_empty() {
            place.whole = Some(BTreeMap::new());
        }
        let request = wire::WatchWorkersRequest {
            filter: None,
            resume_token: place.token.clone(),
        };
        let mut stream = self
            .registry
            .clone()
            .watch_workers(request)
            .await?
            .into_inner();
        while let Some(message) = stream.message().await? {
            backoff.reset();
            check.ok("");
            for change in message.changes {
                self.take_worker(change, place);
            }
            let at_a_position = !message.resume_token.is_empty();
            if at_a_position {
                place.token = message.resume_token;
            }
            let is_old = |claimed: &Claimed| !position_of(&place.token).reaches(&claimed.position);
            let behind = message.synced && claimed.as_ref().is_some_and(is_old);
            match place.whole.take_if(|_| message.synced && !behind) {
                Some(whole) => self.all_told(whole, place),
                None if at_a_position && place.whole.is_none() => self.reached(place),
                None => {}
            }
            if behind {
                // Told when it catches up only if a worker changes then: it is asked anew, or another one is.
                return Err(Status::unavailable(
                    "the instance that is watched is behind the one that has taken our term",
                ));
            }
            if message.synced
                && let Some(claimed) = claimed.take()
            {
                self.reached_term(claimed.owner);
            }
        }
        Ok(())
    }

    /// The workers are known as they were at this place.
    fn reached(&self, place: &mut Place) {
        let parts = self.engine.parts();
        parts.fleet.reached(position_of(&place.token));
        for name in std::mem::take(&mut place.ending) {
            let concerned = parts.view.read().on_worker(&name);
            self.engine.wake(concerned);
        }
    }

    fn all_told(&self, whole: BTreeMap<String, (Worker, Traits)>, place: &mut Place) {
        let seen = whole.keys().cloned().collect();
        for (name, (worker, traits)) in whole {
            let told = self.engine.parts().fleet.put(&name, worker, traits);
            self.tell(&name, told);
        }
        let fleet = &self.engine.parts().fleet;
        fleet.complete(&seen, position_of(&place.token));
        place.ending.clear();
        self.wake_everyone();
    }

    /// The workers are known as they were when the registry took this term, or later: plans may go by that.
    fn reached_term(&self, owner: Owner) {
        if self.engine.parts().fleet.reached_term(owner) {
            self.wake_everyone();
        }
    }

    fn wake_everyone(&self) {
        let view = self.engine.parts().view.read();
        let everyone: Vec<_> = view.all().map(|(uid, _)| Arc::clone(uid)).collect();
        drop(view);
        self.engine.wake(everyone);
    }

    fn take_worker(&self, change: wire::WorkerChange, place: &mut Place) {
        let fleet = &self.engine.parts().fleet;
        match change.change {
            Some(WorkerChange::Put(worker) | WorkerChange::Observed(worker)) => {
                let traits = parse_traits(&worker);
                let (name, worker) = parse_worker(worker);
                if let Some(whole) = &mut place.whole {
                    whole.insert(name, (worker, traits));
                    return;
                }
                if worker.is_given_up() {
                    place.ending.insert(name.clone());
                }
                let told = fleet.put(&name, worker, traits);
                self.tell(&name, told);
            }
            Some(WorkerChange::Deleted(worker)) => {
                if let Some(whole) = &mut place.whole {
                    whole.remove(&worker.name);
                    return;
                }
                let told = fleet.remove(&worker.name);
                self.tell(&worker.name, told);
                place.ending.insert(worker.name);
            }
            None => {}
        }
    }

    /// Lets those plan whom news of a worker concerns.
    fn tell(&self, name: &str, told: Told) {
        if told == Told::Nothing {
            return;
        }
        let parts = self.engine.parts();
        let (concerned, waiting, services) = {
            let view = parts.view.read();
            let concerned = view.on_worker(name);
            let services: Vec<_> = concerned
                .iter()
                .filter_map(|uid| view.of(uid).map(|stored| Arc::clone(&stored.service)))
                .collect();
            let waiting = if told == Told::Room {
                view.waiting()
            } else {
                Vec::new()
            };
            (concerned, waiting, services)
        };
        self.hubs.worker_observed(name, &services);
        self.engine.wake(concerned.into_iter().chain(waiting));
    }

    /// Follows allocations, for the room that comes free.
    pub(crate) async fn allocations(&self) {
        let mut token = String::new();
        let mut backoff = Backoff::new(AGAIN, 2);
        loop {
            if let Err(status) = self.follow_allocations(&mut token, &mut backoff).await
                && status.code() == Code::OutOfRange
            {
                token.clear();
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn follow_allocations(
        &self,
        token: &mut String,
        backoff: &mut Backoff,
    ) -> Result<(), Status> {
        let mut registry = self.registry.clone();
        if token.is_empty() {
            // The current state is of no interest, and may be long.
            let request = wire::ListAllocationsRequest {
                page_size: 1,
                ..wire::ListAllocationsRequest::default()
            };
            let page = registry.list_allocations(request).await?.into_inner();
            *token = page.resume_token;
            self.room_freed();
        }
        let request = wire::WatchAllocationsRequest {
            filter: None,
            resume_token: token.clone(),
        };
        let mut stream = registry.watch_allocations(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            backoff.reset();
            let freed = |change: &wire::AllocationChange| {
                matches!(change.change, Some(AllocationChange::Deleted(_)))
            };
            if message.changes.iter().any(freed) {
                self.room_freed();
            }
            if !message.resume_token.is_empty() {
                *token = message.resume_token;
            }
        }
        Ok(())
    }

    fn room_freed(&self) {
        let parts = self.engine.parts();
        // Also where nobody waits: who asks at this moment may be refused before it was free.
        parts.fleet.room_freed();
        let waiting = parts.view.read().waiting();
        self.engine.wake(waiting);
    }

    /// Gives back, now and then, what the registry holds for us and no record of ours knows.
    pub(crate) async fn reconcile(&self, owner: &Owner, every: Duration) {
        let mut claimed = self.claimed.subscribe();
        let ours = |taken: &Option<Owner>| taken.as_ref() == Some(owner);
        loop {
            if claimed.wait_for(ours).await.is_err() {
                return;
            }
            if let Err(status) =
                orphans::give_back_unknown(&self.engine, self.registry.clone(), owner).await
            {
                tracing::debug!(%status, "allocations could not be reconciled");
            }
            tokio::time::sleep(every).await;
        }
    }
}

fn parse_traits(worker: &wire::Worker) -> Traits {
    let offered = wire::Worker {
        labels: worker.labels.clone(),
        agent_labels: worker.agent_labels.clone(),
        capacity: worker.capacity.clone(),
        capacity_type: worker.capacity_type,
        price: worker.price,
        backend: worker.backend.clone(),
        region: worker.region.clone(),
        zone: worker.zone.clone(),
        ..wire::Worker::default()
    };
    let mut hasher = DefaultHasher::new();
    offered.encode_to_vec().hash(&mut hasher);
    Traits {
        uid: worker.uid.clone(),
        offered: hasher.finish(),
    }
}

fn parse_worker(worker: wire::Worker) -> (String, Worker) {
    let drain = worker
        .drain
        .as_ref()
        .filter(|drain| drain.end_time.is_none());
    let parsed = Worker {
        state: match worker.state() {
            wire::WorkerState::Active => WorkerState::Active,
            wire::WorkerState::Draining => WorkerState::Draining,
            wire::WorkerState::Disabled => WorkerState::Disabled,
            wire::WorkerState::Unspecified | wire::WorkerState::Provisioning => {
                WorkerState::Provisioning
            }
        },
        liveness: match worker.liveness() {
            wire::WorkerLiveness::Unspecified | wire::WorkerLiveness::Unknown => Liveness::Unknown,
            wire::WorkerLiveness::Alive => Liveness::Alive,
            wire::WorkerLiveness::Suspect => Liveness::Suspect,
            wire::WorkerLiveness::Lost => Liveness::Lost,
            wire::WorkerLiveness::Left => Liveness::Left,
        },
        fenced: worker.fenced,
        unconfirmed: worker.unconfirmed,
        revoked_through: u64::try_from(worker.revoked_through).unwrap_or(0),
        drain: drain.map(|drain| Drain {
            max_parallel: u32::try_from(drain.max_parallel).unwrap_or(1).max(1),
            began: drain
                .start_time
                .as_ref()
                .and_then(parse_time)
                .unwrap_or_default(),
            moved: u32::try_from(drain.moved).unwrap_or(0),
        }),
        generation: u64::try_from(worker.generation).unwrap_or(0),
        region: worker.region,
        zone: worker.zone,
        agent_address: worker.agent_address,
    };
    (worker.name, parsed)
}

/// Why the registry cannot be followed. One that refuses our term is there, and would refuse it for ever.
fn trouble(status: &Status) -> String {
    let message = status.message();
    match Details::of(status).is(ErrorReason::StaleOwner) {
        true => format!(
            "the worker-registry is owned by another replica-manager, whose store was made later: is this the right --store? ({message})"
        ),
        false => format!("the worker-registry is away: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::types::v1::Price;
    use muster_runtime::status;

    use super::*;

    #[test]
    fn what_a_worker_offers_is_told_apart_from_how_it_is() {
        let offered = |change: fn(&mut wire::Worker)| {
            let mut worker = wire::Worker {
                name: "w1".to_owned(),
                ..wire::Worker::default()
            };
            change(&mut worker);
            parse_traits(&worker).offered
        };
        let plain = offered(|_| ());
        assert_eq!(plain, offered(|worker| worker.generation = 7));
        assert_eq!(plain, offered(|worker| worker.fenced = true));
        let label = |worker: &mut wire::Worker| {
            worker.labels.insert("tier".to_owned(), "gold".to_owned());
        };
        assert_ne!(plain, offered(label));
        assert_ne!(
            plain,
            offered(|worker| worker.price = Some(Price::default()))
        );
    }

    #[test]
    fn a_registry_that_another_owns_is_not_called_away() {
        let code = Code::FailedPrecondition;
        let refused = status::error(code, ErrorReason::StaleOwner, "term 1 is stale").into_status();
        let said = trouble(&refused);
        assert!(
            said.contains("--store") && said.contains("term 1 is stale"),
            "{said}"
        );
        let away = trouble(&Status::unavailable("no route"));
        assert_eq!(away, "the worker-registry is away: no route");
    }
}
