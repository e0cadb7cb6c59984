//! The accelerators of a machine. Nearly all that a registry holds of a large fleet is their uuids, so
//! they are held in one piece, and what they are is shared with every machine that has the same.

use std::collections::BTreeSet;
use std::fmt;
use std::iter;
use std::sync::Arc;

use muster_model::gpu::{GpuGroup, GpuName, Vendor, WHOLE};

use super::common::Common;
use super::text::Text;

/// The longest uuid, in bytes.
pub const MAX_UUID: usize = 128;

/// One accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu<'a> {
    /// The vendor's identifier, unique in the fleet.
    pub uuid: &'a str,
    /// What it is.
    pub kind: &'a GpuKind,
}

/// What equal accelerators have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuKind {
    /// The canonical name.
    pub name: GpuName,
    /// Who makes it.
    pub vendor: Option<Vendor>,
    /// Nominal memory in MiB; 0 is unknown.
    pub memory_mib: u32,
    /// The product name as the driver says it.
    pub product_name: Text,
    /// CUDA compute capability; empty is unknown.
    pub compute_capability: Text,
    /// Declared, not real.
    pub simulated: bool,
}

impl GpuKind {
    /// `count` of this kind, as requirements are matched with.
    pub fn group(&self, count: u32) -> GpuGroup {
        GpuGroup {
            name: self.name.clone(),
            vendor: self.vendor,
            count,
            memory_mib: (self.memory_mib > 0).then_some(self.memory_mib),
            share_milli: WHOLE,
        }
    }
}

/// How many of a kind follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    count: usize,
    kind: Arc<GpuKind>,
}

/// Accelerators, in the agent's order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Gpus {
    /// Each uuid, after a byte that says its length.
    uuids: Box<[u8]>,
    runs: Arc<Vec<Run>>,
}

impl Gpus {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Gpu<'_>> {
        let runs = self.runs();
        let kinds = runs.flat_map(|(count, kind)| iter::repeat_n(kind, count));
        let uuids = self.uuids().zip(kinds);
        uuids.map(|(uuid, kind)| Gpu { uuid, kind })
    }

    /// What there is, each kind once for those of it that follow each other.
    pub fn kinds(&self) -> impl Iterator<Item = &GpuKind> {
        self.runs().map(|(_, kind)| kind)
    }

    /// The same, with how many of it follow each other.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &GpuKind)> {
        self.runs.iter().map(|run| (run.count, &*run.kind))
    }

    /// Whether these are the same accelerators, in whatever order.
    pub fn are_the_same_as(&self, others: &Self) -> bool {
        let sorted = |gpus: &Self| gpus.uuids().map(str::to_owned).collect::<BTreeSet<_>>();
        self.uuids == others.uuids || sorted(self) == sorted(others)
    }

    /// Those that are not among `others`.
    pub fn without<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = Gpu<'a>> {
        let others: BTreeSet<&str> = others.uuids().collect();
        self.iter().filter(move |gpu| !others.contains(gpu.uuid))
    }

    /// Their uuids.
    pub fn uuids(&self) -> impl Iterator<Item = &str> {
        let mut rest = &*self.uuids;
        iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (uuid, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            str::from_utf8(uuid).ok()
        })
    }
}

/// Of uuids and kinds. A uuid that is longer than [`MAX_UUID`] is left out, with its kind: whoever takes one
/// from outside refuses it.
impl<'a, U: AsRef<str>> FromIterator<(U, &'a GpuKind)> for Gpus {
    fn from_iter<I: IntoIterator<Item = (U, &'a GpuKind)>>(gpus: I) -> Self {
        static KINDS: Common<GpuKind> = Common::new();
        static RUNS: Common<Vec<Run>> = Common::new();
        let mut uuids = Vec::new();
        let mut runs: Vec<Run> = Vec::new();
        for (uuid, kind) in gpus {
            let uuid = uuid.as_ref().as_bytes();
            let Some(length) = u8::try_from(uuid.len())
                .ok()
                .filter(|_| uuid.len() <= MAX_UUID)
            else {
                continue;
            };
            uuids.push(length);
            uuids.extend_from_slice(uuid);
            match runs.last_mut().filter(|run| *run.kind == *kind) {
                Some(run) => run.count += 1,
                None => runs.push(Run {
                    count: 1,
                    kind: KINDS.share(kind.clone()),
                }),
            }
        }
        Self {
            uuids: uuids.into(),
            runs: RUNS.share(runs),
        }
    }
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::kind;
    use super::*;

    #[test]
    fn they_are_what_they_were_made_of_in_order() {
        let made = [("a", "H100"), ("", "H100"), ("ü-2", "A10"), ("b", "H100")];
        let kinds = made.map(|(_, name)| kind(name));
        let gpus: Gpus = made.iter().map(|(uuid, _)| uuid).zip(&kinds).collect();
        let read: Vec<_> = gpus
            .iter()
            .map(|gpu| (gpu.uuid, gpu.kind.name.as_str()))
            .collect();
        assert_eq!(read, made);
        assert_eq!(gpus.kinds().count(), 3);
    }

    #[test]
    fn the_same_ones_are_known_in_any_order() {
        let h100 = kind("H100");
        let of = |uuids: &[&str]| -> Gpus { uuids.iter().map(|uuid| (*uuid, &h100)).collect() };
        let all = of(&["a", "b", "c"]);
        assert!(all.are_the_same_as(&of(&["c", "a", "b"])));
        assert!(!all.are_the_same_as(&of(&["a", "b"])) && !of(&[]).are_the_same_as(&all));
        let without = |one: &Gpus, other: &Gpus| -> Vec<String> {
            one.without(other).map(|gpu| gpu.uuid.to_owned()).collect()
        };
        assert_eq!(without(&all, &of(&["b", "d"])), ["a", "c"]);
        assert_eq!(without(&all, &all), [""; 0]);
        assert_eq!(without(&of(&["d"]), &all), ["d"]);
    }

    #[test]
    fn machines_with_the_same_accelerators_share_what_they_are() {
        let of = |machine: &str| -> Gpus {
            let (uuid, h100) = (|place| format!("{machine}-{place}"), kind("H100"));
            (0..8).map(|place| (uuid(place), &h100)).collect()
        };
        let (one, other) = (of("one"), of("other"));
        assert!(Arc::ptr_eq(&one.runs, &other.runs));
        assert_ne!(one, other);
        assert_eq!(one, of("one"));
    }

    #[test]
    fn the_longest_uuid_is_kept_and_a_longer_one_is_not() {
        let uuids = [
            "x".repeat(MAX_UUID),
            "x".repeat(MAX_UUID + 1),
            "y".repeat(300),
        ];
        let h100 = kind("H100");
        let gpus: Gpus = uuids.iter().map(|uuid| (uuid, &h100)).collect();
        let read: Vec<_> = gpus.iter().map(|gpu| gpu.uuid).collect();
        assert_eq!(read, [uuids[0].as_str()]);
        assert_eq!(Gpus::default().iter().count(), 0);
    }
}
