//! How a component calls another: a [`Connector`] knows the transport, TLS and the caller's
//! credential; a [`Channel`] made by it is what generated clients take.
//!
//! It decides when a call is given up, repeated, or taken elsewhere. It never repeats a call that
//! may have been executed unless its method is idempotent, never waits beyond the call's deadline,
//! and never dials before the first call, so a component starts while the others are down.
//!
//! What tonic's own channel leaves open and is decided here:
//! - every call has a deadline, sent as `grpc-timeout` and enforced on this side too, to the end of
//!   the answer, with DEADLINE_EXCEEDED; streams whose method begins with `Watch` or `Stream` are
//!   bounded to their first answer only, and a silent watch is ended;
//! - a connection that does not answer is given up: by keepalive pings, also while idle, and by a
//!   health check as soon as a call on it has run out of time;
//! - a call cut off by a closing connection is UNAVAILABLE, not CANCELLED;
//! - of several endpoints one is used until it fails; a failed one comes back when it says SERVING;
//! - a peer's malformed status is a status, not a panic.

mod body;
mod call;
mod channel;
mod connection;
mod endpoints;
mod failure;
mod link;
mod observe;
mod pool;
mod probe;
mod retry;
mod trace;
mod transport;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

pub use body::ResponseBody;
pub use channel::Channel;
pub use endpoints::{Endpoint, Endpoints, InvalidEndpoints, is_this_machine};
pub use retry::Idempotent;
pub use transport::{Io, Transport};

use crate::backoff;
use crate::metrics::Metrics;
use observe::CallMetrics;
use transport::{Dialer, TlsSource};

/// How calls are made. The defaults suit calls within a data centre.
#[derive(Debug, Clone)]
pub struct Options {
    /// For one try to connect: name resolution, TCP, TLS.
    pub connect_timeout: Duration,
    /// For a call that brings no deadline, and for the first answer of a stream that has none.
    pub default_deadline: Duration,
    /// A connection silent for this long is pinged, also while no call is open; less often where
    /// the endpoint says that this is too often.
    pub keepalive_interval: Duration,
    /// A ping unanswered for this long ends the connection.
    pub keepalive_timeout: Duration,
    /// A watch silent for this long has ended: bookmarks come at least every 30 s.
    pub watch_silence: Duration,
    /// Which methods may be called twice.
    pub idempotent: Idempotent,
    /// Repetitions of one call at most, besides tries at endpoints not yet tried.
    pub max_retries: u32,
    /// The delays between repetitions.
    pub backoff: backoff::Policy,
    /// The longest delay that a peer may ask for by RetryInfo; beyond it the failure is returned.
    pub max_retry_delay: Duration,
    /// What the calls are sent as, such as `worker-agent/0.1.0`.
    pub user_agent: HeaderValue,
    /// Decides which endpoint is used first, and jitter. `None` draws one for each channel, so that
    /// callers spread; a simulation sets it, to be repeatable.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            default_deadline: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(3),
            watch_silence: Duration::from_secs(90),
            idempotent: Idempotent::default(),
            max_retries: 4,
            backoff: backoff::Policy::doubling(Duration::from_millis(50), Duration::from_secs(1)),
            max_retry_delay: Duration::from_secs(5),
            user_agent: HeaderValue::from_static(concat!("muster/", env!("CARGO_PKG_VERSION"))),
            seed: None,
        }
    }
}

/// Makes channels to other components. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    dialer: Dialer,
    credential: Credential,
    metrics: Option<CallMetrics>,
    options: Arc<Options>,
}

impl Connector {
    /// Over TCP, without TLS and credential.
    pub fn new(options: Options) -> Self {
        Self {
            dialer: Dialer::new(transport::tcp()),
            credential: Credential::none(),
            metrics: None,
            options: Arc::new(options),
        }
    }

    /// The same, over another transport: a simulated network, or one in memory.
    pub fn with_transport(mut self, transport: Transport) -> Self {
        self.dialer = self.dialer.with_transport(transport);
        self
    }

    /// The same, with the configuration for `https` endpoints; asked for at each connection, so
    /// that renewed certificates are taken.
    pub fn with_tls(
        mut self,
        source: impl Fn() -> Arc<tokio_rustls::rustls::ClientConfig> + Send + Sync + 'static,
    ) -> Self {
        self.dialer = self.dialer.with_tls(Arc::new(source) as TlsSource);
        self
    }

    /// The same, for callers with `credential`.
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// The same, with the durations of its calls among `metrics`; once for each component.
    #[must_use]
    pub fn with_metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(CallMetrics::new(metrics));
        self
    }

    /// The same, with other options.
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = Arc::new(options);
        self
    }

    /// The options, to be changed for [`Connector::with_options`].
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The endpoint at `address`, HOST:PORT, which has told where it is but not how it is spoken
    /// to: over TLS by whoever has an authority to believe, in plaintext by whoever has none.
    pub fn peer(&self, address: &str) -> Result<Endpoints, InvalidEndpoints> {
        let scheme = if self.dialer.has_tls() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{address}").parse()
    }

    /// A channel to whichever of `endpoints` answers. It connects at its first call.
    pub fn channel(&self, endpoints: &Endpoints) -> Channel {
        Channel::new(
            endpoints,
            &self.dialer,
            self.credential.clone(),
            self.metrics.clone(),
            Arc::clone(&self.options),
        )
    }
}

/// The bearer token that calls carry, if any; it may change at any time. Clones share it.
#[derive(Clone, Default)]
pub struct Credential(Arc<ArcSwapOption<HeaderValue>>);

impl Credential {
    /// No token.
    pub fn none() -> Self {
        Self::default()
    }

    /// Uses `token` from the next call on. Fails if it cannot stand in a header.
    pub fn set(&self, token: &str) -> Result<(), http::header::InvalidHeaderValue> {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
        value.set_sensitive(true);
        self.0.store(Some(Arc::new(value)));
        Ok(())
    }

    /// Uses none from the next call on.
    pub fn clear(&self) {
        self.0.store(None);
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.0.load().as_deref().cloned()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.load().is_some() {
            "Credential(set)"
        } else {
            "Credential(none)"
        })
    }
}
