//! What the library says of a request that it cannot read, in the contract's words: a message that is too
//! large, cut short or no message at all is its sender's mistake and not a fault of ours, and every failure
//! carries its reason. What a handler says is left as it is.

use http::{HeaderMap, Response};
use muster_proto::types::v1::ErrorReason;
use tonic::body::Body;
use tonic::{Code, Status};

use super::trailers;
use crate::status;

/// The response, in clear words if it is the library's complaint about a request.
pub(super) fn clarify(response: Response<Body>) -> Response<Body> {
    match clearer(response.headers()) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn clearer(headers: &HeaderMap) -> Option<Status> {
    let code = trailers::code_in(headers)?;
    // What we say ourselves always has details.
    if code == Code::Ok || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return None;
    }
    let said = Status::from_header_map(headers)?;
    let (code, reason) = if is_too_large(said.message()) {
        (Code::InvalidArgument, ErrorReason::TooLarge)
    } else if is_unreadable(said.message()) {
        (Code::InvalidArgument, ErrorReason::InvalidField)
    } else if code == Code::Unimplemented {
        (code, ErrorReason::NotImplemented)
    } else {
        return None;
    };
    let mut status = status::error(code, reason, said.message()).into_status();
    if let Some(encodings) = headers.get(ENCODINGS) {
        // Tells the caller which compression it may use.
        status
            .metadata_mut()
            .as_mut()
            .insert(ENCODINGS, encodings.clone());
    }
    Some(status)
}

const ENCODINGS: &str = "grpc-accept-encoding";

fn is_too_large(message: &str) -> bool {
    message.starts_with("Error, decoded message length too large")
        || message.starts_with("Error decompressing: size limit")
}

fn is_unreadable(message: &str) -> bool {
    const STARTS: [&str; 5] = [
        "failed to decode Protobuf message",
        "Unexpected EOF decoding stream",
        "Missing request message",
        "protocol error: received message with",
        "Error decompressing",
    ];
    STARTS.iter().any(|start| message.starts_with(start))
}
