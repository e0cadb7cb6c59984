//! How far this instance has followed its store, and the wait until it is far enough. It learns
//! of revisions only by being told.

use std::sync::Arc;
use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use tokio::sync::watch;
use tonic::Status;

use crate::deadline::Deadline;
use crate::status;

/// What is kept of a call's time to answer it, when the wait is in vain.
const MARGIN: Duration = Duration::from_millis(50);

/// When a caller that we were behind of should try again.
const RETRY: Duration = Duration::from_millis(200);

/// The newest revision that reads of this instance show. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<u64>>);

impl Progress {
    /// Reads show `revision`.
    pub fn new(revision: u64) -> Self {
        Self(Arc::new(watch::Sender::new(revision)))
    }

    /// Reads now show `revision`; a lower one than before changes nothing.
    pub fn advance(&self, revision: u64) {
        self.0.send_if_modified(|current| {
            let newer = revision > *current;
            *current = revision.max(*current);
            newer
        });
    }

    /// The newest revision shown.
    pub fn current(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until reads show `revision`, at most until `deadline`.
    pub async fn reach(&self, revision: u64, deadline: Deadline) -> Result<(), Behind> {
        let current = self.current();
        if current >= revision {
            return Ok(());
        }
        let mut receiver = self.0.subscribe();
        let reached = receiver.wait_for(|current| *current >= revision);
        match tokio::time::timeout_at(deadline.instant(), reached).await {
            Ok(Ok(_)) => Ok(()),
            // The sender lives in `self`, so only time can end the wait.
            Ok(Err(_)) | Err(_) => Err(Behind {
                wanted: revision,
                current: self.current(),
            }),
        }
    }

    /// Waits for the position that a request's `not_before` names: `Ok` at once if it is empty or
    /// reached; INVALID_ARGUMENT if it is no token, OUT_OF_RANGE if it is of another epoch,
    /// UNAVAILABLE, shortly before `deadline`, if that comes first.
    pub async fn not_before(
        &self,
        token: &str,
        epoch: &str,
        deadline: Deadline,
    ) -> Result<(), Status> {
        match super::revision_of("not_before", token, epoch)? {
            None => Ok(()),
            Some(revision) => Ok(self.reach(revision, deadline.less(MARGIN)).await?),
        }
    }
}

/// This instance has not reached a revision in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this instance has seen revision {current}, not yet {wanted}")]
pub struct Behind {
    /// The revision waited for.
    pub wanted: u64,
    /// The revision reached.
    pub current: u64,
}

impl From<Behind> for Status {
    fn from(behind: Behind) -> Self {
        status::unavailable(ErrorReason::Behind, behind.to_string(), RETRY).into_status()
    }
}
