//! What a backup looks like, and how it is written and read.
//!
//! A header: the magic line, the epoch as text, the revision and the number of records (8 bytes each), and
//! their CRC-32. Then slices of records, each after its length (8 bytes), as in [`crate::codec`]. It ends
//! with the last record. All numbers are little endian.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::iter::Peekable;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;

use crate::codec::{self, Blob};
use crate::embedded;
use crate::epoch::Epoch;
use crate::group::Records;
use crate::record::{Listing, Record, Revision};

/// The first line; its number is the version of the format.
const MAGIC: &[u8; 16] = b"muster-backup-1\n";

/// What a chunk has at most, unless one record has more: 256 KiB.
const CHUNK: usize = 256 * 1024;

/// The length of an epoch's text.
const EPOCH: usize = 21;

const HEADER: usize = MAGIC.len() + EPOCH + 2 * size_of::<u64>();

/// A copy of a store, as an iterator over the bytes of a backup file in chunks of about 256 KiB.
#[derive(Debug)]
pub struct Backup {
    header: Option<Bytes>,
    epoch: Epoch,
    revision: Revision,
    slices: u64,
    records: Peekable<vec::IntoIter<Arc<Record>>>,
}

impl Backup {
    pub(crate) fn new(epoch: Epoch, listing: Listing) -> Self {
        let header = header(epoch, listing.revision, listing.records.len());
        Self {
            header: Some(header.into()),
            epoch,
            revision: listing.revision,
            slices: 0,
            records: listing.records.into_iter().peekable(),
        }
    }

    /// The epoch of the store.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The revision as of which the records were copied.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Writes the whole to a file, which is complete and on disk when this returns; until then, and if
    /// it fails, there is at most a file of another name (`PATH.part`). Blocks.
    ///
    /// # Errors
    /// What the system said. An existing file of that name is replaced.
    pub fn write_to(self, path: &Path) -> io::Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        // It holds every secret of its component.
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = BufWriter::new(options.open(&part)?);
        for chunk in self {
            file.write_all(&chunk)?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(&part, path)?;
        // The name as well, which a loss of power would take away again.
        embedded::sync(embedded::parent(path))
    }
}

impl Iterator for Backup {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            return Some(header);
        }
        let mut blob = Blob::default();
        while let Some(record) = self.records.next_if(|record| blob.has_room(record, CHUNK)) {
            blob.push(&record.key, Some(&record));
        }
        if blob.is_empty() {
            return None;
        }
        let slice = blob.seal(&[self.slices]);
        self.slices += 1;
        let mut chunk = (slice.len() as u64).to_le_bytes().to_vec();
        chunk.extend_from_slice(&slice);
        Some(chunk.into())
    }
}

fn header(epoch: Epoch, revision: Revision, records: usize) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(epoch.to_string().as_bytes());
    header.extend_from_slice(&revision.0.to_le_bytes());
    header.extend_from_slice(&(records as u64).to_le_bytes());
    codec::seal(header, &[])
}

/// What a backup holds.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) records: Records,
}

/// Reads a whole backup. An error of the kind `InvalidData` says what is wrong with it.
pub(crate) fn read(mut source: impl Read) -> io::Result<Copy> {
    let mut header = [0; HEADER + codec::CHECKSUM];
    source.read_exact(&mut header).map_err(cut_short)?;
    let (epoch, revision, count) =
        parse_header(&header).ok_or_else(|| invalid("it is not a backup of ours"))?;
    let mut records = Vec::new();
    let mut slices = 0;
    while (records.len() as u64) < count {
        for (key, record) in read_slice(&mut source, slices)? {
            records.extend(record.map(|record| (key, record)));
        }
        slices += 1;
    }
    if records.len() as u64 != count || source.read(&mut [0])? != 0 {
        return Err(invalid("it does not end where it should"));
    }
    Ok(Copy {
        epoch,
        revision,
        records: records.into_iter().collect(),
    })
}

fn parse_header(header: &[u8]) -> Option<(Epoch, Revision, u64)> {
    let rest = codec::unseal(header, &[])?.strip_prefix(MAGIC)?;
    let (epoch, rest) = rest.split_first_chunk::<EPOCH>()?;
    let (revision, rest) = rest.split_first_chunk()?;
    let (count, _) = rest.split_first_chunk()?;
    let epoch = str::from_utf8(epoch).ok()?.parse().ok()?;
    let revision = Revision(u64::from_le_bytes(*revision));
    Some((epoch, revision, u64::from_le_bytes(*count)))
}

fn read_slice(source: &mut impl Read, index: u64) -> io::Result<Vec<codec::Entry>> {
    let mut length = [0; size_of::<u64>()];
    source.read_exact(&mut length).map_err(cut_short)?;
    let length = u64::from_le_bytes(length);
    let mut slice = Vec::new();
    // A wrong length reserves nothing: it ends with the file.
    source.take(length).read_to_end(&mut slice)?;
    if (slice.len() as u64) < length {
        return Err(invalid("it is cut short"));
    }
    let entries = codec::entries(&slice, &[index]).filter(|entries| !entries.is_empty());
    entries.ok_or_else(|| invalid("a part of it does not match its checksum"))
}

fn cut_short(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return invalid("it is cut short");
    }
    error
}

fn invalid(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}
