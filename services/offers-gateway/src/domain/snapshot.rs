//! All offers of one backend at one reading, immutable and compact, laid out so that a question is
//! answered without looking at what cannot match: rows in order of price, and for each kind of
//! machine the rows that have it. It never changes after it is built, and knows no clock.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use muster_model::constraints::CapacityType;
use muster_model::gpu::GpuName;
use muster_model::quantity::MicroUsd;
use muster_model::requirements::Capacity;
use rustc_hash::FxBuildHasher;

use super::id::{self, OfferId};
use super::intake::Intake;
use super::offer::{Availability, Machine, Source};

/// The number of a row: its place in order of (price, id).
pub type RowNumber = u32;

/// A place in [`Snapshot::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextId(pub u32);

/// A place in [`Snapshot::machines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub u32);

/// One offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// For the whole machine; none is unknown.
    pub price: Option<MicroUsd>,
    /// The region; may be the empty text.
    pub region: TextId,
    /// The zone; may be the empty text.
    pub zone: TextId,
    /// The instance type.
    pub instance_type: TextId,
    /// What it has.
    pub machine: MachineId,
    /// Where its provider's own fields begin in [`Raw`].
    pub raw: Option<u32>,
    /// On demand or spot.
    pub capacity_type: CapacityType,
    /// Whether it can be had, as its source says.
    pub availability: Availability,
}

/// The providers' own fields, one after another: each record is a list of (key, value).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The keys, which records name by place.
    pub keys: Vec<String>,
    /// The records.
    pub bytes: Vec<u8>,
}

/// What makes a snapshot: the parts that are kept on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// The backend's name.
    pub backend: String,
    /// Who says how available its offers are.
    pub source: Source,
    /// Each distinct text once, in the order of their segments in an id.
    pub texts: Vec<Box<str>>,
    /// Each distinct machine once.
    pub machines: Vec<Machine>,
    /// The offers, in order of price (unknown last), then id.
    pub rows: Vec<Row>,
    /// The providers' own fields.
    pub raw: Raw,
    /// What became of the rows read.
    pub intake: Intake,
}

/// All offers of one backend at one reading.
#[derive(Debug)]
pub struct Snapshot {
    parts: Parts,
    capacities: Vec<Capacity>,
    /// Rows of machine `n` are `machine_rows[starts[n]..starts[n + 1]]`, ascending.
    starts: Vec<u32>,
    machine_rows: Vec<RowNumber>,
    by_gpu: BTreeMap<GpuName, Vec<MachineId>>,
    by_id: HashTable<RowNumber>,
}

/// Parts that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parts of the snapshot do not fit together")]
pub struct Inconsistent;

impl Snapshot {
    /// Indexes the parts, which must fit together as [`Parts`] says; that every reference leads
    /// somewhere is checked, since parts also come from disk.
    pub fn index(parts: Parts) -> Result<Self, Inconsistent> {
        check(&parts)?;
        let (starts, machine_rows) = rows_by_machine(&parts);
        let mut snapshot = Self {
            capacities: parts.machines.iter().map(Machine::capacity).collect(),
            starts,
            machine_rows,
            by_gpu: machines_by_gpu(&parts.machines),
            by_id: HashTable::with_capacity(parts.rows.len()),
            parts,
        };
        for (number, row) in (0u32..).zip(&snapshot.parts.rows) {
            let rehash = |other: &u32| hash_key(&snapshot.parts.rows[*other as usize]);
            snapshot.by_id.insert_unique(hash_key(row), number, rehash);
        }
        Ok(snapshot)
    }

    /// The same, of a price list of that day.
    #[must_use]
    pub fn dated(mut self, date: &str) -> Self {
        date.clone_into(&mut self.parts.intake.price_date);
        self
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        &self.parts.backend
    }

    /// Who says how available its offers are.
    pub fn source(&self) -> Source {
        self.parts.source
    }

    /// What it was made of.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What became of the rows read.
    pub fn intake(&self) -> &Intake {
        &self.parts.intake
    }

    /// How many offers there are.
    pub fn len(&self) -> usize {
        self.parts.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.rows.is_empty()
    }

    /// The offers, in order of (price, id).
    pub fn rows(&self) -> &[Row] {
        &self.parts.rows
    }

    /// One offer. The number must be of this snapshot.
    pub fn row(&self, number: RowNumber) -> &Row {
        &self.parts.rows[number as usize]
    }

    /// A text.
    pub fn text(&self, text: TextId) -> &str {
        &self.parts.texts[text.0 as usize]
    }

    /// The machine of a row.
    pub fn machine(&self, row: &Row) -> &Machine {
        &self.parts.machines[row.machine.0 as usize]
    }

    /// Each distinct machine with what requirements see of it.
    pub fn capacities(&self) -> &[Capacity] {
        &self.capacities
    }

    /// The machines that have an accelerator of which `wanted` says yes.
    pub fn machines_with_gpu(&self, mut wanted: impl FnMut(&GpuName) -> bool) -> Vec<MachineId> {
        let matching = self.by_gpu.iter().filter(|(name, _)| wanted(name));
        let mut machines: Vec<MachineId> = matching
            .flat_map(|(_, machines)| machines)
            .copied()
            .collect();
        machines.sort_unstable();
        machines.dedup();
        machines
    }

    /// The rows of one machine, ascending.
    pub fn rows_of(&self, machine: MachineId) -> &[RowNumber] {
        let at = machine.0 as usize;
        let (from, to) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        &self.machine_rows[from..to]
    }

    /// The text itself, if any offer has it.
    pub fn find_text(&self, text: &str) -> Option<TextId> {
        let wanted = SegmentKey::new(text);
        let at = self
            .parts
            .texts
            .binary_search_by(|known| SegmentKey::new(known).cmp(&wanted));
        at.ok().and_then(|at| u32::try_from(at).ok()).map(TextId)
    }

    /// The row with this id; none if the backend has no such offer.
    pub fn find(&self, id: &OfferId<'_>) -> Option<RowNumber> {
        self.find_key(
            self.find_text(&id.region)?,
            self.find_text(&id.zone)?,
            self.find_text(&id.instance_type)?,
            id.capacity_type,
        )
    }

    /// The same, with its texts looked up already.
    pub fn find_key(
        &self,
        region: TextId,
        zone: TextId,
        instance_type: TextId,
        capacity_type: CapacityType,
    ) -> Option<RowNumber> {
        let key = (region, zone, instance_type, capacity_type);
        let same = |number: &u32| key_of(self.row(*number)) == key;
        self.by_id.find(FxBuildHasher.hash_one(key), same).copied()
    }

    /// A row's id, taken apart.
    pub fn id_of(&self, row: &Row) -> OfferId<'_> {
        OfferId {
            backend: self.backend().into(),
            region: self.text(row.region).into(),
            zone: self.text(row.zone).into(),
            instance_type: self.text(row.instance_type).into(),
            capacity_type: row.capacity_type,
        }
    }

    /// The order of two rows' ids, as texts.
    pub fn compare_ids(&self, left: &Row, right: &Row) -> Ordering {
        self.id_of(left).render().cmp(&self.id_of(right).render())
    }

    /// The provider's own fields of a row.
    pub fn raw_of(&self, row: &Row) -> Vec<(&str, &str)> {
        row.raw.map_or_else(Vec::new, |at| self.parts.raw.read(at))
    }
}

fn check(parts: &Parts) -> Result<(), Inconsistent> {
    let fits = |number: u32, length: usize| (number as usize) < length;
    let row_fits = |row: &Row| {
        [row.region, row.zone, row.instance_type]
            .iter()
            .all(|text| fits(text.0, parts.texts.len()))
            && fits(row.machine.0, parts.machines.len())
            && row.raw.is_none_or(|at| fits(at, parts.raw.bytes.len()))
    };
    let ordered = parts
        .texts
        .is_sorted_by(|a, b| SegmentKey::new(a) < SegmentKey::new(b))
        && parts.rows.is_sorted_by_key(|row| price_key(row.price));
    let countable = u32::try_from(parts.rows.len()).is_ok();
    if ordered && countable && parts.rows.iter().all(row_fits) {
        Ok(())
    } else {
        Err(Inconsistent)
    }
}

/// Sorts unknown prices last.
pub fn price_key(price: Option<MicroUsd>) -> i64 {
    price.map_or(i64::MAX, |price| price.0)
}

/// Counting sort: where each machine's rows begin, and the rows.
fn rows_by_machine(parts: &Parts) -> (Vec<u32>, Vec<RowNumber>) {
    let mut starts = vec![0u32; parts.machines.len() + 1];
    for row in &parts.rows {
        starts[row.machine.0 as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut rows = vec![0u32; parts.rows.len()];
    for (number, row) in (0u32..).zip(&parts.rows) {
        let slot = &mut next[row.machine.0 as usize];
        rows[*slot as usize] = number;
        *slot += 1;
    }
    (starts, rows)
}

fn machines_by_gpu(machines: &[Machine]) -> BTreeMap<GpuName, Vec<MachineId>> {
    let mut by_gpu: BTreeMap<GpuName, Vec<MachineId>> = BTreeMap::new();
    for (number, machine) in (0u32..).zip(machines) {
        for group in &machine.gpus {
            by_gpu
                .entry(group.name.clone())
                .or_default()
                .push(MachineId(number));
        }
    }
    by_gpu
}

fn key_of(row: &Row) -> (TextId, TextId, TextId, CapacityType) {
    (row.region, row.zone, row.instance_type, row.capacity_type)
}

fn hash_key(row: &Row) -> u64 {
    FxBuildHasher.hash_one(key_of(row))
}

/// Orders texts as their encoded segments order inside an id, where each but the last is followed
/// by a slash.
#[derive(Clone, Debug)]
pub struct SegmentKey<'a>(std::borrow::Cow<'a, str>);

impl<'a> SegmentKey<'a> {
    /// The key of a text.
    pub fn new(text: &'a str) -> Self {
        Self(id::encode(text))
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().chain([b'/'])
    }
}

impl PartialEq for SegmentKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for SegmentKey<'_> {}

impl PartialOrd for SegmentKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SegmentKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl Raw {
    /// The record that begins at `at`. A record that is cut off ends early.
    pub fn read(&self, at: u32) -> Vec<(&str, &str)> {
        let mut rest = self.bytes.get(at as usize..).unwrap_or_default();
        let count = take_u16(&mut rest).unwrap_or(0);
        let mut fields = Vec::with_capacity(count.into());
        for _ in 0..count {
            let Some((key, value)) = self.take_field(&mut rest) else {
                break;
            };
            fields.push((key, value));
        }
        fields
    }

    /// Adds a record and tells where it begins; none once the records are full.
    pub fn write<'a>(&mut self, fields: impl Iterator<Item = (u16, &'a str)>) -> Option<u32> {
        let at = u32::try_from(self.bytes.len()).ok()?;
        self.bytes.extend_from_slice(&[0, 0]);
        let mut count = 0u16;
        for (key, value) in fields {
            let value = Self::shortened(value);
            let length = u16::try_from(value.len()).ok()?;
            self.bytes.extend_from_slice(&key.to_le_bytes());
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(value.as_bytes());
            count = count.saturating_add(1);
        }
        self.bytes[at as usize..at as usize + 2].copy_from_slice(&count.to_le_bytes());
        Some(at)
    }

    /// As much of a value as is kept.
    pub fn shortened(value: &str) -> &str {
        &value[..value.floor_char_boundary(MAX_RAW_VALUE)]
    }

    fn take_field<'a>(&'a self, rest: &mut &'a [u8]) -> Option<(&'a str, &'a str)> {
        let key = self.keys.get(usize::from(take_u16(rest)?))?;
        let length = take_u16(rest)?;
        let (value, after) = rest.split_at_checked(length.into())?;
        *rest = after;
        Some((key, std::str::from_utf8(value).ok()?))
    }
}

/// The longest value of a provider's field that is kept, in bytes.
const MAX_RAW_VALUE: usize = 1024;

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_le_bytes(*bytes))
}
