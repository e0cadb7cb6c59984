//! Why a store could not be opened, in words that say what to do.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened. Its records are as they were.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another part of this one) has the file open.
    #[error(
        "the store file {} is in use by another process: stop that one (`fuser {}` names it), or give this one a file of its own",
        path.display(), path.display()
    )]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file or its directory may not be written.
    #[error(
        "the store file {} cannot be opened for writing ({source}): give the user of this process read and write access to the file and its directory, on a file system mounted read-write",
        path.display()
    )]
    NotWritable {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path, or its parent, is not of the kind needed.
    #[error("{} cannot be a store file: {reason}", path.display())]
    WrongPath {
        /// The store's file.
        path: PathBuf,
        /// What stands there instead.
        reason: String,
    },
    /// The file is not a store, or no longer a whole one.
    #[error(
        "the store file {} is damaged ({detail}): restore a backup to a new file (`muster restore`), or move this file away to begin empty",
        path.display()
    )]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file was written by a later release.
    #[error(
        "the store file {} has schema version {found}, but this release knows only versions up to {known}: use the newer release again, or restore a backup of before the upgrade",
        path.display()
    )]
    NewerVersion {
        /// The store's file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The version of this release.
        known: u64,
    },
    /// Anything else that the system refused.
    #[error("the store file {} cannot be opened ({source})", path.display())]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address cannot be used.
    #[error("{name} cannot be a store: {reason}")]
    WrongAddress {
        /// What was to be opened.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster does not answer.
    #[error(
        "the store {name} cannot be reached ({detail}): check its addresses, and that most of its members run"
    )]
    Unreachable {
        /// What was to be opened.
        name: String,
        /// What was said.
        detail: String,
    },
    /// There is something else under the prefix.
    #[error("under {name} there is something that is no store of ours: use another prefix")]
    Foreign {
        /// What was to be opened.
        name: String,
    },
    /// What is there was written by a later release.
    #[error(
        "the store {name} has schema version {found}, but this release knows only versions up to {known}: use the newer release again"
    )]
    NewerCluster {
        /// What was to be opened.
        name: String,
        /// The version there.
        found: u64,
        /// The version of this release.
        known: u64,
    },
    /// The build has no such backend.
    #[error(
        "this build has no etcd support: use embedded:PATH, or a build with the feature `etcd`"
    )]
    NoEtcd,
}
