//! Does what records say is to be done at the registry: asks for room, and gives it back. It is told
//! only which service to look at, takes every wish from the durable records, and reports what came of it
//! as an observation. Nothing is done twice at a time, and doing it again after a crash does no harm. An
//! executor acts for one leadership, and ends with it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_runtime::backoff::Policy;
use muster_runtime::connect::Channel;
use muster_runtime::shutdown::Phase;
use muster_runtime::task::Tasks;
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, watch};

use crate::crash::Step;
use crate::domain::replica::observe::Observation;
use crate::domain::replica::{Replica, State};
use crate::domain::service::{Service, differing};
use crate::engine::learning::{Learnt, Overtaken, Source, What};
use crate::engine::{Engine, Error};
use crate::registry::calls::{self, Answer, Owner};

/// Calls at the registry at once: more only queue there.
const SIDE_BY_SIDE: usize = 64;

/// Of these for one service: thousands that one asks for must not hold up the few that another does.
const FOR_ONE: usize = 32;

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
    /// By the uid of the service; of those alone that have any.
    under_way: Mutex<FxHashMap<String, UnderWay>>,
    permits: Semaphore,
    /// Closed when the leadership has ended.
    working: watch::Receiver<()>,
}

/// What is under way for one service.
#[derive(Debug)]
struct UnderWay {
    wishes: HashSet<Wish>,
    permits: Arc<Semaphore>,
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
        self.begin_all(service, service.replicas.values());
    }

    /// The same where another revision of the service was considered before: only what differs wishes for more.
    pub(crate) fn consider_again(&self, before: &Service, service: &Service) {
        let epoch = self.0.engine.epoch();
        if !before.is_of(epoch) && service.is_of(epoch) {
            return self.consider(service);
        }
        let fresh = differing(Some(before), Some(service));
        self.begin_all(service, fresh.filter_map(|(_, replica)| replica));
    }

    fn begin_all<'a>(&self, service: &Service, replicas: impl Iterator<Item = &'a Arc<Replica>>) {
        if !service.is_of(self.0.engine.epoch()) {
            // Its next plan takes it there, and the attempt that it asks for gets another number.
            return;
        }
        for wish in replicas.flat_map(|replica| wishes(service, replica)) {
            self.begin(wish);
        }
    }

    fn begin(&self, wish: Wish) {
        let permits = {
            let mut all = self.lock();
            let under_way = all.entry(wish.uid().to_owned());
            let under_way = under_way.or_insert_with(|| UnderWay {
                wishes: HashSet::new(),
                permits: Arc::new(Semaphore::new(FOR_ONE)),
            });
            if !under_way.wishes.insert(wish.clone()) {
                return;
            }
            Arc::clone(&under_way.permits)
        };
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
                () = executor.fulfil(&wish, &permits) => {}
            }
        });
    }

    fn end(&self, wish: &Wish) {
        let mut all = self.lock();
        if let Some(under_way) = all.get_mut(wish.uid()) {
            under_way.wishes.remove(wish);
            if under_way.wishes.is_empty() {
                all.remove(wish.uid());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<String, UnderWay>> {
        self.0
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Works at a wish until it is answered or not wished any more.
    async fn fulfil(&self, wish: &Wish, permits: &Semaphore) {
        let engine = &self.0.engine;
        let seed = self.0.permits.available_permits() as u64;
        let mut tries = 0;
        while let Some(service) = still_wished(engine, wish) {
            if self.attempt(engine, wish, &service, permits).await {
                break;
            }
            let delay = AGAIN.delay(tries, seed);
            tries = tries.saturating_add(1);
            tokio::time::sleep(delay).await;
        }
        self.end(wish);
        // What was recorded while this was under way may wish for more.
        if let Some(stored) = engine.parts().view.get(wish.uid()) {
            let replica = stored.service.replicas.get(&wish.ordinal());
            self.begin_all(&stored.service, replica.into_iter());
        }
    }

    /// One try; true once the outcome is recorded.
    async fn attempt(
        &self,
        engine: &Engine,
        wish: &Wish,
        service: &Service,
        permits: &Semaphore,
    ) -> bool {
        let mut claimed = self.0.claimed.clone();
        let ours = |taken: &Option<Owner>| taken.as_ref() == Some(&self.0.owner);
        if claimed.wait_for(ours).await.is_err() {
            return true;
        }
        let what = {
            // Nobody waits for the registry while an answer of it is recorded.
            let (Ok(_own), Ok(_permit)) = (permits.acquire().await, self.0.permits.acquire().await)
            else {
                return true;
            };
            self.call(engine, wish, service).await
        };
        let Some(what) = what else {
            return false;
        };
        let ordinal = wish.ordinal();
        let learnt = vec![Learnt { ordinal, what }];
        recorded(engine.learn(wish.uid(), Source::Registry, learnt).await)
    }

    /// What the registry says to a wish; `None` if it has to be asked again.
    async fn call(&self, engine: &Engine, wish: &Wish, service: &Service) -> Option<What> {
        let registry = self.0.registry.clone();
        match wish {
            Wish::Allocate {
                ordinal, attempt, ..
            } => {
                let request = calls::allocate(service, *ordinal, &self.0.owner)?;
                let answer = calls::ask(registry, request, engine.now()).await;
                Some(What::Of(*attempt, observed(engine, answer)?))
            }
            Wish::Release { allocation, .. } => {
                let request = calls::release(service, allocation, &self.0.owner);
                if !calls::give_back(registry, request).await {
                    return None;
                }
                engine.parts().crash.at(Step::RoomReturned);
                Some(What::Released(allocation.clone()))
            }
        }
    }
}

fn observed(engine: &Engine, answer: Answer) -> Option<Observation> {
    Some(match answer {
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
        Answer::Unknown => return None,
    })
}

fn recorded(outcome: Result<(), Error<Overtaken>>) -> bool {
    match outcome {
        // Whoever leads instead asks again under the same id.
        Ok(()) | Err(Error::Gone | Error::Repeated | Error::NotLeading) => true,
        Err(Error::Refused(Overtaken)) => false,
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

    fn ordinal(&self) -> u32 {
        match self {
            Self::Allocate { ordinal, .. } | Self::Release { ordinal, .. } => *ordinal,
        }
    }
}

/// What one replica of a service wishes for.
fn wishes(service: &Service, replica: &Replica) -> Vec<Wish> {
    let (uid, ordinal) = (&service.header.uid, replica.ordinal);
    let mut wishes = Vec::new();
    if let (State::Placing(_), Some(attempt)) = (&replica.state, &replica.attempt) {
        wishes.push(Wish::Allocate {
            uid: uid.clone(),
            ordinal,
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
            ordinal,
            allocation: allocation.clone(),
        });
    }
    wishes
}

fn still_wished(engine: &Engine, wish: &Wish) -> Option<Arc<Service>> {
    let stored = engine.parts().view.get(wish.uid())?;
    let replica = stored.service.replicas.get(&wish.ordinal())?;
    wishes(&stored.service, replica)
        .contains(wish)
        .then_some(stored.service)
}
