//! Catalogues in files, read again when the file has changed, and those that come with the gateway.

use std::fs::Metadata;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{Failure, Fetched, Offers, blocking};
use crate::builtin::PriceList;
use crate::domain::skypilot;

/// The largest file read, in bytes: five times all real catalogues together.
const MAX_BYTES: u64 = 64 << 20;

/// What names the built-in list's one state.
const BUILT_IN: &str = concat!("built-in ", env!("CARGO_PKG_VERSION"));

/// A catalogue in a file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) async fn fetch(&self, backend: &str, validator: &str) -> Result<Fetched, Failure> {
        let (path, backend, validator) =
            (self.path.clone(), backend.to_owned(), validator.to_owned());
        blocking(move || read(&path, &backend, &validator)).await?
    }
}

/// The list that comes with the gateway.
pub(super) async fn built_in(
    backend: &str,
    list: &'static PriceList,
    validator: &str,
) -> Result<Fetched, Failure> {
    if validator == BUILT_IN {
        return Ok(Fetched::Unchanged);
    }
    let backend = backend.to_owned();
    blocking(move || {
        parse(
            &backend,
            "built-in list",
            list.text.as_bytes(),
            BUILT_IN.to_owned(),
            list.date,
        )
    })
    .await?
}

fn read(path: &Path, backend: &str, validator: &str) -> Result<Fetched, Failure> {
    let open = |error: std::io::Error| unreadable(path, &error);
    let file = std::fs::File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    let state = state(&metadata);
    if state == validator {
        return Ok(Fetched::Unchanged);
    }
    if metadata.len() > MAX_BYTES {
        return Err(Failure::lasting(format!(
            "{} is larger than {} MiB",
            path.display(),
            MAX_BYTES >> 20
        )));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(open)?;
    let name = path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    parse(backend, &name, &text, state, "")
}

fn parse(
    backend: &str,
    file: &str,
    text: &[u8],
    validator: String,
    date: &str,
) -> Result<Fetched, Failure> {
    let read = skypilot::read(backend, file, text);
    let snapshot = read
        .map_err(|error| Failure::lasting(format!("{file}: {error}")))?
        .dated(date);
    Ok(Fetched::Offers(Box::new(Offers {
        snapshot,
        validator,
        live_capacity: false,
    })))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    if error.kind() == ErrorKind::NotFound {
        Failure::lasting(format!("there is no file {path}"))
    } else if error.kind() == ErrorKind::PermissionDenied {
        Failure::lasting(format!("no permission to read {path}"))
    } else {
        Failure::passing(format!("{path}: {error}"))
    }
}

/// What changes with the file.
fn state(metadata: &Metadata) -> String {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!(
        "{} bytes of {}",
        metadata.len(),
        modified.unwrap_or_default().as_nanos()
    )
}
