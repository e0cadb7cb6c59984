//! A cluster in memory, on tokio's clock: for simulations of several instances, which can be cut off from
//! it one by one, lose its answers, or all at once.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Answer, Fault, Judged, LeaseId, Request, Told};
use crate::clustered;
use crate::open_error::OpenError;
use crate::options::Options;
use crate::record::{Record, Revision};
use crate::store::Store;

/// A cluster in memory. Clones are the same one; every prefix in it counts the same revisions.
#[derive(Clone, Debug)]
pub struct MemoryCluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Rung at each change.
    bell: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    records: BTreeMap<Arc<str>, Kept>,
    log: VecDeque<Entry>,
    /// What the log has lost.
    compacted: u64,
    leases: BTreeMap<i64, Lease>,
    granted: i64,
    stopped: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    value: Bytes,
    created: u64,
    modified: u64,
    lease: Option<LeaseId>,
}

#[derive(Clone, Debug)]
struct Entry {
    revision: u64,
    changes: Vec<(Arc<str>, Option<Kept>)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// What is put, with the lease that it goes with.
type Value = (Bytes, Option<LeaseId>);

/// The line between one store and its cluster.
#[derive(Clone, Debug)]
pub struct Link(Arc<watch::Sender<Line>>);

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    cut: bool,
    /// Answers to transactions that are still to be lost.
    lose: usize,
    /// Watches that were begun before as many stalls tell nothing.
    stalls: u64,
}

impl Link {
    /// Nothing gets through, either way, until it is healed: calls hang.
    pub fn cut(&self) {
        self.0.send_modify(|line| line.cut = true);
    }

    /// All gets through again.
    pub fn heal(&self) {
        self.0.send_modify(|line| line.cut = false);
    }

    /// The next `count` transactions are done, and their answers never come.
    pub fn lose_answers(&self, count: usize) {
        self.0.send_modify(|line| line.lose = count);
    }

    /// The watches that run give signs of life from now on, and tell nothing.
    pub fn stall_watches(&self) {
        self.0.send_modify(|line| line.stalls += 1);
    }

    async fn through(&self) {
        let mut line = self.0.subscribe();
        // The sender lives in `self`.
        let _ = line.wait_for(|line| !line.cut).await;
    }

    fn loses(&self) -> bool {
        let mut lost = false;
        self.0.send_if_modified(|line| {
            lost = line.lose > 0;
            line.lose = line.lose.saturating_sub(1);
            false
        });
        lost
    }
}

impl Default for MemoryCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryCluster {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            bell: watch::Sender::new(()),
        }))
    }

    /// A store on what is below a prefix, as one instance of several has it, and the line that it reaches
    /// the cluster by.
    ///
    /// # Errors
    /// As for a real one: the cluster is stopped, or what is there is of a later release.
    pub async fn open(&self, prefix: &str, options: Options) -> Result<(Store, Link), OpenError> {
        let link = Link(Arc::new(watch::Sender::new(Line::default())));
        let cluster = self.reached_by(prefix, &link);
        let store = clustered::open(cluster, prefix, options).await?;
        Ok((store, link))
    }

    fn reached_by(&self, prefix: &str, link: &Link) -> super::Cluster {
        super::Cluster::Memory(Handle {
            cluster: self.clone(),
            prefix: prefix.into(),
            link: link.clone(),
        })
    }

    /// As a store under a prefix reaches it, and the line.
    #[cfg(test)]
    pub(crate) fn reach(&self, prefix: &str) -> (super::Cluster, Link) {
        let link = Link(Arc::new(watch::Sender::new(Line::default())));
        (self.reached_by(prefix, &link), link)
    }

    /// Nobody reaches it any more.
    pub fn stop(&self) {
        self.state().stopped = true;
        self.0.bell.send_replace(());
    }

    /// It goes on. Every lease counts its whole time anew, as after a change of a cluster's leader.
    pub fn start(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.stopped = false;
        for lease in state.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
        drop(state);
        self.0.bell.send_replace(());
    }

    /// Something else in the same cluster changes, which no store sees but in revisions.
    pub fn pass_revisions(&self, count: u64) {
        self.state().revision += count;
        self.0.bell.send_replace(());
    }

    /// Up to which revision the history was forgotten.
    #[cfg(test)]
    pub(crate) fn compacted(&self) -> u64 {
        self.state().compacted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.expire(Instant::now()) {
            self.0.bell.send_replace(());
        }
        state
    }
}

impl State {
    fn check(&self) -> Result<(), Fault> {
        match self.stopped {
            true => Err(Fault::Unavailable("connection refused".to_owned())),
            false => Ok(()),
        }
    }

    /// Ends the leases whose time has passed.
    fn expire(&mut self, now: Instant) -> bool {
        if self.stopped {
            return false;
        }
        let over: Vec<i64> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &over {
            self.end_lease(LeaseId(*id));
        }
        !over.is_empty()
    }

    fn end_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease.0);
        let held = self.records.iter();
        let held: Vec<_> = held
            .filter(|(_, kept)| kept.lease == Some(lease))
            .map(|(key, _)| (Arc::clone(key), None))
            .collect();
        self.apply(held);
    }

    /// Whether anything was changed.
    fn apply(&mut self, writes: Vec<(Arc<str>, Option<Value>)>) -> bool {
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for (key, value) in writes {
            let before = self.records.get(&key);
            let after = value.map(|(value, lease)| Kept {
                value,
                created: before.map_or(revision, |kept| kept.created),
                modified: revision,
                lease,
            });
            if before.is_none() && after.is_none() {
                continue;
            }
            match &after {
                Some(kept) => drop(self.records.insert(Arc::clone(&key), kept.clone())),
                None => drop(self.records.remove(&key)),
            }
            changes.push((key, after));
        }
        if changes.is_empty() {
            return false;
        }
        self.revision = revision;
        self.log.push_back(Entry { revision, changes });
        true
    }
}

/// The cluster as one store reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    cluster: MemoryCluster,
    prefix: Arc<str>,
    link: Link,
}

impl Handle {
    /// The state, once the line lets this call through.
    async fn reach(&self) -> Result<MutexGuard<'_, State>, Fault> {
        self.link.through().await;
        let state = self.cluster.state();
        state.check()?;
        Ok(state)
    }

    fn full(&self, key: &str) -> Arc<str> {
        format!("{}{key}", self.prefix).into()
    }

    fn record(&self, key: &str, kept: &Kept) -> Option<Record> {
        Some(Record {
            key: key.strip_prefix(&*self.prefix)?.into(),
            value: kept.value.clone(),
            created: Revision(kept.created),
            modified: Revision(kept.modified),
        })
    }

    pub(super) async fn list(&self) -> Result<(Vec<Record>, u64), Fault> {
        let listed = {
            let mut state = self.reach().await?;
            if state.records.contains_key(&self.full(clustered::EPOCH_KEY)) {
                let opened = self.full(clustered::OPENED_KEY);
                state.apply(vec![(opened, Some((Bytes::new(), None)))]);
            }
            self.records(&state)
        };
        self.cluster.0.bell.send_replace(());
        Ok(listed)
    }

    pub(super) async fn read(&self) -> Result<(Vec<Record>, u64), Fault> {
        Ok(self.records(&*self.reach().await?))
    }

    fn records(&self, state: &State) -> (Vec<Record>, u64) {
        let records = state.records.iter();
        let records = records.filter_map(|(key, kept)| self.record(key, kept));
        (records.collect(), state.revision)
    }

    pub(super) async fn commit(&self, request: Request) -> Result<Answer, Fault> {
        let answer = {
            let mut state = self.reach().await?;
            if let Some(lease) = request.lease
                && !state.leases.contains_key(&lease.0)
            {
                return Err(Fault::NoLease);
            }
            let failed = request.conditions.iter().find_map(|(key, condition)| {
                let kept = state.records.get(&self.full(key));
                let actual = kept.map(|kept| kept.modified);
                (!condition.holds(actual.map(Revision))).then(|| (Arc::clone(key), actual))
            });
            let outcome = match failed {
                Some((key, actual)) => Judged::Conflict { key, actual },
                None => {
                    let writes = request.writes.into_iter().map(|(key, value)| {
                        (self.full(&key), value.map(|value| (value, request.lease)))
                    });
                    let changed = state.apply(writes.collect());
                    Judged::Done { changed }
                }
            };
            Answer {
                revision: state.revision,
                outcome,
            }
        };
        self.cluster.0.bell.send_replace(());
        if self.link.loses() {
            pending::<()>().await;
        }
        self.link.through().await;
        Ok(answer)
    }

    pub(super) async fn modified(&self, key: &str) -> Result<Option<u64>, Fault> {
        let modified = {
            let state = self.reach().await?;
            state.records.get(&self.full(key)).map(|kept| kept.modified)
        };
        self.link.through().await;
        Ok(modified)
    }

    pub(super) async fn watch(&self, after: u64) -> Result<Stream, Fault> {
        let bell = self.cluster.0.bell.subscribe();
        let state = self.reach().await?;
        if after < state.compacted {
            return Err(Fault::Compacted);
        }
        Ok(Stream {
            handle: self.clone(),
            after,
            bell,
            asked: false,
            stalls: self.link.0.borrow().stalls,
        })
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, Fault> {
        let id = {
            let mut state = self.reach().await?;
            state.granted += 1;
            let (id, ends) = (state.granted, Instant::now() + ttl);
            state.leases.insert(id, Lease { ttl, ends });
            id
        };
        // Whoever sleeps until a lease ends looks again.
        self.cluster.0.bell.send_replace(());
        self.link.through().await;
        Ok(LeaseId(id))
    }

    pub(super) async fn keep_alive(&self, lease: LeaseId) -> Result<(), Fault> {
        {
            let mut state = self.reach().await?;
            let kept = state.leases.get_mut(&lease.0).ok_or(Fault::NoLease)?;
            kept.ends = Instant::now() + kept.ttl;
        }
        self.link.through().await;
        Ok(())
    }

    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), Fault> {
        {
            let mut state = self.reach().await?;
            if !state.leases.contains_key(&lease.0) {
                return Err(Fault::NoLease);
            }
            state.end_lease(lease);
        }
        self.cluster.0.bell.send_replace(());
        Ok(())
    }

    pub(super) async fn compact(&self, revision: u64) -> Result<(), Fault> {
        let mut state = self.reach().await?;
        if revision <= state.compacted {
            return Err(Fault::Compacted);
        }
        state.compacted = revision.min(state.revision);
        let compacted = state.compacted;
        state.log.retain(|entry| entry.revision > compacted);
        Ok(())
    }
}

/// A watch of it.
#[derive(Debug)]
pub(crate) struct Stream {
    handle: Handle,
    after: u64,
    bell: watch::Receiver<()>,
    asked: bool,
    /// Those of its line when it was begun.
    stalls: u64,
}

impl Stream {
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    pub(super) async fn next(&mut self) -> Result<Told, Fault> {
        loop {
            self.bell.mark_unchanged();
            let ends = {
                let handle = self.handle.clone();
                let state = handle.reach().await?;
                if let Some(told) = self.told(&state)? {
                    return Ok(told);
                }
                state.leases.values().map(|lease| lease.ends).min()
            };
            let expiry = async {
                match ends {
                    Some(ends) => sleep_until(ends).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = self.bell.changed() => {}
                () = expiry => {}
            }
        }
    }

    fn told(&mut self, state: &State) -> Result<Option<Told>, Fault> {
        if self.after < state.compacted {
            return Err(Fault::Compacted);
        }
        if self.handle.link.0.borrow().stalls > self.stalls {
            let asked = std::mem::take(&mut self.asked);
            return Ok(asked.then_some(Told::Alive));
        }
        let next = state
            .log
            .partition_point(|entry| entry.revision <= self.after);
        for entry in state.log.range(next..) {
            self.after = entry.revision;
            let prefix = &*self.handle.prefix;
            let changes = entry.changes.iter().filter_map(|(key, kept)| {
                let short = key.strip_prefix(prefix)?;
                let record = kept.as_ref().and_then(|kept| self.handle.record(key, kept));
                Some((Arc::from(short), record))
            });
            let changes: Vec<_> = changes.collect();
            if !changes.is_empty() {
                return Ok(Some(Told::Changes {
                    revision: entry.revision,
                    changes,
                }));
            }
        }
        let asked = std::mem::take(&mut self.asked);
        Ok(asked.then_some(Told::Progress(state.revision)))
    }
}
