//! CUDA's compute capability: what code a card can run.

use std::fmt;
use std::str::FromStr;

/// A CUDA compute capability such as 9.0; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// The 9 of 9.0.
    pub major: u8,
    /// The 0 of 9.0.
    pub minor: u8,
}

/// Why a text is no compute capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compute capability: write it as 8.0 or 9.0")]
pub struct ComputeCapabilityError(String);

impl FromStr for ComputeCapability {
    type Err = ComputeCapabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ComputeCapabilityError(text.to_owned());
        let part = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| refused()),
            false => Err(refused()),
        };
        let (major, minor) = text.trim().split_once('.').ok_or_else(refused)?;
        Ok(Self {
            major: part(major)?,
            minor: part(minor)?,
        })
    }
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
