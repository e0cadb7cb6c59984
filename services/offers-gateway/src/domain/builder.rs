//! Turns the rows of a source, in whatever order they come, into a [`Snapshot`]: each text and
//! machine stored once, each offer once, in order of price. Two rows of one offer are one: said
//! twice, the same is counted as repeated; at different prices the cheaper one stands.

use std::collections::hash_map::Entry;

use muster_model::constraints::CapacityType;
use muster_model::quantity::MicroUsd;
use rustc_hash::FxHashMap;

use super::id;
use super::intake::Intake;
use super::offer::{Draft, Machine, Source};
use super::snapshot::{MachineId, Parts, Raw, Row, SegmentKey, Snapshot, TextId, price_key};

/// A snapshot in the making.
#[derive(Debug)]
pub struct Builder {
    backend: String,
    source: Source,
    texts: FxHashMap<Box<str>, u32>,
    machines: FxHashMap<Machine, u32>,
    rows: Vec<Row>,
    by_key: FxHashMap<Key, u32>,
    raw: Raw,
    raw_keys: FxHashMap<Box<str>, u16>,
    /// What became of the rows; sources count here.
    pub intake: Intake,
}

type Key = (u32, u32, u32, CapacityType);

/// Where a record of a provider's own fields begins.
#[derive(Clone, Copy, Debug)]
pub struct RawId(u32);

/// What became of a draft. Of a row's drafts the greatest is what became of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Added {
    /// The same was said before.
    Repeated,
    /// It is a new offer.
    New,
    /// It was said before otherwise; the cheaper one stands.
    Conflict,
    /// It cannot be shown, for this reason.
    Refused(&'static str),
}

/// The longest name of a region, a zone, a machine or an accelerator, in bytes: many offers have to
/// fit one message.
const MAX_NAME: usize = 256;

/// The most bytes of a provider's own fields of one row: an offer has to fit a message with them too.
const MAX_RAW: usize = 64 << 10;

/// Why a name cannot be shown.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > MAX_NAME {
        return Err("a name of more than 256 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("a name with a control character");
    }
    Ok(())
}

impl Builder {
    /// Nothing yet.
    pub fn new(backend: &str, source: Source) -> Self {
        Self {
            backend: backend.to_owned(),
            source,
            texts: FxHashMap::default(),
            machines: FxHashMap::default(),
            rows: Vec::new(),
            by_key: FxHashMap::default(),
            raw: Raw::default(),
            raw_keys: FxHashMap::default(),
            intake: Intake::default(),
        }
    }

    /// How many offers there are so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keeps a provider's own fields, to be given to the drafts made of them. Empty values are left out,
    /// and those for which there is no room.
    pub fn raw<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a str)>) -> Option<RawId> {
        let (keys, raw) = (&mut self.raw_keys, &mut self.raw);
        let mut known = Vec::with_capacity(16);
        let mut room = MAX_RAW;
        for (key, value) in fields.filter(|(_, value)| !value.is_empty()) {
            let value = Raw::shortened(value);
            let Some(left) = room.checked_sub(key.len() + value.len()) else {
                continue;
            };
            let key = match (keys.get(key), u16::try_from(raw.keys.len())) {
                (Some(key), _) => *key,
                (None, Ok(next)) => {
                    keys.insert(key.into(), next);
                    raw.keys.push(key.to_owned());
                    next
                }
                (None, Err(_)) => continue,
            };
            room = left;
            known.push((key, value));
        }
        raw.write(known.into_iter()).map(RawId)
    }

    /// Adds an offer.
    pub fn add(&mut self, draft: &Draft<'_>, raw: Option<RawId>) -> Added {
        if let Err(reason) = draft.check_names() {
            return Added::Refused(reason);
        }
        let row = self.row(draft, raw);
        let key = (
            row.region.0,
            row.zone.0,
            row.instance_type.0,
            row.capacity_type,
        );
        match self.by_key.entry(key) {
            Entry::Vacant(slot) => {
                // Rows are bounded by what a source may hold in bytes, far below 2^32.
                slot.insert(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
                self.rows.push(row);
                Added::New
            }
            Entry::Occupied(slot) => {
                let known = &mut self.rows[*slot.get() as usize];
                if (known.price, known.machine, known.availability)
                    == (row.price, row.machine, row.availability)
                {
                    return Added::Repeated;
                }
                if price_key(row.price) < price_key(known.price) {
                    *known = row;
                }
                Added::Conflict
            }
        }
    }

    /// Adds the offers of one row: on demand and spot, as far as they have a price. A row without
    /// any is not an offer.
    pub fn add_priced(
        &mut self,
        draft: &Draft<'_>,
        on_demand: Option<MicroUsd>,
        spot: Option<MicroUsd>,
        raw: Option<RawId>,
    ) -> Option<Added> {
        let priced = [
            (CapacityType::OnDemand, on_demand),
            (CapacityType::Spot, spot),
        ];
        let offers = priced.into_iter().filter(|(_, price)| price.is_some());
        let added = offers.map(|(capacity_type, price)| {
            self.add(
                &Draft {
                    capacity_type,
                    price,
                    ..*draft
                },
                raw,
            )
        });
        added.max()
    }

    /// Counts what became of one row's drafts.
    pub fn tally(&mut self, added: Option<Added>, place: impl FnOnce() -> String) {
        match added {
            Some(Added::New) => {}
            Some(Added::Repeated) => self.intake.repeated += 1,
            Some(Added::Conflict) => self
                .intake
                .skip("another row has this machine at another price", place),
            Some(Added::Refused(reason)) => self.intake.skip(reason, place),
            None => self.intake.skip("no price", place),
        }
    }

    /// The snapshot.
    pub fn finish(self) -> Snapshot {
        let (texts, places) = sorted_texts(self.texts);
        let mut machines = vec![Machine::default(); self.machines.len()];
        for (machine, at) in self.machines {
            machines[at as usize] = machine;
        }
        let place = |text: TextId| TextId(places[text.0 as usize]);
        let rows = self.rows.into_iter().map(|row| Row {
            region: place(row.region),
            zone: place(row.zone),
            instance_type: place(row.instance_type),
            ..row
        });
        let parts = Parts {
            rows: sorted_rows(rows.collect(), &texts),
            backend: self.backend,
            source: self.source,
            texts,
            machines,
            raw: self.raw,
            intake: self.intake,
        };
        // A builder makes no reference that leads nowhere; an empty snapshot stands for the bug.
        Snapshot::index(parts).unwrap_or_else(|_| Snapshot::empty("", Source::Catalog))
    }

    fn row(&mut self, draft: &Draft<'_>, raw: Option<RawId>) -> Row {
        let number = u32::try_from(self.machines.len()).unwrap_or(u32::MAX);
        let machine = match self.machines.get(draft.machine) {
            Some(machine) => *machine,
            None => {
                self.note_names(draft.machine);
                self.machines.insert(draft.machine.clone(), number);
                number
            }
        };
        Row {
            price: draft.price,
            region: self.text(draft.region),
            zone: self.text(draft.zone),
            instance_type: self.text(draft.instance_type),
            machine: MachineId(machine),
            raw: raw.map(|RawId(at)| at),
            capacity_type: draft.capacity_type,
            availability: draft.availability.as_said_by(self.source),
        }
    }

    fn note_names(&mut self, machine: &Machine) {
        for group in machine
            .gpus
            .iter()
            .filter(|group| group.name.known().is_none())
        {
            self.intake.unknown_gpu(group.name.as_str());
        }
    }

    fn text(&mut self, text: &str) -> TextId {
        if let Some(at) = self.texts.get(text) {
            return TextId(*at);
        }
        let at = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.insert(text.into(), at);
        TextId(at)
    }
}

impl Draft<'_> {
    fn check_names(&self) -> Result<(), &'static str> {
        let gpus = self.machine.gpus.iter().map(|group| group.name.as_str());
        let places = [self.region, self.zone, self.instance_type];
        places.into_iter().chain(gpus).try_for_each(check_name)
    }
}

impl Snapshot {
    /// No offers.
    pub fn empty(backend: &str, source: Source) -> Self {
        Builder::new(backend, source).finish()
    }
}

/// The texts in the order of their segments, and where each has gone.
fn sorted_texts(texts: FxHashMap<Box<str>, u32>) -> (Vec<Box<str>>, Vec<u32>) {
    let mut texts: Vec<(Box<str>, u32)> = texts.into_iter().collect();
    texts.sort_unstable_by(|(a, _), (b, _)| SegmentKey::new(a).cmp(&SegmentKey::new(b)));
    let mut places = vec![0u32; texts.len()];
    for (place, (_, was)) in (0u32..).zip(&texts) {
        places[*was as usize] = place;
    }
    (texts.into_iter().map(|(text, _)| text).collect(), places)
}

/// Rows in order of price, then of id. Ids are compared by the ranks of their segments.
fn sorted_rows(rows: Vec<Row>, texts: &[Box<str>]) -> Vec<Row> {
    let ends = CapacityRanks::new(texts);
    let mut keyed: Vec<(i64, [u32; 4], Row)> = rows
        .into_iter()
        .map(|row| (price_key(row.price), ends.id_key(&row, texts), row))
        .collect();
    keyed.sort_unstable_by_key(|(price, id, _)| (*price, *id));
    keyed.into_iter().map(|(.., row)| row).collect()
}

/// Where the last segments of ids stand among the texts: they have no slash after them.
struct CapacityRanks {
    on_demand: u32,
    spot: u32,
}

impl CapacityRanks {
    fn new(texts: &[Box<str>]) -> Self {
        let rank = |capacity_type| {
            let end = id::capacity_segment(capacity_type);
            let before =
                texts.partition_point(|text| format!("{}/", id::encode(text)).as_str() < end);
            u32::try_from(before)
                .unwrap_or(u32::MAX)
                .saturating_mul(2)
                .saturating_add(1)
        };
        Self {
            on_demand: rank(CapacityType::OnDemand),
            spot: rank(CapacityType::Spot),
        }
    }

    /// Texts have even ranks from 2 on, so that the ends fit between them; 0 is after the end.
    fn id_key(&self, row: &Row, texts: &[Box<str>]) -> [u32; 4] {
        let text = |text: TextId| text.0 * 2 + 2;
        let end = match row.capacity_type {
            CapacityType::OnDemand => self.on_demand,
            CapacityType::Spot => self.spot,
        };
        let (region, instance_type) = (text(row.region), text(row.instance_type));
        if texts[row.zone.0 as usize].is_empty() {
            [region, instance_type, end, 0]
        } else {
            [region, text(row.zone), instance_type, end]
        }
    }
}

#[cfg(test)]
mod tests;
