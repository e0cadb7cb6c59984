//! Builds a driver's library of which a file says what it finds, as `driver.c` has it. It checks nothing.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const SOURCE: &str = include_str!("driver.c");

/// Sets one driver's cards apart from another's, in a process.
static BUILT: AtomicU32 = AtomicU32::new(0);

/// A driver's library, in a folder of its own.
pub(crate) struct Driver {
    folder: tempfile::TempDir,
    /// What the uuids of its cards begin with, and no others on this machine.
    prefix: String,
}

impl Driver {
    /// Builds it; the system's own C compiler is there wherever this is built.
    pub(crate) fn finding(cards: &str) -> Self {
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let driver = Self {
            folder: tempfile::tempdir().unwrap(),
            prefix: format!("GPU-{:08x}-{number}-", std::process::id()),
        };
        let source = driver.folder.path().join("driver.c");
        std::fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc")
            .arg(format!("-DSTATE=\"{}\"", driver.state().display()))
            .arg(format!("-DPREFIX=\"{}\"", driver.prefix))
            .args(["-shared", "-fPIC", "-o"])
            .arg(driver.library())
            .arg(&source)
            .status();
        assert!(built.unwrap().success());
        driver.find(cards);
        driver
    }

    /// The uuids of the first three cards.
    pub(crate) fn uuids(&self) -> [String; 3] {
        [0, 1, 2].map(|number| format!("{}{number}", self.prefix))
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.folder.path().join("driver.so")
    }

    /// From now on it finds other cards, where it is opened anew.
    pub(crate) fn find(&self, cards: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, cards).unwrap();
        std::fs::rename(next, self.state()).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}
