//! What a store of several instances stands on: a cluster that orders transactions, keeps keys for as long
//! as a lease is renewed, and tells all who watch. It offers what etcd offers and nothing more; one in memory
//! stands in for it in simulations.
//!
//! It knows nothing of epochs, leaders or seats; those are made of this by [`clustered`](crate::clustered).
//! Keys are without the prefix that the cluster was opened with.

#[cfg(feature = "etcd")]
pub(crate) mod etcd;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::record::Record;
use crate::transaction::Condition;

pub use memory::{Link, MemoryCluster};

/// What is asked of a cluster. Boxed, so that how it is asked is compiled with this crate, and not once more in
/// each that opens a store.
type Call<'a, T> = BoxFuture<'a, Result<T, Fault>>;

/// A lease's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseId(pub(crate) i64);

/// Conditions and writes, each key written once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) conditions: Vec<(Arc<str>, Condition)>,
    pub(crate) writes: Vec<(Arc<str>, Option<Bytes>)>,
    /// Keys that are put go with this lease.
    pub(crate) lease: Option<LeaseId>,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The cluster's revision after it.
    pub(crate) revision: u64,
    /// What it did.
    pub(crate) outcome: Judged,
}

/// How a request was judged.
#[derive(Clone, Debug)]
pub(crate) enum Judged {
    /// All conditions held. Whether anything was changed.
    Done { changed: bool },
    /// One did not hold; the first of them, and when its key was last put.
    Conflict { key: Arc<str>, actual: Option<u64> },
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// All that one revision changed.
    Changes {
        revision: u64,
        changes: Vec<(Arc<str>, Option<Record>)>,
    },
    /// Everything up to this revision was told.
    Progress(u64),
    /// The watch is alive; how far it is, this does not say.
    Alive,
}

impl Told {
    /// The revision up to which everything was told, if this says so.
    pub(crate) fn revision(&self) -> Option<u64> {
        match self {
            Self::Changes { revision, .. } | Self::Progress(revision) => Some(*revision),
            Self::Alive => None,
        }
    }
}

/// Why the cluster did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It cannot be reached or does not answer; what was asked may have been done.
    #[error("{0}")]
    Unavailable(String),
    /// What was asked for is not kept any more.
    #[error("the history is not kept for so long")]
    Compacted,
    /// There is no such lease (any more).
    #[error("the lease has ended")]
    NoLease,
}

/// A cluster, as one instance reaches it.
#[derive(Debug)]
pub(crate) enum Cluster {
    Memory(memory::Handle),
    #[cfg(feature = "etcd")]
    Etcd(etcd::Handle),
}

impl Cluster {
    /// The kind of store that it makes.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => "etcd",
        }
    }

    /// All records, and the revision that they are of: where there is a store, one that every instance comes to.
    pub(crate) fn list(&self) -> Call<'_, (Vec<Record>, u64)> {
        match self {
            Self::Memory(memory) => Box::pin(memory.list()),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.list()),
        }
    }

    /// The same without any write, of a revision that instances need not come to: a cluster which takes no writes
    /// answers too.
    pub(crate) fn read(&self) -> Call<'_, (Vec<Record>, u64)> {
        match self {
            Self::Memory(memory) => Box::pin(memory.read()),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.read()),
        }
    }

    /// Judges and does it.
    pub(crate) fn commit(&self, request: Request) -> Call<'_, Answer> {
        match self {
            Self::Memory(memory) => Box::pin(memory.commit(request)),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.commit(request)),
        }
    }

    /// When a key was last put, if it is there. It is asked without any write, so that a cluster which takes none
    /// answers too.
    pub(crate) fn modified<'a>(&'a self, key: &'a str) -> Call<'a, Option<u64>> {
        match self {
            Self::Memory(memory) => Box::pin(memory.modified(key)),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.modified(key)),
        }
    }

    /// What changes after a revision.
    pub(crate) fn watch(&self, after: u64) -> Call<'_, Stream> {
        Box::pin(async move {
            match self {
                Self::Memory(memory) => Ok(Stream::Memory(memory.watch(after).await?)),
                #[cfg(feature = "etcd")]
                Self::Etcd(etcd) => Ok(Stream::Etcd(etcd.watch(after).await?)),
            }
        })
    }

    /// Makes sure that a watch says before long how far it is, also where nothing else happens.
    pub(crate) fn mark(&self) -> Call<'_, ()> {
        Box::pin(async move {
            match self {
                // Its answers to being asked say so.
                Self::Memory(_) => Ok(()),
                #[cfg(feature = "etcd")]
                Self::Etcd(etcd) => etcd.mark().await,
            }
        })
    }

    /// A new lease that ends when it is not renewed for `ttl`.
    pub(crate) fn grant(&self, ttl: Duration) -> Call<'_, LeaseId> {
        match self {
            Self::Memory(memory) => Box::pin(memory.grant(ttl)),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.grant(ttl)),
        }
    }

    /// Renews a lease.
    pub(crate) fn keep_alive(&self, lease: LeaseId) -> Call<'_, ()> {
        match self {
            Self::Memory(memory) => Box::pin(memory.keep_alive(lease)),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.keep_alive(lease)),
        }
    }

    /// Ends a lease, and what goes with it.
    pub(crate) fn revoke(&self, lease: LeaseId) -> Call<'_, ()> {
        match self {
            Self::Memory(memory) => Box::pin(memory.revoke(lease)),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.revoke(lease)),
        }
    }

    /// Forgets the history up to a revision.
    pub(crate) fn compact(&self, revision: u64) -> Call<'_, ()> {
        match self {
            Self::Memory(memory) => Box::pin(memory.compact(revision)),
            #[cfg(feature = "etcd")]
            Self::Etcd(etcd) => Box::pin(etcd.compact(revision)),
        }
    }
}

/// A watch that runs.
#[derive(Debug)]
pub(crate) enum Stream {
    Memory(memory::Stream),
    #[cfg(feature = "etcd")]
    Etcd(etcd::Stream),
}

impl Stream {
    /// What comes next. Dropping the future loses nothing.
    pub(crate) fn next(&mut self) -> Call<'_, Told> {
        match self {
            Self::Memory(stream) => Box::pin(stream.next()),
            #[cfg(feature = "etcd")]
            Self::Etcd(stream) => Box::pin(stream.next()),
        }
    }

    /// Asks to be told how far the watch is.
    pub(crate) fn ask(&mut self) -> Call<'_, ()> {
        Box::pin(async move {
            match self {
                Self::Memory(stream) => {
                    stream.ask();
                    Ok(())
                }
                #[cfg(feature = "etcd")]
                Self::Etcd(stream) => stream.ask().await,
            }
        })
    }

    /// It was asked, and says nothing: the next one is to be of another member.
    pub(crate) fn silent(&self) {
        match self {
            Self::Memory(_) => {}
            #[cfg(feature = "etcd")]
            Self::Etcd(stream) => stream.silent(),
        }
    }
}
