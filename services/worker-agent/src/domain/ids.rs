//! Names that come from elsewhere and stand in paths and files here. What could mean anything else
//! there is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest id, in bytes.
const LONGEST: usize = 128;

/// Not an id: empty, too long, or with characters that have no place in one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id: 1 to 128 letters, digits, `.`, `_` and `-`, a letter or digit first")]
pub struct Invalid(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text that may stand as the name of a file.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                check(text).map(|()| Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::parse(&text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str(&self.0)
            }
        }
    };
}

id! {
    /// One try to run a replica; unique for ever.
    AttemptId
}
id! {
    /// The room that one attempt has on this machine; unique in its registry.
    AllocationId
}

/// Of two for one accelerator, the higher is served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FencingToken(pub String);

fn check(text: &str) -> Result<(), Invalid> {
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let all = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if first && all && text.len() <= LONGEST {
        Ok(())
    } else {
        Err(Invalid(text.chars().take(LONGEST).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_path_is_refused() {
        for text in ["abcdefghijkl.0.1", "a-7", "A_b", "0"] {
            assert_eq!(AttemptId::parse(text).unwrap().as_str(), text);
        }
        let long = "a".repeat(129);
        for text in [
            "", ".", "..", "../x", "a/b", "a b", "a\n", "ä", "-a", "a\0", &long,
        ] {
            assert!(AllocationId::parse(text).is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<AttemptId>("\"../x\"").is_err());
    }
}
