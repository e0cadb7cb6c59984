//! What tables stand in the file, and which version of them this release reads and writes.
//!
//! The tree that redb keeps is too slow to be written at random for each transaction, so the file is a
//! journal over an image. Each group of transactions is one blob of a journal. An image is all records, in
//! slices. Image and journal have a generation: the state is the image of the current generation, and over
//! it that generation's journal and, where the next image is under way, the next one's.

use redb::{
    Database, ReadableDatabase, TableDefinition, TableError, TableHandle, WriteTransaction,
};

/// Facts about the file, as text.
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

/// The version of the tables, a number.
pub(super) const SCHEMA: &str = "schema";
/// The store's epoch.
pub(super) const EPOCH: &str = "epoch";
/// The revision of what the file was created with, a number.
pub(super) const BASE: &str = "base";
/// The current generation, a number.
pub(super) const GENERATION: &str = "generation";

/// Blobs by number: slices of an image by their order, groups of a journal by their latest revision.
pub(super) type Blobs<'a> = TableDefinition<'a, u64, &'static [u8]>;

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
    /// begun. `false` if the file is newer.
    pub(super) fn migrate(self, database: &Database, found: u64) -> Result<bool, redb::Error> {
        let steps = found
            .checked_sub(1)
            .and_then(|done| usize::try_from(done).ok());
        let Some(steps) = steps.and_then(|done| self.migrations.get(done..)) else {
            return Ok(false);
        };
        if steps.is_empty() {
            return Ok(true);
        }
        let transaction = database.begin_write()?;
        for step in steps {
            step(&transaction)?;
        }
        set(&transaction, SCHEMA, &self.version())?;
        transaction.commit()?;
        tracing::info!(from = found, to = self.version(), "migrated the store file");
        Ok(true)
    }
}

/// A fact, if it is there and is what it should be.
pub(super) fn fact<T: std::str::FromStr>(
    database: &Database,
    name: &str,
) -> Result<Option<T>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let text = meta.get(name)?;
    Ok(text.and_then(|text| text.value().parse().ok()))
}

/// Writes a fact.
pub(super) fn set(
    transaction: &WriteTransaction,
    name: &str,
    value: &impl ToString,
) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(name, value.to_string().as_str())?;
    Ok(())
}
