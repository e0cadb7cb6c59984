//! Keys of other people's APIs: held, sent, and never shown.

use std::fmt;

use http::HeaderValue;

/// A key that a backend is asked with. Neither printed nor logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// A text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It could not be sent.
    #[error("it holds a character that no key can have")]
    Malformed,
}

impl Secret {
    /// The key in a text; space around it, such as a file's last line end, is not part of it.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Malformed);
        }
        Ok(Self(text.into()))
    }

    /// What is sent as `Authorization`.
    pub fn bearer(&self) -> HeaderValue {
        // Graphic ASCII is always a header's value.
        let value = HeaderValue::try_from(format!("Bearer {}", self.0));
        let mut value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// `text` with the key blotted out wherever it stands: of what a provider sends back.
    pub fn blot(&self, text: &str) -> String {
        text.replace(&*self.0, "***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_and_never_shown() {
        let key = Secret::new(" s3cr3t\n").unwrap();
        assert_eq!(format!("{key:?}"), "Secret(***)");
        assert_eq!(key.bearer(), "Bearer s3cr3t");
        assert!(!format!("{:?}", key.bearer()).contains("s3cr3t"));
        assert_eq!(key.blot("bad key s3cr3t!"), "bad key ***!");
        assert_eq!(Secret::new(" \n"), Err(SecretError::Empty));
        assert_eq!(Secret::new("two words"), Err(SecretError::Malformed));
    }
}
