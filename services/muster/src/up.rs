//! `muster up`: the whole stack in this process, until it is told to stop.

use std::io::Write as _;

use muster_model::gpu_syntax;
use muster_runtime::{
    args::LogFormat, context::Context, server::Settings, signals, telemetry::Telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Format, Up},
    commands::ps,
    failure::Failure,
    output::table::Table,
    stack::{Options, Ports, Stack},
};

/// Variables that a component would read and this command does not.
const IGNORED: [&str; 4] = [
    "MUSTER_LISTEN",
    "MUSTER_OPS_LISTEN",
    "MUSTER_STORE",
    "MUSTER_CONFIG",
];

/// Which log lines there are: what goes wrong, since the commands show the rest.
const LOG_FILTER: &str = "warn";

/// Runs the stack until Ctrl-C, SIGTERM or the end of its terminal; a second one ends it at once.
pub(crate) async fn run(args: &Up) -> Result<(), Failure> {
    for variable in IGNORED
        .iter()
        .filter(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()))
    {
        say(&format!("{variable} is set, and means nothing to `up`"));
    }
    let format = if args.log == "json" {
        LogFormat::Json
    } else {
        LogFormat::Pretty
    };
    let identity = Context::new("muster", crate::VERSION, Settings::default()).identity;
    let telemetry = Telemetry::start(&identity, format, LOG_FILTER)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let gpus = args.gpus.as_deref().map(gpu_syntax::parse).transpose();
    let gpus = gpus.map_err(|error| Failure::Usage(format!("--gpus: {error}")))?;
    let options = Options {
        data: args.data.clone(),
        workers: args.workers,
        gpus,
        catalog: args.catalog.clone(),
        ports: Ports::Documented,
        supervisor: None,
    };
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let stack = Stack::start(&options).await?;
    show(&stack, args)?;
    let mut hangup = signals::hangup()?;
    let failure = tokio::select! {
        failure = stack.failed() => Some(failure),
        _ = signals::hung_up(&mut hangup) => None,
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    say("stopping; once more to stop at once");
    let left = left_running(&stack).await;
    tokio::select! {
        stopped = stack.stop() => drop(stopped?),
        _ = interrupt.recv() => return Err(Failure::Failed("stopped at once".to_owned())),
        _ = terminate.recv() => return Err(Failure::Failed("stopped at once".to_owned())),
    }
    if left > 0 {
        say(&format!(
            "{left} replicas run on; `muster up` with the same --data finds them again"
        ));
    }
    telemetry.end().await.map_err(Failure::Failed)?;
    failure.map_or(Ok(()), Err)
}

fn show(stack: &Stack, args: &Up) -> Result<(), Failure> {
    let session = stack.session(Format::Table)?;
    let mut table = Table::new(&["PART", "GRPC", "HEALTH AND METRICS"]);
    for (name, grpc, ops) in stack.addresses() {
        let ops = ops.map_or_else(|| "-".to_owned(), |ops| format!("http://{ops}"));
        table.row(vec![
            name.into(),
            format!("http://{grpc}").into(),
            ops.into(),
        ]);
    }
    session.print_table(&table)?;
    session.print(&format!(
        "state is in {}; Ctrl-C stops it\n",
        args.data.display()
    ))
}

/// How many replicas an end of this process leaves running.
async fn left_running(stack: &Stack) -> usize {
    let Ok(session) = stack.session(Format::Table) else {
        return 0;
    };
    let listed = ps::list(&session, Vec::new())
        .await
        .map(|listed| listed.replicas);
    let runs = |replica: &&muster_proto::replicas::v1::Replica| ps::runs(replica.phase());
    listed.map_or(0, |replicas| replicas.iter().filter(runs).count())
}

fn say(line: &str) {
    // Nobody may be reading any more.
    let _ = writeln!(std::io::stderr(), "muster: {line}");
}
