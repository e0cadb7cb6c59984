//! What every component can be told on its command line, in the environment and in its file: the
//! flags, their defaults, and which source wins. It checks single values; what must fit together is
//! checked where it is used.

mod advertise;
mod duration;
mod file;
mod sources;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use tracing_subscriber::filter::{EnvFilter, ParseError};

pub use advertise::{Advertise, Reached};
pub use duration::parse_duration;
pub use sources::without_empty_variables;
pub(crate) use sources::{Parsed, parse, usage_error};

/// The flags of every component. Each has an environment twin: `--ops-listen` is
/// `MUSTER_OPS_LISTEN`. The flag wins over the environment, that over the file, that over the
/// default. A variable that is empty is as one that is not set.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// Serve gRPC on this address; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Serve health, metrics and version over HTTP on this address; "off" serves none
    #[arg(long, value_name = "IP:PORT")]
    pub ops_listen: OpsListen,
    /// Where others reach this process, if that is not where it listens
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<Advertise>,
    /// Read flags not given here, and what has no flag, from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Pretty)]
    pub log: LogFormat,
    /// Which log lines there are, such as "info,h2=debug"
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    pub log_filter: String,
    /// Serve beyond loopback without TLS, and take every caller without credentials for an admin
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure: bool,
    /// Whether the gRPC port speaks TLS; "optional" takes plaintext on the same port too
    #[arg(long, value_enum, default_value_t = TlsMode::Off)]
    pub tls: TlsMode,
    /// The server's certificate chain (PEM); read again when it changes
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Verify callers' certificates against these authorities (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// How calls to other components prove who makes them
    #[command(flatten)]
    pub client: ClientArgs,
    /// Threads that serve calls
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads: u16,
    /// The deadline of calls that come without one
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub default_deadline: Duration,
    /// The longest deadline; longer ones are cut to it
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub max_deadline: Duration,
    /// Calls and streams in flight at once; more are refused
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// Connections open at once; more are closed
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Calls and streams open at once on one connection; more wait
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// For a new connection to finish its TLS handshake and begin HTTP/2
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub handshake_timeout: Duration,
    /// A connection this old, give or take a tenth, takes no new calls and is closed; 0s is never
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub max_connection_age: Duration,
    /// For the calls in flight of a connection that is too old; its streams are ended then
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub connection_grace: Duration,
    /// How long a stopping process still accepts calls with readiness off
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub lame_duck: Duration,
    /// How long a stopping process may take in all
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub shutdown_timeout: Duration,
    /// Print what all of this comes to, as TOML, and exit
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub print_config: bool,
}

fn log_filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// The flags of whoever calls components.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientArgs {
    /// Believe servers whose certificates these authorities signed (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Show this certificate chain to servers (PEM)
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Show the token in this file to servers
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where the ops port is, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpsListen(pub Option<SocketAddr>);

impl FromStr for OpsListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse();
        address
            .map(|address| Self(Some(address)))
            .map_err(|_| "neither IP:PORT nor \"off\"".to_owned())
    }
}

impl fmt::Display for OpsListen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(to),
            None => to.write_str("off"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Whether a port speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsMode {
    /// Plaintext only.
    Off,
    /// Both, told apart by the first byte.
    Optional,
    /// TLS only.
    Required,
}
