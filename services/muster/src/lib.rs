//! The command line of Muster, and the whole stack in one process.
//!
//! In reading order: `args` is what may be typed; `session` where a call goes;
//! `commands` what each command does; `spec` how a service is written;
//! `output` how things look; `stack` the components in one process, and `demo`
//! the story told on it; `certs` what certificates there are; `probe` stands in for
//! grpc_health_probe; and `called` is every other program by its name. It decides nothing that a component decides: it asks, and shows.

mod args;
mod called;
mod certs;
mod commands;
mod context;
mod convert;
mod demo;
mod failure;
mod output;
mod pages;
mod probe;
mod session;
mod spec;
mod stack;
mod text;
mod up;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _};
use muster_runtime::{
    args::{LogFormat, without_empty_variables},
    context::Context,
    server::Settings,
    telemetry::{self, Telemetry},
};
use tracing::Instrument as _;
use worker_agent::supervisor;

use crate::{
    args::{Certs, Cli, Command, Format, Local, Remote},
    failure::Failure,
    session::Session,
};

/// The version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version, and the commit if it is known.
const LONG_VERSION: &str = env!("MUSTER_LONG_VERSION");

/// Runs the program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    if words
        .next()
        .is_some_and(|word| word == supervisor::SUBCOMMAND)
    {
        // This program stands beside one replica of an agent, or of `muster up`.
        return supervisor::main(words);
    }
    if let Some(program) = called::program(&program) {
        return program();
    }
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let format = cli.global.output;
    match begin(cli, matches.subcommand_name().unwrap_or_default()) {
        Ok(code) => code,
        Err(failure) => {
            report(&failure, format);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn report(failure: &Failure, format: Format) {
    // Nowhere is left to say that stderr is closed.
    let _ = match format {
        Format::Json => writeln!(io::stderr(), "{}", failure.as_json()),
        Format::Table | Format::Wide | Format::Yaml | Format::Name => {
            writeln!(io::stderr(), "muster: {failure}")
        }
    };
}

fn begin(cli: Cli, name: &str) -> Result<ExitCode, Failure> {
    let format = cli.global.output;
    match cli.command {
        Command::Local(Local::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "muster", &mut script);
            session::print(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Local(Local::Certs(Certs::Init(args))) => {
            commands::certs::init(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Local(Local::Restore(args)) => {
            let restored = asking_runtime()?.block_on(commands::backup::restore(&args, format))?;
            session::print(&restored)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Local(Local::Up(args)) => {
            stack_runtime()?.block_on(up::run(&args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Local(Local::Demo) => {
            stack_runtime()?.block_on(demo::run())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Remote(Remote::Health(args::Health {
            probe: Some(words), ..
        })) => Ok(probe::main(words)),
        Command::Remote(command) => {
            let session = context::session(&cli.global)?;
            if Telemetry::is_wanted() {
                // Spans are sent off from a thread of their own.
                stack_runtime()?.block_on(ask_traced(&session, command, name))?;
            } else {
                asking_runtime()?.block_on(ask(&session, command))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The one thread of a command.
fn asking_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// The threads that a whole stack shares.
fn stack_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// Asks as part of a trace. A collector that is away costs the trace and nothing else.
async fn ask_traced(session: &Session, command: Remote, name: &str) -> Result<(), Failure> {
    let identity = Context::new("muster", VERSION, Settings::default()).identity;
    let telemetry = Telemetry::start(&identity, LogFormat::Pretty, "off")
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let span = telemetry::root::command(&format!("muster {name}"));
    let asked = Box::pin(ask(session, command)).instrument(span).await;
    let _ = telemetry.end().await;
    asked
}

async fn ask(session: &Session, command: Remote) -> Result<(), Failure> {
    use commands::{
        apply, backends, backup, change, endpoints, events, explain, health, logs, offers, orphans,
        ps, services, token, worker, workers,
    };
    match command {
        Remote::Offers(args) => offers::run(session, &args).await,
        Remote::Backends(args) => backends::run(session, &args).await,
        Remote::Apply(args) => Box::pin(apply::run(session, &args)).await,
        Remote::Services(args) => services::run(session, &args).await,
        Remote::Ps(args) => ps::run(session, &args).await,
        Remote::Endpoints(args) => endpoints::run(session, &args).await,
        Remote::Start(args) => change::start(session, &args).await,
        Remote::Stop(args) => change::stop(session, &args).await,
        Remote::Restart(args) => change::restart(session, &args).await,
        Remote::Scale(args) => change::scale(session, &args).await,
        Remote::Rollback(args) => change::rollback(session, &args).await,
        Remote::Rm(args) => change::rm(session, &args).await,
        Remote::Explain(args) => explain::run(session, &args).await,
        Remote::Events(args) => events::run(session, &args).await,
        Remote::Logs(args) => logs::run(session, &args).await,
        Remote::Workers(args) => workers::run(session, &args).await,
        Remote::Drain(args) => worker::drain(session, &args).await,
        Remote::Resume(args) => worker::resume(session, &args).await,
        Remote::Disable(args) => worker::disable(session, &args).await,
        Remote::Enable(args) => worker::enable(session, &args).await,
        Remote::DeleteWorker(args) => worker::delete(session, &args).await,
        Remote::ReleaseMassLoss(args) => worker::release_mass_loss(session, &args).await,
        Remote::Orphans(args) => orphans::run(session, &args).await,
        Remote::Token(args) => token::run(session, &args).await,
        Remote::Health(args) => health::run(session, &args).await,
        Remote::Maintenance(args) => health::maintenance(session, &args).await,
        Remote::Backup(args) => backup::run(session, &args).await,
    }
}
