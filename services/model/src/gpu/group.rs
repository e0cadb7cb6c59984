//! A number of equal accelerators in one machine.

use super::{GpuName, Vendor, identify};

/// The `share_milli` of whole accelerators.
pub const WHOLE: u32 = 1000;

/// What a share's memory is rounded to, so that 0.333 of 24 GB is 8 GB.
const SHARE_STEP_MIB: u32 = 256;

/// A number of equal accelerators, whole or shares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuGroup {
    /// Which.
    pub name: GpuName,
    /// Who makes them; none if it is not known.
    pub vendor: Option<Vendor>,
    /// How many.
    pub count: u32,
    /// Memory of each in MiB, of the share where it is one; none if it is not known.
    pub memory_mib: Option<u32>,
    /// The part of each that is had, in thousandths: 1000 ([`WHOLE`]) is a whole one.
    pub share_milli: u32,
}

impl GpuGroup {
    /// `count` whole accelerators of a name in any dialect, with the least memory of that name.
    pub fn named(name: &str, count: u32) -> Self {
        Self::observed(name, count, None, WHOLE)
    }

    /// Accelerators as a source describes them: a name in any dialect, and the memory in MiB that
    /// a whole one was read to have. See [`identify`] for what comes of the two.
    pub fn observed(name: &str, count: u32, read_mib: Option<u32>, share_milli: u32) -> Self {
        let (name, whole) = identify(name, read_mib);
        let memory_mib = whole.map(|mib| share_of(mib, share_milli));
        Self {
            vendor: name.vendor(),
            name,
            count,
            memory_mib,
            share_milli,
        }
    }

    /// Memory of all of them in MiB.
    pub fn total_memory_mib(&self) -> Option<u64> {
        Some(u64::from(self.memory_mib?) * u64::from(self.count))
    }
}

fn share_of(whole_mib: u32, share_milli: u32) -> u32 {
    if share_milli >= WHOLE {
        return whole_mib;
    }
    let exact = u64::from(whole_mib) * u64::from(share_milli) / u64::from(WHOLE);
    let exact = u32::try_from(exact).unwrap_or(whole_mib);
    exact.saturating_add(SHARE_STEP_MIB / 2) / SHARE_STEP_MIB * SHARE_STEP_MIB
}
