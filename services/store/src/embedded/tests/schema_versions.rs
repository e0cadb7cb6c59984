//! Files of other releases.

use redb::{Builder, WriteTransaction};

use super::super::disk::Disk;
use super::super::schema::{self, CURRENT, Schema};
use super::super::sim::SimDisk;
use super::*;

/// The release after this one, which keeps one more fact.
const NEXT: Schema = Schema {
    migrations: &[add_colour],
};

/// A release whose migration does not work.
const BROKEN: Schema = Schema {
    migrations: &[add_colour, fail],
};

fn add_colour(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    schema::set(transaction, "colour", &"green")
}

fn fail(_: &WriteTransaction) -> Result<(), redb::Error> {
    Err(redb::Error::Corrupted("no".to_owned()))
}

fn open_as(disk: &SimDisk, schema: Schema) -> Result<Disk, OpenError> {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    Disk::open(Path::new(PATH), database, schema, pace()).map(|(disk, _)| disk)
}

fn fact(disk: &SimDisk, name: &str) -> Option<String> {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    schema::fact(&database, name).unwrap()
}

#[test]
fn an_older_file_is_migrated_once_and_then_refused_by_the_older_release() {
    let disk = SimDisk::holding(empty_disk());
    for _ in 0..2 {
        drop(open_as(&disk, NEXT).unwrap());
        assert_eq!(fact(&disk, schema::SCHEMA).as_deref(), Some("2"));
        assert_eq!(fact(&disk, "colour").as_deref(), Some("green"));
    }
    let error = open_as(&disk, CURRENT).unwrap_err();
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
    assert_eq!(fact(&disk, "colour"), None);
    drop(open_as(&disk, CURRENT).unwrap());
}
