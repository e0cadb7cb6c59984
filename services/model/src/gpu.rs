//! Decides which accelerator a name means, and how much memory it nominally has.
//!
//! Backends, drivers and people write the same card in many ways; everything inside Muster
//! compares [`GpuName`]s, which only [`canonical`] and [`identify`] make. An unknown name is
//! kept as it was written: it is never guessed into a known one.

mod compute;
mod dialect;
mod group;
mod name;
mod table;
mod tpu;
mod vendor;

pub use compute::{ComputeCapability, ComputeCapabilityError};
pub use group::{GpuGroup, WHOLE};
pub use name::GpuName;
pub use table::{Known, known};
pub use vendor::{Vendor, VendorError};

use crate::suggest;
use name::Repr;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Each spelling of the table, reduced to its key, with the entry's place in the table.
static INDEX: LazyLock<HashMap<String, u16>> = LazyLock::new(|| {
    let spellings = (0u16..).zip(known()).flat_map(|(at, entry)| {
        let names = std::iter::once(&entry.name).chain(entry.aliases);
        names.map(move |name| (dialect::spell(name).full, at))
    });
    spellings.collect()
});

/// The table's entry for a name in any dialect: `RTX 4090`, `nvidia_h100`, `A100-SXM4-80GB`.
///
/// For a TPU slice such as `tpu-v2-8` it is the entry of its generation.
pub fn lookup(name: &str) -> Option<&'static Known> {
    canonical(name).known()
}

/// The name by which Muster knows an accelerator; an unknown name, trimmed, as it was written.
pub fn canonical(name: &str) -> GpuName {
    let spelling = dialect::spell(name);
    let by_table = || find(&spelling).map(|at| GpuName(Repr::Known(at)));
    tpu::parse(&spelling)
        .or_else(by_table)
        .unwrap_or_else(|| GpuName(Repr::Other(name.trim().into())))
}

/// The name and nominal memory in MiB of an accelerator that was seen with `read_mib` of memory.
///
/// Cards that differ only in memory are told apart by it: an `A100` that was read with
/// 81,251 MiB is an `A100-80GB`, and an `A100-80GB` that was read with 40,960 MiB is an `A100`,
/// so that a small card is never sold as a large one. A reading under 1,024 MiB is taken for
/// GiB, since no card has so little and several catalogues write it so; 0 is no reading.
/// Without a reading the memory is the smallest nominal size; of an unknown name it is the reading.
pub fn identify(name: &str, read_mib: Option<u32>) -> (GpuName, Option<u32>) {
    let named = canonical(name);
    let Some(read) = read_mib.filter(|read| *read > 0).map(plausible) else {
        let smallest = named.smallest_memory();
        return (named, smallest);
    };
    let name = match named.0 {
        Repr::Known(at) => GpuName(Repr::Known(sibling_near(at, read).unwrap_or(at))),
        Repr::Slice { .. } | Repr::Other(_) => named,
    };
    let memory = nominal_memory(&name, read);
    (name, Some(memory))
}

/// The nominal memory in MiB of a card that reports `read_mib`: 81,920 for an H100 that reports
/// 81,559. Of an unknown card it is the reading itself.
pub fn nominal_memory(name: &GpuName, read_mib: u32) -> u32 {
    match name.slice_memory() {
        Some(slice) => slice,
        None => {
            let sizes = name.known().map_or(&[][..], |known| known.memory_mib);
            nearest(sizes, read_mib).unwrap_or(read_mib)
        }
    }
}

/// The name of the table that is most like one that is not in it, if one is like it at all.
pub fn suggestion(name: &str) -> Option<&'static str> {
    suggest::nearest(name, known().iter().map(|entry| entry.name))
}

/// The names meant by `name` together with a range of memory: `A100` with 80 GB means
/// `A100-80GB`. Names whose cards come in one size, or that fit nothing in the range, mean
/// themselves.
pub(crate) fn sized(name: &GpuName, within: impl Fn(u32) -> bool) -> Vec<GpuName> {
    let Some(base) = name.known() else {
        return vec![name.clone()];
    };
    let members = (0u16..).zip(known()).filter(|(_, entry)| {
        entry.family == base.name && entry.memory_mib.iter().any(|size| within(*size))
    });
    let names: Vec<GpuName> = members.map(|(at, _)| GpuName(Repr::Known(at))).collect();
    if names.is_empty() {
        vec![name.clone()]
    } else {
        names
    }
}

fn find(spelling: &dialect::Spelling) -> Option<u16> {
    if let Some(at) = INDEX.get(&spelling.full) {
        return Some(*at);
    }
    let at = INDEX
        .get(&spelling.bare)
        .or_else(|| INDEX.get(dialect::without_form_factor(&spelling.bare)?))?;
    match spelling.memory_gib {
        None => Some(*at),
        Some(gib) => sibling_near(*at, gib.checked_mul(1024)?),
    }
}

/// The member of an entry's family that has a nominal size within an eighth of `mib`, itself first.
fn sibling_near(at: u16, mib: u32) -> Option<u16> {
    let family = known().get(usize::from(at))?.family;
    let distance = |entry: &Known| nearest(entry.memory_mib, mib).map(|size| size.abs_diff(mib));
    (0u16..)
        .zip(known())
        .filter(|(_, entry)| entry.family == family)
        .filter_map(|(place, entry)| Some((distance(entry)?, place != at, place)))
        .min()
        .filter(|(distance, ..)| *distance <= mib / 8)
        .map(|(.., place)| place)
}

fn nearest(sizes: &[u32], mib: u32) -> Option<u32> {
    sizes.iter().copied().min_by_key(|size| size.abs_diff(mib))
}

fn plausible(read_mib: u32) -> u32 {
    if read_mib < 1024 {
        read_mib * 1024
    } else {
        read_mib
    }
}

#[cfg(test)]
mod tests;
