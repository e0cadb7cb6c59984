//! Many services of ten replicas each. Their records are copies of those of one that a manager has made
//! and played agents have made HEALTHY, each with a name, a uid and a machine of its own, put into the
//! store directly; what reads them is a manager as it comes.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use muster_proto::replicas::v1::{ListServicesRequest, ServiceSpec};
use muster_store::{Options, Outcome, Record, Store, Transaction};
use tokio::time::{Instant, timeout};

use super::super::Setup;
use super::super::child::Child;
use super::super::figure::{Figure, Report, Target};
use super::super::statistics::{median, micros, millis};
use super::super::workers;
use super::agents;
use super::manager::{self, Client, PATIENCE, STORE};
use crate::fleet;

/// Replicas of each service.
const EACH: i32 = 10;
/// Machines that they are on.
const MACHINES: usize = 1_000;
const MOST_MILLIS: f64 = 1.0;
const MOST_MB: f64 = 20.0;
/// Services in one transaction.
const BATCH: usize = 5;
const WRITERS: usize = 16;
const PASSES: &str = "muster_planner_pass_duration_seconds_count";
const SPENT: &str = "muster_planner_pass_duration_seconds_sum";

pub(super) async fn run(setup: &Setup, report: &mut Report) -> anyhow::Result<()> {
    let (few, many) = (setup.size(100, 10), setup.size(10_000, 50));
    let folder = setup.temporary()?;
    let registry = workers::patient(folder.path()).await?;
    let plan = manager::plan(folder.path(), &registry);

    let manager = plan.start().await?;
    let quiet = setup.size(Duration::from_secs(2), Duration::from_millis(200));
    tokio::time::sleep(quiet).await;
    let idle = manager.memory()?;
    let figure = Figure::new("idle-memory", idle, "MB");
    report.add(figure.target(Target::AtMost(MOST_MB)));
    let machines = workers::fleet::join(&registry, setup.size(MACHINES, 5)).await?;
    tokio::time::sleep(quiet).await;
    let known = format!("memory-{}-machines", machines.len());
    report.add(Figure::new(known, manager.memory()?, "MB").over(idle));
    let uid = first(&registry, &manager, &machines[..1]).await?;
    manager.kill().await?;

    let store = folder.path().join(STORE);
    let copies = Copies::of(&store, uid).await?;
    copies.put(&store, 1..few, machines.len()).await?;
    let manager = plan.start().await?;
    let among_few = changes(setup, &manager, few).await?;
    manager.kill().await?;

    copies.put(&store, few..many, machines.len()).await?;
    let begun = Instant::now();
    let manager = plan.start().await?;
    restart(report, &manager, begun, many).await?;
    let memory = Figure::new(
        format!("memory-{}-replicas", replicas(many)),
        manager.memory()?,
        "MB",
    );
    report.add(memory.over(idle));
    let among_many = changes(setup, &manager, many).await?;
    among_few.add(report, few, None);
    among_many.add(report, many, Some(&among_few));
    manager.kill().await?;
    registry.kill().await
}

fn replicas(services: usize) -> usize {
    services * EACH.unsigned_abs() as usize
}

fn name(number: usize) -> String {
    format!("bench-{number:06}")
}

fn spec(number: usize) -> ServiceSpec {
    manager::service(&name(number), EACH, "played")
}

/// One service that is HEALTHY; answers its uid.
async fn first(
    registry: &Child,
    manager: &Child,
    machines: &[workers::fleet::Agent],
) -> anyhow::Result<String> {
    let agents = agents::run(machines, registry, manager).await?;
    let mut client = Client::new(manager.connect().await?);
    let request = fleet::full_replacement(spec(0));
    let answer = client.update_service(request).await?.into_inner();
    manager::until_healthy(&mut client).await?;
    drop(agents);
    Ok(answer.service.context("an answer without a service")?.uid)
}

/// What is copied.
struct Copies {
    records: Vec<Arc<Record>>,
    uid: String,
}

impl Copies {
    /// Reads all that is stored of a service, and nothing that is of the store's own.
    async fn of(path: &Path, uid: String) -> anyhow::Result<Self> {
        let store = Store::embedded(path, Options::default())?;
        let mut records = Vec::new();
        for prefix in ["service/", "replica/", "version/"] {
            records.extend(store.list(prefix).await?.records);
        }
        store.close().await;
        let expected = usize::try_from(EACH)? + 2;
        ensure!(records.len() == expected, "{} records", records.len());
        Ok(Self { records, uid })
    }

    /// Puts as many copies as there are numbers into the store of a manager that does not run.
    async fn put(&self, path: &Path, of: Range<usize>, machines: usize) -> anyhow::Result<()> {
        let store = Store::embedded(path, Options::default())?;
        let numbers: Vec<usize> = of.collect();
        let batches = numbers.chunks(BATCH).map(|batch| {
            let records = batch.iter().flat_map(|number| self.copy(*number, machines));
            let put = |all: Transaction, (key, value): (String, Bytes)| all.put(key, value);
            store.commit(records.fold(Transaction::new(), put))
        });
        let mut outcomes = futures_util::stream::iter(batches).buffer_unordered(WRITERS);
        while let Some(outcome) = outcomes.next().await {
            ensure!(matches!(outcome?, Outcome::Committed(_)), "not committed");
        }
        drop(outcomes);
        store.close().await;
        Ok(())
    }

    /// Every name is replaced by one of the same length, which changes no other byte of a record.
    fn copy(&self, number: usize, machines: usize) -> impl Iterator<Item = (String, Bytes)> {
        let names = [
            (self.uid.clone(), format!("{number:012}")),
            (name(0), name(number)),
            (machine(0), machine(number % machines)),
        ];
        self.records.iter().map(move |record| {
            let mut key = record.key.to_string();
            let mut value = record.value.to_vec();
            for (old, new) in &names {
                key = key.replace(old, new);
                replace(&mut value, old.as_bytes(), new.as_bytes());
            }
            (key, value.into())
        })
    }
}

/// As those are called that join.
fn machine(number: usize) -> String {
    format!("worker-{number:06}")
}

fn replace(value: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while at + old.len() <= value.len() {
        if &value[at..at + old.len()] == old {
            value[at..at + old.len()].copy_from_slice(new);
            at += old.len();
        } else {
            at += 1;
        }
    }
}

/// From the start of the process with all of it in the store.
async fn restart(
    report: &mut Report,
    manager: &Child,
    begun: Instant,
    services: usize,
) -> anyhow::Result<()> {
    let name = |what: &str| format!("restart-{}-replicas-{what}", replicas(services));
    let serving = Figure::new(name("to-serving"), millis(manager.started_in()), "ms");
    report.add(serving);
    until_planned(manager, 1.0).await?;
    let figure = Figure::new(name("to-first-plan"), millis(begun.elapsed()), "ms");
    report.add(figure);
    until_planned(manager, services as f64).await?;
    let figure = Figure::new(name("to-all-planned"), millis(begun.elapsed()), "ms");
    report.add(figure);
    let mut client = Client::new(manager.connect().await?);
    let request = ListServicesRequest {
        page_size: 1,
        ..ListServicesRequest::default()
    };
    let page = client.list_services(request).await?.into_inner();
    let service = page.services.into_iter().next().context("no service")?;
    let ready = service.status.and_then(|status| status.counts);
    let ready = ready.context("no status")?.ready;
    ensure!(ready == EACH, "{ready} of {EACH} replicas are ready");
    Ok(())
}

async fn until_planned(manager: &Child, passes: f64) -> anyhow::Result<()> {
    let waiting = async {
        while manager.metric(PASSES).await? < passes {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, waiting).await.context("not planned")?
}

/// What one change of one service cost.
struct Cost {
    /// Microseconds, as the planner counts them.
    pass: f64,
    /// Microseconds, as the caller sees them.
    call: f64,
}

/// Changes one service after the other in place: labels that every plan is made anew for.
async fn changes(setup: &Setup, manager: &Child, services: usize) -> anyhow::Result<Cost> {
    until_quiet(manager).await?;
    let mut client = Client::new(manager.connect().await?);
    let (passes, spent) = (manager.metric(PASSES).await?, manager.metric(SPENT).await?);
    let mut took = Vec::new();
    let count = setup.size(2_000, 20);
    for change in 0..count {
        let mut spec = spec(change % services);
        let label = ("change".to_owned(), change.to_string());
        spec.labels.extend([label]);
        let begun = Instant::now();
        client.update_service(fleet::full_replacement(spec)).await?;
        took.push(micros(begun.elapsed()));
    }
    let passes = manager.metric(PASSES).await? - passes;
    let spent = manager.metric(SPENT).await? - spent;
    ensure!(
        passes >= count as f64,
        "{passes} passes for {count} changes"
    );
    Ok(Cost {
        pass: spent / passes * 1e6,
        call: median(took),
    })
}

/// Waits until nothing is planned any more that nobody asked for.
async fn until_quiet(manager: &Child) -> anyhow::Result<()> {
    let waiting = async {
        let mut before = -1.0;
        loop {
            let passes = manager.metric(PASSES).await?;
            if passes == before {
                return anyhow::Ok(());
            }
            before = passes;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, waiting).await.context("never at rest")?
}

impl Cost {
    fn add(&self, report: &mut Report, services: usize, among_few: Option<&Self>) {
        let pass = Figure::new(name_of("pass", services), self.pass / 1e3, "ms");
        let pass = match among_few {
            Some(few) => pass.over(few.pass / 1e3),
            None => pass,
        };
        report.add(pass.target(Target::AtMost(MOST_MILLIS)));
        let call = Figure::new(name_of("call", services), self.call / 1e3, "ms");
        report.add(match among_few {
            Some(few) => call.over(few.call / 1e3),
            None => call,
        });
    }
}

fn name_of(what: &str, services: usize) -> String {
    format!("one-change-among-{services}-services-{what}")
}
