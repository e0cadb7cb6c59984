//! Builds a driver's library of which a file says what it finds, as `driver.c` has it. It checks nothing.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = include_str!("driver.c");

/// A driver's library, in a folder of its own.
pub(crate) struct Driver(tempfile::TempDir);

impl Driver {
    /// Builds it; the system's own C compiler is there wherever this is built.
    pub(crate) fn finding(cards: &str) -> Self {
        let driver = Self(tempfile::tempdir().unwrap());
        let source = driver.0.path().join("driver.c");
        std::fs::write(&source, SOURCE).unwrap();
        let built = Command::new("cc")
            .arg(format!("-DSTATE=\"{}\"", driver.state().display()))
            .args(["-shared", "-fPIC", "-o"])
            .arg(driver.library())
            .arg(&source)
            .status();
        assert!(built.unwrap().success());
        driver.find(cards);
        driver
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.0.path().join("driver.so")
    }

    /// From now on it finds other cards, where it is opened anew.
    pub(crate) fn find(&self, cards: &str) {
        let next = self.0.path().join("next");
        std::fs::write(&next, cards).unwrap();
        std::fs::rename(next, self.state()).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }
}
