//! Files that are there whole or not at all. It decides how a file is replaced, and never what
//! stands in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether a file has to survive the loss of power, or only that of its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk before the call returns.
    Disk,
    /// In the kernel's hands: enough against `kill -9`, and against readers of half a file.
    Kernel,
}

/// Replaces a file by `bytes` in one step; readable by its owner only.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    if durability == Durability::Disk {
        file.sync_data()?;
    }
    fs::rename(&fresh, path)?;
    if durability == Durability::Disk {
        sync_folder(path)?;
    }
    Ok(())
}

/// Puts the names in the folder of `path` on disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The bytes of a file; nothing if it is not there.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file by a value as JSON.
pub fn replace_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?, durability)
}

/// The value that a file holds as JSON; nothing if it is not there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether a file was read, and what it holds makes no sense: it will not the next time either.
pub fn is_garbled(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        replace_json(&path, &1_u32, Durability::Kernel).unwrap();
        replace_json(&path, &2_u32, Durability::Disk).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(2));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value.json");
        for garbled in ["", "{\"half\":", "\"a\""] {
            fs::write(&path, garbled).unwrap();
            assert!(is_garbled(&read_json::<u32>(&path).unwrap_err()));
        }
        assert!(!is_garbled(&read_json::<u32>(folder.path()).unwrap_err()));
    }
}
