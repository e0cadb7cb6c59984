//! Offers in protobuf's own bytes, written straight from a snapshot: what offers share is encoded
//! once per snapshot, and an offer is a dozen copies. It decides nothing; what it writes is what
//! [`render_offer`](super::convert::render_offer) would encode to.

use muster_proto::offers::v1 as pb;
pub use muster_runtime::wire::put_bytes;
use muster_runtime::wire::{put_number, put_text};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::convert;
use crate::domain::id;
use crate::domain::market::Shelf;
use crate::domain::snapshot::{RowNumber, Snapshot, TextId};

/// What the offers of one snapshot share, encoded.
#[derive(Debug)]
pub struct Tables {
    /// Each text as a segment of an id, with its slash.
    segments: Vec<Box<[u8]>>,
    /// Each machine: the fields `gpus` to `architecture`.
    machines: Vec<Box<[u8]>>,
    /// The backend as the first segment of an id.
    backend_segment: Box<[u8]>,
}

/// The numbers of the fields of `Offer`.
mod field {
    pub(super) const ID: u32 = 1;
    pub(super) const BACKEND: u32 = 2;
    pub(super) const REGION: u32 = 3;
    pub(super) const ZONE: u32 = 4;
    pub(super) const INSTANCE_TYPE: u32 = 5;
    pub(super) const CAPACITY_TYPE: u32 = 6;
    pub(super) const PRICE: u32 = 12;
    pub(super) const AVAILABILITY: u32 = 13;
    pub(super) const AVAILABILITY_SOURCE: u32 = 14;
    pub(super) const OBSERVE_TIME: u32 = 15;
    pub(super) const RAW: u32 = 16;
}

/// Whether offers carry the provider's own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawFields {
    /// They do not.
    Omit,
    /// They do.
    Include,
}

impl Tables {
    /// Encodes what a snapshot's offers share.
    pub fn new(snapshot: &Snapshot) -> Self {
        let segment = |text: &str| {
            format!("{}/", id::encode(text))
                .into_bytes()
                .into_boxed_slice()
        };
        let parts = snapshot.parts();
        let machines = parts.machines.iter().map(|machine| {
            let mut shared = pb::Offer::default();
            convert::render_machine(machine, &mut shared);
            shared.encode_to_vec().into_boxed_slice()
        });
        Self {
            segments: parts.texts.iter().map(|text| segment(text)).collect(),
            machines: machines.collect(),
            backend_segment: segment(snapshot.backend()),
        }
    }

    fn segment(&self, text: TextId) -> &[u8] {
        &self.segments[text.0 as usize]
    }
}

/// Writes the offers of one shelf.
pub struct Writer<'a> {
    shelf: &'a Shelf,
    tables: &'a Tables,
    /// The encoded time when the backend was read.
    observe_time: Vec<u8>,
    raw: RawFields,
}

impl<'a> Writer<'a> {
    /// A writer for `shelf`, whose snapshot `tables` are of.
    pub fn new(shelf: &'a Shelf, tables: &'a Tables, raw: RawFields) -> Self {
        let observe_time = convert::render_time(shelf.observed).encode_to_vec();
        Self {
            shelf,
            tables,
            observe_time,
            raw,
        }
    }

    /// Appends the encoded offer, without a key or length before it.
    pub fn write(&self, number: RowNumber, to: &mut Vec<u8>) {
        let (snapshot, tables) = (&self.shelf.snapshot, self.tables);
        let row = snapshot.row(number);
        let shown = self.shelf.shown(number, row);
        let zone = snapshot.text(row.zone);
        self.write_id(number, to);
        put_text(field::BACKEND, snapshot.backend(), to);
        put_text(field::REGION, snapshot.text(row.region), to);
        put_text(field::ZONE, zone, to);
        put_text(field::INSTANCE_TYPE, snapshot.text(row.instance_type), to);
        put_number(
            field::CAPACITY_TYPE,
            convert::render_capacity_type(row.capacity_type),
            to,
        );
        to.extend_from_slice(&tables.machines[row.machine.0 as usize]);
        if let Some(price) = shown.price {
            put_bytes(
                field::PRICE,
                &convert::render_price(price).encode_to_vec(),
                to,
            );
        }
        put_number(
            field::AVAILABILITY,
            convert::render_availability(shown.availability),
            to,
        );
        put_number(
            field::AVAILABILITY_SOURCE,
            convert::render_source(shown.source),
            to,
        );
        put_bytes(field::OBSERVE_TIME, &self.observe_time, to);
        if self.raw == RawFields::Include {
            for (key, value) in snapshot.raw_of(row) {
                let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
                put_text(1, key, &mut entry);
                put_text(2, value, &mut entry);
                put_bytes(field::RAW, &entry, to);
            }
        }
    }

    fn write_id(&self, number: RowNumber, to: &mut Vec<u8>) {
        let (snapshot, tables) = (&self.shelf.snapshot, self.tables);
        let row = snapshot.row(number);
        let zone = if snapshot.text(row.zone).is_empty() {
            &[]
        } else {
            tables.segment(row.zone)
        };
        let capacity = id::capacity_segment(row.capacity_type).as_bytes();
        let parts: [&[u8]; 5] = [
            &tables.backend_segment,
            tables.segment(row.region),
            zone,
            tables.segment(row.instance_type),
            capacity,
        ];
        encode_key(field::ID, WireType::LengthDelimited, to);
        encode_varint(parts.iter().map(|part| part.len() as u64).sum(), to);
        for part in parts {
            to.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests;
