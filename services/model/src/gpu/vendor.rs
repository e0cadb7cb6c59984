//! Who makes accelerators.

use std::fmt;
use std::str::FromStr;

/// A maker of accelerators. Where it is not known there is no vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel, with Habana.
    Intel,
    /// Google: TPUs.
    Google,
    /// Amazon: Trainium and Inferentia.
    Aws,
    /// Tenstorrent.
    Tenstorrent,
    /// Another one.
    Other,
}

/// Why a text is no vendor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no vendor: write one of nvidia, amd, intel, google, aws, tenstorrent, other")]
pub struct VendorError(String);

impl Vendor {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Nvidia,
        Self::Amd,
        Self::Intel,
        Self::Google,
        Self::Aws,
        Self::Tenstorrent,
        Self::Other,
    ];

    /// The word that people write: `nvidia`, `amd`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::Amd => "amd",
            Self::Intel => "intel",
            Self::Google => "google",
            Self::Aws => "aws",
            Self::Tenstorrent => "tenstorrent",
            Self::Other => "other",
        }
    }
}

impl FromStr for Vendor {
    type Err = VendorError;

    /// In any case; `tpu` is Google's, `amazon` is AWS, `habana` is Intel's.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = text.trim().to_ascii_lowercase();
        let by_alias = || match word.as_str() {
            "tpu" => Some(Self::Google),
            "amazon" => Some(Self::Aws),
            "habana" => Some(Self::Intel),
            _ => None,
        };
        let by_name = Self::ALL.into_iter().find(|vendor| vendor.as_str() == word);
        by_name
            .or_else(by_alias)
            .ok_or_else(|| VendorError(text.to_owned()))
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
