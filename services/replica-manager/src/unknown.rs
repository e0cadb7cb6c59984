//! Replicas on workers of which the store knows nothing, as their agents reported them: in memory, since
//! agents report them again. They are never stopped unasked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_proto::replicas::v1 as wire;

/// What agents run that no record knows. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unknown(Arc<Mutex<BTreeMap<String, Reported>>>);

/// One attempt as its agent reported it.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    pub(crate) worker: String,
    pub(crate) report: wire::AttemptReport,
}

impl Unknown {
    pub(crate) fn put(&self, worker: &str, report: wire::AttemptReport) {
        let reported = Reported {
            worker: worker.to_owned(),
            report,
        };
        let mut all = self.lock();
        let id = reported.report.attempt_id.clone();
        // A short report must not hide what a whole one told.
        let assignment = all
            .get(&id)
            .and_then(|known| known.report.assignment.clone());
        let entry = all.entry(id).insert_entry(reported).into_mut();
        if entry.report.assignment.is_none() {
            entry.report.assignment = assignment;
        }
    }

    pub(crate) fn remove(&self, attempt_id: &str) -> Option<Reported> {
        self.lock().remove(attempt_id)
    }

    pub(crate) fn get(&self, attempt_id: &str) -> Option<Reported> {
        self.lock().get(attempt_id).cloned()
    }

    /// A worker runs these attempts and no others.
    pub(crate) fn keep_only(&self, worker: &str, attempts: &BTreeSet<&str>) {
        self.lock()
            .retain(|id, reported| reported.worker != worker || attempts.contains(id.as_str()));
    }

    /// All of them, in order of attempt id.
    pub(crate) fn all(&self) -> Vec<(String, Reported)> {
        let all = self.lock();
        all.iter()
            .map(|(id, reported)| (id.clone(), reported.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Reported>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
