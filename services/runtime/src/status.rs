//! Failures on the wire: builds every `tonic::Status` that leaves a process, each with
//! google.rpc details, and reads those that come back.
//!
//! It decides the shape of a failure. It never decides whether something failed, and reading a
//! peer's status never panics, whatever bytes the peer sent.

mod read;
mod reason;
mod render;
mod violations;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use read::{Details, FieldViolation, has_valid_details};
pub use reason::{reason_name, reason_of};
pub use render::code_name;
pub use violations::Violations;

/// The `domain` of every ErrorInfo that Muster's components write.
pub const DOMAIN: &str = "muster.dev";

/// The longest message kept, in bytes: it travels in a header, and twice (percent-encoded, and
/// inside the details), while clients in other languages accept 8 KiB of headers by default.
const MAX_MESSAGE: usize = 640;

/// The most bytes that the metadata of one failure may take together.
const MAX_METADATA: usize = 640;

/// A failure that is on its way to a caller; becomes a `tonic::Status` by `into()` or
/// [`Failure::into_status`].
#[derive(Debug, Clone)]
pub struct Failure {
    code: Code,
    message: String,
    reason: ErrorReason,
    metadata: Vec<(String, String)>,
    violations: Violations,
    retry_after: Option<Duration>,
}

/// Starts a failure. `message` is for a person: lower case, no full stop.
pub fn error(code: Code, reason: ErrorReason, message: impl Into<String>) -> Failure {
    Failure {
        code,
        message: message.into(),
        reason,
        metadata: Vec::new(),
        violations: Violations::new(),
        retry_after: None,
    }
}

/// UNAVAILABLE with the delay after which another try may work.
pub fn unavailable(
    reason: ErrorReason,
    message: impl Into<String>,
    retry_after: Duration,
) -> Failure {
    error(Code::Unavailable, reason, message).retry_after(retry_after)
}

/// DEADLINE_EXCEEDED, of what was not done in time.
pub fn deadline_exceeded(message: impl Into<String>) -> Status {
    let (code, reason) = (Code::DeadlineExceeded, ErrorReason::DeadlineExceeded);
    error(code, reason, message).into_status()
}

/// INVALID_ARGUMENT about a single field; a handler that checks several uses [`Violations`].
pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Status {
    let mut violations = Violations::new();
    violations.add(field, description);
    violations.into_status()
}

/// INTERNAL, for a fault of ours. The caller learns nothing of it but this sentence; the chain of
/// causes goes to the log.
pub fn internal() -> Status {
    error(
        Code::Internal,
        ErrorReason::Internal,
        "internal error; the component's log has the cause",
    )
    .into_status()
}

impl Failure {
    /// Adds a fact for programs, such as the state that stood in the way. Keys are snake_case.
    /// Facts beyond 640 bytes in all are left out.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Says when another try may work.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Adds violations of single fields.
    pub fn violations(mut self, violations: Violations) -> Self {
        self.violations.extend(violations);
        self
    }

    /// The status as it goes on the wire.
    pub fn into_status(self) -> Status {
        let mut details = ErrorDetails::new();
        let mut room = MAX_METADATA;
        let metadata = self.metadata.into_iter().filter(|(key, value)| {
            let size = key.len() + value.len();
            let fits = size <= room;
            room -= if fits { size } else { 0 };
            fits
        });
        let metadata: HashMap<_, _> = metadata.collect();
        details.set_error_info(reason_name(self.reason), DOMAIN, metadata);
        if !self.violations.is_empty() {
            details.set_bad_request(self.violations.into_wire());
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(self.code, shortened(self.message, MAX_MESSAGE), details)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.into_status()
    }
}

/// `text` cut to at most `limit` bytes, at a character's end, with a mark where it was cut.
fn shortened(mut text: String, limit: usize) -> String {
    const MARK: &str = " ...";
    if text.len() <= limit {
        return text;
    }
    let end = text.floor_char_boundary(limit.saturating_sub(MARK.len()));
    text.truncate(end);
    text.push_str(MARK);
    text
}
