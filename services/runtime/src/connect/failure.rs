//! What a failed exchange means to the caller: transport errors as statuses, and statuses of peers
//! made safe to read.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::HeaderMap;
use muster_proto::types::v1::ErrorReason;
use tokio_rustls::rustls;
use tonic::{Code, Status};

use super::Endpoint;
use crate::status::{self, Details};
use crate::tls::mistake;

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot connect to {endpoint}: {reason}")]
pub(super) struct ConnectFailed {
    pub(super) endpoint: Endpoint,
    pub(super) reason: String,
}

impl From<ConnectFailed> for Status {
    fn from(failed: ConnectFailed) -> Self {
        status::error(
            Code::Unavailable,
            ErrorReason::PeerUnreachable,
            failed.to_string(),
        )
        .into()
    }
}

/// The status of a call whose connection or stream broke.
pub(super) fn broken(endpoint: &Endpoint, error: &hyper::Error) -> Status {
    let h2 = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>());
    // The peer broke this one stream by a fault of its own, such as a handler that panicked.
    let fault = h2.is_some_and(|h2| {
        h2.is_reset()
            && !matches!(
                h2.reason(),
                Some(h2::Reason::CANCEL | h2::Reason::REFUSED_STREAM)
            )
    });
    let cause = causes(error)
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string);
    if fault {
        let message = format!("{endpoint} broke the call off: {cause}");
        return status::error(Code::Internal, ErrorReason::Internal, message).into();
    }
    let advice = causes(error).find_map(of_tls).and_then(mistake::advice);
    let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
    let message = format!("the connection to {endpoint} was lost: {cause}{advice}");
    status::error(Code::Unavailable, ErrorReason::PeerUnreachable, message).into()
}

/// Whether the peer has ended a connection since it was pinged too often.
pub(super) fn is_about_pings(error: &hyper::Error) -> bool {
    let h2 = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>());
    h2.is_some_and(|h2| h2.is_go_away() && h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// The error of TLS that `cause` carries, which an I/O error does not show among its causes.
fn of_tls<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let io = cause.downcast_ref::<io::Error>()?;
    io.get_ref()?.downcast_ref()
}

fn causes<'a>(
    error: &'a hyper::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The status of a call whose time has passed.
pub(super) fn out_of_time(waited: &str) -> Status {
    status::deadline_exceeded(format!("the deadline has passed {waited}"))
}

/// The status of a watch that has been silent for too long.
pub(super) fn silent(endpoint: &Endpoint, silence: Duration) -> Status {
    let message = format!("{endpoint} has said nothing for {silence:?}");
    status::error(Code::Unavailable, ErrorReason::PeerUnreachable, message).into()
}

/// Makes a peer's headers or trailers safe: tonic panics on details that are not base64.
pub(super) fn drop_malformed_details(headers: &mut HeaderMap) {
    if !status::has_valid_details(headers) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

/// The delay that a peer asks for, if these headers say UNAVAILABLE at all.
pub(super) fn unavailable_wish(headers: &HeaderMap) -> Option<Option<Duration>> {
    let code = headers.get(Status::GRPC_STATUS)?;
    if code.as_bytes() != b"14" {
        return None;
    }
    Some(Status::from_header_map(headers).and_then(|status| Details::of(&status).retry_delay))
}
