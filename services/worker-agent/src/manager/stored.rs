//! What the manager has stored of what we see, on one connection, and what it is told next. It
//! decides what goes into a message, and never when one is sent.

use std::collections::BTreeMap;

use muster_proto::replicas::v1::{AttemptReport, ReportReplicasResponse};
use prost::Message as _;

use crate::domain::ids::AttemptId;
use crate::view::{Seen, View};

/// A message has at most so many bytes of reports, unless it has a single one. A manager takes 4 MiB, and
/// the largest report, with an assignment of the largest spec, has less than one.
const MOST_BYTES: usize = 2 << 20;

/// What the manager has stored of what we see.
#[derive(Debug, Default)]
pub(super) struct Stored {
    revisions: BTreeMap<AttemptId, (u64, u64)>,
    /// Attempts that it does not know; true once it has what was assigned.
    unknown: BTreeMap<AttemptId, bool>,
    /// Whether every attempt was named in one message, so that it knows of what there is not.
    whole: bool,
}

/// What the manager is told next.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) reports: Vec<AttemptReport>,
    pub(super) whole: bool,
    told: Vec<(AttemptId, (u64, u64))>,
}

impl Stored {
    /// What it has to be told next; nothing if it knows everything.
    pub(super) fn next(&self, view: &View) -> Option<Message> {
        let named = || view.attempts.iter().filter(|(_, seen)| !seen.settled);
        let mut untold = named().filter(|(id, seen)| !self.has(id, seen)).peekable();
        if self.whole {
            untold.peek()?;
        } else {
            let all = self.message(named(), true, usize::MAX);
            // Without anything new it cannot be made smaller.
            if all.bytes() <= MOST_BYTES || untold.peek().is_none() {
                return Some(all);
            }
        }
        Some(self.message(untold, false, MOST_BYTES))
    }

    /// Notes that a message was taken.
    pub(super) fn note(&mut self, view: &View, message: &Message, answer: &ReportReplicasResponse) {
        self.whole |= message.whole;
        for (id, revision) in &message.told {
            self.revisions.insert(id.clone(), *revision);
            if let Some(told) = self.unknown.get_mut(id) {
                *told = true;
            }
        }
        for id in &answer.unknown_attempts {
            if let Ok(id) = AttemptId::parse(id)
                && view.attempts.get(&id).is_some_and(|seen| !seen.has_ended())
                && !self.unknown.contains_key(&id)
            {
                tracing::warn!(attempt = %id, "the replica-manager does not know what runs here: it is kept");
                self.unknown.insert(id, false);
            }
        }
        let there = |id: &AttemptId| view.attempts.contains_key(id);
        self.revisions.retain(|id, _| there(id));
        self.unknown.retain(|id, _| there(id));
    }

    fn has(&self, id: &AttemptId, seen: &Seen) -> bool {
        self.revisions.get(id) == Some(&seen.revision) && self.unknown.get(id) != Some(&false)
    }

    /// As many of `attempts` as there is room for, and at least one.
    fn message<'a>(
        &self,
        attempts: impl Iterator<Item = (&'a AttemptId, &'a std::sync::Arc<Seen>)>,
        whole: bool,
        room: usize,
    ) -> Message {
        let (mut bytes, mut reports, mut told) = (0, Vec::new(), Vec::new());
        for (id, seen) in attempts {
            let report = self.render(id, seen);
            bytes += report.encoded_len();
            if bytes > room && !reports.is_empty() {
                break;
            }
            reports.push(report);
            told.push((id.clone(), seen.revision));
        }
        Message {
            reports,
            whole,
            told,
        }
    }

    /// What was assigned is told to who does not know it. Of what it has already, the lines of output,
    /// which may be long, are left out.
    fn render(&self, id: &AttemptId, seen: &Seen) -> AttemptReport {
        let unknown = self.unknown.get(id) == Some(&false);
        let mut report = seen.report.clone();
        report.assignment = unknown.then(|| (*seen.assignment).clone());
        if self.has(id, seen) {
            report.last_log_lines.clear();
        }
        report
    }
}

impl Message {
    fn bytes(&self) -> usize {
        self.reports.iter().map(AttemptReport::encoded_len).sum()
    }
}

#[cfg(test)]
mod tests;
