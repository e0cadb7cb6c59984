//! Measures the project's figures: which benches there are, and what one run of them shares. What a
//! figure means stands in `docs/performance.md`. Targets never change what is measured.

pub mod component;
pub mod program;

mod bare;
mod calls;
mod child;
mod connection;
mod figure;
mod form;
mod load;
mod offers;
mod output;
mod raw;
mod replicas;
mod startup;
mod statistics;
mod store;
mod system;
mod workers;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use figure::Report;

/// A group of figures that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bench {
    /// The offers-gateway's answers
    Offers,
    /// The worker-registry: registrations, heartbeats, losses, allocations
    Workers,
    /// The replica-manager: recovery of replicas, scale of the planner
    Replicas,
    /// The embedded store
    Store,
    /// Start and idle memory of each component
    Startup,
}

impl Bench {
    const ALL: [Self; 5] = [
        Self::Startup,
        Self::Store,
        Self::Offers,
        Self::Workers,
        Self::Replicas,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Offers => "offers",
            Self::Workers => "workers",
            Self::Replicas => "replicas",
            Self::Store => "store",
            Self::Startup => "startup",
        }
    }

    async fn run(self, setup: &Setup) -> anyhow::Result<Report> {
        let mut report = Report::new(self.name(), setup.is_smoke());
        match self {
            Self::Offers => offers::run(setup, &mut report).await?,
            Self::Store => store::run(setup, &mut report).await?,
            Self::Startup => startup::run(setup, &mut report).await?,
            Self::Workers => workers::run(setup, &mut report).await?,
            Self::Replicas => replicas::run(setup, &mut report).await?,
        }
        Ok(report)
    }
}

/// How large the measured things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// As the targets speak of them.
    Full,
    /// Small, to see in a short time that everything is still measured.
    Smoke,
}

/// What all benches of a run share.
#[derive(Debug)]
struct Setup {
    scale: Scale,
    /// The one part that is measured; none measures all.
    only: Option<String>,
    /// A folder of this run's own, on a real disk.
    folder: PathBuf,
}

impl Setup {
    fn is_smoke(&self) -> bool {
        self.scale == Scale::Smoke
    }

    /// Whether a part of a bench is to be measured.
    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }

    /// One of two sizes, by the scale of the run.
    fn size<T>(&self, full: T, smoke: T) -> T {
        match self.scale {
            Scale::Full => full,
            Scale::Smoke => smoke,
        }
    }

    /// How windows of load alternate.
    fn rounds(&self) -> load::Rounds {
        load::Rounds {
            count: self.size(7, 3),
            length: self.size(Duration::from_secs(1), Duration::from_millis(100)),
        }
    }

    /// A new empty folder, removed when dropped.
    fn temporary(&self) -> io::Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&self.folder)
    }
}

/// Tells the person who waits what is being measured.
fn say(words: &str) {
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "bench: {words}");
}
