//! The trace that a shutdown leaves on disk, so that the next start can tell how the last run
//! ended. While a component runs the file says so; a file that still says so at the next start
//! means that the end was unclean.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};

use super::Report;
use crate::metrics::Metrics;

const FILE: &str = "last-shutdown.json";

/// How the run before this one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Previous {
    /// There was none, or none that left a trace.
    None,
    /// Without a report: it was killed, or the machine went down.
    Unclean,
    /// With a report.
    Reported(Report),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    phase: &'static str,
    step: String,
    outcome: &'static str,
}

/// Shows in `metrics` how the run before this one ended; nothing if there was none.
pub(crate) fn register(previous: &Previous, metrics: &Metrics) {
    let clean = match previous {
        Previous::None => return,
        Previous::Unclean => false,
        Previous::Reported(report) => report.is_clean(),
    };
    let gauge: Gauge = metrics.register(
        "muster_last_shutdown_clean",
        "1 if the run before this one ended as asked, with every step well",
        Gauge::default(),
    );
    gauge.set(i64::from(clean));
    let Previous::Reported(report) = previous else {
        return;
    };
    let steps: Family<StepLabels, Gauge<f64, AtomicU64>> = metrics.register_seconds(
        "muster_last_shutdown_step",
        "How long each step of the last shutdown took",
        Family::default(),
    );
    for step in &report.steps {
        let labels = StepLabels {
            phase: step.phase.name(),
            step: step.name.clone(),
            outcome: step.outcome.name(),
        };
        steps
            .get_or_create(&labels)
            .set(Duration::from_millis(step.ms).as_secs_f64());
    }
}

/// The open record of the run that goes on.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum Content {
    Running,
    Ended { report: Report },
}

impl Record {
    /// Reads how the last run in `folder` ended, and notes that a new one goes on.
    pub fn open(folder: &Path) -> io::Result<(Previous, Self)> {
        Self::open_at(folder.join(FILE))
    }

    /// The same for a run that keeps all it has in `file`: the record stands beside it, under its
    /// name, since others may keep theirs in the same folder.
    pub fn open_beside(file: &Path) -> io::Result<(Previous, Self)> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(FILE);
        Self::open_at(file.with_file_name(name))
    }

    fn open_at(path: PathBuf) -> io::Result<(Previous, Self)> {
        let previous = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Content::Ended { report }) => Previous::Reported(report),
                // Cut off in the middle of a write is no report either.
                Ok(Content::Running) | Err(_) => Previous::Unclean,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Previous::None,
            Err(error) => return Err(error),
        };
        let record = Self { path };
        record.write(&Content::Running)?;
        Ok((previous, record))
    }

    /// Writes the report. A failure is only logged: nothing waits for this any more.
    pub(super) fn close(self, report: &Report) {
        let content = Content::Ended {
            report: report.clone(),
        };
        if let Err(error) = self.write(&content) {
            tracing::warn!(path = %self.path.display(), %error, "shutdown report not written");
        }
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        let draft = self.path.with_extension("json.new");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)
    }
}
