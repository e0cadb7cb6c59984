//! What failures are on the wire.

use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use muster_runtime::status::{self, internal};
use tonic::{Code, Status};

use crate::domain::service::command::Refused;
use crate::engine::Error;

/// When a caller should try again whom the store could not serve.
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn no_service(name: &str) -> Status {
    not_found(format!("there is no service {name:?}"))
}

pub(super) fn no_replica(id: &str) -> Status {
    not_found(format!("there is no replica {id:?}"))
}

pub(super) fn not_found(message: String) -> Status {
    status::error(Code::NotFound, ErrorReason::ResourceNotFound, message).into_status()
}

pub(super) fn exists(name: &str) -> Status {
    let message = format!("there is a service {name:?} already");
    status::error(Code::AlreadyExists, ErrorReason::ResourceExists, message).into_status()
}

pub(super) fn wrong_state(message: impl Into<String>) -> Status {
    status::error(Code::FailedPrecondition, ErrorReason::WrongState, message).into_status()
}

pub(super) fn store(error: &muster_store::Error) -> Status {
    match error {
        muster_store::Error::Unavailable(_)
        | muster_store::Error::Closed
        | muster_store::Error::Failed(_) => {
            let message = error.to_string();
            status::unavailable(ErrorReason::StoreUnavailable, message, RETRY).into_status()
        }
        muster_store::Error::Compacted { .. } | muster_store::Error::TooLarge { .. } => {
            tracing::error!(%error, "a change could not be stored");
            internal()
        }
    }
}

/// What a caller's change failed with at the store: one that is too large is the caller's to mend.
pub(super) fn stored(error: &muster_store::Error) -> Status {
    if let muster_store::Error::TooLarge { .. } = error {
        return status::invalid_field("spec", format!("cannot be stored: {error}"));
    }
    store(error)
}

/// What a change of a named service failed with.
pub(super) fn change(error: Error<Stopped>, name: &str) -> Status {
    match error {
        Error::Gone => no_service(name),
        Error::Store(error) => stored(&error),
        Error::Refused(Stopped::Status(status)) => *status,
        Error::Refused(Stopped::Refused(refused)) => wrong_state(refused.to_string()),
        // Answered by what the request id was used for; no caller's change asks for the leadership.
        Error::Refused(Stopped::Dry) | Error::Repeated | Error::NotLeading => internal(),
    }
}

/// Why a handler's change was not made.
#[derive(Debug)]
pub(super) enum Stopped {
    /// By the service's state.
    Refused(Refused),
    /// By a check of the request.
    Status(Box<Status>),
    /// Nothing was to be changed.
    Dry,
}

impl From<Refused> for Stopped {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}
