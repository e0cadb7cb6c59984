//! What happened, told by comparing a service before and after a change. Whatever changed it, it is told
//! alike, once.

mod replicas;
mod services;

use std::collections::BTreeMap;
use std::fmt;

use super::service::{Service, differing};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The replica that it is about; `None` for the service.
    pub ordinal: Option<u32>,
    /// In one CamelCase word.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// For a person.
    pub message: String,
    /// Details for programs.
    pub attributes: BTreeMap<String, String>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Part of normal work.
    Info,
    /// Something failed that is being dealt with.
    Warning,
    /// Something failed that needs a person.
    Error,
}

/// What happened between two states of one service; `None` is a service that was not there yet.
#[must_use]
pub fn between(before: Option<&Service>, after: &Service) -> Vec<Happening> {
    let mut told = Vec::new();
    services::tell(before, after, &mut told);
    let mut gone = Vec::new();
    for (was, is) in differing(before, Some(after)) {
        match is {
            Some(replica) => replicas::tell(after, was.map(AsRef::as_ref), replica, &mut told),
            None => gone.extend(was),
        }
    }
    if let Some(before) = before {
        for replica in gone {
            replicas::tell_removed(before, replica, &mut told);
        }
    }
    told
}

fn about(
    ordinal: Option<u32>,
    kind: &'static str,
    severity: Severity,
    message: impl Into<String>,
) -> Happening {
    Happening {
        ordinal,
        kind,
        severity,
        message: message.into(),
        attributes: BTreeMap::new(),
    }
}

impl Happening {
    fn with(mut self, key: &str, value: &dyn fmt::Display) -> Self {
        self.attributes.insert(key.to_owned(), value.to_string());
        self
    }
}

#[cfg(test)]
mod tests;
