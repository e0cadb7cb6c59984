//! One HTTP/2 connection to a server. It is open once the server has spoken
//! HTTP/2 itself, so that a port that only listens counts as no connection.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    time::sleep,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tonic::body::Body;

use super::target::Target;

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// TLS, and the name that the server has to prove.
#[derive(Debug, Clone)]
pub(super) struct Secured {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// An open connection, and what has to be polled for it to go on.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    pub(super) driver: BoxFuture<'static, String>,
}

/// Tries until there is a connection. `last` is told why the last try failed.
pub(super) async fn open(
    target: &Target,
    secured: Option<&Secured>,
    last: &mut String,
) -> Connection {
    loop {
        match attempt(target, secured).await {
            Ok(connection) => return connection,
            Err(why) => *last = why,
        }
        sleep(PAUSE).await;
    }
}

async fn attempt(target: &Target, secured: Option<&Secured>) -> Result<Connection, String> {
    let io = dial(target, secured)
        .await
        .map_err(|error| error.to_string())?;
    let (io, spoken) = Heard::new(io);
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(io))
        .await;
    let (sender, driver) = handshake.map_err(|error| chain(&error))?;
    let mut driver: BoxFuture<'static, String> = Box::pin(async move {
        match driver.await {
            Ok(()) => "the server closed the connection".to_owned(),
            Err(error) => chain(&error),
        }
    });
    tokio::select! {
        biased;
        http = spoken => match http {
            Ok(true) => Ok(Connection { sender, driver }),
            Ok(false) => Err("the server does not speak HTTP/2".to_owned()),
            // Nobody reads any more, so the connection has ended.
            Err(_) => Err(driver.await),
        },
        why = &mut driver => Err(why),
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial(target: &Target, secured: Option<&Secured>) -> io::Result<Box<dyn Io>> {
    let plain: Box<dyn Io> = match target {
        Target::Tcp(host, port) => Box::new(TcpStream::connect((host.as_str(), *port)).await?),
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    let Some(secured) = secured else {
        return Ok(plain);
    };
    let connector = TlsConnector::from(Arc::clone(&secured.config));
    let stream = connector.connect(secured.name.clone(), plain).await?;
    Ok(Box::new(stream))
}

/// The length of a frame's header, and the kind of frame that a server begins with.
const FRAME_HEADER: usize = 9;
const KIND_AT: usize = 3;
const SETTINGS: u8 = 4;

/// A stream that tells whether the first that it reads is HTTP/2.
struct Heard {
    io: Box<dyn Io>,
    first: Vec<u8>,
    tell: Option<oneshot::Sender<bool>>,
}

impl Heard {
    fn new(io: Box<dyn Io>) -> (Self, oneshot::Receiver<bool>) {
        let (tell, spoken) = oneshot::channel();
        let heard = Self {
            io,
            first: Vec::new(),
            tell: Some(tell),
        };
        (heard, spoken)
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.tell.is_none() {
            return;
        }
        self.first
            .extend(bytes.iter().take(FRAME_HEADER - self.first.len()));
        if self.first.len() == FRAME_HEADER
            && let Some(tell) = self.tell.take()
        {
            // The receiver is gone only if nobody wants to know.
            let _ = tell.send(self.first.get(KIND_AT) == Some(&SETTINGS));
        }
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(context, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        self.hear(read);
        result
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
