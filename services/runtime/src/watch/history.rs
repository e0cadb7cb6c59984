//! The last revisions of a hub, in order. Pure: time is an argument, and nothing here waits.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Options, Shared};

/// One change with both sides, so that any filter can tell what left it.
#[derive(Debug)]
pub(super) struct Change<T> {
    pub(super) key: Arc<str>,
    pub(super) before: Option<Shared<T>>,
    pub(super) after: Option<Shared<T>>,
}

/// All changes of one revision.
#[derive(Debug)]
pub(super) struct Commit<T> {
    pub(super) revision: u64,
    pub(super) changes: Vec<Change<T>>,
    pub(super) at: Instant,
}

impl<T> Commit<T> {
    fn size(&self) -> usize {
        // A state is counted as the later side of the change that made it; only the first of a
        // resource is missed.
        self.changes
            .iter()
            .filter_map(|change| change.after.as_ref())
            .map(Shared::size)
            .sum()
    }
}

/// A bounded run of commits that ends at the newest revision.
#[derive(Debug)]
pub(super) struct History<T> {
    commits: VecDeque<Arc<Commit<T>>>,
    bytes: usize,
    /// Nothing after this revision has been forgotten.
    floor: u64,
    revision: u64,
}

/// The commits after a revision, oldest first.
#[derive(Debug)]
pub(super) struct Later<T> {
    pub(super) commits: Vec<Arc<Commit<T>>>,
    /// Whether they go up to the newest revision.
    pub(super) complete: bool,
}

/// The revision asked for is older than what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compacted {
    pub(super) oldest: u64,
}

impl<T> History<T> {
    /// Nothing has happened since `revision`.
    pub(super) fn new(revision: u64) -> Self {
        Self {
            commits: VecDeque::new(),
            bytes: 0,
            floor: revision,
            revision,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Records that nothing of interest happened up to `revision`.
    pub(super) fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Adds the newest revision, and gives back the oldest ones that are over the bounds.
    pub(super) fn push(&mut self, commit: Commit<T>, bounds: &Options) -> Vec<Arc<Commit<T>>> {
        let now = commit.at;
        self.revision = commit.revision;
        self.bytes += commit.size();
        self.commits.push_back(Arc::new(commit));
        let mut forgotten = Vec::new();
        while let Some(oldest) = self.commits.front() {
            let over = self.commits.len() > bounds.history_revisions
                || self.bytes > bounds.history_bytes
                || now.saturating_duration_since(oldest.at) > bounds.history_age;
            // The newest stays whatever its size: watchers have yet to read it.
            if !over || self.commits.len() == 1 {
                break;
            }
            if let Some(oldest) = self.commits.pop_front() {
                self.bytes -= oldest.size();
                self.floor = oldest.revision;
                forgotten.push(oldest);
            }
        }
        forgotten
    }

    /// What came after `revision`, up to about `limit` changes.
    pub(super) fn after(&self, revision: u64, limit: usize) -> Result<Later<T>, Compacted> {
        if revision < self.floor {
            return Err(Compacted { oldest: self.floor });
        }
        let first = self
            .commits
            .partition_point(|commit| commit.revision <= revision);
        let mut commits = Vec::new();
        let mut changes = 0;
        for commit in self.commits.range(first..) {
            if changes >= limit {
                return Ok(Later {
                    commits,
                    complete: false,
                });
            }
            changes += commit.changes.len();
            commits.push(Arc::clone(commit));
        }
        Ok(Later {
            commits,
            complete: true,
        })
    }
}
