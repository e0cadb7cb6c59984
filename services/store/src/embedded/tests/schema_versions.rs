//! Files of other releases.

use redb::{Builder, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::super::disk::Disk;
use super::super::schema::{CURRENT, Facts, Schema};
use super::super::sim::SimDisk;
use super::*;

/// The release after this one, which keeps one more table.
const NEXT: Schema = Schema {
    migrations: &[add_colours],
};

/// A release whose migration does not work.
const BROKEN: Schema = Schema {
    migrations: &[add_colours, fail],
};

const COLOURS: TableDefinition<'_, u64, &str> = TableDefinition::new("colours");

fn add_colours(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut colours = transaction.open_table(COLOURS)?;
    let next = colours.iter()?.count() as u64;
    colours.insert(next, "green")?;
    Ok(())
}

fn fail(_: &WriteTransaction) -> Result<(), redb::Error> {
    Err(redb::Error::Corrupted("no".to_owned()))
}

fn open_as(disk: &SimDisk, schema: Schema) -> Result<Contents, OpenError> {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    Disk::open(Path::new(PATH), database, schema, pace()).map(|(_, contents)| contents)
}

/// The version in the file, and how many colours.
fn found(disk: &SimDisk) -> (u64, usize) {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    let facts = Facts::read(&database).unwrap().unwrap();
    let colours = database.begin_read().unwrap().open_table(COLOURS);
    (
        facts.schema,
        colours.map_or(0, |colours| colours.iter().unwrap().count()),
    )
}

#[test]
fn an_older_file_is_migrated_once_and_then_refused_by_the_older_release() {
    let disk = SimDisk::holding(empty_disk());
    let before = open_as(&disk, CURRENT).unwrap();
    for _ in 0..2 {
        let after = open_as(&disk, NEXT).unwrap();
        assert_eq!(
            (after.epoch, after.revision),
            (before.epoch, before.revision)
        );
        assert_eq!(found(&disk), (2, 1));
    }
    let error = open_as(&disk, CURRENT).unwrap_err();
    assert!(matches!(
        error,
        OpenError::NewerVersion {
            found: 2,
            known: 1,
            ..
        }
    ));
    let words = error.to_string();
    assert!(
        words.contains("version 2") && words.contains("up to 1"),
        "{words}"
    );
}

#[test]
fn a_migration_that_fails_leaves_the_file_to_the_older_release() {
    let disk = SimDisk::holding(empty_disk());
    assert!(open_as(&disk, BROKEN).is_err());
    assert_eq!(found(&disk), (1, 0));
    open_as(&disk, CURRENT).unwrap();
}
