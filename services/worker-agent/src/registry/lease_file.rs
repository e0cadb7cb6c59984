//! Keeps the lease on disk. A disk that stands still holds up no heartbeat, until the lease on it is
//! over: it decides how long one waits.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::domain::lease::Lease;
use crate::files::{self, Durability};

/// A lease, and when the beat was sent that gave it.
type Given = (Lease, Instant);

/// The file that supervisors read.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    under_way: Option<(Given, JoinHandle<io::Result<()>>)>,
    /// What is on disk, once this process has put it there.
    kept: Option<Given>,
    /// The last write failed: it is said once.
    failed: bool,
}

impl LeaseFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            under_way: None,
            kept: None,
            failed: false,
        }
    }

    /// Puts a lease on disk. A disk that stands still is waited for as long as `patience`, and what it
    /// did not take is written at the next call. It is waited for to the end where there is no lease yet,
    /// and where the one there is over: then what needs it has ended unseen, and that has to be taken for
    /// lost by others.
    pub(crate) async fn keep(&mut self, lease: Lease, sent: Instant, patience: Duration) {
        let begun = Instant::now();
        loop {
            let (given, mut write) = match self.under_way.take() {
                Some(under_way) => under_way,
                None => ((lease.clone(), sent), self.write(&lease)),
            };
            let left = if self.is_good() {
                patience.saturating_sub(begun.elapsed())
            } else {
                Duration::MAX
            };
            let Ok(written) = timeout(left, &mut write).await else {
                self.under_way = Some((given, write));
                return;
            };
            let is_last = given.1 == sent;
            match written.map_err(io::Error::other).flatten() {
                Ok(()) => {
                    self.kept = Some(given);
                    self.failed = false;
                }
                // Unwritten, the replicas that need it end in time: that is what it is for.
                Err(error) if !self.failed => {
                    tracing::error!(%error, "cannot renew the lease");
                    self.failed = true;
                }
                Err(_) => {}
            }
            if is_last {
                return;
            }
        }
    }

    fn write(&self, lease: &Lease) -> JoinHandle<io::Result<()>> {
        let (path, line) = (self.path.clone(), lease.print());
        spawn_blocking(move || files::replace(&path, line.as_bytes(), Durability::Kernel))
    }

    /// Whether the lease on disk runs on. One of no time was never promised to anyone.
    fn is_good(&self) -> bool {
        self.kept.as_ref().is_some_and(|(lease, sent)| {
            lease.fence_after.is_zero() || sent.elapsed() < lease.fence_after
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    fn lease(deadline: u64, fence_after: Duration) -> Lease {
        Lease::renewed("boot", Duration::from_secs(deadline), fence_after)
    }

    fn kept(path: &Path) -> Option<Lease> {
        Lease::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// The next write of the file stands still until something reads this.
    fn stand_still(path: &Path) -> PathBuf {
        let fresh = path.with_extension("new");
        mkfifoat(CWD, &fresh, Mode::RUSR | Mode::WUSR).unwrap();
        fresh
    }

    #[tokio::test]
    async fn a_disk_that_stands_still_is_not_waited_for_while_a_lease_lasts() {
        const HOUR: Duration = Duration::from_secs(3600);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let mut file = LeaseFile::new(path.clone());
        // The first one is there when it returns, however short the patience.
        file.keep(lease(1, HOUR), Instant::now(), Duration::ZERO)
            .await;
        assert_eq!(kept(&path), Some(lease(1, HOUR)));
        let fifo = stand_still(&path);
        for deadline in 2..5 {
            let patience = Duration::from_millis(1);
            file.keep(lease(deadline, HOUR), Instant::now(), patience)
                .await;
            assert_eq!(kept(&path), Some(lease(1, HOUR)));
        }
        let read = spawn_blocking(move || std::fs::read(fifo));
        file.keep(lease(5, HOUR), Instant::now(), HOUR).await;
        assert_eq!(kept(&path), Some(lease(5, HOUR)));
        read.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_disk_that_stands_still_is_waited_for_once_the_lease_is_over() {
        const SHORT: Duration = Duration::from_millis(50);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let mut file = LeaseFile::new(path.clone());
        let sent = Instant::now();
        file.keep(lease(1, SHORT), sent, Duration::ZERO).await;
        tokio::time::sleep_until(sent + SHORT).await;
        let fifo = stand_still(&path);
        let keep = file.keep(lease(2, SHORT), Instant::now(), Duration::ZERO);
        assert!(timeout(SHORT, keep).await.is_err(), "it waits");
        // What was given up goes on.
        std::fs::read(fifo).unwrap();
    }
}
