//! What a component is given instead of globals: its clock, shutdown, tasks, metrics, health and
//! settings. Several components in one process have one each. It decides nothing.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::SetOnce;

use crate::age::Age;
use crate::clock::Clock;
use crate::connect::{self, Connector};
use crate::health::{Health, Tier};
use crate::layers::shed::Load;
use crate::metrics::Metrics;
use crate::metrics::standard::Standard;
use crate::server::Settings;
use crate::shutdown::record::{self, Previous, Record};
use crate::shutdown::{Cause, Phase, Shutdown};
use crate::task::Tasks;

/// How long tasks may take to end once their phase has come.
const TASKS_END_WITHIN: Duration = Duration::from_secs(5);

/// The commit that this was built from; empty if the build was not told.
pub const COMMIT: &str = match option_env!("MUSTER_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// Which component this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The component, such as `sample`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// This start of it: 16 random hexadecimal digits.
    pub instance: Arc<str>,
}

/// The surroundings of one component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// Which component this is.
    pub identity: Identity,
    /// Tells the time.
    pub clock: Clock,
    /// Calls other components. Tests may put another in its place.
    pub connector: Connector,
    /// Ends the component.
    pub shutdown: Shutdown,
    /// Runs its tasks.
    pub tasks: Tasks,
    /// Holds its metrics.
    pub metrics: Metrics,
    /// Tells how it is.
    pub health: Health,
    /// Where its server is bound, once it serves.
    pub bound: Arc<SetOnce<SocketAddr>>,
    /// Calls in flight.
    pub load: Load,
    /// How old what reads show is.
    pub(crate) age: Age,
    /// How its server serves.
    pub settings: Arc<Settings>,
}

impl Context {
    /// The surroundings of the component `name`. Needs a tokio runtime around it.
    pub fn new(name: &'static str, version: &'static str, settings: Settings) -> Self {
        Self::with_clock(name, version, settings, Clock::system())
    }

    /// The same with a clock of the caller's.
    pub fn with_clock(
        name: &'static str,
        version: &'static str,
        settings: Settings,
        clock: Clock,
    ) -> Self {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let mut context = Self {
            identity: Identity {
                name,
                version,
                instance: random_instance(),
            },
            health: Health::new(clock.clone()),
            clock,
            connector: connector_of(name, version),
            shutdown,
            tasks,
            metrics: Metrics::new(),
            bound: Arc::default(),
            age: Age::default(),
            load: Load::new(settings.max_in_flight, settings.max_vital_in_flight),
            settings: Arc::new(settings),
        };
        context.connector = context.connector.clone().with_metrics(&context.metrics);
        context.add_steps();
        context.metrics.collect(Standard {
            identity: context.identity.clone(),
            clock: context.clock.clone(),
            health: context.health.clone(),
            load: context.load.clone(),
        });
        context
    }

    /// For tests: default settings (plaintext, every caller an admin, no lame duck).
    pub fn for_tests(name: &'static str) -> Self {
        Self::new(name, "0.0.0", Settings::default())
    }

    /// The component cannot go on once `failure` resolves with a reason: its core check `name`
    /// fails with it, and shutdown begins.
    pub fn fail_when<F>(&self, name: &'static str, failure: F)
    where
        F: Future<Output = String> + Send + 'static,
    {
        let check = self.health.check(name, Tier::Core);
        check.ok("");
        let shutdown = self.shutdown.clone();
        let stopped = self.shutdown.reached(Phase::Loops);
        self.tasks.spawn(format!("watch {name}"), async move {
            tokio::select! {
                () = stopped => {}
                reason = failure => {
                    check.failed(&reason);
                    shutdown.begin(Cause::failed(format!("{name}: {reason}")));
                }
            }
        });
    }

    /// Leaves a report of this run's end in `folder`, for the next start, and tells by metrics and in
    /// the log how the last run there ended. For components that have a folder of their own.
    pub fn keep_reports(&self, folder: &Path) -> io::Result<Previous> {
        let (previous, record) = Record::open(folder)?;
        Ok(self.keep(previous, record))
    }

    /// The same for a component that keeps all it has in `file`.
    pub fn keep_reports_beside(&self, file: &Path) -> io::Result<Previous> {
        let (previous, record) = Record::open_beside(file)?;
        Ok(self.keep(previous, record))
    }

    fn keep(&self, previous: Previous, record: Record) -> Previous {
        match &previous {
            Previous::None => {}
            Previous::Unclean => tracing::warn!("the last run ended without a shutdown"),
            Previous::Reported(report) if report.is_clean() => {}
            Previous::Reported(report) => {
                let steps = report.troubles().join(", ");
                tracing::warn!(
                    cause = report.cause,
                    steps,
                    "the last shutdown did not go well"
                );
            }
        }
        record::register(&previous, &self.metrics);
        self.shutdown.keep(record);
        previous
    }

    fn add_steps(&self) {
        let health = self.health.clone();
        self.shutdown.step(
            Phase::Readiness,
            "readiness off",
            TASKS_END_WITHIN,
            move || async move {
                health.stopping();
            },
        );
        let tasks = self.tasks.clone();
        self.shutdown.step(
            Phase::Loops,
            "tasks",
            TASKS_END_WITHIN,
            move || async move { end_tasks(&tasks, TASKS_END_WITHIN.mul_f32(0.8)).await },
        );
    }
}

/// Lets tasks end by themselves for `patience`, then cuts them off and tells which they were.
async fn end_tasks(tasks: &Tasks, patience: Duration) -> Result<(), String> {
    if tokio::time::timeout(patience, tasks.ended()).await.is_ok() {
        return Ok(());
    }
    let left: Vec<String> = tasks
        .running()
        .into_iter()
        .map(|(name, n)| format!("{name} x{n}"))
        .collect();
    tasks.cut();
    tasks.ended().await;
    Err(format!("cut off: {}", left.join(", ")))
}

fn connector_of(name: &str, version: &str) -> Connector {
    let mut options = connect::Options::default();
    if let Ok(agent) = HeaderValue::try_from(format!("{name}/{version}")) {
        options.user_agent = agent;
    }
    Connector::new(options)
}

fn random_instance() -> Arc<str> {
    let mut bytes = [0_u8; 8];
    // Without randomness all instances are called zero, which is only a name.
    let _ = getrandom::fill(&mut bytes);
    let mut text = String::with_capacity(16);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}
