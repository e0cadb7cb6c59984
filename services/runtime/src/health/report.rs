//! Health as it is shown. Plain data; it decides nothing.

use std::time::SystemTime;

use super::EVENT_LOOP;

/// How much a check matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Without it the component is not ready.
    Core,
    /// Without it the component is degraded, and still ready.
    Auxiliary,
}

impl Tier {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Auxiliary => "auxiliary",
        }
    }
}

/// What a check found last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet.
    Pending,
    /// All is well.
    Ok,
    /// Something is not.
    Failed,
    /// No answer in time.
    Stuck,
}

impl Found {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Stuck => "stuck",
        }
    }
}

/// A check as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Its name, such as `store`.
    pub name: String,
    /// How much it matters.
    pub tier: Tier,
    /// What it found last.
    pub found: Found,
    /// Since when it finds that.
    pub since: SystemTime,
    /// The same in words; may be empty when well.
    pub detail: String,
}

impl CheckReport {
    /// Whether the check bears on liveness as well.
    pub fn is_of_liveness(&self) -> bool {
        self.name == EVENT_LOOP
    }
}

/// Everything known of a component's health, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Ready for traffic.
    pub ready: bool,
    /// Makes progress.
    pub live: bool,
    /// Some auxiliary check is not well.
    pub degraded: bool,
    /// Each check, in order of name.
    pub checks: Vec<CheckReport>,
}
