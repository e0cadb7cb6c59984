//! Does what records say is to be done at the registry: asks for room, and gives it back. It is told
//! only which service to look at, takes every wish from the durable records, and reports what came of it
//! as an observation. Nothing is done twice at a time, and doing it again after a crash does no harm. An
//! executor acts for one leadership, and ends with it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::backoff::Policy;
use muster_runtime::connect::Channel;
use muster_runtime::shutdown::Phase;
use muster_runtime::task::Tasks;
use tokio::sync::{Semaphore, watch};

use crate::crash::Step;
use crate::domain::replica::State;
use crate::domain::replica::observe::Observation;
use crate::domain::service::Service;
use crate::domain::time::Time;
use crate::engine::{Cause, Engine, Error};
use crate::registry::calls::{self, Answer, Owner};

/// Calls at the registry at once: more only queue there.
const SIDE_BY_SIDE: usize = 64;

/// How long a call that is answered UNAVAILABLE waits before it is made again.
const AGAIN: Policy = Policy::doubling(
    std::time::Duration::from_millis(50),
    std::time::Duration::from_secs(5),
);

/// Does what records say is to be done. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Executor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    registry: WorkersServiceClient<Channel>,
    tasks: Tasks,
    owner: Owner,
    /// Whose term the registry has taken last: nothing is asked before it is ours.
    claimed: watch::Receiver<Option<Owner>>,
    under_way: Mutex<HashSet<Wish>>,
    permits: Semaphore,
    /// Closed when the leadership has ended.
    working: watch::Receiver<()>,
}

/// While this is there, the executor works; when it goes, all that is under way is dropped where it is.
#[derive(Debug)]
pub(crate) struct Working {
    _until_dropped: watch::Sender<()>,
}

/// Something to be done at the registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wish {
    /// Room for an attempt.
    Allocate {
        uid: String,
        ordinal: u32,
        attempt: u32,
    },
    /// An allocation to be given back.
    Release {
        uid: String,
        ordinal: u32,
        allocation: String,
    },
}

impl Executor {
    pub(crate) fn new(
        engine: Engine,
        registry: WorkersServiceClient<Channel>,
        tasks: Tasks,
        owner: Owner,
        claimed: watch::Receiver<Option<Owner>>,
    ) -> (Self, Working) {
        let working = watch::Sender::new(());
        let executor = Self(Arc::new(Inner {
            engine,
            registry,
            tasks,
            owner,
            claimed,
            under_way: Mutex::default(),
            permits: Semaphore::new(SIDE_BY_SIDE),
            working: working.subscribe(),
        }));
        let working = Working {
            _until_dropped: working,
        };
        (executor, working)
    }

    /// Begins whatever this service's records wish for and is not under way.
    pub(crate) fn consider(&self, service: &Service) {
        if !service.is_of(self.0.engine.epoch()) {
            // Its next plan takes it there, and the attempt that it asks for gets another number.
            return;
        }
        for wish in wishes(service) {
            let fresh = self.lock().insert(wish.clone());
            if fresh {
                let executor = self.clone();
                let mut working = self.0.working.clone();
                let name = match &wish {
                    Wish::Allocate { .. } => "allocate",
                    Wish::Release { .. } => "release",
                };
                // A wish stays recorded, and a registry that is away must not hold up the end.
                self.0.tasks.until(Phase::Loops, name, async move {
                    tokio::select! {
                        biased;
                        // Nothing is ever sent: it ends when the sender goes.
                        _ = working.changed() => {}
                        () = executor.fulfil(&wish) => {}
                    }
                });
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Wish>> {
        self.0
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Works at a wish until it is answered or not wished any more.
    async fn fulfil(&self, wish: &Wish) {
        let engine = &self.0.engine;
        let seed = self.0.permits.available_permits() as u64;
        let mut tries = 0;
        while let Some(service) = still_wished(engine, wish) {
            if self.attempt(engine, wish, &service).await {
                break;
            }
            let delay = AGAIN.delay(tries, seed);
            tries = tries.saturating_add(1);
            tokio::time::sleep(delay).await;
        }
        self.lock().remove(wish);
        // What was recorded while this was under way may wish for more.
        if let Some(stored) = engine.parts().view.get(wish.uid()) {
            self.consider(&stored.service);
        }
    }

    /// One try; true once the outcome is recorded.
    async fn attempt(&self, engine: &Engine, wish: &Wish, service: &Service) -> bool {
        let mut claimed = self.0.claimed.clone();
        let ours = |taken: &Option<Owner>| taken.as_ref() == Some(&self.0.owner);
        if claimed.wait_for(ours).await.is_err() {
            return true;
        }
        let Ok(_permit) = self.0.permits.acquire().await else {
            return true;
        };
        match wish {
            Wish::Allocate {
                ordinal, attempt, ..
            } => {
                let Some(request) = calls::allocate(service, *ordinal, &self.0.owner) else {
                    return true;
                };
                let answer = calls::ask(self.0.registry.clone(), request, engine.now()).await;
                self.record_allocation(engine, service, (*ordinal, *attempt), answer)
                    .await
            }
            Wish::Release {
                ordinal,
                allocation,
                ..
            } => {
                let request = calls::release(service, allocation, &self.0.owner);
                if !calls::give_back(self.0.registry.clone(), request).await {
                    return false;
                }
                engine.parts().crash.at(Step::RoomReturned);
                let released = |service: &mut Service, _: Time| {
                    if let Some(replica) = service.replica_mut(*ordinal) {
                        let _ = replica.released(allocation);
                    }
                    Ok::<(), std::convert::Infallible>(())
                };
                recorded(engine.change(wish.uid(), &Cause::system(), released).await)
            }
        }
    }

    async fn record_allocation(
        &self,
        engine: &Engine,
        service: &Service,
        (ordinal, attempt): (u32, u32),
        answer: Answer,
    ) -> bool {
        let observation = match answer {
            Answer::Given(mut room) => {
                engine.parts().crash.at(Step::RoomGiven);
                let fleet = &engine.parts().fleet;
                room.region = fleet.with_worker(&room.worker, |worker| {
                    worker.map_or_else(String::new, |worker| worker.region.clone())
                });
                Observation::Allocated(room)
            }
            Answer::Refused(message) => Observation::Refused { message },
            Answer::Void => Observation::Void,
            Answer::UsedUp => Observation::UsedUp,
            Answer::Unknown => return false,
        };
        let observe = |service: &mut Service, now: Time| {
            if let Some(replica) = service.replica_mut(ordinal) {
                // What is of no use any more is let go: the reconciliation gives such room back.
                let _ = replica.observe(attempt, observation.clone(), now);
            }
            Ok::<(), std::convert::Infallible>(())
        };
        recorded(
            engine
                .change(&service.header.uid, &Cause::system(), observe)
                .await,
        )
    }
}

fn recorded<T>(outcome: Result<T, Error<std::convert::Infallible>>) -> bool {
    match outcome {
        // Whoever leads instead asks again under the same id.
        Ok(_) | Err(Error::Gone | Error::Repeated | Error::NotLeading) => true,
        Err(Error::Refused(never)) => match never {},
        Err(Error::Store(error)) => {
            tracing::warn!(%error, "an answer of the registry could not be stored");
            false
        }
    }
}

impl Wish {
    fn uid(&self) -> &str {
        match self {
            Self::Allocate { uid, .. } | Self::Release { uid, .. } => uid,
        }
    }
}

fn wishes(service: &Service) -> Vec<Wish> {
    let uid = &service.header.uid;
    let mut wishes = Vec::new();
    for (ordinal, replica) in &service.replicas {
        if let (State::Placing(_), Some(attempt)) = (&replica.state, &replica.attempt) {
            wishes.push(Wish::Allocate {
                uid: uid.clone(),
                ordinal: *ordinal,
                attempt: attempt.number,
            });
        }
        // What has ended is planned first: the next attempt may take its room over.
        let unplanned = matches!(replica.state, State::Ended);
        let room = replica
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.allocation.as_ref());
        let room = room.filter(|_| unplanned).map(|room| &room.id);
        for allocation in replica.releases.iter().filter(|id| Some(*id) != room) {
            wishes.push(Wish::Release {
                uid: uid.clone(),
                ordinal: *ordinal,
                allocation: allocation.clone(),
            });
        }
    }
    wishes
}

fn still_wished(engine: &Engine, wish: &Wish) -> Option<Arc<Service>> {
    let stored = engine.parts().view.get(wish.uid())?;
    wishes(&stored.service)
        .contains(wish)
        .then_some(stored.service)
}
