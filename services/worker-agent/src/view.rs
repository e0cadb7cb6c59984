//! What everyone but the agent's own loop sees of what it holds: a picture that is whole, and is
//! replaced at each change.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_proto::agents::v1::RunningAttempt;
use muster_proto::replicas::v1::{Assignment, AttemptReport};
use muster_proto::workers::v1::HeldAllocation;

use crate::domain::ids::AttemptId;
use crate::plan::Port;

/// All that the agent holds, at one instant.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// What the registry is told, in order of id.
    pub(crate) held: Vec<HeldAllocation>,
    /// Grows with each change of it.
    pub(crate) held_revision: u64,
    /// Whether anything runs, or may yet.
    pub(crate) running: bool,
    /// Whether nothing is started any more, for good.
    pub(crate) closed: bool,
    /// Every attempt.
    pub(crate) attempts: BTreeMap<AttemptId, Arc<Seen>>,
}

/// What others see of one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Another one at each change.
    pub(crate) revision: (u64, u64),
    /// The manager needs no more to hear of it.
    pub(crate) settled: bool,
    /// What the manager is told.
    pub(crate) report: AttemptReport,
    /// The assignment, as it came.
    pub(crate) assignment: Arc<Assignment>,
    /// The ports that it got.
    pub(crate) ports: Vec<Port>,
    /// What people are told.
    pub(crate) running: RunningAttempt,
}

impl Seen {
    /// Whether nothing of it runs, nor will.
    pub(crate) fn has_ended(&self) -> bool {
        self.report.end_time.is_some()
    }
}
