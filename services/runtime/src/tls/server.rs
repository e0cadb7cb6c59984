//! The server's side: its certificate, and the authorities of its callers' certificates. A caller
//! without a certificate is let in here and refused by the layer that knows what it calls, so that
//! health needs none. One with a certificate that does not verify gets no further than being told
//! why, which a handshake that fails does not reliably do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use super::files::{self, Watched};
use super::lenient::Lenient;
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
    /// From before the first reading, so that no change is missed until they are followed.
    watched: Watched,
    current: Arc<ArcSwap<Current>>,
}

/// What was read from the files at one time.
pub(crate) struct Current {
    config: Arc<ServerConfig>,
    /// Judges callers' certificates, which the handshake lets through.
    callers: Option<Arc<dyn ClientCertVerifier>>,
}

impl Current {
    /// For handshakes, after which [`Current::names`] has to be asked.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The names that a caller who has shown `chain` speaks for; none if nothing was shown. The
    /// error says why the certificate counts for nothing.
    pub(crate) fn names(&self, chain: &[CertificateDer<'_>]) -> Result<Vec<String>, String> {
        let (Some(callers), [certificate, between @ ..]) = (&self.callers, chain) else {
            return Ok(Vec::new());
        };
        match callers.verify_client_cert(certificate, between, UnixTime::now()) {
            Ok(_) => Ok(names_of(certificate)),
            Err(error) => Err(format!("your certificate is not taken: {error}")),
        }
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Files {
    fn read(&self) -> Result<Current, Error> {
        let chain = files::certificates(&self.certificate)?;
        let key = files::key(&self.key)?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let callers = self.read_callers()?;
        let builder = match callers.clone() {
            None => builder.with_no_client_auth(),
            Some(callers) => builder.with_client_cert_verifier(Arc::new(Lenient(callers))),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Current {
            config: Arc::new(config),
            callers,
        })
    }

    fn read_callers(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
        let Some(path) = &self.client_ca else {
            return Ok(None);
        };
        let roots = Arc::new(files::authorities(path)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        Ok(Some(verifier.allow_unauthenticated().build()?))
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
        let watched = files.watched();
        let current = Arc::new(ArcSwap::from_pointee(files.read()?));
        Ok(Self {
            mode,
            files: Arc::new(files),
            watched,
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

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Reads the files again whenever they change, for ever. What cannot be used is told to
    /// `check` and read until it can; the last that could stays in use.
    pub(crate) async fn follow(self, check: Check) {
        let mut watched = self.watched.clone();
        check.ok("");
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if watched.changed() && !self.reload(&check) {
                watched.again();
            }
        }
    }

    /// Reads the files again now. Whether they can be used.
    pub(super) fn reload(&self, check: &Check) -> bool {
        match self.files.read() {
            Ok(current) => {
                self.current.store(Arc::new(current));
                tracing::info!("certificates were read again");
                check.ok("");
                true
            }
            Err(error) => {
                check.failed(format!("the last certificates stay in use: {error}"));
                false
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "tls::Server({:?}, {:?})", self.mode, self.files)
    }
}

/// The names that a certificate speaks for: DNS names and URIs.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let dns = parsed.valid_dns_names();
    dns.chain(parsed.valid_uri_names())
        .map(str::to_owned)
        .collect()
}
