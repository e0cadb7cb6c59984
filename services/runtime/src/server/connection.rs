//! One connection from accept to close: its preface in time, its streams, its age, its graceful
//! end, and its cut. It decides nothing about calls.

use std::convert::Infallible;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;

use super::entrance::Entrance;
use super::gather::{Turns, gather};
use super::listener::Io;
use super::rewind::Rewind;
use super::stuck::Unstuck;
use super::{STREAMS_END_WITHIN, Serving, Settings};
use crate::{task, tls};

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS connection, which is none of HTTP.
const TLS_HANDSHAKE: u8 = 0x16;

/// The answer to who speaks HTTP/1 here, for a person to read.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\n\
    upgrade: h2c\r\ncontent-type: text/plain\r\ncontent-length: 60\r\n\r\n\
    this port speaks gRPC, which is HTTP/2; see the ops port too";

/// What h2 takes a small piece of a body to cost until it is read, in bytes.
const PIECE: u32 = 256;

/// The window of a connection of few streams, which is what hyper gives any.
const SMALLEST_WINDOW: u32 = 1 << 20;

/// The window of a connection however many streams it may have: so much memory it can take.
const LARGEST_WINDOW: u32 = 16 << 20;

/// How long a connection that was accepted before the server drains may take for what is left of its
/// handshake: one on which nothing is sent holds up the end no longer.
const LATE_HANDSHAKE: Duration = Duration::from_secs(1);

/// What calls in plaintext are told where only TLS is taken.
const TLS_ONLY: &str = "this port takes TLS only: use https://, and give the certificate authority";

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
    let opening = within(settings.handshake_timeout, open(settings.tls.as_ref(), io));
    let mut opening = std::pin::pin!(opening);
    let opened = tokio::select! {
        biased;
        opened = opening.as_mut() => opened,
        // Whoever is about to call is told by HTTP/2 that this server goes, which a reset does not.
        () = serving.ends.graceful.cancelled() => within(LATE_HANDSHAKE, opening).await,
    };
    let (io, sans) = match opened.inspect_err(|_| serving.counts.failed())? {
        Opened::Trusted { io, sans } => (io, sans),
        Opened::Refused { io, words } => {
            serving.counts.failed();
            return within(settings.handshake_timeout, tell(settings, io, &words)).await;
        }
    };
    let last_call = serving.ends.last_call.child_token();
    let entrance = Entrance::new(serving, peer, sans, last_call.clone());
    let _open = serving.peers.enter(entrance.peer());
    let (io, outlet) = gather(io);
    let connection = builder(settings).serve_connection(TokioIo::new(io), entrance);
    let mut connection = std::pin::pin!(Turns::new(connection, outlet));
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = serving.ends.graceful.cancelled() => {
            connection.as_mut().connection().graceful_shutdown();
            return connection.await.map_err(io::Error::other);
        }
        () = come_of_age(settings.max_connection_age, peer) => serving.counts.aged(),
        // Somebody on it is not known any more. Streams opened on it now would end at once.
        () = last_call.cancelled() => {}
    }
    connection.as_mut().connection().graceful_shutdown();
    for wait in [settings.connection_grace, STREAMS_END_WITHIN] {
        if let Ok(ended) = tokio::time::timeout(wait, connection.as_mut()).await {
            return ended.map_err(io::Error::other);
        }
        last_call.cancel();
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "it was to end, and its calls did not finish",
    ))
}

/// Waits until a connection of `peer` is too old, which it may never be.
async fn come_of_age(age: Option<Duration>, peer: SocketAddr) {
    match age {
        Some(age) => tokio::time::sleep(spread(age, peer)).await,
        None => std::future::pending().await,
    }
}

/// `age`, less or more by up to a tenth, so that peers that came together do not go together. Each
/// connection has a port of its own to tell it from others, so that nothing is drawn by lot.
fn spread(age: Duration, peer: SocketAddr) -> Duration {
    let mut hasher = rustc_hash::FxHasher::default();
    peer.hash(&mut hasher);
    // The high bits are the ones that are mixed well.
    let thousandths = u32::try_from(hasher.finish() >> 40).unwrap_or(0) % 201;
    age.saturating_mul(900 + thousandths) / 1000
}

/// A connection on which HTTP/2 has begun.
enum Opened {
    /// One to serve.
    Trusted {
        io: Rewind,
        /// The names in the caller's verified certificate.
        sans: Vec<String>,
    },
    /// One that is not taken, such as plaintext where only TLS is: its calls are told why, since a
    /// connection that just closes tells nobody anything.
    Refused { io: Rewind, words: String },
}

impl Opened {
    async fn in_plaintext(io: Box<dyn Io>) -> io::Result<Self> {
        let io = read_preface(io).await?;
        Ok(Self::Trusted {
            io,
            sans: Vec::new(),
        })
    }
}

async fn open(tls: Option<&tls::Server>, mut io: Box<dyn Io>) -> io::Result<Opened> {
    let Some(tls) = tls else {
        return Opened::in_plaintext(io).await;
    };
    let mut first = [0];
    io.read_exact(&mut first).await?;
    let io: Box<dyn Io> = Box::new(Rewind::new(io, &first));
    if first[0] != TLS_HANDSHAKE {
        return match tls.mode() {
            tls::Mode::Optional => Opened::in_plaintext(io).await,
            tls::Mode::Required => Ok(Opened::Refused {
                io: read_preface(io).await?,
                words: TLS_ONLY.to_owned(),
            }),
        };
    }
    let current = tls.current();
    let stream = TlsAcceptor::from(current.config()).accept(io).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let names = current.names(chain);
    let io = read_preface(Box::new(stream)).await?;
    Ok(match names {
        Ok(sans) => Opened::Trusted { io, sans },
        Err(words) => Opened::Refused { io, words },
    })
}

/// Answers every call on `io` with why it is not taken. What was asked is not looked at.
async fn tell(settings: &Settings, io: Rewind, words: &str) -> io::Result<()> {
    let answer = hyper::service::service_fn(|_| {
        let refused = Status::unauthenticated(words).into_http::<Body>();
        std::future::ready(Ok::<_, Infallible>(refused))
    });
    let connection = builder(settings).serve_connection(TokioIo::new(io), answer);
    connection.await.map_err(io::Error::other)
}

fn builder(settings: &Settings) -> http2::Builder<Spawn> {
    let mut builder = http2::Builder::new(Spawn);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.max_streams_per_connection)
        // Calls that run out of time together are reset together: h2 takes twenty of them that it
        // has not got to for an attack, and closes the connection under all the others.
        .max_pending_accept_reset_streams(settings.max_streams_per_connection as usize)
        .initial_connection_window_size(window(settings.max_streams_per_connection))
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
}

/// What a connection of `streams` may have sent that was not read yet, in bytes.
///
/// h2 charges each small piece of a body with up to [`PIECE`] until it is read, and closes the
/// connection when half the window is spent: room for a small message of every stream at once.
fn window(streams: u32) -> u32 {
    let room = streams.saturating_mul(2 * PIECE);
    room.clamp(SMALLEST_WINDOW, LARGEST_WINDOW)
}

/// Runs the streams of a connection. hyper ends them when their connection is gone.
#[derive(Clone, Copy)]
struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        task::spawn(Unstuck::new(stream));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most_and_are_spread() {
        let age = Duration::from_secs(1000);
        let ages: std::collections::BTreeSet<_> = (30_000..31_000)
            .map(|port| spread(age, SocketAddr::from(([10, 0, 0, 1], port))))
            .collect();
        assert!(ages.first() >= Some(&Duration::from_secs(900)), "{ages:?}");
        assert!(ages.last() <= Some(&Duration::from_secs(1100)), "{ages:?}");
        assert!(ages.len() > 100, "of 201 possible ones: {}", ages.len());
        assert!(spread(Duration::MAX, SocketAddr::from(([0; 4], 1))) > age);
    }
}
