//! The agent as a program of its own.

use std::process::ExitCode;

use muster_runtime::args::CommonArgs;
use muster_runtime::context::Context;
use muster_runtime::process::{self, Component, NoFile, Renewed};
use muster_runtime::server::Listeners;

use crate::config::{Args, Config};
use crate::serve::serve;

/// The program `worker-agent`.
#[derive(Debug)]
pub struct Program;

impl Component for Program {
    const NAME: &'static str = "worker-agent";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Runs replicas on one machine";
    const DEFAULTS: &'static [(&'static str, &'static str)] = &[
        ("listen", "127.0.0.1:7403"),
        ("ops-listen", "127.0.0.1:7413"),
    ];
    type Args = Args;
    type File = NoFile;
    type Config = Config;

    fn configure(_: &CommonArgs, own: Args, _: NoFile) -> Result<Config, String> {
        Config::from_args(own)
    }

    async fn run(
        config: Config,
        _: Renewed<Config>,
        context: Context,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        serve(config, context, listeners).await
    }
}

/// The whole of the program's `main`, compiled with this crate, and not once more in each program.
#[must_use]
pub fn main() -> ExitCode {
    process::main::<Program>()
}
