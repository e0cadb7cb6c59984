//! The figures of the embedded store on this machine: `cargo run --release -p muster-store --example figures [DIR]`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and stops at the first fault"
)]

use std::path::Path;
use std::time::Duration;

use muster_store::{Options, Outcome, Store, Transaction};
use tokio::task::JoinSet;
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(3);
const RECORDS: usize = 134_800;
const VALUE: usize = 400;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let given = std::env::args().nth(1);
    let directory = match given {
        Some(path) => tempfile::tempdir_in(path).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    let path = directory.path().join("figures.db");
    empty(&path).await;
    load(&path).await;
    open(&path).await;
    for callers in std::env::args()
        .nth(2)
        .map_or(vec![1, 16, 64, 256], |n| vec![n.parse().unwrap()])
    {
        callers_at_once(&path, callers).await;
    }
    listing(&path).await;
}

async fn empty(path: &Path) {
    let start = Instant::now();
    let store = Store::embedded(path, Options::default()).unwrap();
    println!("create and open an empty store: {:.1} ms", millis(start));
    let start = Instant::now();
    store.close().await;
    println!("close it: {:.1} ms", millis(start));
}

async fn load(path: &Path) {
    let store = Store::embedded(path, Options::default()).unwrap();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..64 {
        let store = store.clone();
        tasks.spawn(async move {
            for chunk in (caller..RECORDS).step_by(64).collect::<Vec<_>>().chunks(50) {
                let mut transaction = Transaction::new();
                for index in chunk {
                    transaction = transaction.put(key(*index), vec![b'x'; VALUE]);
                }
                committed(&store.commit(transaction).await.unwrap());
            }
        });
    }
    tasks.join_all().await;
    println!(
        "load {RECORDS} records in transactions of 50: {:.0} ms",
        millis(start)
    );
    // What a process that is killed now would leave.
    let killed = path.with_extension("killed");
    std::fs::copy(path, &killed).unwrap();
    let start = Instant::now();
    let copy = Store::embedded(&killed, Options::default()).unwrap();
    println!("open them after a kill: {:.0} ms", millis(start));
    copy.close().await;
    store.close().await;
}

async fn open(path: &Path) {
    for _ in 0..3 {
        let before = resident();
        let start = Instant::now();
        let store = Store::embedded(path, Options::default()).unwrap();
        let took = millis(start);
        let size = std::fs::metadata(path).unwrap().len() / 1024 / 1024;
        println!(
            "open {RECORDS} records ({size} MiB file): {took:.0} ms, resident {before} -> {} MiB",
            resident()
        );
        store.close().await;
    }
}

async fn callers_at_once(path: &Path, callers: usize) {
    let store = Store::embedded(path, Options::default()).unwrap();
    let deadline = Instant::now() + WINDOW;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut index = caller * 7919;
            while Instant::now() < deadline {
                let begin = Instant::now();
                index = (index + 104_729) % RECORDS;
                let put = Transaction::new().put(key(index), vec![b'y'; VALUE]);
                committed(&store.commit(put).await.unwrap());
                latencies.push(begin.elapsed());
            }
            latencies
        });
    }
    let mut latencies: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 1000].as_secs_f64() * 1e3;
    println!(
        "{callers} callers, single-record transactions: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms",
        latencies.len() as f64 / start.elapsed().as_secs_f64(),
        at(500),
        at(990),
        at(999),
    );
    let start = Instant::now();
    store.close().await;
    println!("  close: {:.1} ms", millis(start));
}

async fn listing(path: &Path) {
    let store = Store::embedded(path, Options::default()).unwrap();
    let start = Instant::now();
    let listing = store.list("workers/").await.unwrap();
    println!(
        "list {} records: {:.1} ms",
        listing.records.len(),
        millis(start)
    );
    let start = Instant::now();
    for index in 0..100_000 {
        assert!(store.get(&key(index)).await.unwrap().is_some());
    }
    println!("get: {:.0} ns each", millis(start) * 10.0);
    store.close().await;
}

fn key(index: usize) -> String {
    format!("workers/default/{index:08}")
}

fn committed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Committed(_)));
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Resident memory in MiB; 0 where there is no /proc.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
