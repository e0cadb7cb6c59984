//! Which proxy stands between us and a server, as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say
//! in capitals or small letters, and how a connection goes through it: a tunnel where the address
//! wants TLS, which the proxy cannot look into, and the whole address in the request where it does
//! not. What runs on this machine is reached without one. Who may use the proxy is shown to nobody.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use muster_runtime::connect::is_this_machine;
use tokio::net::TcpStream;
use tower::Service;

use super::super::Failure;

/// How long a proxy may take to open a tunnel.
const TUNNEL: Duration = Duration::from_secs(10);

/// For every address.
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// The proxies of a process.
#[derive(Debug)]
pub(super) struct Proxies {
    matcher: Matcher,
    /// The variables that name what is no proxy for us, and why: for `http` and for `https`.
    faults: [Option<String>; 2],
}

/// A proxy, for one address.
#[derive(Clone)]
pub(super) struct Proxy(Intercept);

impl Proxies {
    /// Those that the process's environment names.
    pub(super) fn of_environment() -> Self {
        Self::read(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// Those that `variable` names. The first that is not empty counts, as in Go's programs.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let mut found = names
                .iter()
                .filter_map(|name| Some((*name, variable(name)?)));
            found.find(|(_, value)| !value.is_empty())
        };
        let http = first(&["HTTP_PROXY", "http_proxy", ALL[0], ALL[1]]);
        let https = first(&["HTTPS_PROXY", "https_proxy", ALL[0], ALL[1]]);
        let (http, of_http) = checked(http);
        let (https, of_https) = checked(https);
        let no = first(&["NO_PROXY", "no_proxy"]).map_or_else(String::new, |(_, value)| value);
        Self {
            matcher: Matcher::builder().http(http).https(https).no(no).build(),
            faults: [of_http, of_https],
        }
    }

    /// The proxy on the way to `uri`; none if there is none. An error if it cannot be used: going
    /// past it is not what was asked for.
    pub(super) fn to(&self, uri: &Uri) -> Result<Option<Proxy>, Failure> {
        let host = uri.host().unwrap_or_default();
        let Some(proxy) = self
            .matcher
            .intercept(uri)
            .filter(|_| !is_this_machine(host))
        else {
            return Ok(None);
        };
        let is_tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        match &self.faults[usize::from(is_tls)] {
            Some(fault) => Err(Failure::lasting(format!("{host} cannot be asked: {fault}"))),
            None => Ok(Some(Proxy(proxy))),
        }
    }
}

/// What a variable names, and what is wrong with it. Something has to stand in the place of what
/// cannot be used, so that it is known where it would be.
fn checked(named: Option<(&str, String)>) -> (String, Option<String>) {
    let Some((variable, value)) = named else {
        return (String::new(), None);
    };
    let read = Matcher::builder().all(&value).build();
    let read = read.intercept(&Uri::from_static("http://example.org"));
    let fault = match read.as_ref().map(Intercept::uri) {
        Some(uri) if uri.scheme_str() != Some("http") => {
            let scheme = uri.scheme_str().unwrap_or_default();
            format!("{variable} names a proxy that is spoken to by {scheme}")
        }
        Some(uri) if has_port_or_none(uri) => return (value, None),
        Some(_) | None => format!("{variable} names no proxy"),
    };
    let fault = format!("{fault}; write it like http://proxy.example.org:3128");
    ("http://proxy.invalid".to_owned(), Some(fault))
}

/// What stands behind the host is a port, if anything does.
fn has_port_or_none(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    uri.port_u16().is_some() || Some(authority) == uri.host()
}

impl Proxy {
    /// What shows it who we are, if it wants that.
    pub(super) fn credential(&self) -> Option<&HeaderValue> {
        self.0.basic_auth()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The user is kept apart from this.
        let address = self.0.uri().to_string();
        to.write_str(address.trim_end_matches('/'))
    }
}

/// Opens connections, by way of a proxy where there is one.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    direct: HttpConnector,
    proxies: Arc<Proxies>,
}

impl Connector {
    pub(super) fn new(direct: HttpConnector, proxies: Arc<Proxies>) -> Self {
        Self { direct, proxies }
    }
}

impl Service<Uri> for Connector {
    type Response = Way;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Way>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.direct.poll_ready(context).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut direct = self.direct.clone();
        let proxy = match self.proxies.to(&uri) {
            Ok(proxy) => proxy,
            Err(failure) => {
                return Box::pin(std::future::ready(Err(io::Error::other(
                    failure.fault.message,
                ))));
            }
        };
        Box::pin(async move {
            let (io, passes_on) = match proxy {
                None => (direct.call(uri).await, false),
                Some(Proxy(proxy)) if uri.scheme() == Some(&http::uri::Scheme::HTTPS) => {
                    return tunnel(&proxy, direct, uri).await;
                }
                Some(Proxy(proxy)) => (direct.call(proxy.uri().clone()).await, true),
            };
            let io = io.map_err(io::Error::other)?;
            Ok(Way { io, passes_on })
        })
    }
}

/// A connection to where `uri` is, through `proxy`.
async fn tunnel(proxy: &Intercept, direct: HttpConnector, uri: Uri) -> io::Result<Way> {
    let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
    if let Some(credential) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(credential.clone());
    }
    let opened = tokio::time::timeout(TUNNEL, tunnel.call(uri)).await;
    let opened = opened.map_err(|_| {
        let within = crate::domain::report::seconds(TUNNEL);
        io::Error::other(format!("the proxy opened no tunnel within {within}"))
    })?;
    let io = opened.map_err(io::Error::other)?;
    Ok(Way {
        io,
        passes_on: false,
    })
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Way {
    io: TokioIo<TcpStream>,
    /// Whether whoever is at its end passes requests on, and so wants the whole address in them.
    passes_on: bool,
}

impl Connection for Way {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.passes_on)
    }
}

impl Read for Way {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, to)
    }
}

impl Write for Way {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, from)
    }
}

#[cfg(test)]
mod tests;
