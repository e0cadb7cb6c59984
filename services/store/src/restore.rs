//! A store from a backup: a new one, in a new epoch. It never touches a store that exists.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::backup::{self, Copy};
use crate::clustered::OWN;
use crate::embedded;
use crate::epoch::Epoch;
use crate::open_error::OpenError;
use crate::options::Options;
use crate::record::Revision;
use crate::spec::Spec;
#[cfg(feature = "etcd")]
use crate::store::Store;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The epoch of the new store, later than the one that was backed up.
    pub epoch: Epoch,
    /// The revision from which the new store goes on: in a file the one as of which the backup was made, on etcd
    /// one of that etcd.
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
    /// There is something under the prefix already, or someone else came there meanwhile.
    #[error(
        "under {name} there is something already, such as a restore that was cut short leaves: restore to another prefix, or delete what is there with etcdctl"
    )]
    Taken {
        /// Where the new store was to be.
        name: String,
    },
    /// A store in memory would be gone at once.
    #[error("a backup cannot be restored to memory: use embedded:PATH or etcd:")]
    Memory,
    /// etcd did not answer, or stopped to, before all was there. What is there is no store.
    #[error(
        "the restore to {name} was cut short ({detail}): once etcd can be reached, delete with etcdctl what is under the prefix, and restore again"
    )]
    CutShort {
        /// Where the new store was to be.
        name: String,
        /// What was said.
        detail: String,
    },
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
    let file = file.as_ref().to_owned();
    match target {
        Spec::Embedded(path) => {
            let path = path.clone();
            blocking(move || to_file(&file, &path, options)).await
        }
        Spec::Memory => Err(RestoreError::Memory),
        Spec::Etcd(address) => to_etcd(file, address, options).await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads a backup, without what was the old store's own.
fn read(file: &Path) -> Result<Copy, RestoreError> {
    let unreadable = |source| RestoreError::Backup {
        path: file.to_owned(),
        source,
    };
    let source = File::open(file).map_err(unreadable)?;
    let mut copy = backup::read(BufReader::new(source)).map_err(unreadable)?;
    copy.records.retain(|key, _| !key.starts_with(OWN));
    Ok(copy)
}

#[cfg(feature = "etcd")]
async fn to_etcd(file: PathBuf, address: &str, options: Options) -> Result<Restored, RestoreError> {
    use crate::clustered::restore::{Refusal, restore};

    let (cluster, name) = Store::reach_etcd(address)?;
    let copy = blocking(move || read(&file)).await?;
    let epoch = options.epoch.later_than(copy.epoch);
    match restore(&cluster, &copy.records, epoch).await {
        Ok(revision) => Ok(Restored {
            epoch,
            revision,
            records: copy.records.len(),
        }),
        Err(Refusal::Taken) => Err(RestoreError::Taken { name }),
        Err(Refusal::Fault(fault)) => Err(RestoreError::CutShort {
            name,
            detail: fault.to_string(),
        }),
    }
}

#[cfg(not(feature = "etcd"))]
async fn to_etcd(
    _file: PathBuf,
    _address: &str,
    _options: Options,
) -> Result<Restored, RestoreError> {
    Err(OpenError::NoEtcd.into())
}

fn to_file(file: &Path, path: &Path, options: Options) -> Result<Restored, RestoreError> {
    let copy = read(file)?;
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
