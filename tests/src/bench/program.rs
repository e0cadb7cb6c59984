//! The command line: which benches run, and how their figures are shown. Exit code 0 means that
//! everything was measured, whatever came of the targets; 1 that something could not be; 2 bad usage.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum as _};

use super::{Bench, Scale, Setup, output, say};

/// Measures Muster's figures, each beside a floor of the same run where it has one
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// What to measure
    #[arg(value_parser = parse_choice, value_name = "offers|workers|replicas|store|startup|all")]
    name: Choice,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Small sizes: shows that everything is measured, not how fast it is
    #[arg(long)]
    smoke: bool,
    /// Measure only this part of a bench, such as "registrations" of workers; for work on one figure
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Keep stores and catalogues in this folder while measuring, which should be on a real disk;
    /// default: beside this program
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
enum Choice {
    One(Bench),
    All,
}

fn parse_choice(text: &str) -> Result<Choice, String> {
    if text == "all" {
        return Ok(Choice::All);
    }
    Bench::from_str(text, false).map(Choice::One)
}

/// The bench program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let setup = setup(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (benches, single) = match args.name {
        Choice::One(bench) => (vec![bench], true),
        Choice::All => (Bench::ALL.to_vec(), false),
    };
    let mut reports = Vec::new();
    for bench in benches {
        say(bench.name());
        let report = runtime
            .block_on(bench.run(&setup))
            .with_context(|| format!("bench {}", bench.name()))?;
        if !args.json {
            output::table(&mut io::stdout().lock(), &report)?;
        }
        reports.push(report);
    }
    if args.json {
        let mut to = io::stdout().lock();
        match reports.first() {
            Some(report) if single => serde_json::to_writer_pretty(&mut to, report)?,
            _ => serde_json::to_writer_pretty(&mut to, &reports)?,
        }
        writeln!(to)?;
    }
    Ok(())
}

fn setup(args: &Args) -> anyhow::Result<Setup> {
    let folder = match &args.dir {
        Some(folder) => folder.clone(),
        None => std::env::current_exe()?
            .parent()
            .context("this program is in no folder")?
            .to_owned(),
    };
    Ok(Setup {
        scale: if args.smoke {
            Scale::Smoke
        } else {
            Scale::Full
        },
        only: args.only.clone(),
        folder,
    })
}
