//! How a component ends: named steps in phases, run once, side by side within a phase, each bounded
//! by its own timeout inside one budget. A step that fails, hangs or panics is told in the report
//! and never stops the next; the end always comes. It decides nothing about what a step does, and
//! exits no process.

mod coordinator;
pub mod record;
mod report;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::panic::catch;
use crate::task::{Ending, Name};

pub use report::{Outcome, Report, StepReport};

/// The whole time a shutdown may take unless [`Shutdown::set_budget`] says otherwise.
pub const DEFAULT_BUDGET: Duration = Duration::from_secs(30);

/// The phases of a shutdown, in order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Readiness goes off, so that no new traffic is sent here.
    Readiness,
    /// Leadership and registrations are given up.
    StepDown,
    /// Still accepting, while clients learn of it.
    LameDuck,
    /// Nothing new is accepted, watches end, calls in flight finish.
    Drain,
    /// Background loops end.
    Loops,
    /// The store is flushed and closed.
    Store,
    /// What was measured and traced is sent off.
    Telemetry,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 7] = [
        Self::Readiness,
        Self::StepDown,
        Self::LameDuck,
        Self::Drain,
        Self::Loops,
        Self::Store,
        Self::Telemetry,
    ];

    /// Its name in reports, such as `lame-duck`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Readiness => "readiness",
            Self::StepDown => "step-down",
            Self::LameDuck => "lame-duck",
            Self::Drain => "drain",
            Self::Loops => "loops",
            Self::Store => "store",
            Self::Telemetry => "telemetry",
        }
    }
}

/// Why a component stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    words: String,
    failed: bool,
}

impl Cause {
    /// Someone wanted it: exit code 0 if every step goes well.
    pub fn asked(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            failed: false,
        }
    }

    /// The component cannot go on: exit code 1.
    pub fn failed(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            failed: true,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.words)
    }
}

/// The shutdown of one component. Cheap to clone; clones share one outcome.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: Mutex<Plan>,
    state: watch::Sender<State>,
    runtime: Option<Handle>,
}

#[derive(Debug)]
struct Plan {
    steps: Vec<Step>,
    budget: Duration,
    record: Option<record::Record>,
}

#[derive(Debug, Clone, Default)]
struct State {
    cause: Option<Cause>,
    reached: Option<Phase>,
    now: bool,
    report: Option<Arc<Report>>,
}

type Work = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send>;

struct Step {
    phase: Phase,
    name: Name,
    timeout: Duration,
    work: Work,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            to,
            "{}/{} within {:?}",
            self.phase.name(),
            self.name,
            self.timeout
        )
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A shutdown that has not begun and has no steps. Its steps run on the tokio runtime that it
    /// is made or begun in.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            plan: Mutex::new(Plan {
                steps: Vec::new(),
                budget: DEFAULT_BUDGET,
                record: None,
            }),
            state: watch::Sender::new(State::default()),
            runtime: Handle::try_current().ok(),
        }))
    }

    /// The whole time that the shutdown may take, from its begin.
    pub fn set_budget(&self, budget: Duration) {
        self.0.plan().budget = budget;
    }

    /// The whole time that the shutdown may take.
    pub fn budget(&self) -> Duration {
        self.0.plan().budget
    }

    /// Adds to the budget what a step of unusual length needs.
    pub fn extend_budget(&self, by: Duration) {
        let mut plan = self.0.plan();
        plan.budget = plan.budget.saturating_add(by);
    }

    /// Writes the report into `record` at the end.
    pub fn keep(&self, record: record::Record) {
        self.0.plan().record = Some(record);
    }

    /// Adds a step to `phase`. Steps of one phase run side by side. Once the phase has begun it is
    /// too late, and the step never runs.
    pub fn step<F, R>(&self, phase: Phase, name: impl Into<Name>, timeout: Duration, work: F)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output: Ending> + Send + 'static,
    {
        let work: Work = Box::new(move || Box::pin(async move { work().await.into_error() }));
        self.0.plan().steps.push(Step {
            phase,
            name: name.into(),
            timeout,
            work,
        });
    }

    /// Begins the shutdown, unless it has begun: the first cause stays. Returns at once.
    pub fn begin(&self, cause: Cause) {
        let first = self.0.state.send_if_modified(|state| {
            let first = state.cause.is_none();
            if first {
                state.cause = Some(cause.clone());
            }
            first
        });
        if !first {
            tracing::info!(%cause, "shutdown has begun already");
            return;
        }
        if cause.failed {
            tracing::error!(%cause, "shutdown begins");
        } else {
            tracing::info!(%cause, "shutdown begins");
        }
        self.run(cause);
    }

    /// Ends the shutdown now: what runs is cut, what has not begun is skipped.
    pub fn now(&self, cause: Cause) {
        self.0
            .state
            .send_if_modified(|state| !std::mem::replace(&mut state.now, true));
        self.begin(cause);
    }

    /// What a signal means: the first begins the shutdown, a second one ends it now.
    pub fn signalled(&self, signal: &str) {
        let cause = Cause::asked(signal);
        if self.is_begun() {
            self.now(cause);
        } else {
            self.begin(cause);
        }
    }

    /// Whether the shutdown has begun.
    pub fn is_begun(&self) -> bool {
        self.0.state.borrow().cause.is_some()
    }

    /// Resolves when the shutdown begins.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.when(|state| state.cause.is_some())
    }

    /// Whether `phase` has begun, or the shutdown is over.
    pub fn has_reached(&self, phase: Phase) -> bool {
        self.0.state.borrow().has_reached(phase)
    }

    /// Resolves when `phase` begins. A watch ends at [`Phase::Drain`], a loop at [`Phase::Loops`].
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.when(move |state| state.has_reached(phase))
    }

    /// Waits for the end; every caller gets the same report.
    pub async fn finished(&self) -> Arc<Report> {
        let mut state = self.0.state.subscribe();
        loop {
            if let Some(report) = &state.borrow_and_update().report {
                return Arc::clone(report);
            }
            // The sender lives in `self`, so this can only mean a change.
            let _ = state.changed().await;
        }
    }

    /// The report, once the shutdown is over.
    pub fn report(&self) -> Option<Arc<Report>> {
        self.0.state.borrow().report.clone()
    }

    fn when<T>(&self, test: T) -> impl Future<Output = ()> + Send + Sync + use<T>
    where
        T: Fn(&State) -> bool + Send + Sync + 'static,
    {
        let mut state = self.0.state.subscribe();
        async move {
            // An error means that the whole component is gone, which ends every wait as well.
            let _ = state.wait_for(|state| test(state)).await;
        }
    }

    fn run(&self, cause: Cause) {
        match self
            .0
            .runtime
            .clone()
            .or_else(|| Handle::try_current().ok())
        {
            Some(runtime) => drop(runtime.spawn(coordinator::run(self.clone(), cause))),
            // Outside of any runtime no step can run either.
            None => {
                let report = Report::without_steps(&cause);
                self.0
                    .state
                    .send_modify(|state| state.report = Some(Arc::new(report)));
            }
        }
    }
}

impl Inner {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_reached(&self, phase: Phase) -> bool {
        self.report.is_some() || self.reached.is_some_and(|reached| reached >= phase)
    }
}

impl Step {
    /// Calls the work, which may itself panic before it returns its future.
    async fn run(work: Work) -> Option<String> {
        match catch(work) {
            Ok(future) => future.await,
            Err(panicked) => std::panic::resume_unwind(Box::new(panicked.0)),
        }
    }
}
