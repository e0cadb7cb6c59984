//! How a component's server serves: limits and times, with the defaults that tests use. Plain data.

use std::time::Duration;

use crate::args::{Advertise, CommonArgs};
use crate::auth::Access;
use crate::tls;

/// The settings of one server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may come in, and as whom.
    pub access: Access,
    /// The certificate and how it is used; `None` speaks plaintext only.
    pub tls: Option<tls::Server>,
    /// Where others reach the process; absent is where it listens.
    pub advertise: Option<Advertise>,
    /// The deadline of calls that come without one.
    pub default_deadline: Duration,
    /// The longest deadline; longer ones are cut to it.
    pub max_deadline: Duration,
    /// Calls and open streams in flight in the lane that most share.
    pub max_in_flight: usize,
    /// Calls and open streams in flight in the vital lane.
    pub max_vital_in_flight: usize,
    /// The memory that requests take together while they come, in bytes.
    pub max_incoming: usize,
    /// Connections open at once; more are closed as soon as they are accepted.
    pub max_connections: usize,
    /// For a new connection to finish its TLS handshake and send the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Streams open at once on one connection.
    pub max_streams_per_connection: u32,
    /// A silent connection is pinged this often, and closed if it does not answer
    /// within [`Settings::keepalive_timeout`].
    pub keepalive_interval: Duration,
    /// For the answer to a ping, and for the rest of a request that was answered before its end.
    pub keepalive_timeout: Duration,
    /// A connection as old as this, give or take a tenth, takes no new calls: those in flight
    /// finish, and its peer connects anew, perhaps to another instance. `None` is never.
    pub max_connection_age: Option<Duration>,
    /// For the calls in flight of a connection that is too old; then its streams are ended, and
    /// what is left is cut.
    pub connection_grace: Duration,
    /// How long a stopping server still accepts with readiness off.
    pub lame_duck: Duration,
    /// For calls in flight to finish before their connections are cut.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access: Access::default(),
            tls: None,
            advertise: None,
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_secs(300),
            max_in_flight: 10_000,
            max_vital_in_flight: 200_000,
            // 64 of the largest requests, of which most take less than is counted.
            max_incoming: 256 << 20,
            max_connections: 100_000,
            handshake_timeout: Duration::from_secs(10),
            max_streams_per_connection: 4096,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: Some(Duration::from_secs(3600)),
            connection_grace: Duration::from_secs(60),
            lame_duck: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Open files that a process needs beside connections: listeners, the store, logs, calls out.
const OTHER_FILES: u64 = 256;

impl Settings {
    /// Takes no more connections than a process with `open_files` can have; `None` is no limit.
    pub(crate) fn fit_into(&mut self, open_files: Option<u64>) {
        let Some(open_files) = open_files else { return };
        let room = open_files.saturating_sub(OTHER_FILES).max(open_files / 2);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        if room < self.max_connections {
            tracing::debug!(
                room,
                "fewer connections than asked for, by the limit of open files"
            );
            self.max_connections = room;
        }
    }
}

impl From<&CommonArgs> for Settings {
    fn from(args: &CommonArgs) -> Self {
        let defaults = Self::default();
        Self {
            advertise: args.advertise.clone(),
            default_deadline: args.default_deadline,
            max_deadline: args.max_deadline,
            max_in_flight: usize::try_from(args.max_in_flight).unwrap_or(usize::MAX),
            max_connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
            handshake_timeout: args.handshake_timeout,
            max_streams_per_connection: args.max_streams,
            max_connection_age: Some(args.max_connection_age).filter(|age| !age.is_zero()),
            connection_grace: args.connection_grace,
            lame_duck: args.lame_duck,
            drain_timeout: defaults.drain_timeout.min(args.shutdown_timeout / 2),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_open_files() {
        for (open_files, expected) in [
            (None, 1000),
            (Some(100_000), 1000),
            (Some(1024), 768),
            (Some(64), 32),
        ] {
            let mut settings = Settings {
                max_connections: 1000,
                ..Settings::default()
            };
            settings.fit_into(open_files);
            assert_eq!(settings.max_connections, expected, "{open_files:?}");
        }
    }
}
