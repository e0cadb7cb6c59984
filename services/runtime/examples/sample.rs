//! The smallest component, as a program: it serves health and nothing else, and misbehaves as its
//! flags say. The tests of the process run it.

use std::process::ExitCode;
use std::time::Duration;

use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::process::{self, Component, NoFile, Renewed};
use muster_runtime::server::{Listeners, Server};
use muster_runtime::shutdown::Phase;

struct Sample;

#[derive(Debug, Clone, clap::Args)]
struct Args {
    /// Fail, panic, block the threads, end without being asked to, or never come to serve
    #[arg(long, value_parser = ["fail", "panic", "block", "end", "never"])]
    misbehave: Option<String>,
    /// Hang in a shutdown step
    #[arg(long)]
    hang: bool,
    /// Keep shutdown reports here
    #[arg(long)]
    data: Option<std::path::PathBuf>,
}

impl Component for Sample {
    const NAME: &'static str = "sample";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Serves health, and misbehaves on demand";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("listen", "127.0.0.1:7409"),
        ("ops-listen", "127.0.0.1:7419"),
    ];
    type Args = Args;
    type File = NoFile;
    type Config = Args;

    fn configure(_: &CommonArgs, args: Args, _: NoFile) -> Result<Args, String> {
        match &args.data {
            Some(data) if !data.is_dir() => Err(format!("--data {} is no folder", data.display())),
            _ => Ok(args),
        }
    }

    async fn run(
        args: Args,
        _: Renewed<Args>,
        context: Context,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        if let Some(data) = &args.data {
            context.keep_reports(data)?;
        }
        if args.hang {
            let minute = Duration::from_secs(60);
            context
                .shutdown
                .step(Phase::StepDown, "hang", minute, std::future::pending::<()>);
        }
        match args.misbehave.as_deref() {
            Some("fail") => anyhow::bail!("as told"),
            Some("end") => return Ok(()),
            Some("never") => return std::future::pending().await,
            Some("panic") => context.tasks.critical("panic", misbehave(true)),
            Some("block") => context.tasks.critical("block", misbehave(false)),
            _ => {}
        }
        Ok(Server::new(&context).serve(listeners).await?)
    }
}

/// Panics, or blocks for ever every thread that serves.
async fn misbehave(panics: bool) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!panics, "as told");
    let (_never, blocked) = std::sync::mpsc::channel::<()>();
    let _ = blocked.recv();
}

fn main() -> ExitCode {
    process::main::<Sample>()
}
