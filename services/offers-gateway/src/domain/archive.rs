//! A snapshot as bytes, for the disk: read back fast, checked whole. It writes no file.
//!
//! The layout is ours alone and may change with every version: a file that is not of this one is
//! refused and the backend is read again.

use std::collections::BTreeMap;

use muster_model::constraints::CapacityType;
use muster_model::gpu::{self, GpuGroup};
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Arch;

use super::intake::{Intake, Skips};
use super::offer::{Availability, Machine, Source};
use super::snapshot::{MachineId, Parts, Raw, Row, TextId};

/// The first bytes: what it is, and of which layout.
const MAGIC: &[u8; 8] = b"mustero1";

/// The bytes are no snapshot of this layout, or were damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a kept snapshot of this version, or damaged")]
pub struct Damaged;

/// A snapshot's parts as bytes.
pub fn encode(parts: &Parts) -> Vec<u8> {
    let mut to =
        Vec::with_capacity(parts.raw.bytes.len() + parts.rows.len() * ROW + 64 * parts.texts.len());
    to.extend_from_slice(MAGIC);
    put_text(&mut to, &parts.backend);
    to.push(source_code(parts.source));
    put_list(&mut to, parts.texts.iter(), |to, text| put_text(to, text));
    put_list(&mut to, parts.machines.iter(), put_machine);
    put_list(&mut to, parts.rows.iter(), put_row);
    put_list(&mut to, parts.raw.keys.iter(), |to, key| put_text(to, key));
    put_bytes(&mut to, &parts.raw.bytes);
    put_intake(&mut to, &parts.intake);
    let sum = checksum(&to);
    to.extend_from_slice(&sum.to_le_bytes());
    to
}

/// The parts of a snapshot that [`encode`] has written.
pub fn decode(bytes: &[u8]) -> Result<Parts, Damaged> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
    let rest = body.strip_prefix(MAGIC).ok_or(Damaged)?;
    if checksum(body) != u32::from_le_bytes(*sum) {
        return Err(Damaged);
    }
    let mut from = Reader(rest);
    let parts = from.parts().ok_or(Damaged)?;
    if from.0.is_empty() {
        Ok(parts)
    } else {
        Err(Damaged)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Bytes of one row.
const ROW: usize = 8 + 5 * 4 + 2;

/// What stands for none.
const NONE: u32 = u32::MAX;
const NO_PRICE: i64 = i64::MIN;

fn put_row(to: &mut Vec<u8>, row: &Row) {
    to.extend_from_slice(&row.price.map_or(NO_PRICE, |price| price.0).to_le_bytes());
    for number in [
        row.region.0,
        row.zone.0,
        row.instance_type.0,
        row.machine.0,
        row.raw.unwrap_or(NONE),
    ] {
        put_u32(to, number);
    }
    to.push(u8::from(row.capacity_type == CapacityType::Spot));
    to.push(availability_code(row.availability));
}

fn put_machine(to: &mut Vec<u8>, machine: &Machine) {
    put_list(to, machine.gpus.iter(), |to, group| {
        put_text(to, group.name.as_str());
        put_u32(to, group.count);
        put_u32(to, group.memory_mib.unwrap_or(NONE));
        put_u32(to, group.share_milli);
    });
    for amount in [machine.cpu_milli, machine.memory_mib, machine.disk_mib] {
        put_u32(to, amount.unwrap_or(NONE));
    }
    to.push(match machine.arch {
        None => 0,
        Some(Arch::X86_64) => 1,
        Some(Arch::Arm64) => 2,
    });
}

fn put_intake(to: &mut Vec<u8>, intake: &Intake) {
    for number in [intake.rows, intake.mended, intake.repeated] {
        put_u32(to, number);
    }
    put_list(to, intake.skipped.iter(), |to, (reason, skips)| {
        put_text(to, reason);
        put_u32(to, skips.count);
        put_text(to, &skips.example);
    });
    put_list(to, intake.unknown_gpus.iter(), |to, name| {
        put_text(to, name);
    });
    put_text(to, &intake.price_date);
}

fn put_u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    // Snapshots come of sources of bounded size, far below 4 GiB.
    put_u32(to, u32::try_from(bytes.len()).unwrap_or(NONE));
    to.extend_from_slice(bytes);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put_bytes(to, text.as_bytes());
}

fn put_list<T>(
    to: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    put_u32(to, u32::try_from(items.len()).unwrap_or(NONE));
    for item in items {
        put(to, item);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn parts(&mut self) -> Option<Parts> {
        Some(Parts {
            backend: self.text()?,
            source: source_of(self.byte()?)?,
            texts: self.list(|from| from.str().map(Box::from))?,
            machines: self.list(Self::machine)?,
            rows: self.list(Self::row)?,
            raw: Raw {
                keys: self.list(Self::text)?,
                bytes: self.bytes()?.to_vec(),
            },
            intake: self.intake()?,
        })
    }

    fn row(&mut self) -> Option<Row> {
        let price = i64::from_le_bytes(*self.chunk::<8>()?);
        Some(Row {
            price: (price != NO_PRICE).then_some(MicroUsd(price)),
            region: TextId(self.u32()?),
            zone: TextId(self.u32()?),
            instance_type: TextId(self.u32()?),
            machine: MachineId(self.u32()?),
            raw: self.optional()?,
            capacity_type: if self.byte()? == 0 {
                CapacityType::OnDemand
            } else {
                CapacityType::Spot
            },
            availability: availability_of(self.byte()?)?,
        })
    }

    fn machine(&mut self) -> Option<Machine> {
        Some(Machine {
            gpus: self.list(|from| {
                let name = gpu::canonical(from.str()?);
                Some(GpuGroup {
                    vendor: name.vendor(),
                    name,
                    count: from.u32()?,
                    memory_mib: from.optional()?,
                    share_milli: from.u32()?,
                })
            })?,
            cpu_milli: self.optional()?,
            memory_mib: self.optional()?,
            disk_mib: self.optional()?,
            arch: match self.byte()? {
                0 => None,
                1 => Some(Arch::X86_64),
                2 => Some(Arch::Arm64),
                _ => return None,
            },
        })
    }

    fn intake(&mut self) -> Option<Intake> {
        let (rows, mended, repeated) = (self.u32()?, self.u32()?, self.u32()?);
        let skipped = self.list(|from| {
            let reason = from.text()?;
            Some((
                reason.into(),
                Skips {
                    count: from.u32()?,
                    example: from.text()?,
                },
            ))
        })?;
        Some(Intake {
            rows,
            mended,
            repeated,
            skipped: BTreeMap::from_iter(skipped),
            unknown_gpus: self.list(Self::text)?.into_iter().collect(),
            price_date: self.text()?,
        })
    }

    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    fn byte(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| *byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(|chunk| u32::from_le_bytes(*chunk))
    }

    fn optional(&mut self) -> Option<Option<u32>> {
        self.u32().map(|number| (number != NONE).then_some(number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        let (bytes, rest) = self.0.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(bytes)
    }

    fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    /// A list; what it says of its own length is not believed beyond the bytes that are there.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u32()? as usize;
        let mut items = Vec::with_capacity(length.min(self.0.len()));
        for _ in 0..length {
            items.push(read(self)?);
        }
        Some(items)
    }
}

const AVAILABILITIES: [Availability; 6] = [
    Availability::Unknown,
    Availability::Available,
    Availability::NoCapacity,
    Availability::NoQuota,
    Availability::NoBalance,
    Availability::Idle,
];

const SOURCES: [Source; 4] = [
    Source::Catalog,
    Source::Provider,
    Source::Report,
    Source::Fleet,
];

fn availability_code(availability: Availability) -> u8 {
    (0u8..)
        .zip(AVAILABILITIES)
        .find(|(_, known)| *known == availability)
        .map_or(0, |(code, _)| code)
}

fn availability_of(code: u8) -> Option<Availability> {
    AVAILABILITIES.get(usize::from(code)).copied()
}

fn source_code(source: Source) -> u8 {
    (0u8..)
        .zip(SOURCES)
        .find(|(_, known)| *known == source)
        .map_or(0, |(code, _)| code)
}

fn source_of(code: u8) -> Option<Source> {
    SOURCES.get(usize::from(code)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::skypilot;
    use crate::domain::snapshot::Snapshot;
    use proptest::prelude::*;

    fn sample() -> Snapshot {
        let text = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region\n\
            a,H100,8,96,1900,98.3,18.1,eu\nb,Odd9,0.5,4,,1,,us\nc,,,2,4,x,,eu\nd,,,2,4,,,eu\n";
        skypilot::read("cloud", "vms.csv", text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_kept_comes_back_the_same() {
        let snapshot = sample();
        let parts = decode(&encode(snapshot.parts())).unwrap();
        assert_eq!(&parts, snapshot.parts());
        assert_eq!(Snapshot::index(parts).unwrap().len(), 3);
    }

    #[test]
    fn damage_is_seen() {
        let bytes = encode(sample().parts());
        for cut in [0, 4, 8, 20, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..cut]), Err(Damaged));
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(decode(&damaged), Err(Damaged), "byte {at}");
        }
    }

    proptest! {
        /// Also with a right checksum, no bytes panic or lead anywhere that is not there.
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
            let sum = |mut bytes: Vec<u8>| { let sum = checksum(&bytes); bytes.extend_from_slice(&sum.to_le_bytes()); bytes };
            let mut known = encode(sample().parts());
            known.truncate(known.len() - 4);
            for (at, value) in flips {
                let at = at.index(known.len());
                known[at] = value;
            }
            for bytes in [sum([MAGIC.as_slice(), &body].concat()), sum(known)] {
                if let Ok(parts) = decode(&bytes) && let Ok(snapshot) = Snapshot::index(parts) {
                    for row in snapshot.rows() {
                        snapshot.raw_of(row);
                        snapshot.id_of(row);
                    }
                }
            }
        }
    }
}
