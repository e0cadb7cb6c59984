//! One connection from accept to close: its preface in time, its streams, its graceful end, and
//! its cut. It decides nothing about calls.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::entrance::Entrance;
use super::listener::Io;
use super::rewind::Rewind;
use super::{Serving, Settings};
use crate::{task, tls};

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS connection, which is none of HTTP.
const TLS_HANDSHAKE: u8 = 0x16;

/// The answer to who speaks HTTP/1 here, for a person to read.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\n\
    upgrade: h2c\r\ncontent-type: text/plain\r\ncontent-length: 60\r\n\r\n\
    this port speaks gRPC, which is HTTP/2; see the ops port too";

/// Serves `io` until it closes, the server drains, or the server cuts it.
pub(super) async fn serve(serving: Arc<Serving>, io: Box<dyn Io>, peer: SocketAddr) {
    let _open = serving.counts.opened();
    let ends = serving.ends.clone();
    let ended = tokio::select! {
        biased;
        () = ends.cut.cancelled() => return,
        ended = serve_to_its_end(&serving, io, peer) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn serve_to_its_end(
    serving: &Arc<Serving>,
    io: Box<dyn Io>,
    peer: SocketAddr,
) -> io::Result<()> {
    let settings = &serving.settings;
    let Opened { io, sans } = tokio::select! {
        biased;
        // Nothing was asked on it yet, so nothing is lost.
        () = serving.ends.graceful.cancelled() => return Ok(()),
        opened = within(settings.handshake_timeout, open(settings.tls.as_ref(), io)) => {
            opened.inspect_err(|_| serving.counts.failed())?
        }
    };
    let entrance = Entrance::new(serving, peer, sans);
    let connection = builder(settings).serve_connection(TokioIo::new(io), entrance);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = serving.ends.graceful.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(io::Error::other)
}

/// A connection on which HTTP/2 has begun.
struct Opened {
    io: Rewind,
    /// The names in the caller's verified certificate.
    sans: Vec<String>,
}

async fn open(tls: Option<&tls::Server>, mut io: Box<dyn Io>) -> io::Result<Opened> {
    let Some(tls) = tls else {
        return Ok(Opened {
            io: read_preface(io).await?,
            sans: Vec::new(),
        });
    };
    let mut first = [0];
    io.read_exact(&mut first).await?;
    let io: Box<dyn Io> = Box::new(Rewind::new(io, &first));
    if first[0] != TLS_HANDSHAKE {
        return match tls.mode() {
            tls::Mode::Optional => Ok(Opened {
                io: read_preface(io).await?,
                sans: Vec::new(),
            }),
            tls::Mode::Required => Err(io::Error::new(io::ErrorKind::InvalidData, "not TLS")),
        };
    }
    let stream = TlsAcceptor::from(tls.config()).accept(io).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let sans = certificates.first().map(tls::names_of).unwrap_or_default();
    Ok(Opened {
        io: read_preface(Box::new(stream)).await?,
        sans,
    })
}

fn builder(settings: &Settings) -> http2::Builder<Spawn> {
    let mut builder = http2::Builder::new(Spawn);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.max_streams_per_connection)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
}

/// Runs the streams of a connection. hyper ends them when their connection is gone.
#[derive(Clone, Copy)]
struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        task::spawn(stream);
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no handshake and HTTP/2 preface in time",
        )),
    }
}

/// Reads until the preface is whole or wrong, and gives the connection back from its first byte.
async fn read_preface(mut io: Box<dyn Io>) -> io::Result<Rewind> {
    let mut start = [0_u8; PREFACE.len()];
    let mut filled = 0;
    while filled < start.len() {
        let read = io.read(&mut start[filled..]).await?;
        filled += read;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..filled] != PREFACE[..filled] {
            refuse(io, &start[..filled]).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
        }
    }
    Ok(Rewind::new(io, &start))
}

/// Tells an HTTP/1 client what this port is; the connection is closed either way.
async fn refuse(mut io: Box<dyn Io>, start: &[u8]) {
    const METHODS: [&[u8]; 4] = [b"GET ", b"POST", b"HEAD", b"PUT "];
    if METHODS.iter().any(|method| start.starts_with(method)) {
        // The peer may be gone already, which is as good.
        let _ = io.write_all(HTTP1_ANSWER).await;
        let _ = io.shutdown().await;
    }
}
