//! Keeps what launches have taught in the store, so that it outlives the process and is shared with
//! other gateways of the same store, and puts it on the board. What an outcome means is decided in
//! [`domain::outcome`](crate::domain::outcome).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_model::quantity::MicroUsd;
use muster_runtime::backoff::{Backoff, Policy as Delays};
use muster_runtime::clock::Clock;
use muster_store::{
    Condition, Error as StoreError, Outcome as Committed, Revision, Store, Transaction, Watch,
};
use tokio::time::sleep;

use crate::board::Board;
use crate::domain;
use crate::domain::outcome::{Book, Failed, Outcome, Policy, Priced, Record, Why};

/// What the keys of all records begin with.
const PREFIX: &str = "outcomes/";

/// Times that a write is tried against others' writes of the same record.
const TRIES: usize = 16;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// By how much the clock is moved back at least for that to count.
const SET_BACK: Duration = Duration::from_secs(1);

/// After losing the store, how long until it is read anew.
const BACK: Delays = Delays::doubling(Duration::from_millis(100), Duration::from_secs(10));

/// What launches have taught. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outcomes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    board: Board,
    clock: Clock,
    policy: Policy,
    /// Held while an outcome is told: those told here wait for each other, and only what other
    /// gateways write at the same time is a conflict.
    telling: tokio::sync::Mutex<()>,
    /// By the id of the offer, each as of a revision of the store. Its times are those of the clock as it goes now.
    known: Mutex<BTreeMap<String, (Record, Revision)>>,
    /// When the clock says that it was made, by which it is seen to have been set.
    made: Mutex<SystemTime>,
}

/// An outcome could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the store cannot be written")]
    Store(#[from] StoreError),
    /// Others wrote the same record all the time.
    #[error("too many outcomes of this offer are told at once")]
    Contended,
}

/// A record as it is kept: its failure, else its price, else its launch in the fields that records
/// had before they could hold more than one, and the rest beside.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    outcome: Word,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price_micro_usd: Option<i64>,
    weight: f64,
    at_nanos: u64,
    gpus: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_zone: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_region: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priced: Option<KeptPrice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launched_at_nanos: Option<u64>,
}

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
struct KeptPrice {
    micro_usd: Option<i64>,
    weight: f64,
    at_nanos: u64,
}

#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    NoCapacity,
    NoQuota,
    PriceChanged,
    Launched,
}

impl Outcomes {
    /// Reads what the store has, and shows it.
    pub async fn start(
        store: Store,
        board: Board,
        clock: Clock,
        policy: Policy,
    ) -> Result<Self, StoreError> {
        let made = Mutex::new(clock.started());
        let outcomes = Self(Arc::new(Inner {
            store,
            board,
            clock,
            policy,
            telling: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            made,
        }));
        outcomes.reread().await?;
        Ok(outcomes)
    }

    /// Takes an outcome: durable, and shown, once this returns.
    pub async fn tell(&self, id: &str, gpus: &str, outcome: Outcome) -> Result<(), Error> {
        let key = format!("{PREFIX}{id}");
        let _telling = self.0.telling.lock().await;
        self.follow_clock();
        for _ in 0..TRIES {
            let (condition, record) = {
                let known = self.known();
                let condition = known.get(id).map_or(Condition::Absent, |(_, revision)| {
                    Condition::ModifiedAt(*revision)
                });
                // What is on the board is what is known, which is held.
                let book = Arc::clone(&self.0.board.state().book);
                (condition, book.told(id, gpus, outcome, self.0.clock.now()))
            };
            let write = Transaction::new()
                .when(key.as_str(), condition)
                .put(key.as_str(), encode(&record));
            match self.0.store.commit(write).await? {
                Committed::Committed(revision) => {
                    self.take(id, Some(record), revision);
                    return Ok(());
                }
                Committed::Conflict { .. } => {
                    self.reread().await?;
                }
            }
        }
        Err(Error::Contended)
    }

    /// Follows the store and the clock until `stop` resolves.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut delays = Backoff::new(BACK, 0);
        loop {
            let lost = match self.reread().await {
                Ok(revision) => self.follow_from(revision).await,
                Err(error) => error,
            };
            if matches!(lost, StoreError::Closed | StoreError::Failed(_)) {
                return std::future::pending().await;
            }
            tracing::warn!(error = %lost, "what launches have taught cannot be followed; it is read anew");
            sleep(delays.next_delay()).await;
        }
    }

    /// Takes each change after `revision`, until the store is lost.
    async fn follow_from(&self, revision: Revision) -> StoreError {
        let mut watch: Watch = match self.0.store.watch(PREFIX, revision).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            let now = self.0.clock.now();
            let ends = self.0.board.state().book.next_change(now);
            let until_end = ends.map(|at| at.duration_since(now).unwrap_or_default());
            let ends = until_end.is_some_and(|left| left <= LOOK);
            tokio::select! {
                batch = watch.next() => match batch {
                    Ok(batch) => for change in batch.changes {
                        let id = change.key.strip_prefix(PREFIX).unwrap_or_default();
                        let record = change.after.as_ref().and_then(|record| decode(&record.value));
                        self.take(id, record, batch.revision);
                    },
                    Err(error) => return error,
                },
                () = sleep(until_end.map_or(LOOK, |left| left.min(LOOK))) => {
                    self.follow_clock();
                    if !ends {
                        continue;
                    }
                    self.0.board.learn(Arc::clone(&self.0.board.state().book));
                    if let Err(error) = self.forget().await {
                        return error;
                    }
                }
            }
        }
    }

    /// Removes from the store what matters no more.
    async fn forget(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        for id in self.0.board.state().book.forgotten(now) {
            let Some(revision) = self.known().get(&id).map(|(_, revision)| *revision) else {
                continue;
            };
            let key = format!("{PREFIX}{id}");
            let remove = Transaction::new()
                .when(key.as_str(), Condition::ModifiedAt(revision))
                .delete(key.as_str());
            // Whoever has written it anew meanwhile keeps it.
            let _ = self.0.store.commit(remove).await?;
        }
        Ok(())
    }

    /// Takes everything that the store has now.
    async fn reread(&self) -> Result<Revision, StoreError> {
        let listing = self.0.store.list(PREFIX).await?;
        let now = self.0.clock.now();
        let mut known = self.known();
        let records = listing.records.iter().filter_map(|record| {
            let id = record.key.strip_prefix(PREFIX)?;
            // What is known of it may have been put right since the clock was set.
            if let Some(same) = known.get(id).filter(|(_, of)| *of == record.modified) {
                return Some((id.to_owned(), same.clone()));
            }
            let told = decode(&record.value)?.told_by(now);
            Some((id.to_owned(), (told, record.modified)))
        });
        let records = records.collect();
        *known = records;
        self.show(&known);
        Ok(listing.revision)
    }

    /// Takes one record of a revision, unless a newer one is known.
    fn take(&self, id: &str, record: Option<Record>, revision: Revision) {
        let now = self.0.clock.now();
        let record = record.map(|record| record.told_by(now));
        let mut known = self.known();
        if known.get(id).is_some_and(|(_, newest)| *newest >= revision) {
            return;
        }
        let book = Arc::clone(&self.0.board.state().book);
        if record.as_ref() != book.record(id) {
            let backend = domain::id::parse(id).map_or_else(String::new, |id| id.backend.into());
            let book = book.with(id, record.clone());
            self.0.board.learn_of(&backend, Arc::new(book));
        }
        match record {
            Some(record) => known.insert(id.to_owned(), (record, revision)),
            None => known.remove(id),
        };
    }

    /// Where the clock was set back, all that is known was told so much earlier as it goes now: it grows as old as
    /// it is.
    fn follow_clock(&self) {
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.started();
        let back = match made.duration_since(now) {
            // Not what it is put right by all the time, until that adds up.
            Ok(back) if back < SET_BACK => return,
            Ok(back) => back,
            Err(_) => Duration::ZERO,
        };
        *made = now;
        drop(made);
        if back.is_zero() {
            return;
        }
        let mut known = self.known();
        for (record, _) in known.values_mut() {
            *record = std::mem::take(record).earlier_by(back);
        }
        self.show(&known);
    }

    fn show(&self, known: &BTreeMap<String, (Record, Revision)>) {
        let book = self.book(known);
        if book != *self.0.board.state().book {
            self.0.board.learn(Arc::new(book));
        }
    }

    fn book(&self, known: &BTreeMap<String, (Record, Revision)>) -> Book {
        let records = known
            .iter()
            .map(|(id, (record, _))| (id.clone(), record.clone()));
        Book::new(self.0.policy, records.collect())
    }

    // Every change is made in one step.
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, (Record, Revision)>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let priced = record.priced.map(|priced| KeptPrice {
        micro_usd: priced.price.map(|price| price.0),
        weight: priced.weight,
        at_nanos: nanos(priced.at),
    });
    let launched = record.launched_at.unwrap_or(UNIX_EPOCH);
    let (outcome, weight, at) = match (record.failed, record.priced) {
        (Some(failed), _) => (Word::of(failed.why), failed.weight, failed.at),
        (None, Some(priced)) => (Word::PriceChanged, priced.weight, priced.at),
        (None, None) => (Word::Launched, 1.0, launched),
    };
    let kept = Kept {
        outcome,
        price_micro_usd: priced.and_then(|priced| priced.micro_usd),
        weight,
        at_nanos: nanos(at),
        gpus: record.gpus.clone(),
        in_zone: record.failed.map(|failed| failed.in_zone),
        in_region: record.failed.map(|failed| failed.in_region),
        priced,
        launched_at_nanos: record.launched_at.map(nanos),
    };
    // A record has no key or value that JSON cannot hold.
    serde_json::to_vec(&kept).unwrap_or_default()
}

/// None for what is not a record of this version: it is as if nothing had been told.
fn decode(bytes: &[u8]) -> Option<Record> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    let (at, counts) = (time(kept.at_nanos)?, weight(kept.weight)?);
    let mut record = Record {
        gpus: kept.gpus,
        ..Record::default()
    };
    if let Some(priced) = kept.priced {
        record.priced = Some(Priced {
            price: priced.micro_usd.map(MicroUsd),
            weight: weight(priced.weight)?,
            at: time(priced.at_nanos)?,
        });
    }
    if let Some(at) = kept.launched_at_nanos {
        record.launched_at = Some(time(at)?);
    }
    let failed = |why| {
        Some(Failed {
            why,
            weight: counts,
            in_zone: weight(kept.in_zone.unwrap_or(counts))?,
            in_region: weight(kept.in_region.unwrap_or(counts))?,
            at,
        })
    };
    match kept.outcome {
        Word::NoCapacity => record.failed = Some(failed(Why::NoCapacity)?),
        Word::NoQuota => record.failed = Some(failed(Why::NoQuota)?),
        Word::PriceChanged => {
            record.priced = record.priced.or(Some(Priced {
                price: kept.price_micro_usd.map(MicroUsd),
                weight: counts,
                at,
            }));
        }
        Word::Launched => record.launched_at = Some(at),
    }
    Some(record)
}

impl Word {
    fn of(why: Why) -> Self {
        match why {
            Why::NoCapacity => Self::NoCapacity,
            Why::NoQuota => Self::NoQuota,
        }
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time(nanos: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
}

fn weight(weight: f64) -> Option<f64> {
    weight.is_finite().then_some(weight.clamp(0.0, 1000.0))
}

#[cfg(test)]
mod tests;
