//! Asks an endpoint how it is, by the standard health protocol. It decides nothing about what
//! follows from the answer.

use std::time::Duration;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_client::HealthClient;
use tokio::time::timeout;
use tonic::{Code, Request};

use super::connection::Connection;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an endpoint answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// It serves, or knows no health protocol but answers.
    Serving,
    /// It answers, and says that it does not serve now.
    NotServing,
    /// It did not answer.
    Silent,
}

/// Checks the process as a whole, over this very connection.
pub(super) async fn check(connection: Connection) -> Health {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(PATIENCE);
    let mut client = HealthClient::new(connection);
    match timeout(PATIENCE, client.check(request)).await {
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Health::Serving,
        Ok(Ok(_)) => Health::NotServing,
        Ok(Err(status)) => match status.code() {
            Code::Unimplemented
            | Code::NotFound
            | Code::Unauthenticated
            | Code::PermissionDenied => Health::Serving,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Health::Silent,
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss => Health::NotServing,
        },
        Err(_) => Health::Silent,
    }
}
