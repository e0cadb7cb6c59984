//! The client's side: whose servers to believe, and the certificate and token to show them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ClientConfig;

use super::files::{self, Watched};
use super::{Error, LOOK_EVERY, provider};
use crate::connect::{Connector, Credential};

/// The TLS and token of calls that go out. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    files: Arc<Files>,
    /// From before the first reading, so that no change is missed until they are followed.
    watched: Watched,
    config: Option<Arc<ArcSwap<ClientConfig>>>,
    credential: Credential,
}

#[derive(Debug, Default)]
struct Files {
    authorities: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    token: Option<PathBuf>,
}

impl Files {
    fn read_config(&self) -> Result<Option<ClientConfig>, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(None);
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(files::authorities(authorities)?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(files::certificates(certificate)?, files::key(key)?)?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(config))
    }

    fn watched(&self) -> Watched {
        let mut paths: Vec<PathBuf> = self
            .authorities
            .iter()
            .chain(&self.token)
            .cloned()
            .collect();
        if let Some((certificate, key)) = &self.identity {
            paths.extend([certificate.clone(), key.clone()]);
        }
        Watched::new(paths)
    }
}

impl Client {
    /// Reads the files that are given. Without `authorities` there is no TLS, and a certificate
    /// would have no use.
    pub fn load(
        authorities: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
        token: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let files = Files {
            authorities,
            identity,
            token,
        };
        let watched = files.watched();
        let config = files
            .read_config()?
            .map(|config| Arc::new(ArcSwap::from_pointee(config)));
        let client = Self {
            files: Arc::new(files),
            watched,
            config,
            credential: Credential::none(),
        };
        client.read_token()?;
        Ok(client)
    }

    /// `connector` with this TLS and token.
    pub fn equip(&self, connector: Connector) -> Connector {
        let connector = connector.with_credential(self.credential.clone());
        match self.config.clone() {
            Some(config) => connector.with_tls(move || config.load_full()),
            None => connector,
        }
    }

    /// Reads the files again whenever they change, for ever. What cannot be used is logged and read
    /// until it can; the last that could stays in use.
    pub async fn follow(self) {
        let mut watched = self.watched.clone();
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !watched.changed() {
                continue;
            }
            let trouble = self.reload().err().map(|error| error.to_string());
            if let Some(error) = &trouble {
                watched.again();
                if told != trouble {
                    tracing::warn!(error, "the last client certificate and token stay in use");
                }
            }
            told = trouble;
        }
    }

    fn reload(&self) -> Result<(), Error> {
        // Each is taken whether or not the other can be.
        let token = self.read_token();
        if let (Some(current), Some(config)) = (&self.config, self.files.read_config()?) {
            current.store(Arc::new(config));
        }
        token
    }

    fn read_token(&self) -> Result<(), Error> {
        let Some(path) = &self.files.token else {
            return Ok(());
        };
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let token = text.trim();
        if token.is_empty() || self.credential.set(token).is_err() {
            return Err(no_token(path));
        }
        Ok(())
    }
}

#[cfg(test)]
impl Client {
    /// The header that calls show.
    pub(super) fn credential(&self) -> Option<http::HeaderValue> {
        self.credential.header()
    }
}

fn no_token(path: &Path) -> Error {
    Error::Empty {
        path: path.to_owned(),
        what: "token",
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "tls::Client({:?})", self.files)
    }
}
