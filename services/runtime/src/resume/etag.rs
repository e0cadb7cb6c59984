//! Etags: which version of a resource a caller has read. It decides whether a given one is
//! current; it never stores one.

use std::fmt::Write as _;

use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};

use crate::check::{checksum, hash};
use crate::status;

/// The current etag of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Of the resource `uid` (an id that no later resource shares), whose written fields last
    /// changed at `revision` of `epoch`.
    pub fn new(epoch: &str, uid: &str, revision: u64) -> Self {
        let owner = hash(epoch.as_bytes()).rotate_left(1) ^ hash(uid.as_bytes());
        let mut text = format!("{owner:016x}{revision:x}");
        let [a, b, ..] = checksum(text.as_bytes());
        // Writing to a String cannot fail.
        let _ = write!(text, "{a:02x}{b:02x}");
        Self(text)
    }

    /// As callers see it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a write that carries `given` may go on: an empty one is no precondition.
    pub fn check(&self, given: &str) -> Result<(), EtagError> {
        if given.is_empty() || given == self.0 {
            return Ok(());
        }
        Err(if is_well_formed(given) {
            EtagError::Stale
        } else {
            EtagError::Malformed
        })
    }
}

impl From<Etag> for String {
    fn from(etag: Etag) -> Self {
        etag.0
    }
}

fn is_well_formed(text: &str) -> bool {
    let Some((body, check)) = text.split_at_checked(text.len().saturating_sub(4)) else {
        return false;
    };
    let [a, b, ..] = checksum(body.as_bytes());
    body.len() > 16 && check == format!("{a:02x}{b:02x}")
}

/// Why a given etag stops a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EtagError {
    /// The resource was written since, or is another one.
    #[error("the resource has changed since this etag was read; read it again, then write")]
    Stale,
    /// It is not one of ours.
    #[error("is not an etag")]
    Malformed,
}

impl EtagError {
    /// The status for an etag that came in `field`.
    pub fn into_status(self, field: &str) -> Status {
        match self {
            Self::Stale => {
                status::error(Code::Aborted, ErrorReason::EtagMismatch, self.to_string())
                    .into_status()
            }
            Self::Malformed => status::invalid_field(field, self.to_string()),
        }
    }
}
