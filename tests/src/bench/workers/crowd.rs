//! A hundred thousand workers on one registry, each beating when it is told to; then a fifth of them
//! fall silent at once, spread over all zones, so that no brake holds.

mod losses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_proto::workers::v1::HeartbeatTerms;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::Setup;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::{say, system};
use super::fleet::{self, Agent, Client};
use losses::{Expiries, Losses};

const HERDS: usize = 16;
/// One in so many falls silent.
const SILENT: usize = 5;
/// The longest time without a look at whether to fall silent.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let count = setup.size(100_000, 2_000);
    let folder = setup.temporary()?;
    let mut plan = super::plan(folder.path());
    if setup.is_smoke() {
        plan = plan
            .arg("heartbeat-interval", "500ms")
            .arg("lost-after", "2s");
    }
    let registry = plan.start().await?;
    let (joined, mut all_joined) = mpsc::channel(HERDS);
    let (silenced, mut all_silenced) = mpsc::channel(HERDS);
    let silence = Arc::new(AtomicBool::new(false));
    let mut herds = JoinSet::new();
    for (number, channel) in registry.connections(HERDS).await?.iter().enumerate() {
        let herd = Herd {
            client: fleet::client(channel),
            waiting: (number..count).step_by(HERDS).collect(),
            beating: BTreeMap::new(),
            joined: joined.clone(),
            silence: Arc::clone(&silence),
            silenced: Some(silenced.clone()),
        };
        herds.spawn(herd.live());
    }
    let start = Instant::now();
    for _ in 0..HERDS {
        alive(&mut herds, all_joined.recv()).await?;
    }
    say(&format!(
        "  {count} workers have joined in {:.1?}",
        start.elapsed()
    ));
    steady(setup, &registry, count, report).await?;

    let losses = Losses::watch(&registry.connect().await?).await?;
    silence.store(true, Ordering::Relaxed);
    let mut expiries = Expiries::new();
    for _ in 0..HERDS {
        expiries.extend(alive(&mut herds, all_silenced.recv()).await?);
    }
    losses.see(&expiries, report).await?;
    // To see that there are no others.
    sleep(setup.size(Duration::from_secs(3), Duration::from_millis(500))).await;
    let lost = losses::count(&registry.connect().await?).await?;
    ensure!(
        lost == expiries.len(),
        "{lost} are lost, not {}",
        expiries.len()
    );
    report.add(Figure::new(
        format!("{count}-workers-memory-after"),
        registry.memory()?,
        "MB",
    ));
    Ok(())
}

/// What the crowd costs while nothing happens.
async fn steady(
    setup: &Setup,
    registry: &Child,
    count: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let length = setup.size(Duration::from_secs(15), Duration::from_secs(1));
    sleep(length).await;
    let (cpu, start) = (registry.cpu_time()?, Instant::now());
    let own = system::cpu_time(std::process::id())?;
    sleep(length).await;
    let used = (registry.cpu_time()? - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    let own =
        (system::cpu_time(std::process::id())? - own).as_secs_f64() / start.elapsed().as_secs_f64();
    let name = |what: &str| format!("{count}-workers-{what}");
    report.add(Figure::new(name("memory"), registry.memory()?, "MB").target(Target::AtMost(300.0)));
    report.add(Figure::new(name("cpu-of-one-core"), used * 100.0, "%").over(own * 100.0));
    Ok(())
}

async fn alive<T>(
    herds: &mut JoinSet<anyhow::Result<()>>,
    what: impl Future<Output = Option<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        what = what => what.context("the herds have ended"),
        Some(ended) = herds.join_next() => {
            ended??;
            anyhow::bail!("a herd has ended")
        }
    }
}

/// Workers that share a connection.
struct Herd {
    client: Client,
    /// Numbers of those that have not joined, the last one first.
    waiting: Vec<usize>,
    /// By when they beat next, and their numbers.
    beating: BTreeMap<(Instant, usize), Agent>,
    joined: mpsc::Sender<()>,
    silence: Arc<AtomicBool>,
    /// Where to tell who has fallen silent; taken once that is done.
    silenced: Option<mpsc::Sender<Expiries>>,
}

impl Herd {
    /// Joins, and beats until the end of the bench.
    async fn live(mut self) -> anyhow::Result<()> {
        loop {
            if self.silence.load(Ordering::Relaxed)
                && let Some(to) = self.silenced.take()
            {
                to.send(self.fall_silent().await?).await?;
            }
            let now = Instant::now();
            let due = self.beating.first_key_value().map(|((at, _), _)| *at);
            if due.is_some_and(|due| due <= now) {
                self.beat().await?;
            } else if let Some(number) = self.waiting.pop() {
                self.join(number).await?;
            } else {
                sleep_until(due.unwrap_or(now + LOOK).min(now + LOOK)).await;
            }
        }
    }

    async fn join(&mut self, number: usize) -> anyhow::Result<()> {
        let (name, zone) = (format!("worker-{number:06}"), fleet::zone(number));
        let (agent, terms) = fleet::register(&mut self.client, name, zone).await?;
        fleet::activate(&mut self.client, &agent).await?;
        let due = Instant::now() + interval(&terms)?;
        self.beating.insert((due, number), agent);
        if self.waiting.is_empty() {
            self.joined.send(()).await?;
        }
        Ok(())
    }

    async fn beat(&mut self) -> anyhow::Result<()> {
        if let Some(((_, number), agent)) = self.beating.pop_first() {
            let terms = beat(&mut self.client, &agent).await?;
            let due = Instant::now() + interval(&terms)?;
            self.beating.insert((due, number), agent);
        }
        Ok(())
    }

    /// The last beat of every silent worker.
    async fn fall_silent(&mut self) -> anyhow::Result<Expiries> {
        let all = std::mem::take(&mut self.beating).into_iter();
        let silent;
        (silent, self.beating) = all.partition(|((_, number), _)| number % SILENT == 0);
        let silent: BTreeMap<_, _> = silent;
        let mut expiries = Expiries::new();
        for agent in silent.into_values() {
            let sent = Instant::now();
            let terms = beat(&mut self.client, &agent).await?;
            let lost_after = terms.lost_after.context("no lost_after")?;
            expiries.insert(agent.name, sent + Duration::try_from(lost_after)?);
        }
        Ok(expiries)
    }
}

async fn beat(client: &mut Client, agent: &Agent) -> anyhow::Result<HeartbeatTerms> {
    let answer = fleet::beat(client, agent, Vec::new()).await?;
    answer.terms.context("an answer without terms")
}

fn interval(terms: &HeartbeatTerms) -> anyhow::Result<Duration> {
    Ok(Duration::try_from(terms.interval.context("no interval")?)?)
}
