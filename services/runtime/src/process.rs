//! What `main` does: settings, telemetry, threads, signals, listeners, the component, and the exit
//! code. It decides how a process starts and ends; a component never touches any of it.
//!
//! Exit codes: 0 stopped as asked; 1 could not start, failed, or did not stop well; 2 bad usage.

mod again;
mod limits;
mod security;
mod side;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Debug;
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use self::again::Reader;
use self::security::Security;
use self::side::Side;
use crate::args::{self, CommonArgs, OpsListen, Parsed};
use crate::auth::Entry;
use crate::context::Context;
use crate::health::stall::Pulse;
use crate::panic::{Panicked, caught};
use crate::server::{self, Listeners};
use crate::shutdown::{Cause, Phase, Shutdown};
use crate::signals::Hangup;
use crate::task;
use crate::telemetry::Telemetry;

pub use self::again::{Renewal, Renewed};

/// How long the component may take to return once its shutdown is over.
const COMPONENT_END: Duration = Duration::from_secs(1);

/// How long blocking work may hold up the end of the process once everything else is over.
const BLOCKING_END: Duration = Duration::from_millis(500);

/// A component as a program: its flags, its file, and how it runs.
pub trait Component: 'static {
    /// Its name, such as `sample`.
    const NAME: &'static str;
    /// Its version: `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// What it is, in one line, for `--help`.
    const ABOUT: &'static str;
    /// Defaults of flags, its own or common ones: at least `listen` and `ops-listen`.
    const DEFAULTS: &'static [(&'static str, &'static str)];

    /// What SIGHUP is for in a process without `--config`; one with it reads its settings again.
    const ON_HANGUP: Hangup = Hangup::Ends;

    /// The flags and keys of the file, such as `max_in_flight`, that [`Component::run`] takes when
    /// they are read again. What else differs then takes a restart, but for `auth`, which is taken
    /// for every component.
    const TAKES: &'static [&'static str] = &[];

    /// Its own flags; [`NoArgs`] if it has none. The environment twins come by themselves.
    type Args: clap::Args + Debug + Send;
    /// What the file holds beside flags, with `deny_unknown_fields`; [`NoFile`] if nothing.
    type File: serde::de::DeserializeOwned + Debug + Send;
    /// Its settings once they are checked.
    type Config: Send + 'static;

    /// Checks the settings, at the start and whenever they are read again. An error in words is bad
    /// usage: exit code 2, and nothing is opened.
    fn configure(
        common: &CommonArgs,
        own: Self::Args,
        file: Self::File,
    ) -> Result<Self::Config, String>;

    /// Runs until shutdown. An error before that stops the process with exit code 1. Settings that
    /// are read again come by `renewed`, for whoever takes any of them.
    fn run(
        config: Self::Config,
        renewed: Renewed<Self::Config>,
        context: Context,
        listeners: Listeners,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// No flags beside the common ones.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct NoArgs {}

/// Nothing in the file beside flags.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFile {}

/// The whole of a component's `main`.
pub fn main<C: Component>() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let parsed = match args::parse::<C>(&words) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    if parsed.common.print_config {
        let written = io::stdout().lock().write_all(parsed.shown.as_bytes());
        return ExitCode::from(u8::from(written.is_err()));
    }
    let settings = match Settings::check(parsed) {
        Ok(settings) => settings,
        Err(words) => args::usage_error::<C>(words).exit(),
    };
    match start::<C>(settings) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{}: {error:#}", C::NAME));
            ExitCode::FAILURE
        }
    }
}

/// Says on stderr what stopped the start, where there is no log yet.
fn complain(words: &str) {
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// All that a process is told, checked.
struct Settings<C: Component> {
    common: CommonArgs,
    security: Security,
    auth: Vec<Entry>,
    said: toml::Table,
    config: C::Config,
}

impl<C: Component> Settings<C> {
    /// Checks what was read. The error says in words what is wrong; nothing is opened.
    fn check(parsed: Parsed<C>) -> Result<Self, String> {
        let Parsed {
            common,
            own,
            file,
            auth,
            said,
            ..
        } = parsed;
        Ok(Self {
            security: Security::check(&common, auth.clone())?,
            config: C::configure(&common, own, file)?,
            common,
            auth,
            said,
        })
    }
}

fn start<C: Component>(settings: Settings<C>) -> anyhow::Result<ExitCode> {
    let Settings {
        common,
        security,
        auth,
        said,
        config,
    } = settings;
    let hangup = match common.config {
        Some(_) => Hangup::Reloads,
        None => C::ON_HANGUP,
    };
    let side = Side::bind(common.ops_listen.0, hangup)
        .with_context(|| format!("cannot listen on {}", common.ops_listen))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(common.threads))
        .thread_name(C::NAME)
        .enable_all()
        .build()?;
    let (context, listeners) = prepare((C::NAME, C::VERSION), &runtime, &common, security)?;
    let reader = Reader::<C>::new(&context, said, auth);
    let renewed = runtime.block_on(async { reader.start(&context, hangup) })?;
    let (address, ops) = (listeners.grpc_address(), OpsListen(side.ops_address()));
    tracing::info!(component = C::NAME, version = C::VERSION, %address, %ops, "starting");
    let pulse = Pulse::new();
    side.start(context.clone(), pulse.clone())?;
    let component = caught(C::run(config, renewed, context.clone(), listeners));
    let code = run(&runtime, context, Box::pin(component), pulse);
    runtime.shutdown_timeout(BLOCKING_END);
    Ok(ExitCode::from(code))
}

/// Opens what the component of that name and version is given.
fn prepare(
    (name, version): (&'static str, &'static str),
    runtime: &Runtime,
    common: &CommonArgs,
    security: Security,
) -> anyhow::Result<(Context, Listeners)> {
    let _entered = runtime.enter();
    let listeners = Listeners::reserve(common.listen)
        .with_context(|| format!("cannot listen on {}", common.listen))?;
    let Security {
        tls,
        access,
        client,
    } = security;
    let mut settings = server::Settings {
        tls,
        access,
        ..server::Settings::from(common)
    };
    settings.fit_into(limits::raise_open_files());
    let mut context = Context::new(name, version, settings);
    context.shutdown.set_budget(common.shutdown_timeout);
    let telemetry = Telemetry::start(&context.identity, common.log, &common.log_filter)?;
    telemetry.attach(&context);
    context.connector = client.equip(context.connector);
    context
        .tasks
        .until(Phase::Loops, "client certificates", client.follow());
    Ok((context, listeners))
}

/// A component that runs, until it ends or panics.
type Running = BoxFuture<'static, Result<anyhow::Result<()>, Panicked>>;

/// Runs the component to the end of its shutdown, and gives the exit code.
fn run(runtime: &Runtime, context: Context, component: Running, pulse: Pulse) -> u8 {
    let shutdown = context.shutdown;
    runtime.block_on(async move {
        let beating = task::spawn(pulse.beat());
        // On a task of its own, so that it runs on the runtime's threads and not on this one.
        let component = task::spawn(end_with(shutdown.clone(), component));
        let report = shutdown.finished().await;
        if timeout(COMPONENT_END, component).await.is_err() {
            tracing::warn!("the component has not returned");
        }
        beating.abort();
        report.exit_code
    })
}

/// Begins the shutdown when the component ends, unless that was because it has begun.
async fn end_with(shutdown: Shutdown, component: Running) {
    let cause = match component.await {
        Ok(Ok(())) => "ended without being asked to".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panicked) => panicked.to_string(),
    };
    if !shutdown.is_begun() {
        shutdown.begin(Cause::failed(cause));
    }
}
