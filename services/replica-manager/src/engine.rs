//! Changes services: what happened or was asked for, and, at the instance that leads, the plan that follows
//! from it, in one transaction. The intent of every outside act is durable before anything else sees it.
//! What is changed at another instance is planned once the leader's view shows it.

pub(crate) mod commit;
pub(crate) mod duty;
pub(crate) mod forget;
pub(crate) mod journal;
pub(crate) mod learning;
pub(crate) mod passes;
pub(crate) mod reading;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use muster_runtime::clock::Clock;
use muster_runtime::deadline::Deadline;
use muster_runtime::instances::barrier::Barrier;
use muster_runtime::resume::Progress;
use muster_store::{Condition, Outcome, Revision, Store, TERM_KEY, Transaction};
use rustc_hash::FxHashMap;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::crash::Crash;
use crate::domain::plan::{plan, unfinished};
use crate::domain::service::Service;
use crate::domain::service::apply::Action;
use crate::domain::service::epoch::Epoch;
use crate::domain::time::Time;
use crate::domain::world::{Terms, World};
use crate::fleet::Fleet;
use crate::load::Loads;
use crate::metrics::Metrics;
use crate::state::keys;
use crate::state::record::Used;
use crate::state::view::{Stored, Uid, View};
use crate::wakes::Wakes;
use commit::Draft;
use duty::Duty;
use learning::{Line, Source};

/// Changes services. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// One change of a service at a time; services do not wait for each other.
    turns: Mutex<FxHashMap<Uid, Arc<Turns>>>,
    /// Unfinished moves by worker and service.
    moves: Mutex<BTreeMap<String, BTreeMap<Uid, u32>>>,
    journal: journal::Journal,
    /// The one that the store is in.
    epoch: Epoch,
    /// Set while this instance leads.
    duty: watch::Sender<Option<Duty>>,
    barrier: Barrier,
}

/// Who changes a service next.
#[derive(Debug, Default)]
struct Turns {
    /// Held by whoever changes it.
    change: AsyncMutex<()>,
    /// What agents told.
    agents: Line,
    /// What the registry told.
    registry: Line,
}

impl Turns {
    fn line(&self, source: Source) -> &Line {
        match source {
            Source::Agents => &self.agents,
            Source::Registry => &self.registry,
        }
    }
}

/// What an engine works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) view: View,
    pub(crate) progress: Progress,
    pub(crate) clock: Clock,
    pub(crate) fleet: Fleet,
    pub(crate) loads: Loads,
    pub(crate) wakes: Wakes,
    pub(crate) terms: Terms,
    pub(crate) crash: Crash,
    pub(crate) metrics: Metrics,
}

/// Why a change was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error<E> {
    /// By its own rules.
    #[error("refused")]
    Refused(E),
    /// There is no such service (any more).
    #[error("there is no such service")]
    Gone,
    /// By the store.
    #[error("the store did not take it")]
    Store(#[from] muster_store::Error),
    /// Its request id was used meanwhile, and what it was used for can be read.
    #[error("the request was made before")]
    Repeated,
    /// It is for the leader to do, which is another instance now.
    #[error("another instance leads")]
    NotLeading,
}

/// What a change came to.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The service after it; `None` if it is gone.
    pub(crate) service: Option<Arc<Service>>,
    /// The position after it.
    pub(crate) revision: u64,
}

/// Who changes a service, and what else is written with it.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// Whom events name.
    pub(crate) actor: String,
    /// The request id that is used up by it: its key, and what it is used for.
    pub(crate) request: Option<(String, Used)>,
    whose: Whose,
}

/// Who may make a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Every instance, for a caller.
    Callers,
    /// The leader, of its own accord.
    Leaders,
}

impl Cause {
    /// Our own doing, which is the leader's.
    pub(crate) fn system() -> Self {
        Self {
            whose: Whose::Leaders,
            ..Self::by("system")
        }
    }

    pub(crate) fn by(actor: impl Into<String>) -> Self {
        Self {
            actor: actor.into(),
            request: None,
            whose: Whose::Callers,
        }
    }

    /// The same, which uses up a request id.
    pub(crate) fn using(self, request: Option<(String, Used)>) -> Self {
        Self { request, ..self }
    }

    /// Replicas that its plan touches at least, where those of a whole plan do not fit a transaction: what a
    /// caller wants is recorded though nothing is planned for it yet.
    fn least_planned(&self) -> usize {
        match self.whose {
            Whose::Callers => 0,
            Whose::Leaders => 1,
        }
    }

    /// Whether it may be done with, or without, what the leader has.
    fn allows<E>(&self, duty: Option<&Duty>) -> Result<(), Error<E>> {
        match (self.whose, duty) {
            (Whose::Callers, _) | (Whose::Leaders, Some(_)) => Ok(()),
            (Whose::Leaders, None) => Err(Error::NotLeading),
        }
    }
}

/// The first number for attempts of an epoch that began at a restore: its seconds since 2020. A replica is
/// not tried more than once a second for long, so that attempts of earlier epochs have lower ones.
fn first_attempt(began: SystemTime) -> u32 {
    const YEAR_2020: Duration = Duration::from_secs(1_577_836_800);
    let since = began.duration_since(SystemTime::UNIX_EPOCH + YEAR_2020);
    let most = u32::MAX / 4;
    u32::try_from(since.unwrap_or_default().as_secs()).map_or(most, |seconds| seconds.min(most))
}

impl Engine {
    /// An engine of this instance.
    pub(crate) fn new(parts: Parts, instance: &str) -> Self {
        let begun = parts.store.epoch();
        let epoch = Epoch {
            name: begun.to_string(),
            first_attempt: first_attempt(begun.began()),
        };
        let journal = match parts.store.is_shared() {
            true => journal::Journal::of_several(epoch.name.clone(), instance),
            false => journal::Journal::new(epoch.name.clone()),
        };
        if let Some((newest, _)) = parts.view.read().event_batches.last_key_value() {
            journal.follow(newest);
        }
        Self(Arc::new(Inner {
            parts,
            turns: Mutex::default(),
            moves: Mutex::default(),
            journal,
            epoch,
            duty: watch::Sender::new(None),
            barrier: Barrier::default(),
        }))
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// The epoch of the store.
    pub(crate) fn epoch(&self) -> &Epoch {
        &self.0.epoch
    }

    pub(crate) fn now(&self) -> Time {
        Time::from(self.0.parts.clock.now())
    }

    /// Alters a service, plans for it if this instance leads, and answers once that is durable and can be
    /// read. What is altered at another instance is planned by the leader, as soon as it sees it.
    ///
    /// `alter` is called again if another instance changed the service meanwhile, or if what is planned with
    /// it is more than a transaction takes: then less is planned.
    pub(crate) async fn change<E>(
        &self,
        uid: &str,
        cause: &Cause,
        alter: impl FnMut(&mut Service, Time) -> Result<(), E>,
    ) -> Result<Changed, Error<E>> {
        let turns = self.turns_of(uid);
        let _turn = turns.change.lock().await;
        self.change_in_turn(uid, cause, alter).await
    }

    /// The same, for whoever has the turn.
    async fn change_in_turn<E>(
        &self,
        uid: &str,
        cause: &Cause,
        mut alter: impl FnMut(&mut Service, Time) -> Result<(), E>,
    ) -> Result<Changed, Error<E>> {
        let mut duty = self.duty();
        // What the leader does of its own accord is looked at again by itself.
        let mut in_step = cause.whose == Whose::Leaders;
        let mut batch = self.0.parts.terms.batch;
        loop {
            let entered = self.entered(uid, &mut duty).await?;
            let (stored, mut after) = entered.ok_or(Error::Gone)?;
            cause.allows(duty.as_ref())?;
            let now = self.0.parts.clock.now();
            let altered = alter(&mut after, Time::from(now));
            let same = altered.is_err() || after == *stored.service;
            if same && !in_step {
                // Nothing would be written by which the store tells that this instance is behind.
                self.in_step().await?;
                in_step = true;
                continue;
            }
            altered.map_err(Error::Refused)?;
            let planned = |duty| self.plan(duty, &mut after, now, batch);
            let deleted = duty.as_ref().is_some_and(planned);
            let draft = Draft {
                before: Some(&stored),
                after: &after,
                deleted,
                cause,
                now: Time::from(now),
            };
            let committed = match self.commit(&draft, duty.as_ref()).await {
                Ok(committed) => committed,
                Err(muster_store::Error::TooLarge { .. })
                    if duty.is_some() && batch > cause.least_planned() =>
                {
                    batch /= 2;
                    continue;
                }
                Err(error) => {
                    // Its wake-up was set by a plan that is not stored.
                    self.wake([Uid::from(uid)]);
                    return Err(error.into());
                }
            };
            match committed {
                Commit::Done(revision) => {
                    let service = (!deleted).then(|| self.service_after(&stored, after));
                    return Ok(Changed { service, revision });
                }
                Commit::Overtaken(actual) => self.catch_up(actual).await?,
                Commit::Repeated(actual) => {
                    self.catch_up(actual).await?;
                    return Err(Error::Repeated);
                }
                Commit::Deposed => duty = None,
            }
        }
    }

    /// The service as it is, and as it goes on in this epoch; `None` if it is gone. Of a restored one that has
    /// more replicas than a transaction takes, what goes on before the last of them is made durable.
    async fn entered(
        &self,
        uid: &str,
        duty: &mut Option<Duty>,
    ) -> Result<Option<(Stored, Service)>, muster_store::Error> {
        let mut batch = self.0.parts.terms.batch;
        loop {
            let Some(stored) = self.0.parts.view.get(uid) else {
                return Ok(None);
            };
            let mut after = (*stored.service).clone();
            if after.enter(&self.0.epoch, batch) {
                return Ok(Some((stored, after)));
            }
            let draft = Draft {
                before: Some(&stored),
                after: &after,
                deleted: false,
                cause: &Cause::by("system"),
                now: self.now(),
            };
            match self.commit(&draft, duty.as_ref()).await {
                Ok(Commit::Done(_)) => {}
                Ok(Commit::Overtaken(actual) | Commit::Repeated(actual)) => {
                    self.catch_up(actual).await?;
                }
                Ok(Commit::Deposed) => *duty = None,
                Err(muster_store::Error::TooLarge { .. }) if batch > 1 => batch /= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a service durable that is not there yet. `Refused` if its name is in use.
    pub(crate) async fn create(
        &self,
        service: Service,
        cause: &Cause,
    ) -> Result<Changed, Error<()>> {
        let mut duty = self.duty();
        loop {
            let now = self.0.parts.clock.now();
            let mut planned = service.clone();
            // A new one is of no earlier epoch.
            let _ = planned.enter(&self.0.epoch, 0);
            if let Some(duty) = &duty {
                self.plan(duty, &mut planned, now, self.0.parts.terms.batch);
            }
            let draft = Draft {
                before: None,
                after: &planned,
                deleted: false,
                cause,
                now: Time::from(now),
            };
            match self.commit(&draft, duty.as_ref()).await? {
                Commit::Done(revision) => {
                    let service = Some(Arc::new(planned));
                    return Ok(Changed { service, revision });
                }
                Commit::Overtaken(actual) => {
                    self.catch_up(actual).await?;
                    return Err(Error::Refused(()));
                }
                Commit::Repeated(actual) => {
                    self.catch_up(actual).await?;
                    return Err(Error::Repeated);
                }
                Commit::Deposed => duty = None,
            }
        }
    }

    /// Writes records that are of no service, and answers once they can be read.
    pub(crate) async fn write(&self, transaction: Transaction) -> Result<(), muster_store::Error> {
        match self.0.parts.store.commit(transaction).await? {
            Outcome::Committed(revision)
            | Outcome::Conflict {
                actual: Some(revision),
                ..
            } => self.catch_up(Some(revision)).await,
            Outcome::Conflict { actual: None, .. } => Ok(()),
        }
    }

    /// Applies what is to be done now to at most `batch` replicas, and sets the next wake-up. True if nothing
    /// of it is left.
    fn plan(&self, duty: &Duty, service: &mut Service, now: SystemTime, batch: usize) -> bool {
        let parts = &self.0.parts;
        let terms = Terms {
            batch,
            ..parts.terms.clone()
        };
        let uid: Uid = Arc::from(service.header.uid.as_str());
        let started = tokio::time::Instant::now();
        let (planned, room) = {
            let fleet = parts.fleet.read();
            let elsewhere = self.moves_elsewhere(&uid);
            let world = World {
                workers: fleet.workers_in(&duty.owner),
                position: &fleet.position,
                room: fleet.room,
                moves_elsewhere: &elsewhere,
                measure: parts.loads.measure(service, Time::from(now)),
                since: duty.since,
                terms: &terms,
            };
            (plan(now, service, &world), fleet.room)
        };
        for action in &planned.actions {
            service.apply(action, room, Time::from(now));
        }
        parts.metrics.passed(started);
        let deleted = planned.actions.contains(&Action::Delete);
        parts.wakes.set(&uid, planned.wake_at.filter(|_| !deleted));
        self.note_moves(&uid, service, deleted);
        deleted
    }

    async fn commit(
        &self,
        draft: &Draft<'_>,
        duty: Option<&Duty>,
    ) -> Result<Commit, muster_store::Error> {
        let parts = &self.0.parts;
        let Some(transaction) = draft.transaction(&self.0.journal, &parts.view) else {
            return Ok(Commit::Done(parts.progress.current()));
        };
        let guarded = guard(draft, transaction);
        let fenced = match duty {
            Some(duty) => duty.leadership.fence(guarded),
            None => guarded,
        };
        match parts.store.commit(fenced).await? {
            Outcome::Committed(revision) => {
                let before = draft.before.map(|stored| &*stored.service);
                parts.crash.stored(before, draft.after, draft.deleted);
                self.catch_up(Some(revision)).await?;
                Ok(Commit::Done(revision.0))
            }
            Outcome::Conflict { key, actual } => {
                let request = draft.cause.request.as_ref();
                Ok(match &*key {
                    TERM_KEY => Commit::Deposed,
                    key if request.is_some_and(|(used, _)| used == key) => Commit::Repeated(actual),
                    _ => Commit::Overtaken(actual),
                })
            }
        }
    }

    /// Waits until the view shows a revision that is durable; `None`: until it shows anything newer, since
    /// what was read is gone, or not for long.
    async fn catch_up(&self, revision: Option<Revision>) -> Result<(), muster_store::Error> {
        let progress = &self.0.parts.progress;
        let Some(revision) = revision else {
            let next = progress.current() + 1;
            let _ = progress.reach(next, Deadline::after(LOOK_AGAIN)).await;
            return Ok(());
        };
        let reached = progress
            .reach(revision.0, Deadline::after(FOLD_WITHIN))
            .await;
        reached.map_err(|behind| muster_store::Error::Unavailable(behind.to_string()))
    }

    /// The service as the view has it after our own change of it.
    fn service_after(&self, stored: &Stored, after: Service) -> Arc<Service> {
        let current = self.0.parts.view.get(&stored.service.header.uid);
        current.map_or_else(|| Arc::new(after), |stored| stored.service)
    }

    fn turns_of(&self, uid: &str) -> Arc<Turns> {
        let mut all = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = all.get(uid) {
            return Arc::clone(turns);
        }
        let turns = Arc::new(Turns::default());
        all.insert(Arc::from(uid), Arc::clone(&turns));
        turns
    }

    /// What happened elsewhere is known here from now on.
    pub(crate) fn note_events(&self, batch: &muster_store::Batch) {
        let told = batch.changes.iter().filter(|change| change.after.is_some());
        for change in told.filter(|change| change.key.starts_with(keys::EVENTS)) {
            self.0.journal.follow(&change.key);
        }
    }

    /// These services are to be planned, if this instance is the one that plans.
    pub(crate) fn wake(&self, uids: impl IntoIterator<Item = Uid>) {
        if self.duty().is_some() {
            self.0.parts.wakes.wake_all(uids);
        }
    }

    /// Forgets the turn-taking of a service that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        let mut all = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(uid);
    }

    fn moves_elsewhere(&self, uid: &Uid) -> BTreeMap<String, u32> {
        let moves = self.0.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let others = |by_service: &BTreeMap<Uid, u32>| -> u32 {
            let others = by_service.iter().filter(|(other, _)| *other != uid);
            others.map(|(_, count)| count).sum()
        };
        let counted = moves
            .iter()
            .map(|(worker, by_service)| (worker.clone(), others(by_service)));
        counted.collect()
    }

    /// Counts the unfinished moves of all services anew: whoever planned them was another.
    fn recount_moves(&self) {
        let view = self.0.parts.view.read();
        let mut counted: BTreeMap<String, BTreeMap<Uid, u32>> = BTreeMap::new();
        for (uid, service) in view.all() {
            for (worker, count) in unfinished(service) {
                let by_service = counted.entry(worker).or_default();
                by_service.insert(Arc::clone(uid), count);
            }
        }
        drop(view);
        *self.0.moves.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    /// Keeps count of unfinished moves; where one ended, others off the same worker may begin.
    fn note_moves(&self, uid: &Uid, service: &Service, deleted: bool) {
        let parts = &self.0.parts;
        let fresh = if deleted {
            BTreeMap::new()
        } else {
            unfinished(service)
        };
        let mut freed = Vec::new();
        {
            let mut moves = self.0.moves.lock().unwrap_or_else(PoisonError::into_inner);
            for (worker, by_service) in &mut *moves {
                let was = by_service.get(uid).copied().unwrap_or(0);
                if fresh.get(worker).copied().unwrap_or(0) < was {
                    by_service.remove(uid);
                    freed.push(worker.clone());
                }
            }
            for (worker, count) in fresh {
                moves
                    .entry(worker)
                    .or_default()
                    .insert(Arc::clone(uid), count);
            }
            moves.retain(|_, by_service| !by_service.is_empty());
        }
        for worker in freed {
            let others = parts.view.read().on_worker(&worker);
            parts
                .wakes
                .wake_all(others.into_iter().filter(|other| other != uid));
        }
    }
}

/// Refuses the transaction if the service is not as it was read, or the request id is used.
fn guard(draft: &Draft<'_>, transaction: Transaction) -> Transaction {
    let header = &draft.after.header;
    let key = keys::service(&header.project, &header.name);
    let unchanged = match draft.before {
        Some(stored) => Condition::ModifiedAt(stored.revision),
        None => Condition::Absent,
    };
    // First, so that of a request made twice this is what is told.
    let guarded = match &draft.cause.request {
        Some((request, _)) => transaction.when(request.clone(), Condition::Absent),
        None => transaction,
    };
    guarded.when(key, unchanged)
}

/// The view follows the store within microseconds; this long, and it does not follow at all.
const FOLD_WITHIN: Duration = Duration::from_secs(10);

/// How long what is on its way to the view may take, before it is looked at again all the same.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

enum Commit {
    Done(u64),
    /// Something was changed since it was read: this is its newest revision.
    Overtaken(Option<Revision>),
    /// The request id was used, by this revision.
    Repeated(Option<Revision>),
    /// Another instance leads.
    Deposed,
}
