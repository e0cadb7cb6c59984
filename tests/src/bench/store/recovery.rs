//! Opening a store that is full. The floor is reading its file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use muster_store::{Options, Outcome, Store, Transaction};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::Setup;
use super::super::figure::{Figure, Report};
use super::super::statistics::{median, millis};

/// Records in one transaction.
const BATCH: usize = 50;
const WRITERS: usize = 16;
const OPENINGS: usize = 5;

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let each = setup.size(100_000, 2_000);
    let folder = setup.temporary()?;
    let path = folder.path().join("store");
    let start = Instant::now();
    let store = Store::embedded(&path, Options::default())?;
    fill(&store, each).await?;
    store.close().await;
    let filled = start.elapsed().as_secs_f64();
    let rate = (2 * each) as f64 / filled;
    report.add(Figure::new(
        format!("records-in-{BATCH}s-rate"),
        rate,
        "1/s",
    ));

    let mut times = Vec::new();
    let mut floors = Vec::new();
    for _ in 0..OPENINGS {
        floors.push(millis(read(&path)?));
        times.push(millis(open(&path, 2 * each).await?));
    }
    let name = format!("open-{each}-workers-{each}-replicas");
    report.add(Figure::new(name, median(times), "ms").over(median(floors)));
    Ok(())
}

/// Puts `each` records of workers and of replicas.
pub(super) async fn fill(store: &Store, each: usize) -> anyhow::Result<()> {
    let keys: Arc<Vec<String>> = Arc::new(
        (0..each)
            .map(|n| format!("workers/worker-{n:06}"))
            .chain((0..each).map(|n| format!("replicas/uid{:08}/{}", n / 10, n % 10)))
            .collect(),
    );
    let mut running = JoinSet::new();
    let share = keys.len().div_ceil(WRITERS);
    for writer in 0..WRITERS {
        let (store, keys) = (store.clone(), Arc::clone(&keys));
        running.spawn(async move {
            let own = keys.iter().skip(writer * share).take(share);
            put(&store, &own.collect::<Vec<_>>()).await
        });
    }
    while let Some(joined) = running.join_next().await {
        joined??;
    }
    Ok(())
}

async fn put(store: &Store, keys: &[&String]) -> anyhow::Result<()> {
    for batch in keys.chunks(BATCH) {
        let transaction = batch.iter().fold(Transaction::new(), |all, key| {
            all.put(key.as_str(), vec![b'x'; super::VALUE])
        });
        let outcome = store.commit(transaction).await?;
        ensure!(matches!(outcome, Outcome::Committed(_)), "not committed");
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let bytes = std::fs::read(path)?;
    ensure!(!bytes.is_empty(), "the store's file is empty");
    Ok(start.elapsed())
}

async fn open(path: &Path, expected: usize) -> anyhow::Result<Duration> {
    let path: PathBuf = path.to_owned();
    let start = Instant::now();
    let store = tokio::task::spawn_blocking(|| Store::embedded(path, Options::default())).await??;
    let elapsed = start.elapsed();
    let workers = store.list("workers/").await?.records.len();
    let replicas = store.list("replicas/").await?.records.len();
    ensure!(workers + replicas == expected, "records are missing");
    store.close().await;
    Ok(elapsed)
}
