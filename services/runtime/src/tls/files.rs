//! PEM files, and whether they have changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;

/// Every certificate in `path`, in order.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(empty(path, "certificate")),
    }
}

/// The private key in `path`.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| empty(path, "private key"))
}

/// The authorities in `path`.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn empty(path: &Path, what: &'static str) -> Error {
    Error::Empty {
        path: path.to_owned(),
        what,
    }
}

/// Files whose changes are watched.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    /// None once they could not be used.
    seen: Option<Vec<Option<Stamp>>>,
}

/// What tells one content of a file from another.
type Stamp = (SystemTime, u64);

impl Watched {
    /// Watches `paths` from now on.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = Some(stamps(&paths));
        Self { paths, seen }
    }

    /// Whether any file has changed since this was asked last.
    pub(super) fn changed(&mut self) -> bool {
        let now = Some(stamps(&self.paths));
        std::mem::replace(&mut self.seen, now) != self.seen
    }

    /// What was read then could not be used, and counts as changed when this is asked next: whoever gives a file to
    /// its reader, or makes room for one more open file, leaves no trace in what the files look like.
    pub(super) fn again(&mut self) {
        self.seen = None;
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path).ok()).collect()
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    // Follows links, since mounted secrets are swapped by a link.
    let metadata = fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}
