//! The instruction sets that Muster tells apart.

use std::fmt;
use std::str::FromStr;

/// The instruction set of a machine's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Arm64,
}

/// Why a text is no [`Arch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no architecture: write x86-64 or arm64")]
pub struct ArchError(String);

impl Arch {
    /// The word that people write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Arm64 => "arm64",
        }
    }
}

impl FromStr for Arch {
    type Err = ArchError;

    /// In any case; also `x86`, `x86_64`, `amd64`, `aarch64` and `arm`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "x86-64" | "x86_64" | "x86" | "x64" | "amd64" => Ok(Self::X86_64),
            "arm64" | "aarch64" | "arm" => Ok(Self::Arm64),
            _ => Err(ArchError(text.to_owned())),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
