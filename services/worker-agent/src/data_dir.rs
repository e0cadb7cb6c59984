//! What the agent keeps on its machine: one folder, locked by the one agent that lives in it. It
//! decides nothing of what is kept; it refuses a folder that is in use or another worker's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::attempt_dir::AttemptDir;
use crate::domain::ids::AttemptId;
use crate::files::{self, Durability};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The folder, or what is in it.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: io::Error,
    },
    /// Another agent runs on it.
    #[error("{path} is in use by another agent", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It was made for a worker of another name.
    #[error("{path} belongs to the worker {owner}, not {name}", path = path.display())]
    OtherWorker {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who was to use it.
        name: String,
    },
}

/// Who the agent was last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The worker's name.
    pub name: String,
    /// The generation that it registered last; 0 before the first.
    pub generation: i64,
}

/// The agent's folder, locked.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the folder if it is not there, and locks it for the worker `name`.
    pub fn open(path: &Path, name: &str) -> Result<Self, Error> {
        let failed = |error| Error::Io {
            path: path.to_owned(),
            error,
        };
        let attempts = path.join("attempts");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&attempts)
            .map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::InUse { path }),
            Err(error) => return Err(failed(error.into())),
        }
        let dir = Self { path, lock };
        let owner = dir.identity().map_err(failed)?.name;
        if owner.is_empty() || owner == name {
            Ok(dir)
        } else {
            Err(Error::OtherWorker {
                path: dir.path,
                owner,
                name: name.to_owned(),
            })
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the lock that we hold is still that of the folder: nobody has replaced it.
    pub fn is_ours(&self) -> bool {
        let there = fs::metadata(self.path.join("lock"));
        let held = self.lock.metadata();
        matches!((there, held), (Ok(there), Ok(held)) if there.ino() == held.ino() && there.dev() == held.dev())
    }

    /// Who the agent was last.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(files::read_json(&self.path.join("agent.json"))?.unwrap_or_default())
    }

    /// Says who the agent is; on disk when it returns.
    pub fn set_identity(&self, identity: &Identity) -> io::Result<()> {
        files::replace_json(&self.path.join("agent.json"), identity, Durability::Disk)
    }

    /// What the worker proves itself with; nothing before it has registered.
    pub fn credential(&self) -> io::Result<Option<String>> {
        let bytes = files::read(&self.path.join("credential"))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Keeps what the worker proves itself with; on disk, for its owner only.
    pub fn set_credential(&self, credential: &str) -> io::Result<()> {
        files::replace(
            &self.path.join("credential"),
            credential.as_bytes(),
            Durability::Disk,
        )
    }

    /// What the process named itself that registered, if it is not known to have kept what it was given.
    pub fn boot_id(&self) -> io::Result<Option<String>> {
        let bytes = files::read(&self.path.join("boot"))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Says what the process names itself that is about to register; on disk when it returns.
    pub fn set_boot_id(&self, boot_id: &str) -> io::Result<()> {
        if self.boot_id()?.as_deref() == Some(boot_id) {
            return Ok(());
        }
        files::replace(
            &self.path.join("boot"),
            boot_id.as_bytes(),
            Durability::Disk,
        )
    }

    /// The process has kept what it was given: the next one is another.
    pub fn remove_boot_id(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join("boot")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where the lease of replicas that end with their machine's connection stands.
    pub fn lease_path(&self) -> PathBuf {
        self.path.join("lease")
    }

    /// Where the ledger stands.
    pub fn ledger_path(&self) -> PathBuf {
        self.path.join("ledger")
    }

    /// The folder of one attempt, there or not.
    pub fn attempt(&self, id: &AttemptId) -> AttemptDir {
        AttemptDir::new(self.path.join("attempts").join(id.as_str()))
    }

    /// Every attempt that has a folder, in order of id.
    pub fn attempts(&self) -> io::Result<Vec<AttemptId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.path.join("attempts"))? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            let name = entry.file_name();
            ids.extend(name.to_str().and_then(|name| AttemptId::parse(name).ok()));
        }
        ids.sort();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_agent_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::open(&path, "w1").unwrap();
        assert!(matches!(
            DataDir::open(&path, "w1"),
            Err(Error::InUse { .. })
        ));
        drop(first);
        DataDir::open(&path, "w1").unwrap();
    }

    #[test]
    fn another_worker_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path(), "w1").unwrap();
        let identity = Identity {
            name: "w1".into(),
            generation: 3,
        };
        dir.set_identity(&identity).unwrap();
        drop(dir);
        let error = DataDir::open(folder.path(), "w2").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("belongs to the worker w1, not w2"),
            "{error}"
        );
        assert_eq!(
            DataDir::open(folder.path(), "w1")
                .unwrap()
                .identity()
                .unwrap(),
            identity
        );
    }

    #[test]
    fn a_replaced_lock_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path(), "w1").unwrap();
        assert!(dir.is_ours());
        fs::remove_file(folder.path().join("lock")).unwrap();
        assert!(!dir.is_ours());
        let _second = DataDir::open(folder.path(), "w1").unwrap();
        assert!(!dir.is_ours());
    }

    #[test]
    fn the_credential_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path(), "w1").unwrap();
        assert_eq!(dir.credential().unwrap(), None);
        dir.set_credential("secret").unwrap();
        assert_eq!(dir.credential().unwrap().as_deref(), Some("secret"));
        let mode = fs::metadata(folder.path().join("credential"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn attempts_are_listed_and_strangers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path(), "w1").unwrap();
        for name in ["b.0.1", "a.0.1", ".hidden"] {
            fs::create_dir(folder.path().join("attempts").join(name)).unwrap();
        }
        fs::write(folder.path().join("attempts/file.0.1"), "").unwrap();
        let ids = dir.attempts().unwrap();
        assert_eq!(
            ids.iter().map(AttemptId::as_str).collect::<Vec<_>>(),
            ["a.0.1", "b.0.1"]
        );
    }
}
