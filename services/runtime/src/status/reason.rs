//! How a reason from the contract's closed list is written on the wire.

use muster_proto::types::v1::ErrorReason;

/// ErrorInfo's `reason` for `reason`: its name in the contract without the enum's prefix.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The reason of that name; [`ErrorReason::Unspecified`] for one that this version does not know.
pub fn reason_of(name: &str) -> ErrorReason {
    ErrorReason::from_str_name(&format!("ERROR_REASON_{name}")).unwrap_or_default()
}
