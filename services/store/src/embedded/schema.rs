//! What tables stand in the file, and which version of them this release reads and writes.
//!
//! The tree that redb keeps is too slow to be written at random for each transaction, so the file is a
//! journal over an image. Each group of transactions is one blob of a journal. An image is all records, in
//! slices. Image and journal have a generation: the state is the image of the current generation, and over
//! it that generation's journal and, where the next image is under way, the next one's.
//!
//! Beside them, one row of [`Facts`] says what must be there, so that nothing can be missing unnoticed.

use redb::{
    Database, ReadableDatabase, TableDefinition, TableError, TableHandle, WriteTransaction,
};

use crate::codec;
use crate::epoch::Epoch;
use crate::record::Revision;

/// Blobs by number: slices of an image by their order, groups of a journal by their latest revision.
pub(super) type Blobs<'a> = TableDefinition<'a, u64, &'static [u8]>;

/// One row: the facts as text, sealed.
const FACTS: TableDefinition<'_, (), &[u8]> = TableDefinition::new("facts");

/// What every commit says about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The version of tables and encoding.
    pub(super) schema: u64,
    pub(super) epoch: Epoch,
    /// The current generation.
    pub(super) generation: u64,
    /// How many slices its image has.
    pub(super) slices: u64,
    /// The revision that its journal begins after.
    pub(super) base: Revision,
    /// The latest revision.
    pub(super) latest: Revision,
}

impl Facts {
    /// Reads them; `None` if they are not as this release writes them.
    pub(super) fn read(database: &Database) -> Result<Option<Self>, redb::Error> {
        Ok(text(database)?.and_then(|text| Self::parse(&text)))
    }

    /// Writes them.
    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(FACTS)?;
        table.insert((), self.render().as_slice())?;
        Ok(())
    }

    fn render(&self) -> Vec<u8> {
        let text = format!(
            "{} {} {} {} {} {}",
            self.schema, self.epoch, self.generation, self.slices, self.base, self.latest,
        );
        codec::seal(text.into_bytes(), &[])
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            schema: words.next()?.parse().ok()?,
            epoch: words.next()?.parse().ok()?,
            generation: words.next()?.parse().ok()?,
            slices: words.next()?.parse().ok()?,
            base: Revision(words.next()?.parse().ok()?),
            latest: Revision(words.next()?.parse().ok()?),
        })
    }
}

/// The version alone, which comes first in every release; `None` if this is not a store, or damaged.
pub(super) fn version(database: &Database) -> Result<Option<u64>, redb::Error> {
    let text = text(database)?;
    Ok(text.and_then(|text| text.split(' ').next()?.parse().ok()))
}

fn text(database: &Database) -> Result<Option<String>, redb::Error> {
    let table = match database.begin_read()?.open_table(FACTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let Some(row) = table.get(())? else {
        return Ok(None);
    };
    let text = codec::unseal(row.value(), &[]);
    Ok(text.and_then(|text| String::from_utf8(text.to_vec()).ok()))
}

pub(super) fn image_name(generation: u64) -> String {
    format!("image-{generation}")
}

pub(super) fn journal_name(generation: u64) -> String {
    format!("journal-{generation}")
}

/// The names of the images and journals that are older than the current generation.
pub(super) fn tables_before(database: &Database, current: u64) -> Result<Vec<String>, redb::Error> {
    let transaction = database.begin_read()?;
    let names = transaction.list_tables()?;
    let older = names.map(|table| table.name().to_owned()).filter(|name| {
        let generation = name.strip_prefix("image-");
        let generation = generation.or_else(|| name.strip_prefix("journal-"));
        let generation = generation.and_then(|text| text.parse::<u64>().ok());
        generation.is_some_and(|generation| generation < current)
    });
    Ok(older.collect())
}

/// Brings a file of one version to the next, within the transaction that also raises the version.
pub(super) type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// What a release reads and writes: `migrations[n]` brings version n + 1 to n + 2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    pub(super) migrations: &'static [Migration],
}

/// The schema of this release. A change of tables or encoding appends a migration here.
pub(super) const CURRENT: Schema = Schema { migrations: &[] };

impl Schema {
    pub(super) fn version(self) -> u64 {
        self.migrations.len() as u64 + 1
    }

    /// Brings the file up to this version, all steps in one transaction: a migration that is cut short has not
    /// begun.
    pub(super) fn migrate(self, database: &Database, facts: Facts) -> Result<Facts, redb::Error> {
        let migrated = Facts {
            schema: self.version(),
            ..facts
        };
        let done = facts.schema.checked_sub(1).map(usize::try_from);
        let steps = done.and_then(|done| self.migrations.get(done.ok()?..));
        let steps = steps.unwrap_or_default();
        if steps.is_empty() {
            return Ok(migrated);
        }
        let transaction = database.begin_write()?;
        for step in steps {
            step(&transaction)?;
        }
        migrated.write(&transaction)?;
        transaction.commit()?;
        tracing::info!(
            from = facts.schema,
            to = migrated.schema,
            "migrated the store file"
        );
        Ok(migrated)
    }
}
