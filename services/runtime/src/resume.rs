//! Positions in a component's history as callers hold them: resume tokens and etags, both opaque
//! to them, and the wait for a position that this instance has not reached yet. It never reads a
//! store.

mod etag;
mod progress;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};

use crate::check::checksum;
use crate::status;

pub use etag::{Etag, EtagError};
pub use progress::{Behind, Progress};

/// First byte of a token: its layout, so that a later one can differ.
const LAYOUT: u8 = 1;

/// The longest token looked at, in characters.
const MAX_TOKEN: usize = 256;

/// A place in one history: everything up to `revision` of `epoch` has been seen. Later places are
/// greater, provided that later epochs print as text that sorts later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The store's epoch, as it prints itself.
    pub epoch: String,
    /// The store's revision.
    pub revision: u64,
}

impl Position {
    /// Reads a token. It is checked for slips, not for forgery: it grants nothing.
    pub fn parse(token: &str) -> Result<Self, PositionError> {
        if token.len() > MAX_TOKEN {
            return Err(PositionError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| PositionError::Malformed)?;
        let (body, check) = bytes
            .split_last_chunk::<4>()
            .ok_or(PositionError::Malformed)?;
        let (head, epoch) = body
            .split_first_chunk::<9>()
            .ok_or(PositionError::Malformed)?;
        let [layout, revision @ ..] = *head;
        if *check != checksum(body) || layout != LAYOUT {
            return Err(PositionError::Malformed);
        }
        let epoch = std::str::from_utf8(epoch).map_err(|_| PositionError::Malformed)?;
        Ok(Self {
            epoch: epoch.to_owned(),
            revision: u64::from_be_bytes(revision),
        })
    }

    /// The revision, if this is a place in the history of `epoch`.
    pub fn revision_in(&self, epoch: &str) -> Result<u64, PositionError> {
        if self.epoch == epoch {
            Ok(self.revision)
        } else {
            Err(PositionError::OtherEpoch)
        }
    }

    /// The token, as callers see it.
    pub fn token(&self) -> String {
        token(&self.epoch, self.revision)
    }
}

/// The resume token of `revision` in the history of `epoch`.
pub fn token(epoch: &str, revision: u64) -> String {
    let mut bytes = Vec::with_capacity(1 + 8 + epoch.len() + 4);
    bytes.push(LAYOUT);
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes.extend_from_slice(epoch.as_bytes());
    let check = checksum(&bytes);
    bytes.extend_from_slice(&check);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The revision that `token` names in the history of `epoch`; `None` for an empty token, which
/// names none. `field` is the request's field that holds it.
pub fn revision_of(field: &str, token: &str, epoch: &str) -> Result<Option<u64>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    Position::parse(token)
        .and_then(|position| position.revision_in(epoch))
        .map(Some)
        .map_err(|error| error.into_status(field))
}

/// Why a resume token names no place in our history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// It is not one of ours, or was cut or changed.
    #[error("is not a resume token")]
    Malformed,
    /// It is of a store before a restore, or of another component.
    #[error("is of another history; list again")]
    OtherEpoch,
}

impl PositionError {
    /// The status for a token that came in `field`.
    pub fn into_status(self, field: &str) -> Status {
        match self {
            Self::Malformed => status::invalid_field(field, self.to_string()),
            Self::OtherEpoch => history_changed(format!("{field} {self}")),
        }
    }
}

/// OUT_OF_RANGE: the caller's position is not in our history any more; it has to list again.
pub(crate) fn history_changed(message: String) -> Status {
    status::error(Code::OutOfRange, ErrorReason::HistoryChanged, message).into_status()
}
