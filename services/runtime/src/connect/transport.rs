//! From an endpoint to a stream of bytes: TCP or what stands in for it, and TLS on top.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Endpoint;
use crate::tls::mistake;

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens a connection to an endpoint, without TLS.
pub type Transport =
    Arc<dyn Fn(Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Gives the TLS configuration of the moment.
pub(super) type TlsSource = Arc<dyn Fn() -> Arc<ClientConfig> + Send + Sync>;

/// The operating system's TCP.
pub(super) fn tcp() -> Transport {
    Arc::new(|endpoint: Endpoint| {
        Box::pin(async move {
            let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
            // A call is one small write: waiting for more only adds 40 ms.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    })
}

/// Opens connections, with TLS where the endpoint wants it.
#[derive(Clone)]
pub(super) struct Dialer {
    transport: Transport,
    tls: Option<TlsSource>,
}

impl Dialer {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            tls: None,
        }
    }

    pub(super) fn with_transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    pub(super) fn with_tls(self, source: TlsSource) -> Self {
        Self {
            tls: Some(source),
            ..self
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) async fn dial(&self, endpoint: &Endpoint) -> io::Result<Box<dyn Io>> {
        let plain = (self.transport)(endpoint.clone()).await?;
        if !endpoint.is_tls() {
            return Ok(plain);
        }
        let source = self.tls.as_ref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "https needs a certificate authority (--ca)",
            )
        })?;
        let name = ServerName::try_from(endpoint.host().to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let mut config = source();
        if config.alpn_protocols != [b"h2"] {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
        }
        let handshake = TlsConnector::from(config).connect(name, plain).await;
        let stream = handshake.map_err(mistake::explain)?;
        Ok(Box::new(stream))
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}
