//! The handle that components hold, and the choice of the backend behind it.

use std::future::{Future, pending};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::backup::Backup;
#[cfg(feature = "etcd")]
use crate::cluster::{Cluster, etcd::Handle};
use crate::clustered::{self, Clustered, Hold};
use crate::embedded::{self, Embedded};
use crate::epoch::Epoch;
use crate::error::Error;
use crate::group::{Group, Records};
use crate::instance::{Instance, Seat};
use crate::leadership::{Leadership, TERM_KEY, Term};
use crate::memory::Memory;
use crate::open_error::OpenError;
use crate::options::Options;
use crate::record::{Listing, Record, Revision};
use crate::shared::{End, Shared};
use crate::spec::Spec;
use crate::transaction::{Outcome, Transaction};
use crate::watch::Watch;

/// An open store. Cloning is cheap; the last handle dropped closes it in the background, [`Store::close`]
/// tells when it is closed.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    backend: Arc<Backend>,
    term: Term,
}

/// How a transaction becomes durable. Reading is the same for all: from [`Shared`], which a backend
/// keeps in step with what is durable.
#[derive(Debug)]
enum Backend {
    Memory(Memory),
    Embedded(Embedded),
    Clustered(Clustered),
}

impl Store {
    /// Opens the store that a user chose.
    ///
    /// The future is boxed, so that what it runs is compiled with this crate, and not once more in each program.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(spec: &Spec, options: Options) -> BoxFuture<'_, Result<Self, OpenError>> {
        Box::pin(async move {
            match spec {
                Spec::Memory => Ok(Self::memory_with(options)),
                Spec::Embedded(path) => {
                    let path = path.clone();
                    let opening =
                        tokio::task::spawn_blocking(move || Self::embedded(path, options));
                    match opening.await {
                        Ok(opened) => opened,
                        Err(error) => std::panic::resume_unwind(error.into_panic()),
                    }
                }
                Spec::Etcd(address) => Self::etcd(address, options).await,
            }
        })
    }

    /// Opens what is on an etcd, at what stands after `etcd:` in the words of [`Spec`], as one instance of several.
    ///
    /// # Errors
    /// `WrongAddress`, `Unreachable`, `Foreign`, `NewerCluster`; `NoEtcd` in a build without it.
    #[cfg(feature = "etcd")]
    pub async fn etcd(address: &str, options: Options) -> Result<Self, OpenError> {
        let (cluster, name) = Self::reach_etcd(address)?;
        clustered::open(cluster, &name, options).await
    }

    /// An etcd, to which nothing was said yet, and what a user calls it.
    #[cfg(feature = "etcd")]
    pub(crate) fn reach_etcd(address: &str) -> Result<(Cluster, String), OpenError> {
        let name = Spec::Etcd(address.to_owned()).to_string();
        match Handle::new(address) {
            Ok(handle) => Ok((Cluster::Etcd(handle), name)),
            Err(reason) => Err(OpenError::WrongAddress { name, reason }),
        }
    }

    #[cfg(not(feature = "etcd"))]
    async fn etcd(_address: &str, _options: Options) -> Result<Self, OpenError> {
        Err(OpenError::NoEtcd)
    }

    /// A new store that is lost with its last handle.
    #[must_use]
    pub fn memory() -> Self {
        Self::memory_with(Options::default())
    }

    /// A new store that is lost with its last handle, in the epoch of the options.
    #[must_use]
    pub fn memory_with(options: Options) -> Self {
        let revision = Revision(0);
        let shared = Arc::new(Shared::new(Records::new(), revision, options.history));
        let mut group = Group::new(revision);
        let _committed = group.judge(&Records::new(), Transaction::new().put(TERM_KEY, "1"));
        let term = Term {
            epoch: options.epoch,
            revision: group.revision(),
        };
        let now = shared.now();
        shared.publish(group, now);
        Self {
            backend: Arc::new(Backend::Memory(Memory::new(Arc::clone(&shared)))),
            shared,
            term,
        }
    }

    /// Opens the store in this file, or creates it there, with its directory. Blocks for as long as
    /// reading all records takes.
    ///
    /// # Errors
    /// See [`OpenError`]; an existing file is as it was.
    pub fn embedded(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let (embedded, shared, term) = embedded::open(path.as_ref(), &options)?;
        Ok(Self {
            shared,
            backend: Arc::new(Backend::Embedded(embedded)),
            term,
        })
    }

    pub(crate) fn of_cluster(shared: Arc<Shared>, clustered: Clustered, term: Term) -> Self {
        Self {
            shared,
            backend: Arc::new(Backend::Clustered(clustered)),
            term,
        }
    }

    /// The kind of the backend: `memory`, `embedded` or `etcd`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &*self.backend {
            Backend::Memory(_) => "memory",
            Backend::Embedded(_) => "embedded",
            Backend::Clustered(clustered) => clustered.kind(),
        }
    }

    /// The epoch, which stays the same until a restore.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.term.epoch
    }

    /// The latest revision that is durable.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn revision(&self) -> Result<Revision, Error> {
        self.shared.revision()
    }

    /// The record of one key.
    ///
    /// # Errors
    /// `Closed`. A failed store still reads.
    pub async fn get(&self, key: &str) -> Result<Option<Record>, Error> {
        self.shared.get(key)
    }

    /// The records whose keys begin with `prefix`, all as of one revision.
    ///
    /// # Errors
    /// `Closed`. A failed store still reads.
    pub async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.shared.list(prefix)
    }

    /// Commits a transaction, and answers once it is durable and visible to every reader.
    ///
    /// Once polled, it may be committed even if the future is dropped.
    ///
    /// # Errors
    /// `TooLarge` and `Closed`: nothing was written. `Failed`: whether it was written is not known.
    pub async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        transaction.check_size()?;
        match &*self.backend {
            Backend::Memory(memory) => memory.commit(transaction),
            Backend::Embedded(embedded) => embedded.commit(transaction).await,
            Backend::Clustered(clustered) => clustered.commit(transaction).await,
        }
    }

    /// What changes under `prefix` after a revision, each revision once it is durable.
    ///
    /// # Errors
    /// `Compacted` when the history does not reach from `after` to now: list, and watch from there.
    /// After a restart only the latest revision of before can be resumed. `Closed`.
    pub async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        Watch::new(Arc::clone(&self.shared), prefix, after)
    }

    /// Whether other instances may have this store open and write to it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match &*self.backend {
            Backend::Memory(_) | Backend::Embedded(_) => false,
            Backend::Clustered(_) => true,
        }
    }

    /// Waits for the right to act for the component; `id` is this instance's. A store of one process grants
    /// it at once, for as long as it is open. After it is lost it may be waited for again.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn lead(&self, id: &str) -> Result<Leadership, Error> {
        self.shared.revision()?;
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.lead(id).await,
            Backend::Memory(_) | Backend::Embedded(_) => {
                let hold = Hold::Open(self.shared.on_end());
                Ok(Leadership::new(self.term, hold))
            }
        }
    }

    /// Makes this instance known to the others by `id`, with a value of its own such as its address, for as
    /// long as its lease is kept; the store keeps it, and takes it anew where it was lost.
    ///
    /// # Errors
    /// `Closed`; of a shared store also `Unavailable`.
    pub async fn join(&self, id: &str, value: impl Into<Bytes>) -> Result<Seat, Error> {
        self.shared.revision()?;
        let instance = Instance {
            id: Arc::from(id),
            value: value.into(),
            leader: false,
        };
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.join(instance).await,
            Backend::Memory(_) | Backend::Embedded(_) => {
                Ok(Seat::new(instance, Hold::Open(self.shared.on_end())))
            }
        }
    }

    /// The instances that hold seats, as far as is known here; none of a store that is not shared.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn instances(&self) -> Result<Vec<Instance>, Error> {
        self.shared.revision()?;
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.instances(),
            Backend::Memory(_) | Backend::Embedded(_) => Ok(Vec::new()),
        }
    }

    /// Takes the seat of an instance that does not answer: from now on others cannot see it, and within
    /// the instance's lease it knows. Only the leader may, as far as the store can tell.
    ///
    /// # Errors
    /// `Unavailable`, `Closed`.
    pub async fn evict(&self, by: &Leadership, id: &str) -> Result<(), Error> {
        self.shared.revision()?;
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.evict(by, id).await,
            Backend::Memory(_) | Backend::Embedded(_) => Ok(()),
        }
    }

    /// The instances whose seats were taken, for as long as they may take themselves for seated.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn evicted(&self) -> Result<Vec<Arc<str>>, Error> {
        self.shared.revision()?;
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.evicted(),
            Backend::Memory(_) | Backend::Embedded(_) => Ok(Vec::new()),
        }
    }

    /// How long ago what is read here was last known to be the newest: nothing while a store is in step,
    /// and always of one that is not shared.
    #[must_use]
    pub fn age(&self) -> Duration {
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.age(),
            Backend::Memory(_) | Backend::Embedded(_) => Duration::ZERO,
        }
    }

    /// For how long the disk has been at the write that is under way, which all that is queued waits for: nothing
    /// where there is none. `None` of a store without a disk of its own.
    #[must_use]
    pub fn writing(&self) -> Option<Duration> {
        match &*self.backend {
            Backend::Embedded(embedded) => Some(embedded.writing()),
            Backend::Memory(_) | Backend::Clustered(_) => None,
        }
    }

    /// Waits until reads here show all that anybody had committed when this was called; answers the revision that
    /// they show then. Of a store that is not shared that is so at once.
    ///
    /// # Errors
    /// `Closed`; of a shared store also `Failed` and `Unavailable`.
    pub async fn in_step(&self) -> Result<Revision, Error> {
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.in_step().await,
            Backend::Memory(_) | Backend::Embedded(_) => self.shared.revision(),
        }
    }

    /// Lets a shared store forget its history up to a revision, which it keeps for instances that were away;
    /// one that is away for longer than this reaches back has to start anew. Others keep theirs in memory.
    ///
    /// # Errors
    /// `Unavailable`, also where it is forgotten already.
    pub async fn compact(&self, revision: Revision) -> Result<(), Error> {
        match &*self.backend {
            Backend::Clustered(clustered) => clustered.compact(revision).await,
            Backend::Memory(_) | Backend::Embedded(_) => Ok(()),
        }
    }

    /// A copy of all records as of one revision, while others go on writing. It is encoded as it is read, and
    /// holds all that was committed when this was called.
    ///
    /// # Errors
    /// `Closed`. A failed store can still be copied, but for one that is shared: others may have gone on. Of that
    /// also `Unavailable`.
    pub async fn backup(&self) -> Result<Backup, Error> {
        let mut listing = match (self.in_step().await, &*self.backend) {
            // A cluster that is out of space takes no write, which being in step takes, and is read all the same.
            (Err(Error::Unavailable(_)), Backend::Clustered(clustered)) => clustered.read().await?,
            (in_step, _) => {
                in_step?;
                self.list("").await?
            }
        };
        // Epoch, term and seats are of this life of the store alone.
        let own = |record: &Arc<Record>| record.key.starts_with(clustered::OWN);
        listing.records.retain(|record| !own(record));
        Ok(Backup::new(self.epoch(), listing))
    }

    /// Resolves, with the reason in words, when a write or fsync failed for good; never otherwise.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut ends = self.shared.on_end();
        async move {
            let end = ends.wait_for(Option::is_some).await;
            let end = end.ok().and_then(|end| end.clone());
            match end {
                Some(End::Failed(reason)) => reason,
                Some(End::Closed) | None => pending().await,
            }
        }
    }

    /// Commits what is queued, ends the watches, and waits until the file is closed. Later calls
    /// answer `Closed`; closing again waits for the same end.
    pub async fn close(&self) {
        match &*self.backend {
            Backend::Memory(memory) => memory.close(),
            Backend::Embedded(embedded) => embedded.close().await,
            Backend::Clustered(clustered) => clustered.close().await,
        }
    }
}
