//! TLS of both sides: the server's certificate and whose client certificates it believes, and the
//! same for calls that go out. Files are read again when they change. It decides whom to believe;
//! who may do what is decided elsewhere.

mod client;
mod files;
mod lenient;
pub(crate) mod mistake;
mod server;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::VerifierBuilderError;

pub use client::Client;
pub use server::{Mode, Server};

/// How often files are looked at for changes.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is wrong with TLS files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds nothing of what it should.
    #[error("{}: no {what} in it", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate, key and authorities do not go together.
    #[error("{0}")]
    Rejected(#[from] rustls::Error),
    /// The authorities of client certificates cannot be used.
    #[error("client authorities: {0}")]
    Authorities(#[from] VerifierBuilderError),
}

/// The one implementation of cryptography, named instead of installed for the whole process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
