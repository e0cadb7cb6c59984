//! Names: of resources, of replicas, of labels. What is no valid name does not become one.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most characters of a name, of a label's key and of its value.
pub const MAX_LENGTH: usize = 63;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no name of a resource.
    #[error(
        "`{0}` is no name: write 1 to 63 lower-case letters, digits and hyphens, a letter first, no hyphen last"
    )]
    Name(String),
    /// It is no name of a replica.
    #[error("`{0}` is no replica: write its service and its number, such as chat/0")]
    Replica(String),
    /// It is no key of a label.
    #[error(
        "`{0}` is no label key: write 1 to 63 letters, digits, `.`, `_`, `-` and `/`, a letter or digit first and last"
    )]
    LabelKey(String),
    /// It is no value of a label.
    #[error(
        "`{0}` is no label value: write at most 63 letters, digits, `.`, `_` and `-`, a letter or digit first and last, or nothing"
    )]
    LabelValue(String),
    /// It is no label.
    #[error("`{0}` is no label: write key=value, such as tier=gold")]
    Label(String),
}

/// The name of a service, worker, backend or token: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// One copy of a service: `chat/0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The service.
    pub service: Name,
    /// Which copy, from 0.
    pub ordinal: u32,
}

/// Whether a text is a name, or what is allowed.
pub fn check(text: &str) -> Result<(), Error> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    if first && text.len() <= MAX_LENGTH && text.bytes().all(letters) && !text.ends_with('-') {
        Ok(())
    } else {
        Err(Error::Name(text.to_owned()))
    }
}

/// Whether a text is the key of a label, or what is allowed.
pub fn check_label_key(text: &str) -> Result<(), Error> {
    let ok = !text.is_empty() && is_label(text, b"._-/");
    if ok {
        Ok(())
    } else {
        Err(Error::LabelKey(text.to_owned()))
    }
}

/// Whether a text is the value of a label, or what is allowed; an empty one is.
pub fn check_label_value(text: &str) -> Result<(), Error> {
    if is_label(text, b"._-") {
        Ok(())
    } else {
        Err(Error::LabelValue(text.to_owned()))
    }
}

/// Reads `key=value`.
pub fn parse_label(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::Label(text.to_owned()))?;
    check_label_key(key)?;
    check_label_value(value)?;
    Ok((key.to_owned(), value.to_owned()))
}

fn is_label(text: &str, also: &[u8]) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || also.contains(&byte);
    let at_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LENGTH
        && text.bytes().all(inside)
        && at_end(bytes.first())
        && at_end(bytes.last())
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check(text).map(|()| Self(text.into()))
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl FromStr for ReplicaId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || Error::Replica(text.to_owned());
        let (service, number) = text.split_once('/').ok_or_else(refused)?;
        let ordinal: u32 = number.parse().map_err(|_| refused())?;
        // One replica has one spelling: no `+1`, no `01`.
        let id = Self {
            service: service.parse().map_err(|_| refused())?,
            ordinal,
        };
        if id.ordinal.to_string() == number {
            Ok(id)
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.service, self.ordinal))
    }
}

#[cfg(test)]
mod tests;
