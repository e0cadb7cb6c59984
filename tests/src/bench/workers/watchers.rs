//! Changes of workers under the eyes of many watchers: how late they learn of them, and what that
//! costs who makes the changes. Changes are made one after the other, so a watcher knows by their order
//! which one it has before it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use muster_proto::workers::v1::{
    ListWorkersRequest, UpdateWorkerRequest, WatchWorkersRequest, Worker, WorkerFilter,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::super::Setup;
use super::super::child::Child;
use super::super::connection::Connection;
use super::super::figure::{Figure, Report};
use super::super::statistics::{millis, percentile};
use super::fleet::{self, Client};
use super::owner::Agents;

const CONNECTIONS: usize = 20;
/// Time from one change to the next.
const PACE: Duration = Duration::from_millis(1);
/// The longest wait of a watcher for its next change.
const PATIENCE: Duration = Duration::from_secs(60);
const WATCH: &str = "/muster.workers.v1.WorkersService/WatchWorkers";

/// What of an answer is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Seen {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    changes: Vec<Bytes>,
}

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    Nobody,
    /// Each of so many watchers sees one worker, and each worker has one.
    OneEach(usize),
    /// Each of so many watchers sees every worker.
    Everything(usize),
}

pub(super) async fn run(
    setup: &Setup,
    registry: &Child,
    agents: &Agents,
    report: &mut Report,
) -> anyhow::Result<()> {
    let many = setup.size(1_000, 50);
    let seconds = setup.size(5, 1);
    let workers: Vec<String> = agents.keys().take(many).cloned().collect();
    let trial = Trial {
        registry,
        workers,
        changes: many * seconds,
    };
    let alone = trial.run(Watching::Nobody).await?;
    for watching in [Watching::OneEach(many), Watching::Everything(many)] {
        let name = |what: &str| match watching {
            Watching::Nobody => what.to_owned(),
            Watching::OneEach(count) => format!("{count}-watchers-of-one-{what}"),
            Watching::Everything(count) => format!("{count}-watchers-of-all-{what}"),
        };
        let seen = trial.run(watching).await?;
        let (lags, updates) = (seen.lags, seen.updates);
        report.add(Figure::new(name("changes"), seen.rate, "1/s").over(alone.rate));
        let update = Figure::new(name("update-p50"), percentile(updates, 50), "ms");
        report.add(update.over(percentile(alone.updates.clone(), 50)));
        report.add(Figure::new(name("deliveries"), seen.deliveries, "1/s"));
        report.add(Figure::new(
            name("lag-p50"),
            percentile(lags.clone(), 50),
            "ms",
        ));
        report.add(Figure::new(name("lag-p99"), percentile(lags, 99), "ms"));
    }
    Ok(())
}

struct Trial<'a> {
    registry: &'a Child,
    /// Those that change, in turns.
    workers: Vec<String>,
    changes: usize,
}

struct Outcome {
    /// Milliseconds from the call of a change to each watcher that it concerns.
    lags: Vec<f64>,
    /// Milliseconds of each change for who made it.
    updates: Vec<f64>,
    /// Changes a second.
    rate: f64,
    /// Changes a second over all watchers, until the last had all.
    deliveries: f64,
}

/// When each change was called for.
type Sent = Arc<Vec<OnceLock<Instant>>>;

impl Trial<'_> {
    async fn run(&self, watching: Watching) -> anyhow::Result<Outcome> {
        let sent: Sent = Arc::new((0..self.changes).map(|_| OnceLock::new()).collect());
        let channels = self.registry.connections(CONNECTIONS).await?;
        let mut client = fleet::client(&self.registry.connect().await?);
        let token = position(&mut client).await?;
        let mut running = JoinSet::new();
        let watchers = match watching {
            Watching::Nobody => 0,
            Watching::OneEach(count) | Watching::Everything(count) => count,
        };
        for number in 0..watchers {
            let (filter, every) = match watching {
                Watching::Everything(_) | Watching::Nobody => (None, 1),
                Watching::OneEach(_) => (Some(self.workers[number].clone()), self.workers.len()),
            };
            let stream = watch(&channels[number % CONNECTIONS], filter, &token).await?;
            let sent = Arc::clone(&sent);
            let first = number % every;
            running.spawn(follow(stream, sent, first, every));
        }
        let start = Instant::now();
        let updates = self.change(&mut client, &sent, watching).await?;
        let rate = self.changes as f64 / start.elapsed().as_secs_f64();
        let mut lags = Vec::new();
        while let Some(joined) = running.join_next().await {
            lags.extend(joined??);
        }
        let deliveries = lags.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Outcome {
            lags,
            updates,
            rate,
            deliveries,
        })
    }

    async fn change(
        &self,
        client: &mut Client,
        sent: &Sent,
        watching: Watching,
    ) -> anyhow::Result<Vec<f64>> {
        // Another one in each trial, or nothing would change.
        let label = match watching {
            Watching::Nobody => "a",
            Watching::OneEach(_) => "b",
            Watching::Everything(_) => "c",
        };
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut updates = Vec::with_capacity(self.changes);
        for number in 0..self.changes {
            ticks.tick().await;
            let worker = Worker {
                name: self.workers[number % self.workers.len()].clone(),
                labels: BTreeMap::from([("change".to_owned(), format!("{label}{number}"))]),
                ..Worker::default()
            };
            let request = UpdateWorkerRequest {
                worker: Some(worker),
                ..UpdateWorkerRequest::default()
            };
            let now = *sent[number].get_or_init(Instant::now);
            client.update_worker(request).await?;
            updates.push(millis(now.elapsed()));
        }
        Ok(updates)
    }
}

/// The registry's position now.
async fn position(client: &mut Client) -> anyhow::Result<String> {
    let request = ListWorkersRequest {
        page_size: 1,
        ..ListWorkersRequest::default()
    };
    Ok(client
        .list_workers(request)
        .await?
        .into_inner()
        .resume_token)
}

async fn watch(
    channel: &Connection,
    worker: Option<String>,
    token: &str,
) -> anyhow::Result<Streaming<Seen>> {
    let request = WatchWorkersRequest {
        filter: worker.map(|name| WorkerFilter {
            names: vec![name],
            ..WorkerFilter::default()
        }),
        resume_token: token.to_owned(),
    };
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<WatchWorkersRequest, Seen>::default();
    let path = PathAndQuery::from_static(WATCH);
    let answer = grpc
        .server_streaming(Request::new(request), path, codec)
        .await?;
    Ok(answer.into_inner())
}

/// How late each change came that this watcher sees: the one numbered `first`, and `every` further one.
async fn follow(
    mut stream: Streaming<Seen>,
    sent: Sent,
    first: usize,
    every: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut numbers = (first..sent.len()).step_by(every).peekable();
    let mut lags = Vec::with_capacity(numbers.len());
    while numbers.peek().is_some() {
        let Some(seen) = timeout(PATIENCE, stream.message())
            .await
            .context("a watch is silent")??
        else {
            bail!("a watch ended");
        };
        for _ in seen.changes {
            let number = numbers.next().context("a change that nobody made")?;
            let sent = sent[number].get().context("a change before it was made")?;
            lags.push(millis(sent.elapsed()));
        }
    }
    ensure!(!lags.is_empty(), "a watcher that saw nothing");
    Ok(lags)
}
