//! TPUs, which are sold as slices of a pod: `tpu-v5p-128` is one accelerator of 64 chips.

use super::dialect::Spelling;
use super::name::{GpuName, Repr};
use super::table::{Known, known};
use super::vendor::Vendor;

/// Reads `tpu-v2-8`, `v2-8` and `TPU v5e 4`; a generation alone is the table's own business.
pub(super) fn parse(spelling: &Spelling) -> Option<GpuName> {
    let mut words = spelling.words.iter().map(String::as_str).peekable();
    words.next_if_eq(&"tpu");
    let (generation, size) = (words.next()?, words.next()?.parse().ok()?);
    if words.next().is_some() || size == 0 {
        return None;
    }
    let at = *super::INDEX.get(&format!("tpu{generation}"))?;
    let entry = known()
        .get(usize::from(at))
        .filter(|entry| entry.vendor == Vendor::Google)?;
    let text = format!("{}-{size}", entry.name).into();
    Some(GpuName(Repr::Slice {
        generation: at,
        size,
        text,
    }))
}

/// The memory of all chips of a slice in MiB. The number in the name counts chips from v5e on
/// its line (v5litepod, v6e) and TensorCores, two a chip, on the others.
pub(super) fn slice_memory(generation: &Known, size: u32) -> Option<u32> {
    let per_chip = *generation.memory_mib.first()?;
    let chips = match generation.name {
        "tpu-v5litepod" | "tpu-v6e" => size,
        _ => size.div_ceil(2),
    };
    chips.checked_mul(per_chip)
}
