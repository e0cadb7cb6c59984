//! One change, many watchers: how long until each has it, and how many are served a second.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use muster_store::{Options, Outcome, Store, Transaction, Watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::super::Setup;
use super::super::figure::{Figure, Report};
use super::super::statistics::{millis, percentile};

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let folder = setup.temporary()?;
    let store = Store::embedded(folder.path().join("store"), Options::default())?;
    measure("", &store, setup, report).await?;
    store.close().await;
    Ok(())
}

/// Measures on any store; the figures' names begin with `kind`.
pub(super) async fn measure(
    kind: &str,
    store: &Store,
    setup: &Setup,
    report: &mut Report,
) -> anyhow::Result<()> {
    let paced = Changes {
        watchers: setup.size(100, 20),
        count: setup.size(3_000, 200),
        every: Some(Duration::from_millis(1)),
    };
    let (lags, _) = paced.run(store).await?;
    let name = |what: &str| {
        format!(
            "{kind}watch-{}-watchers-1000-changes/s-{what}",
            paced.watchers
        )
    };
    report.add(Figure::new(name("p50"), percentile(lags.clone(), 50), "ms"));
    report.add(Figure::new(name("p99"), percentile(lags, 99), "ms"));

    let full_speed = Changes {
        watchers: setup.size(1_000, 100),
        count: setup.size(2_000, 200),
        every: None,
    };
    let (_, elapsed) = full_speed.run(store).await?;
    let deliveries = full_speed.watchers * full_speed.count;
    let rate = deliveries as f64 / elapsed.as_secs_f64();
    let name = format!("{kind}watch-{}-watchers-deliveries", full_speed.watchers);
    report.add(Figure::new(name, rate, "1/s"));
    Ok(())
}

/// Changes, one after the other, and who watches them.
struct Changes {
    watchers: usize,
    count: usize,
    /// Time from one to the next; `None` makes each as soon as the last one is durable.
    every: Option<Duration>,
}

impl Changes {
    /// Milliseconds from the call of `commit` to each watcher for each change, and the time until
    /// all had all.
    async fn run(&self, store: &Store) -> anyhow::Result<(Vec<f64>, Duration)> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..self.watchers {
            let watch = store.watch("fan/", store.revision().await?).await?;
            running.spawn(follow(watch, self.count, start));
        }
        self.write(store, start).await?;
        let mut lags = Vec::with_capacity(self.watchers * self.count);
        while let Some(joined) = running.join_next().await {
            lags.extend(joined??);
        }
        Ok((lags, start.elapsed()))
    }

    async fn write(&self, store: &Store, start: Instant) -> anyhow::Result<()> {
        let mut ticks = self.every.map(tokio::time::interval);
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        }
        let key: Arc<str> = Arc::from("fan/key");
        for _ in 0..self.count {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let mut value = vec![b'x'; super::VALUE];
            value[..16].copy_from_slice(&start.elapsed().as_nanos().to_be_bytes());
            match store
                .commit(Transaction::new().put(Arc::clone(&key), value))
                .await?
            {
                Outcome::Committed(_) => {}
                Outcome::Conflict { .. } => bail!("a put without a condition met a conflict"),
            }
        }
        Ok(())
    }
}

async fn follow(mut watch: Watch, count: usize, start: Instant) -> anyhow::Result<Vec<f64>> {
    let mut lags = Vec::with_capacity(count);
    while lags.len() < count {
        for change in watch.next().await?.changes {
            let record = change.after.context("nothing is deleted here")?;
            lags.push(millis(start.elapsed().saturating_sub(sent(&record.value)?)));
        }
    }
    Ok(lags)
}

/// When the change was asked for, since the start.
fn sent(value: &Bytes) -> anyhow::Result<Duration> {
    let nanos = u128::from_be_bytes(value.get(..16).context("too short")?.try_into()?);
    Ok(Duration::from_nanos(u64::try_from(nanos)?))
}
