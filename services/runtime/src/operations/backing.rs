//! What the operations service asks of a component: where to keep a few bytes durably, which
//! instances there are, where its store stands, and a copy of its state.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::task;

/// A component as the operations service sees it. Whatever a component does not have, it leaves to
/// the default.
#[tonic::async_trait]
pub trait Backing: fmt::Debug + Send + Sync + 'static {
    /// What was kept last; `None` if nothing was.
    async fn load(&self) -> Result<Option<Bytes>, Unavailable>;

    /// Keeps `record` in place of what was kept. Durable when it returns.
    async fn keep(&self, record: Bytes) -> Result<(), Unavailable>;

    /// Where the store stands.
    async fn position(&self) -> Position {
        Position::default()
    }

    /// For how long the disk has been at the write that is under way, nothing where there is none; `None` for a
    /// component without a disk of its own.
    fn writing(&self) -> Option<Duration> {
        None
    }

    /// Every instance on the same store; `None` where there can only be this one.
    async fn instances(&self) -> Result<Option<Vec<Instance>>, Unavailable> {
        Ok(None)
    }

    /// Tells each time that what is kept may have been changed by another instance; ends when that cannot
    /// happen any more.
    fn changes(&self) -> BoxStream<'static, ()> {
        futures_util::stream::empty().boxed()
    }

    /// A copy of the whole state; `None` for a component that has none.
    async fn backup(&self) -> Result<Option<Backup>, Unavailable> {
        Ok(None)
    }
}

/// The backing cannot answer now, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Where a store stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Its kind: `memory`, `embedded` or `etcd`; empty without one.
    pub store: &'static str,
    /// Its epoch as text.
    pub epoch: String,
    /// The last revision seen.
    pub revision: i64,
    /// Whether this instance leads.
    pub leader: bool,
    /// How far this instance is behind; `None` if that is not known.
    pub lag: Option<Duration>,
}

/// An instance of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Random for each start.
    pub id: String,
    /// Where it serves.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started: SystemTime,
    /// Where it stands.
    pub position: Position,
}

/// A copy of a component's state.
pub struct Backup {
    /// The epoch of the store.
    pub epoch: String,
    /// The revision as of which it was copied.
    pub revision: i64,
    /// Its bytes in order, each chunk at most 1 MiB.
    pub chunks: Box<dyn Iterator<Item = Bytes> + Send>,
}

impl fmt::Debug for Backup {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Backup({} at {})", self.epoch, self.revision)
    }
}

/// For a component without any durable place: what is kept lasts as long as the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unbacked;

#[tonic::async_trait]
impl Backing for Unbacked {
    async fn load(&self) -> Result<Option<Bytes>, Unavailable> {
        Ok(None)
    }

    async fn keep(&self, _: Bytes) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// For a component with a folder and no store: a file in it.
#[derive(Debug, Clone)]
pub struct File {
    path: PathBuf,
}

impl File {
    /// In `folder`, which exists.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            path: folder.join("operations.bin"),
        }
    }
}

#[tonic::async_trait]
impl Backing for File {
    async fn load(&self) -> Result<Option<Bytes>, Unavailable> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Unavailable(format!("{}: {error}", self.path.display()))),
        }
    }

    async fn keep(&self, record: Bytes) -> Result<(), Unavailable> {
        let path = self.path.clone();
        let written = task::spawn_blocking(move || replace(&path, &record)).await;
        let written = written.map_err(io::Error::other).flatten();
        written.map_err(|error| Unavailable(format!("{}: {error}", self.path.display())))
    }
}

/// Puts `bytes` in the place of the file, whole and on disk, or leaves it as it is.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("bin.new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
