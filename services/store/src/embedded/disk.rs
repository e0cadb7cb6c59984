//! Writing the file: a group at a time, and so that it does not grow with the number of groups.
//!
//! When the journal has grown to half of the image, the next generation begins: groups go to a new journal,
//! and each brings along a slice of a new image, taken from the records as they are then. A slice may
//! be newer than the journal's beginning, which does no harm: the journal has the last word on every key
//! that changed since. Once the image is whole, its generation is the current one; what is left of the one
//! before is deleted bit by bit by the groups that follow, so that none of them waits for much.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, WriteTransaction};

use super::file;
use super::load::{self, Contents};
use super::schema::{self, Blobs, Facts, Schema};
use crate::codec::{self, Slice};
use crate::group::{Group, Records};
use crate::open_error::OpenError;
use crate::record::Revision;

/// How much is written beside the groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The journal's size below which no new image is begun, in bytes.
    pub(super) least_journal: usize,
    /// The least size of a slice, in bytes.
    pub(super) least_slice: usize,
    /// How many blobs of an earlier generation a group deletes.
    pub(super) sweep: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            least_journal: 8 * 1024 * 1024,
            // Written in about the time of an fsync. With what redb adds it fits into a page of
            // 128 KiB; pages have sizes of powers of two.
            least_slice: 128 * 1024 - 64,
            // More than a group adds, and few enough to take no more time than the group itself.
            sweep: 16,
        }
    }
}

/// The writer's side of an open file.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
    pace: Pace,
    facts: Facts,
    image_bytes: usize,
    journal_bytes: usize,
    next: Option<NextImage>,
    /// Tables of earlier generations.
    garbage: Vec<String>,
}

/// How far the image of the next generation has come.
#[derive(Debug)]
struct NextImage {
    /// The revision that the journal beside it begins after.
    base: Revision,
    slices: u64,
    more_after: Option<Arc<str>>,
    bytes: usize,
    journal_bytes: usize,
}

/// What one commit writes.
pub(super) struct Blocks {
    revision: Revision,
    group: Vec<u8>,
    slice: Option<Slice>,
}

/// Makes an empty database a store with these contents.
pub(super) fn initialize(database: &Database, contents: &Contents) -> Result<(), redb::Error> {
    let generation = 1;
    let budget = Pace::default().least_slice;
    let mut image = NextImage::new(contents.revision);
    let transaction = database.begin_write()?;
    loop {
        let slice = image.slice(&contents.records, generation, budget);
        if image.add(&transaction, generation, slice)? {
            break;
        }
    }
    let facts = Facts {
        schema: schema::CURRENT.version(),
        epoch: contents.epoch,
        generation,
        slices: image.slices,
        base: contents.revision,
        latest: contents.revision,
    };
    facts.write(&transaction)?;
    transaction.commit()?;
    Ok(())
}

impl NextImage {
    fn new(base: Revision) -> Self {
        Self {
            base,
            slices: 0,
            more_after: None,
            bytes: 0,
            journal_bytes: 0,
        }
    }

    /// The next slice.
    fn slice(&self, records: &Records, generation: u64, budget: usize) -> Slice {
        let place = [generation, self.slices];
        codec::slice(records, self.more_after.as_deref(), budget, &place)
    }

    /// Writes the next slice; `true` if it was the last.
    fn add(
        &mut self,
        transaction: &WriteTransaction,
        generation: u64,
        slice: Slice,
    ) -> Result<bool, redb::Error> {
        let name = schema::image_name(generation);
        if self.slices == 0 {
            // What a killed process may have left of an image that was never whole.
            transaction.delete_table(Blobs::new(&name))?;
        }
        let mut image = transaction.open_table(Blobs::new(&name))?;
        image.insert(self.slices, slice.blob.as_slice())?;
        self.slices += 1;
        self.bytes += slice.blob.len();
        self.more_after = slice.more_after;
        Ok(self.more_after.is_none())
    }
}

impl Disk {
    /// Reads everything, after bringing the file to the version of `schema`.
    pub(super) fn open(
        path: &Path,
        database: Database,
        schema: Schema,
        pace: Pace,
    ) -> Result<(Self, Contents), OpenError> {
        let failed = |error| file::open_error(path, error);
        let nameless = || failed(load::corrupted("it does not say what it is"));
        let found = schema::version(&database).map_err(failed)?;
        let found = found.ok_or_else(nameless)?;
        if found > schema.version() {
            return Err(OpenError::NewerVersion {
                path: path.to_owned(),
                found,
                known: schema.version(),
            });
        }
        let facts = Facts::read(&database).map_err(failed)?;
        let facts = facts.ok_or_else(nameless)?;
        let facts = schema.migrate(&database, facts).map_err(failed)?;
        Self::load(database, facts, pace).map_err(failed)
    }

    fn load(database: Database, facts: Facts, pace: Pace) -> Result<(Self, Contents), redb::Error> {
        let loaded = load::load(&database, &facts)?;
        let disk = Self {
            garbage: schema::tables_before(&database, facts.generation)?,
            database,
            pace,
            facts,
            image_bytes: loaded.image_bytes,
            journal_bytes: loaded.journal_bytes,
            // The image that was under way is begun again, over the journal that was begun with it.
            next: loaded.next.map(|journal| NextImage {
                journal_bytes: journal.bytes,
                ..NextImage::new(journal.base)
            }),
        };
        Ok((disk, loaded.contents))
    }

    /// What to write for a group on these records (as they are before it).
    pub(super) fn encode(&mut self, group: &Group, records: &Records) -> Blocks {
        let revision = group.revision();
        let group = codec::group(group, &[self.facts.latest.0, revision.0]);
        let limit = self.pace.least_journal.max(self.image_bytes / 2);
        if self.next.is_none() && self.journal_bytes + group.len() > limit {
            self.next = Some(NextImage::new(self.facts.latest));
        }
        // More than the journal grows, so that the image is sure to be finished.
        let budget = self.pace.least_slice.max(2 * group.len());
        let next = self.next.as_ref();
        let slice = next.map(|next| next.slice(records, self.facts.generation + 1, budget));
        Blocks {
            revision,
            group,
            slice,
        }
    }

    /// Writes it and waits for the disk. An error is final: what of it is on disk is not known.
    pub(super) fn write(&mut self, blocks: Blocks) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        let generation = self.facts.generation + u64::from(self.next.is_some());
        {
            let name = schema::journal_name(generation);
            let mut journal = transaction.open_table(Blobs::new(&name))?;
            journal.insert(blocks.revision.0, blocks.group.as_slice())?;
        }
        self.journal_bytes += blocks.group.len();
        self.sweep(&transaction)?;
        if let Some(slice) = blocks.slice {
            self.advance(&transaction, slice, blocks.group.len())?;
        }
        self.facts.latest = blocks.revision;
        self.facts.write(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    fn advance(
        &mut self,
        transaction: &WriteTransaction,
        slice: Slice,
        group_bytes: usize,
    ) -> Result<(), redb::Error> {
        let Some(mut next) = self.next.take() else {
            return Ok(());
        };
        let current = self.facts.generation;
        next.journal_bytes += group_bytes;
        if !next.add(transaction, current + 1, slice)? {
            self.next = Some(next);
            return Ok(());
        }
        self.garbage.push(schema::image_name(current));
        self.garbage.push(schema::journal_name(current));
        self.facts.generation = current + 1;
        self.facts.slices = next.slices;
        self.facts.base = next.base;
        self.image_bytes = next.bytes;
        self.journal_bytes = next.journal_bytes;
        Ok(())
    }

    /// Deletes some of the garbage. Deleting a whole table at once takes 30 ms where the image has 60 MiB.
    fn sweep(&mut self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut left = self.pace.sweep;
        while left > 0
            && let Some(name) = self.garbage.last()
        {
            let mut table = transaction.open_table(Blobs::new(name))?;
            while left > 0 && table.pop_last()?.is_some() {
                left -= 1;
            }
            if left > 0 {
                transaction.delete_table(table)?;
                self.garbage.pop();
            }
        }
        Ok(())
    }
}
