//! The embedded store, called in this process: durable transactions, watches, and opening a full one.
//! The floor of transactions is redb itself, one commit with its fsync after the other, in a file
//! beside the store's. Then the same on an etcd, in a build with it.

#[cfg(feature = "etcd")]
mod etcd;
mod fan_out;
mod recovery;

use std::sync::Arc;

use anyhow::bail;
use muster_store::{Condition, Options, Outcome, Revision, Store, Transaction};
use redb::{Database, TableDefinition};

use super::Setup;
use super::figure::{Figure, Report};
use super::load::{self, Call, Window};

/// About what a worker's or a replica's record takes.
const VALUE: usize = 512;
/// Records that each writer goes around.
const KEYS: usize = 64;

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    transactions(setup, report).await?;
    fan_out::run(setup, report).await?;
    recovery::run(setup, report).await?;
    on_etcd(setup, report).await
}

#[cfg(feature = "etcd")]
async fn on_etcd(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    etcd::run(setup, report).await
}

#[cfg(not(feature = "etcd"))]
async fn on_etcd(_setup: &Setup, _report: &mut Report) -> anyhow::Result<()> {
    super::say("built without the feature etcd: its figures are left out");
    Ok(())
}

async fn transactions(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    for writers in [1, 16, 256] {
        let folder = setup.temporary()?;
        let store = Store::embedded(folder.path().join("store"), Options::default())?;
        let mut floor = vec![Redb::create(folder.path())?];
        let mut subject = (0..writers).map(|n| Writer::new(&store, n)).collect();
        let pairs = load::alternate(&mut floor, &mut subject, setup.rounds()).await?;
        store.close().await;
        let rate = pairs.median(Window::rate)?;
        let name = |what: &str| format!("transactions-{writers}-writers-{what}");
        report.add(Figure::new(name("rate"), rate.value, "1/s").over(rate.floor));
        let p50 = pairs.median(Window::p50)?;
        report.add(Figure::new(name("p50"), p50.value, "us").over(p50.floor));
        let p99 = pairs.median(Window::p99)?;
        report.add(Figure::new(name("p99"), p99.value, "us").over(p99.floor));
    }
    Ok(())
}

/// Puts one record after the other, each only if it is as this writer left it.
struct Writer {
    store: Store,
    keys: Vec<(Arc<str>, Option<Revision>)>,
    next: usize,
}

impl Writer {
    fn new(store: &Store, number: usize) -> Self {
        let key = |n| Arc::from(format!("bench/{number:05}/{n:05}"));
        Self {
            store: store.clone(),
            keys: (0..KEYS).map(|n| (key(n), None)).collect(),
            next: 0,
        }
    }
}

impl Call for Writer {
    async fn call(&mut self) -> anyhow::Result<u64> {
        let (key, revision) = &mut self.keys[self.next % KEYS];
        self.next += 1;
        let condition = revision.map_or(Condition::Absent, Condition::ModifiedAt);
        let transaction = Transaction::new()
            .when(Arc::clone(key), condition)
            .put(Arc::clone(key), vec![b'x'; VALUE]);
        match self.store.commit(transaction).await? {
            Outcome::Committed(now) => *revision = Some(now),
            Outcome::Conflict { key, .. } => bail!("{key} was changed by nobody"),
        }
        Ok(1)
    }
}

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Commits one record of the same size at a time, each with its fsync.
struct Redb {
    database: Database,
    next: usize,
}

impl Redb {
    fn create(folder: &std::path::Path) -> anyhow::Result<Self> {
        Ok(Self {
            database: Database::create(folder.join("floor.redb"))?,
            next: 0,
        })
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let key = format!("bench/{:05}", self.next % KEYS);
        self.next += 1;
        let transaction = self.database.begin_write()?;
        transaction
            .open_table(TABLE)?
            .insert(key.as_str(), [b'x'; VALUE].as_slice())?;
        transaction.commit()?;
        Ok(())
    }
}

impl Call for Redb {
    async fn call(&mut self) -> anyhow::Result<u64> {
        tokio::task::block_in_place(|| self.commit())?;
        Ok(1)
    }
}
