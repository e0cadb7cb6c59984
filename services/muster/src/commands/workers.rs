//! `muster workers`: the machines, and how they are.

use std::{collections::BTreeMap, future::Future};

use muster_proto::{
    types::v1::{Gpu, GpuGroup},
    workers::v1::{
        Allocation, CheckStatus, Drain, GetWorkerRequest, GetWorkerResponse, ListWorkersRequest,
        ListWorkersResponse, WatchWorkersRequest, WatchWorkersResponse, Worker, WorkerFilter,
        WorkerState, worker_change::Change,
    },
};
use tonic::{Response, Status, Streaming};

use super::live::{self, Shown, Update, Watched};
use crate::{
    args::{Format, Workers as Args},
    failure::Failure,
    output::table::{Cell, Table},
    pages::{self, PAGE},
    session::{Component, Session},
    text,
};

/// Shows workers.
pub(crate) async fn run(session: &Session, args: &Args) -> Result<(), Failure> {
    let filter = WorkerFilter {
        labels: args.label.iter().cloned().collect(),
        names: args.name.iter().cloned().collect(),
        ..WorkerFilter::default()
    };
    if args.watch {
        if let Some(name) = &args.name {
            get(session, name).await?;
        }
        return live::show(session, &Workers { filter }).await;
    }
    match &args.name {
        Some(name) => show(session, name).await,
        None => list(session, filter).await,
    }
}

/// A worker by name, with its allocations.
pub(crate) async fn get(session: &Session, name: &str) -> Result<GetWorkerResponse, Failure> {
    let request = GetWorkerRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    session
        .call(Component::Registry, session.workers().get_worker(request))
        .await
}

async fn show(session: &Session, name: &str) -> Result<(), Failure> {
    let answer = get(session, name).await?;
    let worker = answer.worker.clone().unwrap_or_default();
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&answer).map(drop),
        Format::Name => session.print(&format!("{}\n", worker.name)),
        Format::Table | Format::Wide => {
            session.print(&detail(session, &worker))?;
            checks(session, &worker)?;
            allocations(session, &answer.allocations)?;
            history(session, &worker)
        }
    }
}

fn detail(session: &Session, worker: &Worker) -> String {
    let now = session.now();
    let capacity = worker.capacity.clone().unwrap_or_default();
    let mut state = format!(
        "{} for {}",
        state(worker),
        text::print_ago(worker.state_time, now)
    );
    if !worker.state_actor.is_empty() {
        state.push_str(&format!(", by {}", worker.state_actor));
    }
    if worker.unconfirmed {
        state.push_str(", without the agent's word that its replicas have ended");
    }
    let place = [&worker.backend, &worker.region, &worker.zone];
    let place: Vec<&str> = place
        .into_iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    let mut lines = vec![
        ("name", worker.name.clone()),
        ("state", state),
        ("reason", worker.state_reason.clone()),
        ("liveness", liveness(session, worker)),
        ("generation", worker.generation.to_string()),
        ("GPUs", text::print_gpus(&groups(&capacity.gpus))),
        ("cpus", text::print_cpu(Some(capacity.cpu_milli))),
        ("memory", text::print_memory(Some(capacity.memory_mib))),
        ("disk", text::print_memory(Some(capacity.disk_mib))),
        ("in use", usage(worker)),
        ("place", place.join(" / ")),
        ("price", text::print_price(worker.price.as_ref())),
        ("agent", agent(worker)),
        ("labels", labels(worker)),
    ];
    if worker.simulated {
        lines.push(("simulated", "its GPUs are declared, not real".to_owned()));
    }
    if let Some(drain) = &worker.drain {
        let words = drain_words(session, drain);
        lines.push(match drain.end_time {
            None => ("drain", words),
            ended => {
                let ended = text::print_time(ended, now);
                ("last drain", format!("{words}; ended {ended} UTC"))
            }
        });
    }
    lines.retain(|(_, value)| !value.is_empty());
    lines
        .iter()
        .map(|(name, value)| format!("{name:<11} {value}\n"))
        .collect()
}

/// How alive a worker is, and when it was heard last.
fn liveness(session: &Session, worker: &Worker) -> String {
    let liveness = text::word(worker.liveness().as_str_name(), "WORKER_LIVENESS_");
    let heard = match worker.heartbeat_time {
        // A record made ahead by a join token.
        _ if worker.generation == 0 => "never heard".to_owned(),
        None => "not heard since the registry started".to_owned(),
        heard => format!("heard {} ago", text::print_ago(heard, session.now())),
    };
    let words: Vec<&str> = [liveness, &heard]
        .into_iter()
        .chain(fence(worker))
        .collect();
    words.join(", ")
}

/// A worker's agent; empty if none has registered.
fn agent(worker: &Worker) -> String {
    if worker.agent_address.is_empty() {
        return worker.agent_version.clone();
    }
    format!("{} at {}", worker.agent_version, worker.agent_address)
}

fn usage(worker: &Worker) -> String {
    let usage = worker.usage.unwrap_or_default();
    format!(
        "{} GPUs, {} cpus, {} memory, by {} allocations",
        usage.gpus,
        text::print_cpu(Some(usage.cpu_milli)),
        text::print_memory(Some(usage.memory_mib)),
        usage.allocations,
    )
}

/// How far a drain is, in words.
pub(crate) fn drain_words(session: &Session, drain: &Drain) -> String {
    let mut words = format!(
        "{} moved, {} left of {}",
        drain.moved, drain.left, drain.total
    );
    if !drain.reason.is_empty() {
        words.push_str(&format!("; {}", drain.reason));
    }
    if drain.deadline_time.is_some() {
        let deadline = text::print_time(drain.deadline_time, session.now());
        words.push_str(&format!("; deadline {deadline} UTC"));
    }
    for block in &drain.blocked {
        words.push_str(&format!("; {} blocked: {}", block.subject, block.message));
    }
    words
}

fn labels(worker: &Worker) -> String {
    let mut all = worker.agent_labels.clone();
    all.extend(worker.labels.clone());
    pairs(&all)
}

/// Labels as they are typed.
fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(", ")
}

fn checks(session: &Session, worker: &Worker) -> Result<(), Failure> {
    if worker.checks.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["CHECK", "RESULT", ">TOOK", "FOUND"]);
    for check in &worker.checks {
        table.row(vec![
            check.name.as_str().into(),
            Cell::state(text::word(check.status().as_str_name(), "CHECK_STATUS_")),
            text::print_span(check.duration).into(),
            check.message.as_str().into(),
        ]);
    }
    session.print("\n")?;
    session.print_table(&table)
}

fn allocations(session: &Session, allocations: &[Allocation]) -> Result<(), Failure> {
    if allocations.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        "ALLOCATION",
        "FOR",
        "STATE",
        ">GPUS",
        ">CPUS",
        ">MEMORY",
        ">AGE",
    ]);
    for allocation in allocations {
        table.row(vec![
            allocation.id.as_str().into(),
            allocation.subject.as_str().into(),
            Cell::state(text::word(
                allocation.state().as_str_name(),
                "ALLOCATION_STATE_",
            )),
            allocation.gpu_uuids.len().to_string().into(),
            text::print_cpu(Some(allocation.cpu_milli)).into(),
            text::print_memory(Some(allocation.memory_mib)).into(),
            text::print_ago(allocation.create_time, session.now()).into(),
        ]);
    }
    session.print("\n")?;
    session.print_table(&table)
}

fn history(session: &Session, worker: &Worker) -> Result<(), Failure> {
    if worker.history.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["TIME (UTC)", "TO", "BY", "WHY"]);
    for step in &worker.history {
        table.row(vec![
            text::print_time(step.time, session.now()).into(),
            Cell::state(text::word(step.new_state().as_str_name(), "WORKER_STATE_")),
            step.actor.as_str().into(),
            step.reason.as_str().into(),
        ]);
    }
    session.print("\n")?;
    session.print_table(&table)
}

/// A worker's state, in a word.
pub(crate) fn state(worker: &Worker) -> &'static str {
    text::word(worker.state().as_str_name(), "WORKER_STATE_")
}

/// Equal accelerators together, in the order they first appear.
pub(crate) fn groups(gpus: &[Gpu]) -> Vec<GpuGroup> {
    let mut groups: Vec<GpuGroup> = Vec::new();
    for gpu in gpus {
        let same =
            |group: &&mut GpuGroup| group.name == gpu.name && group.memory_mib == gpu.memory_mib;
        match groups.iter_mut().find(same) {
            Some(group) => group.count += 1,
            None => groups.push(GpuGroup {
                name: gpu.name.clone(),
                vendor: gpu.vendor,
                count: 1,
                share_milli: 1000,
                memory_mib: gpu.memory_mib,
            }),
        }
    }
    groups
}

async fn list(session: &Session, filter: WorkerFilter) -> Result<(), Failure> {
    let none = none(&filter);
    let joined: ListWorkersResponse = pages::joined(async |page_token| {
        let mut registry = session.workers();
        let asked = registry.list_workers(ListWorkersRequest {
            filter: Some(filter.clone()),
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Registry, asked).await
    })
    .await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&joined).map(drop),
        Format::Name => {
            let names: String = joined
                .workers
                .iter()
                .map(|worker| format!("{}\n", worker.name))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide if joined.workers.is_empty() => session.print(&none),
        Format::Table | Format::Wide => {
            session.print_table(&table(session, &mut joined.workers.iter()))
        }
    }
}

/// What is said where no worker is to be shown.
fn none(filter: &WorkerFilter) -> String {
    if filter.labels.is_empty() {
        return "there are no workers; start a `worker-agent` on a machine\n".to_owned();
    }
    format!("no worker has {}\n", pairs(&filter.labels))
}

fn table(session: &Session, workers: &mut dyn Iterator<Item = &Worker>) -> Table {
    let mut header = vec![
        "NAME",
        "STATE",
        "LIVENESS",
        ">FOR",
        "GPUS",
        ">GPUS USED",
        ">REPLICAS",
        "REGION",
        "NOTE",
    ];
    if session.is_wide() {
        header.extend([
            ">CPUS",
            ">MEMORY",
            "ZONE",
            "BACKEND",
            ">GENERATION",
            "AGENT",
            "LABELS",
        ]);
    }
    let mut table = Table::new(&header);
    for worker in workers {
        let capacity = worker.capacity.clone().unwrap_or_default();
        let usage = worker.usage.unwrap_or_default();
        let mut row: Vec<Cell> = vec![
            worker.name.as_str().into(),
            Cell::state(state(worker)),
            Cell::state(text::word(
                worker.liveness().as_str_name(),
                "WORKER_LIVENESS_",
            )),
            text::print_ago(worker.state_time, session.now()).into(),
            text::print_gpus(&groups(&capacity.gpus)).into(),
            format!("{}/{}", usage.gpus, capacity.gpus.len()).into(),
            usage.allocations.to_string().into(),
            text::or_nothing(&worker.region).into(),
            note(session, worker).into(),
        ];
        if session.is_wide() {
            row.extend([
                text::print_cpu(Some(capacity.cpu_milli)).into(),
                text::print_memory(Some(capacity.memory_mib)).into(),
                text::or_nothing(&worker.zone).into(),
                text::or_nothing(&worker.backend).into(),
                worker.generation.to_string().into(),
                text::or_nothing(&worker.agent_address).into(),
                text::or_nothing(&labels(worker)).into(),
            ]);
        }
        table.row(row);
    }
    table
}

/// What a glance should not miss: a drain, what keeps it from use, what may run on it still, or GPUs that are
/// not real.
fn note(session: &Session, worker: &Worker) -> String {
    let drain = worker
        .drain
        .as_ref()
        .filter(|drain| drain.end_time.is_none());
    let drain = drain.map(|drain| drain_words(session, drain));
    let check = failed_check(worker).map(|check| format!("check {check} failed"));
    let fence = fence(worker).map(str::to_owned);
    let simulated = worker.simulated.then(|| "simulated GPUs".to_owned());
    [drain, check, fence, simulated]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

/// The first start-up check that keeps a worker from use.
fn failed_check(worker: &Worker) -> Option<&str> {
    let mut checks = worker.checks.iter();
    let failed = checks.find(|check| check.status() == CheckStatus::Failed);
    failed
        .filter(|_| worker.state() == WorkerState::Provisioning)
        .map(|check| &*check.name)
}

/// Whether what stops when it is cut off has stopped, where that is in question.
fn fence(worker: &Worker) -> Option<&'static str> {
    match (worker.fenced, worker.unconfirmed) {
        (true, _) => Some("fenced"),
        (false, true) => Some("not fenced yet"),
        (false, false) => None,
    }
}

/// Workers, watched.
pub(crate) struct Workers {
    /// Which.
    pub(crate) filter: WorkerFilter,
}

impl Watched for Workers {
    type Resource = Worker;
    type Message = WatchWorkersResponse;

    const COMPONENT: Component = Component::Registry;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchWorkersResponse>>, Status>> + Send
    {
        let request = WatchWorkersRequest {
            filter: Some(self.filter.clone()),
            resume_token,
        };
        let mut client = session.workers();
        async move { client.watch_workers(request).await }
    }

    fn read(&self, message: WatchWorkersResponse) -> Update<Worker> {
        let change = |change: muster_proto::workers::v1::WorkerChange| match change.change? {
            Change::Put(worker) | Change::Observed(worker) => {
                Some((worker.name.clone(), Some(worker)))
            }
            Change::Deleted(worker) => Some((worker.name, None)),
        };
        Update {
            changes: message.changes.into_iter().filter_map(change).collect(),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

impl Shown for Workers {
    fn table(session: &Session, workers: &mut dyn Iterator<Item = &Worker>) -> Table {
        table(session, workers)
    }

    fn name(worker: &Worker) -> &str {
        &worker.name
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::workers::v1::WorkerCheck;

    use super::*;

    #[test]
    fn what_keeps_a_worker_from_use_is_told_while_it_does() {
        let check = |name: &str, status: CheckStatus| WorkerCheck {
            name: name.to_owned(),
            status: status.into(),
            ..WorkerCheck::default()
        };
        let mut worker = Worker {
            state: WorkerState::Provisioning.into(),
            checks: vec![check("clock", CheckStatus::Passed)],
            ..Worker::default()
        };
        assert_eq!(failed_check(&worker), None);
        worker.checks.push(check("ports", CheckStatus::Failed));
        assert_eq!(failed_check(&worker), Some("ports"));
        worker.set_state(WorkerState::Disabled);
        assert_eq!(failed_check(&worker), None);
    }

    #[test]
    fn a_fence_is_told_where_something_may_run_still() {
        for (fenced, unconfirmed, told) in [
            (false, false, None),
            (false, true, Some("not fenced yet")),
            (true, true, Some("fenced")),
            (true, false, Some("fenced")),
        ] {
            let worker = Worker {
                fenced,
                unconfirmed,
                ..Worker::default()
            };
            assert_eq!(fence(&worker), told);
        }
    }
}
