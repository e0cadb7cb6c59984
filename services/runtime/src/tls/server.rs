//! The server's side: its certificate, and the authorities of its callers' certificates. A caller
//! without a certificate is let in here and refused by the layer that knows what it calls, so that
//! health needs none; one with a certificate that does not verify is not let in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use super::files::{self, Watched};
use super::{Error, LOOK_EVERY, provider};
use crate::health::Check;

/// How a port treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Plaintext and TLS, told apart by the first byte.
    Optional,
    /// TLS only.
    Required,
}

/// The TLS of a server. Cheap to clone; clones share what was read last.
#[derive(Clone)]
pub struct Server {
    mode: Mode,
    files: Arc<Files>,
    current: Arc<ArcSwap<ServerConfig>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Files {
    fn read(&self) -> Result<ServerConfig, Error> {
        let chain = files::certificates(&self.certificate)?;
        let key = files::key(&self.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(files::authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            }
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn watched(&self) -> Watched {
        let mut paths = vec![self.certificate.clone(), self.key.clone()];
        paths.extend(self.client_ca.clone());
        Watched::new(paths)
    }
}

impl Server {
    /// Reads the files.
    pub fn load(
        mode: Mode,
        certificate: PathBuf,
        key: PathBuf,
        client_ca: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let files = Files {
            certificate,
            key,
            client_ca,
        };
        let current = Arc::new(ArcSwap::from_pointee(files.read()?));
        Ok(Self {
            mode,
            files: Arc::new(files),
            current,
        })
    }

    /// Whether callers' certificates are verified.
    pub fn has_client_ca(&self) -> bool {
        self.files.client_ca.is_some()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again whenever they change, for ever. What cannot be used is told to
    /// `check`, and the last that could stays in use.
    pub(crate) async fn follow(self, check: Check) {
        let mut watched = self.files.watched();
        check.ok("");
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if watched.changed() {
                self.reload(&check);
            }
        }
    }

    fn reload(&self, check: &Check) {
        match self.files.read() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("certificates were read again");
                check.ok("");
            }
            Err(error) => check.failed(format!("the last certificates stay in use: {error}")),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "tls::Server({:?}, {:?})", self.mode, self.files)
    }
}

/// The names that a certificate speaks for: DNS names and URIs.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let dns = parsed.valid_dns_names();
    dns.chain(parsed.valid_uri_names())
        .map(str::to_owned)
        .collect()
}
