//! How a component's server serves: limits and times, with the defaults that tests use. Plain data.

use std::time::Duration;

use crate::args::CommonArgs;

/// The settings of one server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connections open at once; more are closed as soon as they are accepted.
    pub max_connections: usize,
    /// For a new connection to finish its TLS handshake and send the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Streams open at once on one connection.
    pub max_streams_per_connection: u32,
    /// A silent connection is pinged this often, and closed if it does not answer
    /// within [`Settings::keepalive_timeout`].
    pub keepalive_interval: Duration,
    /// For the answer to a ping.
    pub keepalive_timeout: Duration,
    /// How long a stopping server still accepts with readiness off.
    pub lame_duck: Duration,
    /// For calls in flight to finish before their connections are cut.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 100_000,
            handshake_timeout: Duration::from_secs(10),
            max_streams_per_connection: 4096,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            lame_duck: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl From<&CommonArgs> for Settings {
    fn from(args: &CommonArgs) -> Self {
        Self {
            max_connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            lame_duck: args.lame_duck,
            ..Self::default()
        }
    }
}
