//! Why attempts fail, what is then done, and when. It decides nothing about where.

pub mod episode;
pub mod policy;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// No worker has room.
    NoCapacity,
    /// Its machine was lost, reclaimed or forcibly drained.
    Interruption,
    /// It exited, with whatever code.
    Error,
    /// It was killed for using too much memory.
    Oom,
    /// Its liveness probe failed.
    Probe,
    /// It was not ready in time.
    StartTimeout,
    /// Its image cannot be pulled or started.
    Image,
    /// It cannot be started as the spec says.
    Config,
}

impl Class {
    /// Every class, in order.
    pub const ALL: [Self; 8] = [
        Self::NoCapacity,
        Self::Interruption,
        Self::Error,
        Self::Oom,
        Self::Probe,
        Self::StartTimeout,
        Self::Image,
        Self::Config,
    ];

    /// The word for it: `NO_CAPACITY`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoCapacity => "NO_CAPACITY",
            Self::Interruption => "INTERRUPTION",
            Self::Error => "ERROR",
            Self::Oom => "OOM",
            Self::Probe => "PROBE",
            Self::StartTimeout => "START_TIMEOUT",
            Self::Image => "IMAGE",
            Self::Config => "CONFIG",
        }
    }

    /// Whether it tells something about what is run, not only about where.
    #[must_use]
    pub fn blames_version(self) -> bool {
        !matches!(self, Self::NoCapacity | Self::Interruption)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}
