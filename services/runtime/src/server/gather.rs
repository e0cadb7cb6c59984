//! A connection whose writes go out together, once for each turn of its task.
//!
//! h2 sends a message of 256 bytes or more before it encodes the trailers behind it, so each such answer
//! would cost two system calls here, and wake the peer twice. Here what one turn writes is gathered, and
//! sent when the turn is over. It decides only when bytes are sent, never which.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most: two frames of the usual size. More is sent within the turn.
const GATHERED: usize = 32 * 1024;

/// The room that a quiet connection keeps for its next answer.
const KEPT: usize = 2 * 1024;

/// Gives a connection's bytes in two hands: one that reads and writes, one that sends what was written.
pub(super) fn gather<T>(io: T) -> (Gathering<T>, Outlet<T>) {
    let shared = Arc::new(Mutex::new(Gathered {
        io,
        written: Vec::new(),
        sent: 0,
        flushed: true,
        failed: None,
    }));
    (Gathering(Arc::clone(&shared)), Outlet(shared))
}

struct Gathered<T> {
    io: T,
    written: Vec<u8>,
    /// How much of it has been sent.
    sent: usize,
    /// Whether `io` holds nothing back, as TLS does while the peer is slow.
    flushed: bool,
    /// Why sending failed, until whoever writes has been told.
    failed: Option<io::Error>,
}

/// Where the protocol reads and writes.
pub(super) struct Gathering<T>(Arc<Mutex<Gathered<T>>>);

/// Where what was written is sent.
pub(super) struct Outlet<T>(Arc<Mutex<Gathered<T>>>);

impl<T> Gathering<T> {
    // Both hands are in one task, so nobody ever waits for the lock.
    fn lock(&self) -> MutexGuard<'_, Gathered<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.written.len() {
            let left = &self.written[self.sent..];
            self.flushed = false;
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, left))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        self.sent = 0;
        self.written.clear();
        self.written.shrink_to(KEPT);
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes all of `data` if there is room for it, or else sends what is there and then some of `data`.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let count = data.iter().map(|part| part.len()).sum::<usize>();
        if self.written.len() + count > GATHERED {
            ready!(self.poll_send(context))?;
            if count > GATHERED {
                self.flushed = false;
                return Pin::new(&mut self.io).poll_write_vectored(context, data);
            }
        }
        for part in data {
            self.written.extend_from_slice(part);
        }
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathering<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathering<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_take(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_take(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Sends nothing: the end of the turn does.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.lock().failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.lock();
        ready!(gathered.poll_send(context))?;
        Pin::new(&mut gathered.io).poll_shutdown(context)
    }
}

impl<T: AsyncWrite + Unpin> Outlet<T> {
    /// Sends what was written. Why it cannot be sent is told to whoever writes next, who is woken for it.
    fn send(&self, context: &mut Context<'_>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Poll::Ready(Err(error)) = gathered.poll_send(context) {
            gathered.failed = Some(error);
            context.waker().wake_by_ref();
        }
    }
}

pin_project! {
    /// A connection that is served, with what sends its writes at the end of each turn.
    pub(super) struct Turns<C, T> {
        #[pin]
        connection: C,
        outlet: Outlet<T>,
    }
}

impl<C, T> Turns<C, T> {
    pub(super) fn new(connection: C, outlet: Outlet<T>) -> Self {
        Self { connection, outlet }
    }

    /// The connection itself.
    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future, T: AsyncWrite + Unpin> Future for Turns<C, T> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ended = this.connection.poll(context);
        this.outlet.send(context);
        ended
    }
}

#[cfg(test)]
mod tests;
