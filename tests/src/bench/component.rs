//! The components as children of this program. A child is this very file, started under the name of
//! a component, so that what is measured is always what was built with the bench.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::process::{self, NoArgs, NoFile, Renewed};
use muster_runtime::server::{Listeners, Server};
use worker_agent::supervisor;

use super::bare;
use super::child::Plan;

/// Where nothing listens: what is measured alone must not join what else runs on this machine.
const NOBODY: &str = "http://127.0.0.1:1";

/// What can be a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    /// A server without anything of ours.
    Bare,
    /// What every process is made of, and no service.
    Empty,
    /// offers-gateway.
    Gateway,
    /// worker-registry.
    Registry,
    /// replica-manager.
    Manager,
    /// worker-agent.
    Agent,
}

impl Component {
    const ALL: [Self; 6] = [
        Self::Bare,
        Self::Empty,
        Self::Gateway,
        Self::Registry,
        Self::Manager,
        Self::Agent,
    ];

    /// Those that are made of our own parts.
    pub(super) const OURS: [Self; 5] = [
        Self::Empty,
        Self::Gateway,
        Self::Registry,
        Self::Manager,
        Self::Agent,
    ];

    /// The name under which the child is started.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bench-bare",
            Self::Empty => <Empty as process::Component>::NAME,
            Self::Gateway => <offers_gateway::Gateway as process::Component>::NAME,
            Self::Registry => <worker_registry::WorkerRegistry as process::Component>::NAME,
            Self::Manager => <replica_manager::ReplicaManager as process::Component>::NAME,
            Self::Agent => <worker_agent::Program as process::Component>::NAME,
        }
    }

    /// How it is started with nothing stored, keeping what it stores in `folder`.
    pub(super) fn on_empty(self, folder: &Path) -> Plan {
        let plan = Plan::new(self, folder);
        let inside = |name: &str| folder.join(name).display().to_string();
        match self {
            Self::Bare | Self::Empty => plan,
            Self::Gateway => plan.arg("data", inside("data")),
            Self::Registry => plan.arg("store", format!("embedded:{}", inside("store.db"))),
            Self::Manager => plan
                .arg("store", format!("embedded:{}", inside("store.db")))
                .arg("workers-addr", NOBODY)
                .arg("offers-addr", NOBODY),
            Self::Agent => plan
                .arg("data", inside("data"))
                .arg("name", "bench")
                .arg("workers-addr", NOBODY),
        }
    }

    fn main(self) -> ExitCode {
        match self {
            Self::Bare => bare::main(),
            Self::Empty => process::main::<Empty>(),
            Self::Gateway => offers_gateway::main(),
            Self::Registry => worker_registry::main(),
            Self::Manager => replica_manager::main(),
            Self::Agent => worker_agent::main(),
        }
    }
}

/// The whole of `main` for a child; `None` in the bench itself.
pub fn main_if_child() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    if args.next()? == supervisor::SUBCOMMAND {
        return Some(supervisor::main(args));
    }
    let name = Path::new(&name).file_name().and_then(OsStr::to_str)?;
    let component = Component::ALL.into_iter().find(|c| c.name() == name)?;
    Some(component.main())
}

/// Serves health, and nothing else.
#[derive(Debug)]
struct Empty;

impl process::Component for Empty {
    const NAME: &'static str = "bench-empty";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Serves health, and nothing else";
    const DEFAULTS: &'static [(&'static str, &'static str)] =
        &[("listen", "127.0.0.1:0"), ("ops-listen", "off")];

    type Args = NoArgs;
    type File = NoFile;
    type Config = ();

    fn configure(_: &CommonArgs, _: NoArgs, _: NoFile) -> Result<(), String> {
        Ok(())
    }

    async fn run(
        (): (),
        _: Renewed<()>,
        context: Context,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        Server::new(&context).serve(listeners).await?;
        Ok(())
    }
}
