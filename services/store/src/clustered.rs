//! The backend of several instances on one cluster: all records are held in memory and follow the cluster by
//! one watch, so that readers never wait for the network; a transaction is one of the cluster's, answered
//! once what it did can be read here.
//!
//! A cluster that cannot be reached is no failure of the store: reads go on and [`Clustered::age`] says how
//! old they are, transactions are `Unavailable`, and what was missed is caught up with. Only where the cluster
//! has forgotten what was missed does the store fail, since watches promise to have no gaps.

mod compact;
mod follow;
mod hold;
mod lease;
#[cfg(any(test, feature = "etcd"))]
pub(crate) mod restore;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::cluster::{Answer, Cluster, Fault, Judged, LeaseId, Request};
use crate::epoch::Epoch;
use crate::error::Error;
use crate::group::{Records, last_words};
use crate::instance::{Instance, Seat};
use crate::leadership::{Leadership, TERM_KEY, Term};
use crate::open_error::OpenError;
use crate::options::{Leases, Options};
use crate::record::{Listing, Revision};
use crate::shared::{End, Shared};
use crate::store::Store;
use crate::transaction::{Condition, Outcome, Transaction};

pub(crate) use hold::Hold;

/// How long the cluster may take to answer: long enough for it to elect a leader of its own.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// How long ending the leases may take when the store is closed.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// A watch that says nothing for so long, although it is asked, is broken; until then the store is in step.
const SILENT: Duration = Duration::from_secs(2);

/// The shortest wait before leadership is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// The longest, should a vacancy have been missed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long reading all records may take.
const LISTS_WITHIN: Duration = Duration::from_mins(2);

const ANOTHER_STORE: &str = "another store was put in the place of this one";

const NOT_READ_YET: &str = "what was done cannot be read here yet";

/// What is the store's own, and in no backup.
pub(crate) const OWN: &str = "store/";

/// The version of what is kept, and the epoch.
pub(crate) const EPOCH_KEY: &str = "store/epoch";

/// Stands while a backup is restored.
const RESTORING_KEY: &str = "store/restoring";

/// Put at each opening, so that all instances come to the revision that its records are of.
pub(crate) const OPENED_KEY: &str = "store/opened";

/// Whose seats were taken.
const EVICTED: &str = "store/evicted/";

/// Where the seats are.
const SEATS: &str = "store/instances/";

/// The version of what this release keeps.
const VERSION: u64 = 1;

/// A handle on the follower and the keepers of leases; dropping it ends them, and the leases run out.
#[derive(Debug)]
pub(crate) struct Clustered {
    core: Arc<Core>,
    tasks: Mutex<JoinSet<()>>,
}

/// What the handle and its tasks share.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    cluster: Cluster,
    epoch: Epoch,
    leases: Leases,
    /// Everything up to this revision of the cluster was followed.
    reached: watch::Sender<u64>,
    /// When the watch was last heard.
    heard: Mutex<Instant>,
    /// Rung by those who wait for the watch to say how far it is.
    hurry: Notify,
    /// Rung by those who waited in vain, while the watch came no further at all.
    stuck: watch::Sender<()>,
    /// The revision of the term that this instance had last.
    term: Mutex<Option<Revision>>,
    in_flight: watch::Sender<usize>,
    closing: watch::Sender<bool>,
}

/// Opens what is below the cluster's prefix, which `name` is the name of, and creates its epoch if it is new.
pub(crate) async fn open(
    cluster: Cluster,
    name: &str,
    options: Options,
) -> Result<Store, OpenError> {
    let unreachable = |fault: Fault| OpenError::Unreachable {
        name: name.to_owned(),
        detail: fault.to_string(),
    };
    let (records, revision, epoch) =
        begin(&cluster, name, options.epoch)
            .await
            .map_err(|error| match error {
                Begin::Fault(fault) => unreachable(fault),
                Begin::Open(error) => error,
            })?;
    let shared = Arc::new(Shared::new(records, Revision(revision), options.history));
    let core = Arc::new(Core {
        shared: Arc::clone(&shared),
        cluster,
        epoch,
        leases: options.leases,
        reached: watch::Sender::new(revision),
        heard: Mutex::new(Instant::now()),
        hurry: Notify::new(),
        stuck: watch::Sender::new(()),
        term: Mutex::default(),
        in_flight: watch::Sender::new(0),
        closing: watch::Sender::new(false),
    });
    let clustered = Clustered {
        core: Arc::clone(&core),
        tasks: Mutex::default(),
    };
    clustered.spawn(follow::follow(Arc::clone(&core)));
    clustered.spawn(compact::compact(core));
    let term = Term {
        epoch,
        revision: Revision(0),
    };
    Ok(Store::of_cluster(shared, clustered, term))
}

enum Begin {
    Fault(Fault),
    Open(OpenError),
}

impl From<Fault> for Begin {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What is there, with an epoch.
async fn begin(cluster: &Cluster, name: &str, new: Epoch) -> Result<(Records, u64, Epoch), Begin> {
    loop {
        let (records, revision) = listed(cluster.list()).await?;
        let records: Records = records
            .into_iter()
            .map(|record| (Arc::clone(&record.key), Arc::new(record)))
            .collect();
        if let Some(record) = records.get(EPOCH_KEY) {
            let epoch = read_epoch(name, &record.value).map_err(Begin::Open)?;
            return Ok((records, revision, epoch));
        }
        if !records.is_empty() {
            return Err(Begin::Open(OpenError::Foreign {
                name: name.to_owned(),
            }));
        }
        // Whoever is first names it; all read what there is then.
        let create = Request {
            conditions: vec![
                (EPOCH_KEY.into(), Condition::Absent),
                (RESTORING_KEY.into(), Condition::Absent),
            ],
            writes: vec![(EPOCH_KEY.into(), Some(epoch_value(new)))],
            lease: None,
        };
        within(cluster.commit(create)).await?;
    }
}

/// What the record of an epoch says.
pub(crate) fn epoch_value(epoch: Epoch) -> Bytes {
    format!("{VERSION} {epoch}").into()
}

fn read_epoch(name: &str, value: &[u8]) -> Result<Epoch, OpenError> {
    let read = || {
        let (version, epoch) = str::from_utf8(value).ok()?.split_once(' ')?;
        Some((version.parse::<u64>().ok()?, epoch))
    };
    let (version, epoch) = read().ok_or_else(|| OpenError::Foreign {
        name: name.to_owned(),
    })?;
    if version > VERSION {
        return Err(OpenError::NewerCluster {
            name: name.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    epoch.parse().map_err(|_| OpenError::Foreign {
        name: name.to_owned(),
    })
}

/// The cluster's answer, in time.
async fn within<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    answer(ANSWERS_WITHIN, call).await
}

/// The cluster's answer to what lists all records, in time.
async fn listed<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    answer(LISTS_WITHIN, call).await
}

async fn answer<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let no_answer = |_| Fault::Unavailable(format!("no answer within {} s", limit.as_secs()));
    timeout(limit, call).await.map_err(no_answer)?
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.to_string())
    }
}

impl Clustered {
    pub(crate) fn kind(&self) -> &'static str {
        self.core.cluster.kind()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        // What has ended is let go of.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Commits, and waits until it can be read here.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        self.core.commit(transaction, None).await
    }

    /// Waits until all that the cluster has by now can be read here: the revision that reads show then.
    pub(crate) async fn in_step(&self) -> Result<Revision, Error> {
        match self.commit(Transaction::new()).await? {
            Outcome::Committed(revision) => Ok(revision),
            // Nothing was asked for that could be otherwise.
            Outcome::Conflict { .. } => self.core.shared.revision(),
        }
    }

    /// All that the cluster has by now, read from it and not from memory: also where it takes no write, by which
    /// alone memory could tell that it is in step.
    pub(crate) async fn read(&self) -> Result<Listing, Error> {
        let (records, revision) = listed(self.core.cluster.read()).await?;
        let epoch = records.iter().find(|record| &*record.key == EPOCH_KEY);
        if epoch.is_none_or(|epoch| epoch.value != epoch_value(self.core.epoch)) {
            return Err(Error::Unavailable(ANOTHER_STORE.to_owned()));
        }
        Ok(Listing {
            revision: Revision(revision),
            records: records.into_iter().map(Arc::new).collect(),
        })
    }

    /// Waits for the right to act.
    pub(crate) async fn lead(&self, id: &str) -> Result<Leadership, Error> {
        loop {
            self.core.open()?;
            match self.try_lead(id).await {
                Ok(Some(leadership)) => return Ok(leadership),
                Err(error @ (Error::Closed | Error::Failed(_))) => return Err(error),
                Ok(None) | Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
            self.core.vacancy().await;
        }
    }

    async fn try_lead(&self, id: &str) -> Result<Option<Leadership>, Error> {
        if self.core.shared.get(TERM_KEY)?.is_some() {
            return Ok(None);
        }
        let (core, id) = (Arc::clone(&self.core), id.to_owned());
        let take = async move {
            let Some((lease, revision, until)) = core.take_term(&id).await? else {
                return Ok((None, None));
            };
            let term = Term {
                epoch: core.epoch,
                revision,
            };
            let (hold, keeper) = lease::keep_term(core, lease, revision, until);
            Ok((Some(Leadership::new(term, hold)), Some(keeper)))
        };
        self.take(take).await
    }

    /// Takes a seat, and keeps it.
    pub(crate) async fn join(&self, instance: Instance) -> Result<Seat, Error> {
        let core = Arc::clone(&self.core);
        let take = async move {
            let (seat, keeper) = lease::take_seat(core, instance).await?;
            Ok((seat, Some(keeper)))
        };
        self.take(take).await
    }

    /// Takes what is held by a lease, and runs its keeper. On a task of its own: who stops waiting in the
    /// middle of it must not leave a lease behind that nobody holds. What is not received is dropped, and
    /// so given back.
    async fn take<T, K>(
        &self,
        take: impl Future<Output = Result<(T, Option<K>), Error>> + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        K: Future<Output = ()> + Send + 'static,
    {
        let (done, taken) = oneshot::channel();
        self.spawn(async move {
            match take.await {
                Ok((held, keeper)) => {
                    drop(done.send(Ok(held)));
                    if let Some(keeper) = keeper {
                        keeper.await;
                    }
                }
                Err(error) => drop(done.send(Err(error))),
            }
        });
        taken.await.unwrap_or(Err(Error::Closed))
    }

    /// Who holds seats.
    pub(crate) fn instances(&self) -> Result<Vec<Instance>, Error> {
        let shared = &self.core.shared;
        let leader = shared.get(TERM_KEY)?.map(|record| record.value);
        let seats = shared.list(SEATS)?.records.into_iter();
        let instance = |record: Arc<crate::record::Record>| {
            let id: Arc<str> = record.key.strip_prefix(SEATS)?.into();
            Some(Instance {
                leader: leader.as_deref() == Some(id.as_bytes()),
                value: record.value.clone(),
                id,
            })
        };
        Ok(seats.filter_map(instance).collect())
    }

    /// Takes away a seat, if `by` still leads.
    pub(crate) async fn evict(&self, by: &Leadership, id: &str) -> Result<(), Error> {
        // Told to whoever leads next for as long as the instance may take itself for seated.
        let lease = within(self.core.cluster.grant(self.core.leases.instance)).await?;
        let take = Transaction::new()
            .delete(seat_key(id))
            .put(format!("{EVICTED}{id}"), "");
        match self.core.commit(by.fence(take), Some(lease)).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict { .. } => {
                self.core.give_up(lease).await;
                Err(Error::Unavailable("another leads now".to_owned()))
            }
        }
    }

    /// Whose seats were taken, for as long as they may not know it.
    pub(crate) fn evicted(&self) -> Result<Vec<Arc<str>>, Error> {
        let records = self.core.shared.list(EVICTED)?.records.into_iter();
        let id =
            |record: Arc<crate::record::Record>| record.key.strip_prefix(EVICTED).map(Arc::from);
        Ok(records.filter_map(id).collect())
    }

    /// How long ago the watch was last known to be in step; nothing while it is.
    pub(crate) fn age(&self) -> Duration {
        let silent = self.core.heard().elapsed();
        match silent < SILENT {
            true => Duration::ZERO,
            false => silent,
        }
    }

    /// Forgets the cluster's history up to a revision.
    pub(crate) async fn compact(&self, revision: Revision) -> Result<(), Error> {
        Ok(within(self.core.cluster.compact(revision.0)).await?)
    }

    /// Lets what is in flight end, gives back every lease, and ends.
    pub(crate) async fn close(&self) {
        self.core.closing.send_replace(true);
        let mut in_flight = self.core.in_flight.subscribe();
        let done = async {
            let _ = in_flight.wait_for(|count| *count == 0).await;
        };
        // What is left after that is cut.
        let _ = timeout(ANSWERS_WITHIN, done).await;
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        self.core.shared.end(End::Closed);
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(CLOSES_WITHIN, ended).await;
    }
}

impl Drop for Clustered {
    fn drop(&mut self) {
        self.core.shared.end(End::Closed);
    }
}

/// Counts one transaction for as long as it is in flight.
struct Flight<'a>(&'a Core);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    /// Resolves when the store has ended, for whatever reason.
    async fn ended(&self) {
        // An error means that it is gone altogether.
        let _ = self.shared.on_end().wait_for(Option::is_some).await;
    }

    fn heard(&self) -> Instant {
        *lock(&self.heard)
    }

    fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }

    /// Whether transactions are taken.
    fn open(&self) -> Result<(), Error> {
        self.shared.open()?;
        match *self.closing.borrow() {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    /// Puts the term's key under a new lease, if nobody has it: the lease, the key's revision, and until when
    /// it is held.
    async fn take_term(&self, id: &str) -> Result<Option<(LeaseId, Revision, Instant)>, Error> {
        let ttl = self.leases.leader;
        let sent = Instant::now();
        let lease = within(self.cluster.grant(ttl)).await?;
        let take = Transaction::new()
            .when(TERM_KEY, Condition::Absent)
            .put(TERM_KEY, id.to_owned());
        match self.commit(take, Some(lease)).await {
            Ok(Outcome::Committed(revision)) => {
                *lock(&self.term) = Some(revision);
                Ok(Some((lease, revision, sent + ttl)))
            }
            Ok(Outcome::Conflict { .. }) => {
                self.give_up(lease).await;
                Ok(None)
            }
            Err(error) => {
                // It may have been taken; nobody may keep it.
                self.give_up(lease).await;
                Err(error)
            }
        }
    }

    async fn commit(
        &self,
        transaction: Transaction,
        lease: Option<LeaseId>,
    ) -> Result<Outcome, Error> {
        self.open()?;
        self.in_flight.send_modify(|count| *count += 1);
        let _flight = Flight(self);
        let request = Request {
            conditions: transaction.conditions,
            writes: last_words(transaction.writes).collect(),
            lease,
        };
        let Answer { revision, outcome } = within(self.cluster.commit(request)).await?;
        match outcome {
            Judged::Done { changed: true } => {
                self.reach(revision).await?;
                Ok(Outcome::Committed(Revision(revision)))
            }
            // The revision may be of something else in the cluster; the one that reads show is ours.
            Judged::Done { changed: false } => {
                self.hurry.notify_one();
                self.reach(revision).await?;
                Ok(Outcome::Committed(self.shared.revision()?))
            }
            Judged::Conflict { key, actual } => {
                let actual = actual.map(Revision);
                // Whoever reads again to try again has to find what it was.
                self.agree(&key, actual, revision).await?;
                Ok(Outcome::Conflict { key, actual })
            }
        }
    }

    /// Waits until everything up to a revision can be read here.
    async fn reach(&self, revision: u64) -> Result<(), Error> {
        let mut reached = self.reached.subscribe();
        let before = *reached.borrow();
        let there = reached.wait_for(|reached| *reached >= revision);
        match timeout(ANSWERS_WITHIN, there).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.shared.open()?;
                self.waited_in_vain(before);
                Err(Error::Unavailable(NOT_READ_YET.to_owned()))
            }
        }
    }

    /// Waits until a key reads here as it was found at a revision, or as it became later. What made it so is
    /// on its way; the revision itself may be of something else.
    async fn agree(&self, key: &str, found: Option<Revision>, at: u64) -> Result<(), Error> {
        let mut progress = self.shared.on_progress();
        let before = *self.reached.borrow();
        let agrees = async {
            loop {
                progress.mark_unchanged();
                let newer = self.shared.revision()?.0 >= at;
                let same = self.shared.get(key)?.map(|record| record.modified) == found;
                if newer || same {
                    return Ok(());
                }
                self.shared.open()?;
                if progress.changed().await.is_err() {
                    return Err(Error::Closed);
                }
            }
        };
        match timeout(ANSWERS_WITHIN, agrees).await {
            Ok(agreed) => agreed,
            Err(_) => {
                self.waited_in_vain(before);
                Err(Error::Unavailable(NOT_READ_YET.to_owned()))
            }
        }
    }

    /// What is there was not told in time, though the watch may give signs of life. One that has come further since
    /// `before` is only slow.
    fn waited_in_vain(&self, before: u64) {
        if *self.reached.borrow() == before {
            self.stuck.send_replace(());
        }
    }

    /// Waits until nobody leads, as far as is known here, or it may be worth another look.
    async fn vacancy(&self) {
        let mut progress = self.shared.on_progress();
        let vacant = async {
            loop {
                progress.mark_unchanged();
                let taken = self.shared.get(TERM_KEY).is_ok_and(|term| term.is_some());
                if !taken || progress.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(LOOK_AGAIN, vacant).await;
    }

    async fn give_up(&self, lease: LeaseId) {
        // If it cannot be told, it runs out.
        let _ = within(self.cluster.revoke(lease)).await;
    }
}

fn seat_key(id: &str) -> Arc<str> {
    format!("{SEATS}{id}").into()
}
