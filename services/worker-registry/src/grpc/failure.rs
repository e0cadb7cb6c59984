//! The one place where a failure becomes a status.

use muster_proto::types::v1::ErrorReason;
use muster_runtime::status::{self, Violations};
use muster_store::Error as StoreError;
use tonic::{Code, Status};

use crate::domain::decide::Refused;
use crate::registry::{Error, RETRY};

/// What the caller is told of an error.
pub(crate) fn status_of(error: Error) -> Status {
    match error {
        Error::Refused(refused) => refusal(&refused),
        Error::Store(StoreError::TooLarge { .. }) => status::error(
            Code::InvalidArgument,
            ErrorReason::TooLarge,
            error.to_string(),
        )
        .into_status(),
        Error::Store(ref store) => {
            tracing::error!(error = %store, "the store did not take a change");
            status::unavailable(ErrorReason::StoreUnavailable, error.to_string(), RETRY)
                .into_status()
        }
        Error::Contended => {
            status::unavailable(ErrorReason::Overloaded, error.to_string(), RETRY).into_status()
        }
        Error::NotLeading => {
            status::unavailable(ErrorReason::NoLeader, error.to_string(), RETRY).into_status()
        }
        Error::Stopping => {
            status::unavailable(ErrorReason::ShuttingDown, error.to_string(), RETRY).into_status()
        }
    }
}

/// What a caller is told of a refusal.
pub(crate) fn refusal(refused: &Refused) -> Status {
    if let Refused::BadEtag = refused {
        return status::invalid_field("etag", refused.to_string());
    }
    let (code, reason) = class(refused);
    let failure = status::error(code, reason, refused.to_string());
    match fact(refused) {
        Some((key, value)) => failure.metadata(key, value).into_status(),
        None => failure.into_status(),
    }
}

/// What a program may want to know of a refusal.
fn fact(refused: &Refused) -> Option<(&'static str, String)> {
    if let Refused::WrongState(rejected) = refused {
        return Some(("state", rejected.from.to_string()));
    }
    if let Refused::Fenced { current, .. } = refused {
        return Some(("generation", current.to_string()));
    }
    if let Refused::StaleOwner { claimed, .. } = refused {
        return Some(("claimed", claimed.clone()));
    }
    if let Refused::NotEmpty(count, _) = refused {
        return Some(("allocations", count.to_string()));
    }
    None
}

/// The code and reason of a refusal.
pub(crate) fn class(refused: &Refused) -> (Code, ErrorReason) {
    match refused {
        Refused::NoWorker(_) | Refused::NoAllocation(_) | Refused::NoToken(_) => {
            (Code::NotFound, ErrorReason::ResourceNotFound)
        }
        Refused::WrongState(_) | Refused::Unfit(_) | Refused::OtherOwner { .. } => {
            (Code::FailedPrecondition, ErrorReason::WrongState)
        }
        Refused::NotEmpty(..) | Refused::StillRunning(_) => {
            (Code::FailedPrecondition, ErrorReason::NotEmpty)
        }
        Refused::StaleEtag => (Code::Aborted, ErrorReason::EtagMismatch),
        Refused::BadEtag => (Code::InvalidArgument, ErrorReason::InvalidField),
        Refused::Fenced { .. } => (Code::FailedPrecondition, ErrorReason::Fenced),
        Refused::Reregister(_) => (Code::FailedPrecondition, ErrorReason::Reregister),
        Refused::NameTaken(_) => (Code::AlreadyExists, ErrorReason::WorkerNameTaken),
        Refused::WorkerExists(_) => (Code::AlreadyExists, ErrorReason::ResourceExists),
        Refused::BadCredential(_) => (Code::Unauthenticated, ErrorReason::CredentialInvalid),
        Refused::TokenNeeded(_) | Refused::UnknownToken | Refused::TokenUnfit(_) => {
            (Code::Unauthenticated, ErrorReason::JoinTokenInvalid)
        }
        Refused::StaleOwner { .. } => (Code::FailedPrecondition, ErrorReason::StaleOwner),
        Refused::NoCapacity => (Code::ResourceExhausted, ErrorReason::NoCapacity),
        Refused::RequestReused(_) => (Code::InvalidArgument, ErrorReason::RequestIdReused),
        Refused::AlreadyReleased(_) => (Code::FailedPrecondition, ErrorReason::AlreadyReleased),
        Refused::WorkerLost(_) => (Code::FailedPrecondition, ErrorReason::WorkerLost),
    }
}

/// Fails with everything that is wrong with a request, if anything is.
pub(crate) fn check(violations: Violations) -> Result<(), Status> {
    if violations.is_empty() {
        Ok(())
    } else {
        Err(violations.into_status())
    }
}
