//! Which backends run: starts the task of each, and brings what runs in line with another
//! configuration. A backend whose configuration is the same keeps its task and its offers; one that is
//! asked differently keeps its offers; whatever else is new starts anew, and what is no longer asked has
//! nothing to show. Callers in flight are not disturbed. It decides nothing about a backend beyond that.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use muster_runtime::context::Context;
use muster_runtime::shutdown::Phase;
use muster_runtime::task;
use tokio::sync::{Mutex, oneshot};

use crate::board::{Board, Keep};
use crate::domain::backend::Facts;
use crate::gather::Handles;
use crate::keeper::Keeper;
use crate::metrics::Metrics;
use crate::refresher::{Handle, Refresher, Surroundings};
use crate::source::Source;
use crate::spec::Spec;

/// The backends that run.
#[derive(Debug)]
pub struct Roster {
    board: Board,
    keeper: Keeper,
    metrics: Metrics,
    context: Context,
    handles: Handles,
    /// Held while they are brought in line.
    running: Mutex<BTreeMap<String, Running>>,
}

#[derive(Debug)]
struct Running {
    spec: Spec,
    /// None for a backend that is disabled: nothing would come of asking it.
    task: Option<Task>,
}

#[derive(Debug)]
struct Task {
    handle: Handle,
    /// The task ends when this is dropped.
    stop: oneshot::Sender<()>,
    ended: task::Handle<()>,
}

/// What another configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names that are new.
    pub added: Vec<String>,
    /// Names that are configured otherwise.
    pub changed: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
}

impl Changes {
    fn between(running: &BTreeMap<String, Running>, specs: &[Spec]) -> Self {
        let mut changes = Self::default();
        for spec in specs {
            match running.get(&spec.name) {
                None => changes.added.push(spec.name.clone()),
                Some(running) if running.spec != *spec => changes.changed.push(spec.name.clone()),
                Some(_) => {}
            }
        }
        let gone = |name: &&String| !specs.iter().any(|spec| spec.name == **name);
        changes.removed = running.keys().filter(gone).cloned().collect();
        changes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Roster {
    /// Starts the task of every backend; they are on the board already.
    pub fn start(
        specs: &[Spec],
        board: Board,
        keeper: Keeper,
        metrics: Metrics,
        context: Context,
    ) -> Self {
        let mut roster = Self {
            board,
            keeper,
            metrics,
            context,
            handles: Arc::new(ArcSwap::default()),
            running: Mutex::default(),
        };
        let running = specs
            .iter()
            .map(|spec| (spec.name.clone(), roster.run(spec)))
            .collect();
        roster.show(&running);
        roster.running = Mutex::new(running);
        roster
    }

    /// How refreshes are asked for.
    pub fn handles(&self) -> Handles {
        Arc::clone(&self.handles)
    }

    /// Has exactly these backends from now on, and tells what that changed.
    pub async fn apply(&self, specs: &[Spec]) -> Changes {
        let mut running = self.running.lock().await;
        let changes = Changes::between(&running, specs);
        if changes.is_empty() {
            return changes;
        }
        let mut before = BTreeMap::new();
        for name in changes.changed.iter().chain(&changes.removed) {
            if let Some(Running { spec, task }) = running.remove(name) {
                end(task).await;
                before.insert(name.as_str(), spec);
            }
        }
        let keep = |spec: &Spec| match before.get(spec.name.as_str()) {
            None => Keep::All,
            // Nobody would read its offers again, nor see to it that they grow old.
            Some(_) if spec.kind.disabled().is_some() => Keep::Nothing,
            Some(before) if before.kind.origin() == spec.kind.origin() => Keep::Offers,
            Some(_) => Keep::Nothing,
        };
        self.board
            .configure(specs.iter().map(|spec| (facts(spec), keep(spec))));
        for spec in specs {
            if !running.contains_key(&spec.name) {
                running.insert(spec.name.clone(), self.run(spec));
            }
        }
        self.show(&running);
        for name in &changes.removed {
            self.metrics.forget(name);
        }
        changes
    }

    fn run(&self, spec: &Spec) -> Running {
        let task = spec.kind.disabled().is_none().then(|| self.spawn(spec));
        Running {
            spec: spec.clone(),
            task,
        }
    }

    fn spawn(&self, spec: &Spec) -> Task {
        let source = Source::new(spec, &self.context.connector);
        let refresher = Refresher::new(
            spec,
            source,
            Surroundings {
                board: self.board.clone(),
                keeper: self.keeper.clone(),
                metrics: self.metrics.clone(),
                clock: self.context.clock.clone(),
            },
        );
        let handle = refresher.handle();
        let (stop, dismissed) = oneshot::channel();
        let reached = self.context.shutdown.reached(Phase::Loops);
        let name = format!("backend {}", spec.name);
        let tasks = &self.context.tasks;
        Task {
            handle,
            stop,
            ended: tasks.critical_until(dismissed, name, refresher.run(reached)),
        }
    }

    fn show(&self, running: &BTreeMap<String, Running>) {
        let handles = running.iter().filter_map(|(name, running)| {
            Some((name.clone(), running.task.as_ref()?.handle.clone()))
        });
        self.handles.store(Arc::new(handles.collect()));
    }
}

/// Ends a task and waits until it has: it would still speak for its name otherwise.
async fn end(task: Option<Task>) {
    if let Some(Task { stop, ended, .. }) = task {
        drop(stop);
        // However it ended, it has.
        let _ = ended.await;
    }
}

/// What is fixed about a backend that is configured so.
pub fn facts(spec: &Spec) -> Facts {
    Facts {
        name: spec.name.clone(),
        kind: spec.kind.name(),
        source: spec.kind.source(),
        refresh_interval: spec.times.refresh_interval,
        drop_after: spec.times.drop_after,
        breaker: spec.times.breaker,
        disabled: spec.kind.disabled(),
    }
}
