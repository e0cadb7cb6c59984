//! Why a command did not do what was asked, and the exit code that says so.

use muster_runtime::status::Details;
use tonic::{Code, Status};

use crate::output::json;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server refused.
    #[error("{}", told_once(.0))]
    Refused(Box<Status>),
    /// What was awaited did not come out.
    #[error("{0}")]
    Failed(String),
    /// What was typed, or what is in a file, is not valid.
    #[error("{0}")]
    Usage(String),
    /// A component does not answer.
    #[error("the {component} at {address} does not answer: {message}{hint}")]
    Unreachable {
        /// Its name.
        component: &'static str,
        /// Where it should be.
        address: String,
        /// What went wrong.
        message: String,
        /// What may help, in a line of its own; empty where nothing is known.
        hint: &'static str,
    },
    /// `--timeout` passed.
    #[error("{0}")]
    TimedOut(String),
    /// Ctrl-C ended a wait; what was begun goes on.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

/// A status for a person. Of a single violation the message says all already.
fn told_once(status: &Status) -> Details {
    let mut details = Details::of(status);
    if let [only] = &details.violations[..]
        && details.message.contains(&only.description)
    {
        details.violations.clear();
    }
    details
}

impl Failure {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::TimedOut(_) => 4,
            // What a shell says of a program that SIGINT has ended.
            Self::Interrupted(_) => 130,
        }
    }

    /// The same, where a server refused, with what of several it is about.
    pub(crate) fn about(self, name: &str) -> Self {
        self.reworded(|message| format!("{name}: {message}"))
    }

    /// The same, where a server refused, with more words at its end.
    pub(crate) fn followed_by(self, words: &str) -> Self {
        self.reworded(|message| format!("{message}{words}"))
    }

    fn reworded(self, words: impl FnOnce(&str) -> String) -> Self {
        let Self::Refused(status) = self else {
            return self;
        };
        let message = words(status.message());
        let details = status.details().to_vec().into();
        let metadata = status.metadata().clone();
        Status::with_details_and_metadata(status.code(), message, details, metadata).into()
    }

    /// The failure as a google.rpc.Status in JSON.
    pub(crate) fn as_json(&self) -> serde_json::Value {
        let plain = |code: Code| serde_json::json!({"code": i32::from(code), "message": self.to_string(), "details": []});
        match self {
            Self::Refused(status) => Details::of(status).to_json(),
            Self::Failed(_) => plain(Code::Aborted),
            Self::Usage(_) => plain(Code::InvalidArgument),
            Self::Unreachable { .. } => plain(Code::Unavailable),
            Self::TimedOut(_) => plain(Code::DeadlineExceeded),
            Self::Interrupted(_) => plain(Code::Cancelled),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl From<json::Error> for Failure {
    fn from(error: json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use muster_runtime::status::{Violations, invalid_field};

    use super::*;

    #[test]
    fn a_single_violation_is_told_once_and_several_are_told_each() {
        let one = Failure::from(invalid_field("replicas", "must be at most 5")).about("chat");
        let words = one.to_string();
        assert_eq!(words.lines().count(), 1, "{words}");
        assert!(
            words.starts_with("chat: replicas must be at most 5 ("),
            "{words}"
        );
        let document = one.as_json().to_string();
        assert!(document.contains("fieldViolations"), "{document}");

        let mut violations = Violations::new();
        violations.add("replicas", "must be at most 5");
        violations.add("nodes", "must be 1");
        let words = Failure::from(violations.into_status()).to_string();
        assert_eq!(words.lines().count(), 3, "{words}");
    }
}
