//! The file itself: how it comes to be, whole or not at all, and what each way it can be wrong is called.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::disk;
use super::load::Contents;
use crate::epoch::Epoch;
use crate::open_error::OpenError;
use crate::options::Options;

/// Opens the store's file; makes an empty store, and the directory for it, if there is none.
pub(super) fn open_or_create(path: &Path, options: &Options) -> Result<FileBackend, OpenError> {
    match fs::metadata(path) {
        Ok(found) => check_kind(path, &found)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(path, &Contents::empty(options.epoch))?;
        }
        Err(error) => return Err(io_error(path, error)),
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| io_error(path, error))?;
    FileBackend::new(file).map_err(|error| open_error(path, error.into()))
}

fn check_kind(path: &Path, found: &fs::Metadata) -> Result<(), OpenError> {
    if !found.is_file() {
        return Err(OpenError::WrongPath {
            path: path.to_owned(),
            reason: "it is not a file".to_owned(),
        });
    }
    // redb would take it for a new file, and all that was in it would be gone without a word.
    if found.len() == 0 {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            detail: "it is empty".to_owned(),
        });
    }
    Ok(())
}

/// Makes a store with these contents at a path where there is nothing. Whoever sees the file, also after a
/// crash, sees all of it. `false`: something else was or came there, and stands.
pub(crate) fn create(path: &Path, contents: &Contents) -> Result<bool, OpenError> {
    let fault = |error| io_error(path, error);
    if path.try_exists().map_err(fault)? {
        return Ok(false);
    }
    let directory = parent(path);
    make_directory(directory).map_err(fault)?;
    let draft = Draft::new(path, contents);
    let database = draft
        .database()
        .map_err(|error| open_error(path, error.into()))?;
    disk::initialize(&database, contents).map_err(|error| open_error(path, error))?;
    drop(database);
    sync(&draft.0).map_err(fault)?;
    let created = publish(&draft.0, path).map_err(fault)?;
    sync(directory).map_err(fault)?;
    Ok(created)
}

/// Makes a directory with its parents, and their names durable.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<_> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    fs::create_dir_all(directory)?;
    missing.into_iter().try_for_each(|made| sync(parent(made)))
}

/// Makes durable what is in a file, or the names in a directory.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file of the same directory that is removed in the end, whatever came of it.
struct Draft(PathBuf);

/// What the name of a draft ends with; it begins with the store's name.
const DRAFT: &str = ".draft";

impl Draft {
    fn new(path: &Path, contents: &Contents) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}{DRAFT}", contents.epoch));
        Self(path.with_file_name(name))
    }

    fn database(&self) -> Result<Database, DatabaseError> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            // It holds every secret of its component.
            .mode(0o600)
            .open(&self.0)?;
        Builder::new().create_with_backend(Unsynced(FileBackend::new(file)?))
    }
}

/// A file that is synced once, when it is complete: redb would do so eight times while it makes one.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Removes the drafts of processes that were killed while they made this store. One of a process that is
/// still at it would come to nothing, since the store is there.
pub(super) fn remove_drafts(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    let entries = fs::read_dir(parent(path)).into_iter().flatten().flatten();
    for entry in entries {
        let found = entry.file_name();
        if found.to_str().is_some_and(|found| is_draft_of(name, found)) {
            // Nothing depends on it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is a draft of the store `name`, and not of one whose name begins so.
fn is_draft_of(name: &str, found: &str) -> bool {
    let rest = found
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('.'));
    let epoch = rest.and_then(|rest| rest.strip_suffix(DRAFT));
    epoch.is_some_and(|epoch| epoch.parse::<Epoch>().is_ok())
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone already where the file system has no hard links.
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives the draft its name; `false` if that is taken.
fn publish(draft: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // A file system without hard links.
        Err(_) if !path.try_exists()? => fs::rename(draft, path).map(|()| true),
        Err(_) => Ok(false),
        Ok(()) => Ok(true),
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The database on a storage that holds one.
pub(super) fn database(
    path: &Path,
    backend: impl StorageBackend,
    options: &Options,
) -> Result<Database, OpenError> {
    Builder::new()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(backend)
        .map_err(|error| open_error(path, error.into()))
}

/// What the system's word for a fault means for the user.
pub(super) fn io_error(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    let kind = source.kind();
    if matches!(
        kind,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    ) {
        OpenError::NotWritable { path, source }
    } else if kind == ErrorKind::NotADirectory {
        let reason = "a part of its path is not a directory".to_owned();
        OpenError::WrongPath { path, reason }
    } else if matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof) {
        let detail = source.to_string();
        OpenError::Damaged { path, detail }
    } else {
        OpenError::Io { path, source }
    }
}

/// What redb's word for a fault means for the user.
pub(super) fn open_error(path: &Path, error: redb::Error) -> OpenError {
    if let redb::Error::Io(source) = error {
        return io_error(path, source);
    }
    let path = path.to_owned();
    if matches!(error, redb::Error::DatabaseAlreadyOpen) {
        return OpenError::Locked { path };
    }
    let detail = if let redb::Error::Corrupted(detail) = error {
        detail
    } else {
        error.to_string()
    };
    OpenError::Damaged { path, detail }
}
