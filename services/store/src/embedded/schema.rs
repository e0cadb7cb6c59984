//! What stands in the file: the tables, their encoding, and the version of both.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::file;
use crate::epoch::Epoch;
use crate::group::{Group, Records};
use crate::leadership::TERM_KEY;
use crate::open_error::OpenError;
use crate::record::{Record, Revision};

/// Key to: created (8 bytes, little endian), modified (8 bytes), value.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// The latest revision, in a table of its own since every commit writes it.
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");
/// Facts of the file as text: `schema`, `epoch`.
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

const HEADER: usize = 16;

/// Brings a file of the version before to the next, within the transaction that also raises the version.
type Migration = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// What this release reads and writes: `migrations[n]` brings version n + 1 to n + 2.
#[derive(Clone, Copy)]
pub(super) struct Schema {
    pub(super) migrations: &'static [Migration],
}

/// The schema of this release. A change of encoding appends a migration here.
pub(super) const CURRENT: Schema = Schema { migrations: &[] };

impl Schema {
    fn version(self) -> u64 {
        self.migrations.len() as u64 + 1
    }

    fn steps_from(self, version: u64) -> Option<&'static [Migration]> {
        let done = usize::try_from(version.checked_sub(1)?).ok()?;
        self.migrations.get(done..)
    }
}

/// All that a file says.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
    pub(super) records: Records,
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

/// Makes an empty database a store with these contents.
pub(super) fn initialize(database: &Database, contents: &Contents) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("schema", CURRENT.version().to_string().as_str())?;
        meta.insert("epoch", contents.epoch.to_string().as_str())?;
        transaction
            .open_table(REVISION)?
            .insert((), contents.revision.0)?;
        let mut records = transaction.open_table(RECORDS)?;
        for record in contents.records.values() {
            put(&mut records, record)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Writes a group and waits for the disk. An error is final: what of it is on disk is not known.
pub(super) fn write(database: &Database, group: &Group) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for (key, record) in group.overlay() {
            match record {
                Some(record) => put(&mut records, record)?,
                None => drop(records.remove(key)?),
            }
        }
        transaction
            .open_table(REVISION)?
            .insert((), group.revision().0)?;
    }
    transaction.commit()?;
    Ok(())
}

fn put(
    records: &mut redb::Table<'_, &'static str, &'static [u8]>,
    record: &Record,
) -> Result<(), redb::Error> {
    let mut place = records.insert_reserve(&*record.key, HEADER + record.value.len())?;
    let (header, value) = place.as_mut().split_at_mut(HEADER);
    let (created, modified) = header.split_at_mut(HEADER / 2);
    created.copy_from_slice(&record.created.0.to_le_bytes());
    modified.copy_from_slice(&record.modified.0.to_le_bytes());
    value.copy_from_slice(&record.value);
    Ok(())
}

/// Reads everything, after bringing the file to the version of `schema`.
pub(super) fn load(
    path: &Path,
    database: &Database,
    schema: Schema,
) -> Result<Contents, OpenError> {
    let failed = |error: redb::Error| file::open_error(path, error);
    let damaged = |detail: String| OpenError::Damaged {
        path: path.to_owned(),
        detail,
    };
    let found = version(database).map_err(failed)?;
    let found = found.ok_or_else(|| damaged("it has no schema version".to_owned()))?;
    let Some(steps) = schema.steps_from(found) else {
        return Err(OpenError::NewerVersion {
            path: path.to_owned(),
            found,
            known: schema.version(),
        });
    };
    if !steps.is_empty() {
        migrate(database, steps, schema.version()).map_err(failed)?;
        tracing::info!(path = %path.display(), from = found, to = schema.version(), "migrated the store file");
    }
    read(database).map_err(failed)?.map_err(damaged)
}

fn version(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let version = meta.get("schema")?;
    Ok(version.and_then(|text| text.value().parse().ok()))
}

/// All steps in one transaction: a migration that is cut short has not begun.
fn migrate(database: &Database, steps: &[Migration], to: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for step in steps {
        step(&transaction)?;
    }
    transaction
        .open_table(META)?
        .insert("schema", to.to_string().as_str())?;
    transaction.commit()?;
    Ok(())
}

/// The outer error is the disk's, the inner one says what makes no sense.
fn read(database: &Database) -> Result<Result<Contents, String>, redb::Error> {
    let transaction = database.begin_read()?;
    let epoch = transaction.open_table(META)?.get("epoch")?;
    let Some(epoch) = epoch.and_then(|text| text.value().parse().ok()) else {
        return Ok(Err("it has no epoch".to_owned()));
    };
    let revision = transaction.open_table(REVISION)?.get(())?;
    let Some(revision) = revision.map(|guard| Revision(guard.value())) else {
        return Ok(Err("it has no revision".to_owned()));
    };
    let table = transaction.open_table(RECORDS)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let Some(record) = record(key.value(), value.value(), revision) else {
            return Ok(Err(format!("the record {:?} makes no sense", key.value())));
        };
        records.push((std::sync::Arc::clone(&record.key), record));
    }
    Ok(Ok(Contents {
        epoch,
        revision,
        records: records.into_iter().collect(),
    }))
}

fn record(key: &str, stored: &[u8], latest: Revision) -> Option<Record> {
    let (created, rest) = stored.split_first_chunk()?;
    let (modified, value) = rest.split_first_chunk()?;
    let created = Revision(u64::from_le_bytes(*created));
    let modified = Revision(u64::from_le_bytes(*modified));
    (created <= modified && modified <= latest).then(|| Record {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        created,
        modified,
    })
}
