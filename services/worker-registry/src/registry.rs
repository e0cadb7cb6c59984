//! The registry itself: one book in which every change is decided in order, a pipeline that makes
//! decisions durable in that order, and the view of what is durable, from which readers are answered.
//!
//! It decides nothing about workers (the domain does), and shows nobody what is not on disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use muster_runtime::clock::Clock;
use muster_runtime::context::Context;
use muster_runtime::instances::Instances;
use muster_runtime::instances::barrier::Barrier;
use muster_runtime::page::Sealer;
use muster_runtime::resume::{self, Progress};
use muster_runtime::shutdown::{Phase, Shutdown};
use muster_runtime::task::Tasks;
use muster_store::{Leadership, Store, TERM_KEY};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::config::Config;
use crate::credential::Keys;
use crate::domain::book::Book;
use crate::domain::decide::{self, Decision, Refused};
use crate::domain::drain;
use crate::domain::fleet::{Entry, Fleet};
use crate::domain::liveness::{Liveness, Longest, Terms};
use crate::domain::text::Text;
use crate::domain::worker::Worker;
use crate::record::Unreadable;
use crate::seen::{Observed, Seen, SeenAllocation};

mod commit;
mod follower;
mod hubs;
mod judge;
mod keeper;
mod live;
mod load;
mod metrics;
mod shared;
mod standing;

pub(crate) use hubs::Hubs;
pub(crate) use live::{Beat, Told};

use commit::{Flight, Outcome};
use keeper::{Chores, Release};
use live::Lives;
use metrics::Metrics;
use shared::{By, Claims};
use standing::Standing;

/// Transactions under way at most: fewer than the store queues, so that each is handed over in order and
/// at once; many more than one fsync takes.
const IN_FLIGHT: usize = 768;

/// How often a decision is made again after conflicts before its caller is told to try later.
const TRIES: usize = 16;

/// Why the registry did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not allowed, or not possible now.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store did not take it.
    #[error("the store did not take the change")]
    Store(#[from] muster_store::Error),
    /// Others changed the same records again and again.
    #[error("the records keep changing; try again")]
    Contended,
    /// The registry is ending.
    #[error("the registry is stopping")]
    Stopping,
    /// It is for the leader to do, which this instance is not, or not any more.
    #[error("this instance does not lead")]
    NotLeading,
}

/// Why the registry cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The store cannot be read or written.
    #[error("the store cannot be used")]
    Store(#[from] muster_store::Error),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] Unreadable),
    /// The longest times cannot be stored.
    #[error("the longest times that agents are told cannot be stored: {0}")]
    Longest(String),
    /// No key can be made or read.
    #[error("the signing key cannot be used: {0}")]
    Key(String),
}

/// A handle on the registry; cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    pub(crate) epoch: Text,
    pub(crate) keys: Keys,
    pub(crate) hubs: Hubs,
    pub(crate) lives: Lives,
    pub(crate) metrics: Metrics,
    pub(crate) sealer: Sealer,
    pub(crate) progress: Progress,
    pub(crate) tasks: Tasks,
    pub(crate) instances: Instances,
    shutdown: Shutdown,
    store: Store,
    shared: bool,
    claims: Claims,
    /// Looks at a store that others write to, for those who must not answer by what is old.
    barrier: Barrier,
    desk: Mutex<Desk>,
    /// Rung when the desk is in order again.
    desk_cleared: Notify,
    view: RwLock<Fleet>,
    in_flight: AtomicUsize,
    permits: Arc<Semaphore>,
    queue: mpsc::Sender<Flight>,
    terms: RwLock<Terms>,
    chores: Mutex<Chores>,
    /// Brakes to be taken off at the next tick.
    releases: Mutex<Vec<Release>>,
}

/// Where decisions are made, one at a time.
struct Desk {
    book: Book,
    /// Whether the book is what the store has; nothing is decided while it is not.
    order: Order,
    /// The store has failed for good.
    failed: Option<muster_store::Error>,
}

/// How the book stands to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The store has what the book says.
    Kept,
    /// Something that is none of the registry's was written between its transactions, so that these have other
    /// revisions than the book says. What is shown is whole.
    Shifted,
    /// A transaction did not become what the book says, or may not have: all is read anew.
    Lost,
}

impl Desk {
    fn with(book: Book) -> Self {
        Self {
            book,
            order: Order::Kept,
            failed: None,
        }
    }
}

/// What is answered together with where in the history it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) revision: u64,
}

impl std::ops::Deref for Registry {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Registry {
    /// Reads the store, and starts what keeps the registry going.
    pub(crate) async fn start(
        config: Config,
        context: &Context,
        instances: Instances,
    ) -> Result<Self, StartError> {
        let store = instances.store().clone();
        let shared = store.is_shared();
        let keys = Keys::open(&store).await?;
        let (fleet, since) = load::first(&store).await?;
        let epoch: Text = store.epoch().to_string().into();
        let revision = fleet.revision();
        let sealer = Sealer::random().map_err(|error| StartError::Key(error.to_string()))?;
        let longest = fleet.longest();
        let terms = config.rules.terms(fleet.worker_count(), longest);
        let lives = Lives::start(&fleet, terms.patient(longest), &config, &context.clock);
        let hubs = Hubs::start(&fleet, since, &lives, &epoch, context.clock.now());
        let (queue, flights) = mpsc::channel(IN_FLIGHT);
        let book = Book::new(fleet.clone(), epoch.clone(), revision + 1);
        let book = match shared {
            true => book.shared_by(instances.id().into()),
            false => book,
        };
        let inner = Inner {
            clock: context.clock.clone(),
            epoch,
            keys,
            hubs,
            metrics: Metrics::new(&context.metrics),
            sealer,
            progress: Progress::new(revision),
            tasks: context.tasks.clone(),
            instances,
            shutdown: context.shutdown.clone(),
            store,
            shared,
            claims: Claims::default(),
            barrier: Barrier::default(),
            desk: Mutex::new(Desk::with(book)),
            desk_cleared: Notify::new(),
            chores: Mutex::new(Chores::of(
                &fleet,
                config.rules.fenced_after(terms.fence_after),
            )),
            view: RwLock::new(fleet),
            in_flight: AtomicUsize::new(0),
            permits: Arc::new(Semaphore::new(match shared {
                true => shared::IN_FLIGHT,
                false => IN_FLIGHT,
            })),
            queue,
            terms: RwLock::new(terms),
            releases: Mutex::default(),
            lives,
            config,
        };
        let registry = Self(Arc::new(inner));
        context
            .metrics
            .collect(Standing(Arc::downgrade(&registry.0)));
        registry.spawn(context, flights, revision);
        registry.store_longest(terms).await?;
        Ok(registry)
    }

    /// Stores the longest times that are about to be handed out, unless longer ones are stored.
    async fn store_longest(&self, terms: Terms) -> Result<(), StartError> {
        self.decide(|book, _| Ok(decide::hand_out(book, Longest::of(terms))))
            .await
            .map(drop)
            .map_err(|error| StartError::Longest(error.to_string()))
    }

    fn spawn(&self, context: &Context, flights: mpsc::Receiver<Flight>, revision: u64) {
        let committer = self.clone();
        let stopped = context.shutdown.reached(Phase::Loops);
        context.tasks.critical("registry-commits", async move {
            match committer.shared {
                true => committer.follow_store(revision, stopped).await,
                false => committer.commit_all(flights, stopped).await,
            }
        });
        let keeper = self.clone();
        let stopped = context.shutdown.reached(Phase::Loops);
        context.tasks.critical("registry-liveness", async move {
            keeper.keep(stopped).await;
        });
        if self.shared {
            let follower = self.clone();
            context
                .tasks
                .until(Phase::Loops, "registry-observed", async move {
                    follower.follow_leader().await;
                });
        }
        let watches = self.clone();
        let draining = context.shutdown.reached(Phase::Drain);
        context.tasks.spawn("registry-end-watches", async move {
            draining.await;
            watches.hubs.close();
        });
    }

    /// Decides, and answers once what was decided is durable. `make` may be called more than once.
    pub(crate) async fn decide<T>(
        &self,
        make: impl Fn(&Book, SystemTime) -> Result<Decision<T>, Refused>,
    ) -> Result<At<T>, Error> {
        match self.shared {
            true => self.decide_shared(By::Caller, make).await,
            false => self.decide_alone(make).await,
        }
    }

    /// Decides what a heartbeat says, which is said again: it changes nothing by what was read here, and goes on
    /// doing so while the store is away.
    pub(crate) async fn decide_beat<T>(
        &self,
        make: impl Fn(&Book, SystemTime) -> Result<Decision<T>, Refused>,
    ) -> Result<At<T>, Error> {
        match self.shared {
            true => self.decide_shared(By::Beat, make).await,
            false => self.decide_alone(make).await,
        }
    }

    /// Decides what is the leader's to decide; it is not written once another leads.
    pub(crate) async fn decide_leading<T>(
        &self,
        lead: &Leadership,
        make: impl Fn(&Book, SystemTime) -> Result<Decision<T>, Refused>,
    ) -> Result<At<T>, Error> {
        match self.shared {
            true => self.decide_shared(By::Leader(lead), make).await,
            // Nobody else could lead.
            false => self.decide_alone(make).await,
        }
    }

    async fn decide_alone<T>(
        &self,
        make: impl Fn(&Book, SystemTime) -> Result<Decision<T>, Refused>,
    ) -> Result<At<T>, Error> {
        for _ in 0..TRIES {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let permit = permit.map_err(|_| Error::Stopping)?;
            let (answer, pending) = {
                let mut desk = self.desk_in_order().await?;
                let decision = make(&desk.book, self.clock.now())?;
                let pending = self.launch(&mut desk, decision.draft, permit)?;
                (decision.answer, pending)
            };
            match pending.landed().await? {
                Outcome::Durable(revision) => {
                    return Ok(At {
                        value: answer,
                        revision,
                    });
                }
                Outcome::Again => {}
            }
        }
        Err(Error::Contended)
    }

    /// Whether there may be other instances on the store.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether this instance may answer heartbeats: the one that judges waits for its word.
    pub(crate) fn may_answer(&self) -> bool {
        !self.shared || self.instances.may_answer()
    }

    /// The term of whoever leads, as far as is known here.
    pub(crate) async fn term(&self) -> Option<u64> {
        let term = self.store.get(TERM_KEY).await.ok()??;
        Some(term.modified.0)
    }

    /// Whether this instance judges and keeps what is in memory only.
    pub(crate) fn leads(&self) -> bool {
        !self.shared || self.instances.leading().is_some()
    }

    /// The desk, for what is in memory only.
    pub(crate) fn with_book<T>(&self, work: impl FnOnce(&mut Book) -> T) -> T {
        work(&mut self.desk().book)
    }

    /// What is durable. The lock is held for as long as the answer: nothing waits with it.
    pub(crate) fn view(&self) -> RwLockReadGuard<'_, Fleet> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What heartbeats are asked for at the moment.
    pub(crate) fn terms(&self) -> Terms {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resume token of a revision.
    pub(crate) fn token(&self, revision: u64) -> String {
        resume::token(&self.epoch, revision)
    }

    /// A worker as it is shown.
    pub(crate) fn seen(&self, entry: &Entry) -> Seen {
        seen(entry, &self.lives, self.clock.now())
    }

    /// An allocation as it is shown.
    pub(crate) fn seen_allocation(
        &self,
        fleet: &Fleet,
        allocation: &Arc<crate::domain::allocation::Allocation>,
    ) -> SeenAllocation {
        let entry = fleet.worker(&allocation.worker);
        SeenAllocation::new(allocation, entry.map(|entry| &*entry.worker))
    }

    /// What is known of a worker's being there.
    pub(crate) fn liveness(&self, worker: &Worker) -> Liveness {
        observed(worker, &self.lives).liveness
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chores(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn releases(&self) -> MutexGuard<'_, Vec<Release>> {
        self.releases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desk, once decisions can be made.
    async fn desk_in_order(&self) -> Result<MutexGuard<'_, Desk>, Error> {
        loop {
            let cleared = self.desk_cleared.notified();
            {
                let desk = self.desk();
                if let Some(error) = &desk.failed {
                    return Err(error.clone().into());
                }
                if desk.order == Order::Kept {
                    return Ok(desk);
                }
            }
            // Made before the look, so it is woken by what came since.
            cleared.await;
        }
    }

    /// Whether everything decided is durable and shown.
    fn is_settled(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) == 0
    }
}

/// A worker as it is shown.
fn seen(entry: &Entry, lives: &Lives, now: SystemTime) -> Seen {
    let worker = &entry.worker;
    let progress = worker.running_drain().map(|drain| {
        let live = lives.get(&worker.name);
        if let Some(told) = live.as_ref().and_then(|live| live.told_progress()) {
            return told;
        }
        let view = drain::View {
            drain,
            reports: &live.map(|live| live.reports()).unwrap_or_default(),
            lost: worker.is_lost(),
            silent_after: lives.owner_silent_after(),
        };
        let left = entry.counted().map(|allocation| &**allocation);
        Arc::new(drain::progress(view, left, now))
    });
    Seen::new(entry, observed(worker, lives), progress)
}

fn observed(worker: &Worker, lives: &Lives) -> Observed {
    let pulse = lives.get(&worker.name).map(|live| live.observed());
    Observed::of(worker, pulse)
}

/// How long a caller that meets a registry in disorder is asked to wait.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
