//! What a shutdown did: each step with its time and outcome. Plain data; it decides only what
//! counts as a clean end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Phase};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Well.
    Ok,
    /// With an error.
    Error,
    /// Not within its time; it was cut off.
    Timeout,
    /// With a panic.
    Panic,
    /// Cut off or never begun, because the shutdown was to end now or its budget was spent.
    Skipped,
}

impl Outcome {
    /// Its name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Skipped => "skipped",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// When it ran.
    pub phase: Phase,
    /// Its name.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The error, or why it was cut; empty when well.
    pub detail: String,
}

/// A whole shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Why it began.
    pub cause: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What the process exits with: 0 when it was asked for and every step went well, but for those
    /// of [`Phase::Telemetry`]; else 1.
    pub exit_code: u8,
    /// Each step, in order of phase and registration.
    pub steps: Vec<StepReport>,
}

impl Report {
    pub(super) fn new(cause: &Cause, took: Duration, steps: Vec<StepReport>) -> Self {
        // A collector that is away is no reason for anyone to start the process again.
        let counts = |step: &&StepReport| step.phase != Phase::Telemetry;
        let well = steps
            .iter()
            .filter(counts)
            .all(|step| step.outcome == Outcome::Ok);
        Self {
            cause: cause.to_string(),
            ms: millis(took),
            exit_code: u8::from(cause.failed || !well),
            steps,
        }
    }

    pub(super) fn without_steps(cause: &Cause) -> Self {
        Self::new(cause, Duration::ZERO, Vec::new())
    }

    /// Whether it was asked for and every step went well.
    pub fn is_clean(&self) -> bool {
        self.exit_code == 0
    }

    /// The steps that did not end well, each with how it ended.
    pub fn troubles(&self) -> Vec<String> {
        let troubled = self.steps.iter().filter(|step| step.outcome != Outcome::Ok);
        troubled
            .map(|step| format!("{} {}: {}", step.name, step.outcome.name(), step.detail))
            .collect()
    }

    /// How the step `name` ended.
    pub fn outcome(&self, name: &str) -> Option<Outcome> {
        let step = self.steps.iter().find(|step| step.name == name);
        step.map(|step| step.outcome)
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
