//! Collects everything that is wrong with a request, so that its sender mends it in one go.
//! It never stops at the first fault.

use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use super::{error, shortened};

/// The most bytes of fields and descriptions that one answer carries: they travel in a trailer,
/// of which clients accept 8 KiB by default, base64 included. Beyond it the rest is counted.
const MAX_BYTES: usize = 3 * 1024;

/// The longest text of one description, in bytes.
const MAX_DESCRIPTION: usize = 512;

/// The faults found in a request's fields, in the order found.
#[derive(Debug, Clone, Default)]
pub struct Violations {
    found: Vec<(String, String)>,
}

impl Violations {
    /// None found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `field` (a path such as `spec.gpus[1].count`) is wrong; `description` completes
    /// the sentence that begins with the field: "must not be empty".
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.found.push((field.into(), description.into()));
    }

    /// Takes the value of `result`, or notes its error about `field`.
    pub fn take<T>(&mut self, field: &str, result: Result<T, impl std::fmt::Display>) -> Option<T> {
        result
            .map_err(|error| self.add(field, error.to_string()))
            .ok()
    }

    /// Adds what another check found.
    pub fn extend(&mut self, other: Violations) {
        self.found.extend(other.found);
    }

    /// Adds what was found in a part of the message, its fields seen from the whole:
    /// `extend_under("spec", ...)` turns `run.command` into `spec.run.command`.
    pub fn extend_under(&mut self, path: &str, other: Violations) {
        self.found
            .extend(other.found.into_iter().map(|(field, description)| {
                let separator = if field.is_empty() || field.starts_with('[') {
                    ""
                } else {
                    "."
                };
                (format!("{path}{separator}{field}"), description)
            }));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Field and description of each fault.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.found
            .iter()
            .map(|(field, description)| (field.as_str(), description.as_str()))
    }

    /// `Ok` if nothing is wrong, else the status that names everything.
    pub fn into_result(self) -> Result<(), Status> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.into_status())
        }
    }

    /// INVALID_ARGUMENT with all faults; its message names the first.
    pub fn into_status(self) -> Status {
        let message = match self.found.as_slice() {
            [] => "the request is not valid".to_owned(),
            [(field, description)] => sentence(field, description),
            [(field, description), rest @ ..] => {
                format!("{}, and {} more", sentence(field, description), rest.len())
            }
        };
        error(Code::InvalidArgument, ErrorReason::InvalidField, message)
            .violations(self)
            .into_status()
    }

    /// As the details carry them; those that do not fit are counted in a last entry.
    pub(super) fn into_wire(self) -> Vec<FieldViolation> {
        let total = self.found.len();
        let mut room = MAX_BYTES;
        let mut wire = Vec::new();
        for (field, description) in self.found {
            let field = shortened(field, MAX_DESCRIPTION);
            let description = shortened(description, MAX_DESCRIPTION);
            let size = field.len() + description.len() + 8;
            if size > room {
                wire.push(FieldViolation::new(
                    "",
                    format!("and {} more", total - wire.len()),
                ));
                break;
            }
            room -= size;
            wire.push(FieldViolation::new(field, description));
        }
        wire
    }
}

fn sentence(field: &str, description: &str) -> String {
    if field.is_empty() {
        description.to_owned()
    } else {
        format!("{field} {description}")
    }
}
