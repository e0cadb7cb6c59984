//! Keeps each backend's last good offers on disk, so that a restarted gateway answers at once. What
//! is kept is a copy: if it cannot be written or read, the backend is simply read again, and the
//! log says so.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::archive;
use crate::domain::backend::Told;
use crate::domain::id;
use crate::domain::snapshot::Snapshot;

/// Where offers are kept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// None keeps nothing.
    folder: Option<Arc<Path>>,
}

/// What is kept beside the offers: it changes at each refresh, also when they do not.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Seen {
    /// Where they are from: those of another source of the same name are none of ours.
    #[serde(default)]
    origin: String,
    /// Nanoseconds since 1970.
    observed_nanos: u64,
    validator: String,
    live_capacity: bool,
}

impl Keeper {
    /// Keeps nothing.
    pub fn none() -> Self {
        Self { folder: None }
    }

    /// Keeps offers in `folder`, which is made if it is not there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: Some(folder.into()),
        })
    }

    /// A backend's offers as they were kept last, if they are from `origin`, with what names them
    /// to their source.
    pub async fn load(&self, backend: &str, origin: &str) -> Option<(Told, String)> {
        let files = self.files(backend)?;
        let (name, origin) = (backend.to_owned(), origin.to_owned());
        let loaded = tokio::task::spawn_blocking(move || files.load(&name, &origin))
            .await
            .ok()?;
        match loaded {
            Ok(loaded) => Some(loaded),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(backend, %error, "kept offers cannot be read; the backend is read again");
                None
            }
        }
    }

    /// Keeps a backend's offers, which are from `origin`, in place of earlier ones.
    pub async fn keep(&self, backend: &str, origin: &str, told: &Told, validator: &str) {
        let Some(files) = self.files(backend) else {
            return;
        };
        let (told, seen) = (told.clone(), Seen::of(told, origin, validator));
        let written = tokio::task::spawn_blocking(move || {
            replace(&files.offers, &archive::encode(told.snapshot.parts()))?;
            files.write_seen(&seen)
        });
        complain(backend, written.await);
    }

    /// Notes that the offers kept last still hold.
    pub async fn touch(&self, backend: &str, origin: &str, told: &Told, validator: &str) {
        let Some(files) = self.files(backend) else {
            return;
        };
        let seen = Seen::of(told, origin, validator);
        complain(
            backend,
            tokio::task::spawn_blocking(move || files.write_seen(&seen)).await,
        );
    }

    fn files(&self, backend: &str) -> Option<Files> {
        let name = id::encode(backend);
        let folder = self.folder.as_ref()?;
        Some(Files {
            offers: folder.join(format!("{name}.offers")),
            seen: folder.join(format!("{name}.json")),
        })
    }
}

fn complain(backend: &str, written: Result<io::Result<()>, tokio::task::JoinError>) {
    let error = match written {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(backend, error, "offers cannot be kept on disk");
}

impl Seen {
    fn of(told: &Told, origin: &str, validator: &str) -> Self {
        let since = told.observed.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            origin: origin.to_owned(),
            observed_nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            validator: validator.to_owned(),
            live_capacity: told.live_capacity,
        }
    }
}

/// The files of one backend.
struct Files {
    offers: PathBuf,
    seen: PathBuf,
}

impl Files {
    fn load(&self, backend: &str, origin: &str) -> io::Result<(Told, String)> {
        let damaged =
            |_| io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version");
        let seen: Seen = serde_json::from_slice(&std::fs::read(&self.seen)?)?;
        if seen.origin != origin {
            return Err(io::ErrorKind::NotFound.into());
        }
        let parts = archive::decode(&std::fs::read(&self.offers)?).map_err(damaged)?;
        if parts.backend != backend {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the offers are of another backend",
            ));
        }
        let snapshot = Snapshot::index(parts)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let observed = observed(seen.observed_nanos)?;
        let told = Told {
            snapshot: Arc::new(snapshot),
            observed,
            live_capacity: seen.live_capacity,
        };
        Ok((told, seen.validator))
    }

    fn write_seen(&self, seen: &Seen) -> io::Result<()> {
        replace(&self.seen, &serde_json::to_vec(seen)?)
    }
}

fn observed(nanos: u64) -> io::Result<SystemTime> {
    let observed = UNIX_EPOCH.checked_add(Duration::from_nanos(nanos));
    observed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no sensible time"))
}

/// Puts `bytes` in place of a file in one step. They may be lost with the machine's power; then the
/// checksum says so.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(bytes)?;
    drop(file);
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests;
