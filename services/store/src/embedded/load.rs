//! Reading all that a file says: the image, the journals over it, and whether any of them is missing.

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError,
};

use super::schema::{self, Blobs, Facts};
use crate::codec;
use crate::epoch::Epoch;
use crate::group::Records;
use crate::leadership::TERM_KEY;
use crate::record::Revision;

/// What a store holds when it is opened or made.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) records: Records,
}

impl Contents {
    /// A store before its first transaction.
    pub(super) fn empty(epoch: Epoch) -> Self {
        Self {
            epoch,
            revision: Revision(0),
            records: Records::new(),
        }
    }

    /// How many times the store was opened before.
    pub(super) fn starts(&self) -> u64 {
        let term = self.records.get(TERM_KEY);
        let text = term.and_then(|record| str::from_utf8(&record.value).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// What a file holds, and how much of it is image and journal.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) contents: Contents,
    pub(super) image_bytes: usize,
    /// Both journals.
    pub(super) journal_bytes: usize,
    pub(super) next: Option<NextJournal>,
}

/// The journal that was begun for the next image.
#[derive(Debug)]
pub(super) struct NextJournal {
    /// The revision that it begins after.
    pub(super) base: Revision,
    pub(super) bytes: usize,
}

/// Reads everything.
pub(super) fn load(database: &Database, facts: &Facts) -> Result<Loaded, redb::Error> {
    let mut reading = Reading {
        revision: facts.base,
        records: Records::new(),
    };
    let image_bytes = reading.image(database, facts)?;
    let journal_bytes = reading.journal(database, facts.generation)?;
    let base = reading.revision;
    let bytes = reading.journal(database, facts.generation + 1)?;
    if reading.revision != facts.latest {
        return Err(corrupted("its latest transactions are missing"));
    }
    Ok(Loaded {
        contents: Contents {
            epoch: facts.epoch,
            revision: reading.revision,
            records: reading.records,
        },
        image_bytes,
        journal_bytes: journal_bytes + bytes,
        next: (bytes > 0).then_some(NextJournal { base, bytes }),
    })
}

/// The state that a file's blobs add up to.
#[derive(Debug)]
struct Reading {
    revision: Revision,
    records: Records,
}

impl Reading {
    /// Reads the image; returns its size in bytes.
    fn image(&mut self, database: &Database, facts: &Facts) -> Result<usize, redb::Error> {
        let table = table(database, &schema::image_name(facts.generation))?;
        let table = table.ok_or_else(|| corrupted("its records are missing"))?;
        if table.len()? != facts.slices {
            return Err(corrupted("some of its records are missing"));
        }
        let (mut bytes, mut records) = (0, Vec::new());
        for (expected, slice) in (0..).zip(table.iter()?) {
            let (_, blob) = slice?;
            bytes += blob.value().len();
            for (key, record) in entries(blob.value(), &[facts.generation, expected])? {
                records.extend(record.map(|record| (key, record)));
            }
        }
        // In the order of the keys, from which a map is made at once rather than one by one.
        self.records = records.into_iter().collect();
        Ok(bytes)
    }

    /// Applies a journal, which need not be there; returns its size in bytes.
    fn journal(&mut self, database: &Database, generation: u64) -> Result<usize, redb::Error> {
        let Some(table) = table(database, &schema::journal_name(generation))? else {
            return Ok(0);
        };
        let mut bytes = 0;
        for group in table.iter()? {
            let (revision, blob) = group?;
            bytes += blob.value().len();
            for (key, record) in entries(blob.value(), &[self.revision.0, revision.value()])? {
                match record {
                    Some(record) => drop(self.records.insert(key, record)),
                    None => drop(self.records.remove(&key)),
                }
            }
            self.revision = Revision(revision.value());
        }
        Ok(bytes)
    }
}

fn table(
    database: &Database,
    name: &str,
) -> Result<Option<ReadOnlyTable<u64, &'static [u8]>>, redb::Error> {
    match database.begin_read()?.open_table(Blobs::new(name)) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn entries(blob: &[u8], place: &[u64]) -> Result<Vec<codec::Entry>, redb::Error> {
    let entries = codec::entries(blob, place);
    entries.ok_or_else(|| corrupted("a part of it does not match its checksum"))
}

/// A fault of ours, in the words of redb.
pub(super) fn corrupted(detail: &str) -> redb::Error {
    redb::Error::Corrupted(detail.to_owned())
}
