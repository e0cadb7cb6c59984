//! A failure as people and programs read it outside gRPC: google.rpc.Status in proto3 JSON, and
//! words for a terminal. It never hides a detail that the peer sent.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tonic::Code;

use super::read::{BAD_REQUEST, Details, ERROR_INFO, RETRY_INFO};

impl Details {
    /// As google.rpc.Status in proto3 JSON. A detail of a type that is not known here keeps its
    /// bytes, as base64 under `value`.
    pub fn to_json(&self) -> Value {
        let mut details = Vec::new();
        if !self.reason.is_empty() {
            details.push(typed(
                ERROR_INFO,
                json!({"reason": self.reason, "domain": self.domain, "metadata": self.metadata}),
            ));
        }
        if !self.violations.is_empty() {
            let violations: Vec<Value> = self
                .violations
                .iter()
                .map(|one| json!({"field": one.field, "description": one.description}))
                .collect();
            details.push(typed(BAD_REQUEST, json!({"fieldViolations": violations})));
        }
        if let Some(delay) = self.retry_delay {
            details.push(typed(
                RETRY_INFO,
                json!({"retryDelay": json_duration(delay)}),
            ));
        }
        for (name, bytes) in &self.other {
            details.push(typed(name, json!({"value": STANDARD.encode(bytes)})));
        }
        json!({"code": self.code as i32, "message": self.message, "details": details})
    }
}

/// For a terminal: the message with its code and reason, then a line for each violation, and when
/// to try again.
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = code_name(self.code);
        let message = if self.message.is_empty() {
            "no message"
        } else {
            &self.message
        };
        match self.reason.as_str() {
            "" => write!(f, "{message} ({code})")?,
            reason => write!(f, "{message} ({code}, {reason})")?,
        }
        for violation in &self.violations {
            match violation.field.as_str() {
                "" => write!(f, "\n  {}", violation.description)?,
                field => write!(f, "\n  {field}: {}", violation.description)?,
            }
        }
        match self.retry_delay {
            Some(delay) => write!(f, "\n  another try may work after {delay:?}"),
            None => Ok(()),
        }
    }
}

/// The code as the gRPC specification writes it, such as `FAILED_PRECONDITION`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// `value` with its type's name, as proto3 JSON writes google.protobuf.Any.
fn typed(name: &str, mut value: Value) -> Value {
    value["@type"] = format!("type.googleapis.com/{name}").into();
    value
}

/// As proto3 JSON writes google.protobuf.Duration: seconds with no fraction or with 3, 6 or 9
/// digits of it.
fn json_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.subsec_nanos() {
        0 => format!("{seconds}s"),
        nanos if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}s", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!("{seconds}.{:06}s", nanos / 1_000),
        nanos => format!("{seconds}.{nanos:09}s"),
    }
}
