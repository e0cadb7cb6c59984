//! Reads a status that a peer sent, back into facts. Whatever cannot be read is left out; nothing
//! here panics or fails.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use muster_proto::types::v1::ErrorReason;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

const TYPE_PREFIX: &str = "type.googleapis.com/";
pub(super) const ERROR_INFO: &str = "google.rpc.ErrorInfo";
pub(super) const BAD_REQUEST: &str = "google.rpc.BadRequest";
pub(super) const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// How gRPC writes binary metadata: base64 with or without padding.
const BINARY_HEADER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a failed call said.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// The gRPC code.
    pub code: Code,
    /// For a person.
    pub message: String,
    /// ErrorInfo's reason, such as `PAGE_TOKEN_EXPIRED`; empty if the peer gave none.
    pub reason: String,
    /// ErrorInfo's domain; [`super::DOMAIN`] if a component of ours said it.
    pub domain: String,
    /// ErrorInfo's metadata.
    pub metadata: BTreeMap<String, String>,
    /// BadRequest's violations, in the peer's order.
    pub violations: Vec<FieldViolation>,
    /// RetryInfo's delay.
    pub retry_delay: Option<Duration>,
    /// Details of other types: full type name and encoded bytes.
    pub(super) other: Vec<(String, Vec<u8>)>,
}

/// One field that a peer found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path in the request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Details {
    /// Reads `status`. Details that do not parse are as if they had not been sent.
    pub fn of(status: &Status) -> Self {
        let mut details = Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: String::new(),
            domain: String::new(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_delay: None,
            other: Vec::new(),
        };
        let wire = pb::Status::decode(status.details()).unwrap_or_default();
        for any in wire.details {
            details.take(any.type_url.trim_start_matches(TYPE_PREFIX), any.value);
        }
        details
    }

    /// Whether the failure has `reason`, said by one of our components.
    pub fn is(&self, reason: ErrorReason) -> bool {
        self.domain == super::DOMAIN && self.reason == super::reason_name(reason)
    }

    fn take(&mut self, name: &str, value: Vec<u8>) {
        match name {
            ERROR_INFO => {
                let info = pb::ErrorInfo::decode(value.as_slice()).unwrap_or_default();
                self.reason = info.reason;
                self.domain = info.domain;
                self.metadata = info.metadata.into_iter().collect();
            }
            BAD_REQUEST => {
                let bad = pb::BadRequest::decode(value.as_slice()).unwrap_or_default();
                self.violations
                    .extend(
                        bad.field_violations
                            .into_iter()
                            .map(|violation| FieldViolation {
                                field: violation.field,
                                description: violation.description,
                            }),
                    );
            }
            RETRY_INFO => {
                let info = pb::RetryInfo::decode(value.as_slice()).unwrap_or_default();
                self.retry_delay = info.retry_delay.and_then(|delay| delay.try_into().ok());
            }
            _ => self.other.push((name.to_owned(), value)),
        }
    }
}

/// Whether tonic can read the `grpc-status-details-bin` among these headers or trailers; it
/// panics where this answers false.
pub fn has_valid_details(headers: &HeaderMap) -> bool {
    headers
        .get(Status::GRPC_STATUS_DETAILS)
        .is_none_or(|value| BINARY_HEADER.decode(value.as_bytes()).is_ok())
}
