//! Losses as a watcher learns of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use muster_proto::workers::v1::worker_change::Change;
use muster_proto::workers::v1::{
    ListWorkersRequest, WatchWorkersRequest, WatchWorkersResponse, WorkerFilter, WorkerLiveness,
};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use super::super::super::connection::Connection;
use super::super::super::figure::{Figure, Report, Target};
use super::super::super::statistics::{largest, percentile};
use super::super::fleet;

/// The longest time from one loss to the next; the first may take as long as a worker has.
const PATIENCE: Duration = Duration::from_secs(120);

/// When each silent worker is to be lost, by its name.
pub(super) type Expiries = HashMap<String, Instant>;

/// A watch of the workers that are lost.
pub(super) struct Losses(Streaming<WatchWorkersResponse>);

impl Losses {
    /// Begins to watch while none is.
    pub(super) async fn watch(channel: &Connection) -> anyhow::Result<Self> {
        let request = WatchWorkersRequest {
            filter: Some(only_lost()),
            ..WatchWorkersRequest::default()
        };
        let mut stream = fleet::client(channel)
            .watch_workers(request)
            .await?
            .into_inner();
        loop {
            let message = stream.message().await?.context("the watch has ended")?;
            ensure!(message.changes.is_empty(), "workers are lost already");
            if message.synced {
                return Ok(Self(stream));
            }
        }
    }

    /// Waits until all are lost that should be, and tells how late each was seen to be.
    pub(super) async fn see(
        mut self,
        expiries: &Expiries,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        let mut lags = Vec::with_capacity(expiries.len());
        while seen.len() < expiries.len() {
            let next = timeout(PATIENCE, self.0.message());
            let message = next
                .await
                .context("no losses are seen")??
                .context("the watch has ended")?;
            let now = Instant::now();
            for change in message.changes {
                let Some(Change::Put(worker)) = change.change else {
                    bail!("a lost worker has come back");
                };
                let due = expiries
                    .get(&worker.name)
                    .context("one is lost that was heard")?;
                if seen.insert(worker.name) {
                    lags.push(signed_seconds(*due, now));
                }
            }
        }
        let first = expiries.values().min().context("none is silent")?;
        let name = |what: &str| format!("loss-of-{}-at-once-{what}", expiries.len());
        let slowest = Figure::new(name("slowest-after-expiry"), largest(&lags), "s");
        report.add(slowest.target(Target::AtMost(1.0)));
        report.add(Figure::new(
            name("p50-after-expiry"),
            percentile(lags, 50),
            "s",
        ));
        let whole = first.elapsed().as_secs_f64();
        report.add(Figure::new(name("first-expiry-to-last-seen"), whole, "s"));
        Ok(())
    }
}

fn signed_seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
        - from.saturating_duration_since(to).as_secs_f64()
}

/// How many workers are lost now.
pub(super) async fn count(channel: &Connection) -> anyhow::Result<usize> {
    let request = ListWorkersRequest {
        filter: Some(only_lost()),
        page_size: 1,
        ..ListWorkersRequest::default()
    };
    let answer = fleet::client(channel)
        .list_workers(request)
        .await?
        .into_inner();
    Ok(usize::try_from(answer.total_size)?)
}

fn only_lost() -> WorkerFilter {
    WorkerFilter {
        livenesses: vec![WorkerLiveness::Lost.into()],
        ..WorkerFilter::default()
    }
}
