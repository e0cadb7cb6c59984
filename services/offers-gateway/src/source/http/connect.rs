//! How connections are opened: within a time, and with TLS where the address wants it, believing the
//! certificate authorities of the system.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::super::{Failure, blocking};
use super::proxy::{Connector, Proxies};
use super::{CONNECT, KEPT_FOR, deepest};

pub(super) fn not_sent(authority: &str, error: &PoolError) -> Failure {
    let cause = deepest(error);
    Failure::passing(if error.is_connect() {
        format!("cannot connect to {authority}: {cause}")
    } else {
        format!("{authority} ended the connection without an answer: {cause}")
    })
}

pub(super) fn connector(proxies: &Arc<Proxies>) -> Connector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    Connector::new(connector, Arc::clone(proxies))
}

pub(super) fn pool() -> hyper_util::client::legacy::Builder {
    let mut builder = Pool::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEPT_FOR);
    builder
}

pub(super) async fn with_tls(
    proxies: &Arc<Proxies>,
) -> Result<Pool<HttpsConnector<Connector>, Full<Bytes>>, Failure> {
    let built = blocking(|| {
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)
    });
    let builder = built.await?.map_err(|error| {
        Failure::lasting(format!(
            "the system's certificate authorities cannot be read ({error}): install them, or name \
             their file in SSL_CERT_FILE"
        ))
    })?;
    let connector = builder
        .https_only()
        .enable_all_versions()
        .wrap_connector(connector(proxies));
    Ok(pool().build(connector))
}
