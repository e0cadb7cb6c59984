//! Keeps each backend's last good offers on disk, so that a restarted gateway answers at once. What
//! is kept is a copy: if it cannot be written or read, the backend is simply read again, and the
//! log says so.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::domain::archive;
use crate::domain::backend::Told;
use crate::domain::id;
use crate::domain::snapshot::Snapshot;

/// Where in the folder of all that a gateway keeps its offers are.
pub const FOLDER: &str = "offers";

/// How long kept offers are waited for at the start; their source may be faster.
const LOAD_WITHIN: Duration = Duration::from_secs(5);

/// What takes longer than this is told.
const SLOW: Duration = Duration::from_secs(10);

/// How long a backend that ends waits for what is being written of it.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

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

    /// Whether offers of a backend, which are from `origin`, are kept in `folder`. Opens one file.
    pub fn has(folder: &Path, backend: &str, origin: &str) -> bool {
        let place = Self {
            folder: Some(folder.into()),
        }
        .place(backend, origin);
        let seen = place.files.and_then(|files| files.seen().ok());
        seen.is_some_and(|seen| seen.origin == origin)
    }

    /// The place of one backend, whose offers are from `origin`.
    pub fn place(&self, backend: &str, origin: &str) -> Place {
        let name = id::encode(backend);
        let files = self.folder.as_ref().map(|folder| Files {
            offers: folder.join(format!("{name}.offers")),
            seen: folder.join(format!("{name}.json")),
        });
        Place {
            backend: backend.to_owned(),
            origin: origin.to_owned(),
            files,
            job: None,
            began: Instant::now(),
            behind: true,
            troubled: Arc::default(),
        }
    }
}

/// Where one backend's offers are kept. One thing at a time is read or written there; a disk that
/// hangs holds up nothing else, and what could not be written meanwhile is written later.
#[derive(Debug)]
pub struct Place {
    backend: String,
    /// Where its offers are from: those of another source of the same name are none of its own.
    origin: String,
    /// None keeps nothing.
    files: Option<Files>,
    /// What is under way: whether the offers on disk are those that it was for.
    job: Option<JoinHandle<bool>>,
    /// When it began.
    began: Instant,
    /// The offers on disk are not those at hand.
    behind: bool,
    /// Its last write failed, and the log says so.
    troubled: Arc<AtomicBool>,
}

impl Place {
    /// The offers as they were kept last, with what names them to their source.
    pub async fn load(&mut self) -> Option<(Told, String)> {
        let files = self.files.clone()?;
        let (backend, origin) = (self.backend.clone(), self.origin.clone());
        let (answer, loaded) = oneshot::channel();
        self.job = Some(spawn_blocking(move || {
            let loaded = files.load(&backend, &origin);
            let is_here = loaded.is_ok();
            // Whoever asked may have given up.
            let _ = answer.send(loaded);
            is_here
        }));
        self.began = Instant::now();
        let loaded = timeout(LOAD_WITHIN, loaded).await;
        if loaded.is_ok() {
            self.settle().await;
        }
        let error = match loaded {
            Ok(Ok(Ok(loaded))) => {
                self.behind = false;
                return Some(loaded);
            }
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the disk does not answer within {LOAD_WITHIN:?}"),
        };
        let backend = &self.backend;
        tracing::warn!(
            backend,
            error,
            "kept offers cannot be read; the backend is read again"
        );
        None
    }

    /// Has these offers written in place of earlier ones, and waits for nothing. `same` says that they
    /// are those that were kept last, only read again.
    pub fn keep(&mut self, told: &Told, validator: &str, same: bool) {
        let Some(files) = self.files.clone() else {
            return;
        };
        self.behind |= !same;
        if !self.is_free() {
            if self.began.elapsed() > SLOW {
                complain(&self.troubled, &self.backend, "the disk does not answer");
            }
            return;
        }
        let (told, seen) = (told.clone(), Seen::of(told, &self.origin, validator));
        let (backend, troubled) = (self.backend.clone(), Arc::clone(&self.troubled));
        let all = std::mem::take(&mut self.behind);
        self.job = Some(spawn_blocking(move || {
            let written = if all {
                let offers = archive::encode(told.snapshot.parts());
                replace(&files.offers, &offers).and_then(|()| files.write_seen(&seen))
            } else {
                files.write_seen(&seen)
            };
            match &written {
                Ok(()) => is_well(&troubled, &backend),
                Err(error) => complain(&troubled, &backend, error),
            }
            written.is_ok()
        }));
        self.began = Instant::now();
    }

    /// Whether nothing is under way there.
    fn is_free(&mut self) -> bool {
        let Some(job) = &mut self.job else {
            return true;
        };
        let Some(ended) = job.now_or_never() else {
            return false;
        };
        self.job = None;
        self.behind |= !ended.unwrap_or_default();
        true
    }

    /// Waits for what is being written, a moment.
    pub async fn settle(&mut self) {
        if let Some(job) = &mut self.job
            && let Ok(ended) = timeout(SETTLES_WITHIN, job).await
        {
            self.job = None;
            self.behind |= !ended.unwrap_or_default();
        }
    }
}

/// Says once that offers cannot be kept, until they can.
fn complain(troubled: &AtomicBool, backend: &str, error: impl fmt::Display) {
    if !troubled.swap(true, Ordering::Relaxed) {
        tracing::warn!(backend, %error, "offers cannot be kept on disk");
    }
}

fn is_well(troubled: &AtomicBool, backend: &str) {
    if troubled.swap(false, Ordering::Relaxed) {
        tracing::info!(backend, "offers are kept on disk again");
    }
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
#[derive(Clone, Debug)]
struct Files {
    offers: PathBuf,
    seen: PathBuf,
}

impl Files {
    fn load(&self, backend: &str, origin: &str) -> io::Result<(Told, String)> {
        let damaged =
            |_| io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another version");
        let seen = self.seen()?;
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

    fn seen(&self) -> io::Result<Seen> {
        Ok(serde_json::from_slice(&std::fs::read(&self.seen)?)?)
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
