//! How records stand in files: blobs of entries under a checksum. The store's file needs one of ours, since
//! redb verifies its own only after a crash.
//!
//! A blob is entries, then a CRC-32 (4 bytes) of the blob's place and the entries. The place is whatever numbers
//! tell where the blob belongs; they are not in it, so that a blob that is found elsewhere is as wrong as
//! one that was changed. An entry is: 1 for a record or 0 for a deleted
//! key (1 byte), the lengths of key and value, the revisions created and modified (8 bytes each), the key,
//! the value. All numbers are little endian.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::group::{Group, Records};
use crate::record::{Record, Revision};

const NUMBER: usize = size_of::<u64>();
const HEADER: usize = 1 + 4 * NUMBER;
/// What sealing adds, in bytes.
pub(crate) const CHECKSUM: usize = size_of::<u32>();

/// A key and what became of it; `None` is deleted.
pub(crate) type Entry = (Arc<str>, Option<Arc<Record>>);

/// A blob that is being written.
#[derive(Debug, Default)]
pub(crate) struct Blob(Vec<u8>);

impl Blob {
    /// Adds a key with its record, or as deleted.
    pub(crate) fn push(&mut self, key: &str, record: Option<&Record>) {
        let value = record.map_or(&[][..], |record| &record.value);
        let created = record.map_or(0, |record| record.created.0);
        let modified = record.map_or(0, |record| record.modified.0);
        self.0.push(u8::from(record.is_some()));
        for number in [key.len() as u64, value.len() as u64, created, modified] {
            self.0.extend_from_slice(&number.to_le_bytes());
        }
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(value);
    }

    /// Whether the record fits into a blob of `budget` bytes. Into an empty one every record does.
    pub(crate) fn has_room(&self, record: &Record, budget: usize) -> bool {
        let size = HEADER + record.key.len() + record.value.len() + CHECKSUM;
        self.is_empty() || self.0.len() + size <= budget
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn seal(self, place: &[u64]) -> Vec<u8> {
        seal(self.0, place)
    }
}

/// Appends the checksum.
pub(crate) fn seal(mut bytes: Vec<u8>, place: &[u64]) -> Vec<u8> {
    let checksum = checksum(&bytes, place);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What was sealed; `None` if it is not as it was, or not where it was.
pub(crate) fn unseal<'a>(sealed: &'a [u8], place: &[u64]) -> Option<&'a [u8]> {
    let (bytes, found) = sealed.split_last_chunk()?;
    (checksum(bytes, place) == u32::from_le_bytes(*found)).then_some(bytes)
}

fn checksum(bytes: &[u8], place: &[u64]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in place {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(bytes);
    hasher.finalize()
}

/// What a group left of the keys that it changed.
pub(crate) fn group(group: &Group, place: &[u64]) -> Vec<u8> {
    let mut blob = Blob::default();
    for (key, record) in group.overlay() {
        blob.push(key, record);
    }
    blob.seal(place)
}

/// Some records in the order of their keys.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) blob: Vec<u8>,
    /// The last key, where more records follow it.
    pub(crate) more_after: Option<Arc<str>>,
}

/// The records after a key, in at most `budget` bytes, or one record if that is more.
pub(crate) fn slice(records: &Records, after: Option<&str>, budget: usize, place: &[u64]) -> Slice {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = records.range::<str, _>((from, Bound::Unbounded)).peekable();
    let mut blob = Blob::default();
    let mut last = None;
    while let Some((key, record)) = rest.next_if(|(_, record)| blob.has_room(record, budget)) {
        blob.push(key, Some(record));
        last = Some(key);
    }
    Slice {
        blob: blob.seal(place),
        more_after: last.filter(|_| rest.peek().is_some()).cloned(),
    }
}

/// The entries of a blob; `None` if it is not as it was written, where it was written.
pub(crate) fn entries(blob: &[u8], place: &[u64]) -> Option<Vec<Entry>> {
    let mut rest = unseal(blob, place)?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(entry(&mut rest)?);
    }
    Some(entries)
}

fn entry(rest: &mut &[u8]) -> Option<Entry> {
    let header = rest.split_off(..HEADER)?;
    let number = |index: usize| {
        let bytes = header.get(1 + index * NUMBER..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let key = rest.split_off(..usize::try_from(number(0)?).ok()?)?;
    let value = rest.split_off(..usize::try_from(number(1)?).ok()?)?;
    let key: Arc<str> = str::from_utf8(key).ok()?.into();
    let (created, modified) = (Revision(number(2)?), Revision(number(3)?));
    let record = (header.first() == Some(&1)).then(|| {
        Arc::new(Record {
            key: Arc::clone(&key),
            value: Bytes::copy_from_slice(value),
            created,
            modified,
        })
    });
    Some((key, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: u64) -> Records {
        let record = |index: u64| {
            let key: Arc<str> = format!("key/{index:04}").into();
            let record = Record {
                key: Arc::clone(&key),
                value: vec![b'v'; usize::try_from(index % 90).unwrap()].into(),
                created: Revision(index),
                modified: Revision(index + 1),
            };
            (key, Arc::new(record))
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn slices_make_up_the_whole_whatever_their_size() {
        let whole = records(300);
        for budget in [1, 100, 1_000, 1_000_000] {
            let mut read = Records::new();
            let mut after = None;
            loop {
                let slice = slice(&whole, after.as_deref(), budget, &[]);
                let entries = entries(&slice.blob, &[]).unwrap();
                assert!(!entries.is_empty());
                let entries = entries.into_iter();
                read.extend(entries.map(|(key, record)| (key, record.unwrap())));
                after = slice.more_after;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(read, whole, "budget {budget}");
        }
        assert!(slice(&Records::new(), None, 10, &[]).more_after.is_none());
    }

    #[test]
    fn a_blob_that_was_changed_cut_or_moved_is_refused() {
        let blob = slice(&records(3), None, 1_000, &[1, 2]).blob;
        assert!(entries(&blob, &[1, 2]).is_some());
        for index in 0..blob.len() {
            let mut changed = blob.clone();
            changed[index] ^= 0x10;
            assert!(entries(&changed, &[1, 2]).is_none(), "byte {index} changed");
            assert!(entries(&blob[..index], &[1, 2]).is_none(), "cut to {index}");
        }
        assert!(entries(&blob, &[1, 3]).is_none());
    }
}
