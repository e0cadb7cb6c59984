//! A store from a backup: a new one, in a new epoch. It never touches a store that exists.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::backup;
use crate::embedded;
use crate::epoch::Epoch;
use crate::open_error::OpenError;
use crate::options::Options;
use crate::record::Revision;
use crate::spec::Spec;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The epoch of the new store, later than the one that was backed up.
    pub epoch: Epoch,
    /// The revision as of which the backup was made, from which the new store goes on.
    pub revision: Revision,
    /// How many records there are.
    pub records: usize,
}

/// Why nothing was restored. There is no new store.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be read, or is not a whole backup.
    #[error("the backup {} cannot be read ({source})", path.display())]
    Backup {
        /// The backup's file.
        path: PathBuf,
        /// What was wrong.
        source: io::Error,
    },
    /// There is a store, or something else, already.
    #[error("{} exists already: move it away, or restore to another path", path.display())]
    Exists {
        /// The new store's file.
        path: PathBuf,
    },
    /// A store in memory would be gone at once.
    #[error("a backup cannot be restored to memory: use embedded:PATH")]
    Memory,
    /// The new store cannot be made.
    #[error(transparent)]
    Target(#[from] OpenError),
}

/// Makes a store from a backup file, in the epoch of the options or the next after the backup's.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(
    file: impl AsRef<Path>,
    target: &Spec,
    options: Options,
) -> Result<Restored, RestoreError> {
    let path = match target {
        Spec::Embedded(path) => path.clone(),
        Spec::Memory => return Err(RestoreError::Memory),
        Spec::Etcd(_) => return Err(OpenError::NoEtcd.into()),
    };
    let file = file.as_ref().to_owned();
    let work = tokio::task::spawn_blocking(move || to_file(&file, &path, options));
    match work.await {
        Ok(restored) => restored,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn to_file(file: &Path, path: &Path, options: Options) -> Result<Restored, RestoreError> {
    let unreadable = |source| RestoreError::Backup {
        path: file.to_owned(),
        source,
    };
    let source = File::open(file).map_err(unreadable)?;
    let copy = backup::read(BufReader::new(source)).map_err(unreadable)?;
    let restored = Restored {
        epoch: options.epoch.later_than(copy.epoch),
        revision: copy.revision,
        records: copy.records.len(),
    };
    let contents = embedded::Contents {
        epoch: restored.epoch,
        revision: copy.revision,
        records: copy.records,
    };
    if embedded::create(path, &contents)? {
        return Ok(restored);
    }
    Err(RestoreError::Exists {
        path: path.to_owned(),
    })
}
