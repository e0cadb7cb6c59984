//! Where connections come from: a TCP port, or whatever a test puts in its place. It decides
//! nothing about who may connect.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// One connection as it was accepted.
pub type Accepted = (Box<dyn Io>, SocketAddr);

/// A source of connections.
pub trait Accept: Send {
    /// The next connection and its peer's address. Must be safe to drop and call again.
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + '_>>;
}

impl Accept for TcpListener {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + '_>> {
        Box::pin(async {
            let (stream, peer) = Self::accept(self).await?;
            stream.set_nodelay(true)?;
            let io: Box<dyn Io> = Box::new(stream);
            Ok((io, peer))
        })
    }
}

/// Connections that may wait to be accepted: as many as where tokio binds and listens at once.
const BACKLOG: u32 = 1024;

/// A bound source of connections with its address.
pub struct Listener {
    address: SocketAddr,
    source: Source,
}

enum Source {
    /// A port that is taken, where whoever connects is refused.
    Reserved(TcpSocket),
    Open(Box<dyn Accept>),
}

impl Listener {
    /// Binds a TCP port; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            address: listener.local_addr()?,
            source: Source::Open(Box::new(listener)),
        })
    }

    /// Takes a TCP port without listening on it: until it is served, whoever connects is refused.
    pub(crate) fn reserve(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self {
            address: socket.local_addr()?,
            source: Source::Reserved(socket),
        })
    }

    /// Takes connections from `source`, which is reached at `address`.
    pub fn from_source(address: SocketAddr, source: impl Accept + 'static) -> Self {
        Self {
            address,
            source: Source::Open(Box::new(source)),
        }
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections come: what accepts them.
    pub(crate) fn listen(self) -> io::Result<Box<dyn Accept>> {
        match self.source {
            Source::Reserved(socket) => Ok(Box::new(socket.listen(BACKLOG)?)),
            Source::Open(source) => Ok(source),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Listener({})", self.address)
    }
}

/// The bound listeners of one component.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: Listener,
    /// For health, metrics and version over HTTP; `None` serves none.
    pub ops: Option<Listener>,
}

impl Listeners {
    /// Binds both.
    pub async fn bind(grpc: SocketAddr, ops: Option<SocketAddr>) -> io::Result<Self> {
        let grpc = Listener::bind(grpc).await?;
        let ops = match ops {
            Some(address) => Some(Listener::bind(address).await?),
            None => None,
        };
        Ok(Self { grpc, ops })
    }

    /// Takes the port of gRPC alone, where whoever connects is refused until it is served.
    pub(crate) fn reserve(grpc: SocketAddr) -> io::Result<Self> {
        let grpc = Listener::reserve(grpc)?;
        Ok(Self { grpc, ops: None })
    }

    /// Both on free ports of the loopback interface.
    pub async fn loopback() -> io::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::bind(any, Some(any)).await
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Where the ops port is.
    pub fn ops_address(&self) -> Option<SocketAddr> {
        self.ops.as_ref().map(Listener::address)
    }
}
