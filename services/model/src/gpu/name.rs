//! The name of an accelerator, made so that comparing two of them is comparing numbers.

use super::table::{Known, known};
use super::vendor::Vendor;
use super::{ComputeCapability, tpu};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A canonical name, such as `H100`, `A100-80GB` or `tpu-v2-8`; or an unknown name as its source
/// wrote it. Made by [`canonical`](super::canonical) alone; ordered by text; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GpuName(pub(super) Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Repr {
    /// The entry's place in the table.
    Known(u16),
    /// A part of a TPU pod: the generation's place in the table, and the number in the name.
    Slice {
        generation: u16,
        size: u32,
        text: Arc<str>,
    },
    Other(Arc<str>),
}

impl GpuName {
    /// The name as it is shown and sent.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Known(at) => known().get(usize::from(*at)).map_or("", |entry| entry.name),
            Repr::Slice { text, .. } | Repr::Other(text) => text,
        }
    }

    /// What the table knows of it; for a TPU slice, of its generation.
    pub fn known(&self) -> Option<&'static Known> {
        match &self.0 {
            Repr::Known(at) | Repr::Slice { generation: at, .. } => known().get(usize::from(*at)),
            Repr::Other(_) => None,
        }
    }

    /// Who makes it, if it is known.
    pub fn vendor(&self) -> Option<Vendor> {
        self.known().map(|entry| entry.vendor)
    }

    /// Its CUDA compute capability, if it is known and has one.
    pub fn compute_capability(&self) -> Option<ComputeCapability> {
        self.known()?.compute_capability
    }

    /// Whether asking for this name is answered by `other`: by the same name, and, where this
    /// is a TPU generation (`tpu-v5p`), by each of its slices (`tpu-v5p-128`).
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Known(asked), Repr::Slice { generation, .. }) => asked == generation,
            (asked, had) => asked == had,
        }
    }

    /// The memory of a TPU slice as a whole in MiB.
    pub(super) fn slice_memory(&self) -> Option<u32> {
        match &self.0 {
            Repr::Slice { size, .. } => tpu::slice_memory(self.known()?, *size),
            Repr::Known(_) | Repr::Other(_) => None,
        }
    }

    /// What it has at least, in MiB.
    pub(super) fn smallest_memory(&self) -> Option<u32> {
        let of_card = || self.known()?.memory_mib.iter().copied().min();
        self.slice_memory().or_else(of_card)
    }
}

impl fmt::Display for GpuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for GpuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuName({})", self.as_str())
    }
}

impl PartialOrd for GpuName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GpuName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}
