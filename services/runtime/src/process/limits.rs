//! What the system allows a process: as many open files as it may have, since each connection is
//! one.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files as far as it goes without privileges, and gives what it is then;
/// `None` for no limit.
pub(super) fn raise_open_files() -> Option<u64> {
    let mut limits = getrlimit(Resource::Nofile);
    let before = limits.current;
    limits.current = limits.maximum;
    match setrlimit(Resource::Nofile, limits) {
        Ok(()) => limits.current,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays");
            before
        }
    }
}
