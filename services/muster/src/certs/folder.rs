//! The folder of certificates: what is there, and writing into it so that a file is whole or not
//! there, and a key is nobody else's to read.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::issue::Pair;

/// A key is its owner's alone.
const KEY_MODE: u32 = 0o600;

/// Everything else may be read by all.
const PUBLIC_MODE: u32 = 0o644;

/// A folder, whose path is absolute.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, made if it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(fs::canonicalize(path)?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether this file is there.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.0.join(file).symlink_metadata().is_ok()
    }

    /// The text of a file.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.0.join(file))
    }

    /// Takes a file away, if it is there.
    pub(crate) fn remove(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Writes both files of a pair. The certificate comes last: where it is, its key is too.
    pub(crate) fn write_pair(&self, name: &str, pair: &Pair) -> io::Result<()> {
        self.write(&format!("{name}.key"), &pair.key, KEY_MODE)?;
        self.write_public(&format!("{name}.crt"), &pair.certificate)
    }

    /// Writes a file that all may read.
    pub(crate) fn write_public(&self, file: &str, text: &str) -> io::Result<()> {
        self.write(file, text, PUBLIC_MODE)
    }

    fn write(&self, file: &str, text: &str, mode: u32) -> io::Result<()> {
        let mut whole = NamedTempFile::new_in(&self.0)?;
        whole.write_all(text.as_bytes())?;
        whole
            .as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        whole.as_file().sync_all()?;
        whole.persist(self.0.join(file))?;
        Ok(())
    }
}
