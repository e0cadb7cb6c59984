//! Bounds the time of a call: what the caller asks for, cut to the maximum, or the default. A call
//! that is not done by then is dropped and answered DEADLINE_EXCEEDED. Handlers find the deadline
//! in the request's extensions, to pass it on.
//!
//! A stream is bounded by what its caller asks for, and by the default only where the table of
//! methods says so. One that is not bounded so is ended with UNAVAILABLE when the server stops, its
//! connection is too old, or who opened it is not known any more: it would not end by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, Ready};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use muster_proto::types::v1::ErrorReason;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tower::Service;

use super::{Inbound, Peer, trailers};
use crate::deadline::{self, Deadline, Malformed};
use crate::server::method::Entry;
use crate::server::stuck::Said;
use crate::status;

/// After which a caller may open again the stream that the server has ended.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What of a body the connection is given at once, which is a frame. It takes another only when the caller
/// has made room for the one before, so no more than this is left with it of a call that has ended.
const PIECE: usize = 16 << 10;

/// How long calls may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Where the caller asks for nothing.
    pub(crate) default: Duration,
    /// Whatever the caller asks for.
    pub(crate) max: Duration,
}

impl Times {
    /// When the call of `entry` has to be over, if ever.
    fn limit(self, entry: &Entry, asked: Option<Duration>) -> Option<Deadline> {
        let bounded = !entry.streams || entry.method.bounded;
        let limit = match (asked, bounded) {
            (asked, true) => Some(asked.unwrap_or(self.default).min(self.max)),
            (asked, false) => asked,
        };
        limit.map(Deadline::after)
    }
}

/// Bounds the time of calls.
#[derive(Debug, Clone)]
pub(crate) struct Deadlines<S> {
    inner: S,
    times: Times,
}

impl<S> Deadlines<S> {
    pub(crate) fn new(inner: S, times: Times) -> Self {
        Self { inner, times }
    }
}

impl<S, B> Service<Inbound> for Deadlines<S>
where
    S: Service<Inbound, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<TimedBody<B>>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Self::Response, Infallible>>, TimedFuture<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        let asked = match deadline::read(inbound.request.headers()) {
            Ok(asked) => asked,
            Err(malformed) => {
                let refused = trailers::response(unreadable(malformed));
                return Either::Left(futures_util::future::ready(Ok(refused)));
            }
        };
        let limit = self.times.limit(&inbound.entry, asked);
        if let Some(deadline) = limit {
            inbound.request.extensions_mut().insert(deadline);
        }
        let streams = inbound.entry.streams;
        let open_ended = inbound.entry.is_open_ended();
        // The peer and not its token, whose own clone takes a lock.
        let ends_with = open_ended.then(|| Arc::clone(&inbound.peer));
        Either::Right(TimedFuture {
            inner: self.inner.call(inbound),
            limit: Limit::new(limit),
            streams,
            ends_with,
        })
    }
}

/// A deadline whose timer starts only when someone has to wait.
struct Limit {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Limit {
    const NONE: Self = Self {
        at: None,
        timer: None,
    };

    fn new(deadline: Option<Deadline>) -> Self {
        Self {
            at: deadline.map(Deadline::instant),
            timer: None,
        }
    }

    fn poll_passed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(context)
    }
}

pin_project! {
    pub(crate) struct TimedFuture<F> {
        #[pin]
        inner: F,
        limit: Limit,
        streams: bool,
        ends_with: Option<Arc<Peer>>,
    }
}

impl<F, B> Future for TimedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = Result<Response<TimedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Poll::Ready(Ok(response)) = this.inner.poll(context) else {
            ready!(this.limit.poll_passed(context));
            return Poll::Ready(Ok(trailers::response(exceeded())));
        };
        let at = this.limit.at;
        let end = this.streams.then(|| {
            let peer = this.ends_with.take();
            End {
                limit: std::mem::replace(this.limit, Limit::NONE),
                last_call: peer.map(|peer| Box::pin(peer.last_call.clone().cancelled_owned())),
            }
        });
        Poll::Ready(Ok(response.map(|inner| TimedBody {
            inner,
            end,
            at,
            rest: Bytes::new(),
        })))
    }
}

/// What ends a stream from outside.
struct End {
    limit: Limit,
    last_call: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl End {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if self.limit.poll_passed(context).is_ready() {
            return Poll::Ready(exceeded());
        }
        match &mut self.last_call {
            Some(last_call) => last_call.as_mut().poll(context).map(|()| stopping()),
            None => Poll::Pending,
        }
    }
}

pin_project! {
    /// A body that ends in time, and is handed out piece by piece.
    pub(crate) struct TimedBody<B> {
        #[pin]
        inner: B,
        // Of a stream.
        end: Option<End>,
        // When the caller has to have taken it, if ever.
        at: Option<Instant>,
        // What is left of a frame.
        rest: Bytes,
    }
}

impl<B> TimedBody<B> {
    pub(crate) fn bare(inner: B) -> Self {
        Self {
            inner,
            end: None,
            at: None,
            rest: Bytes::new(),
        }
    }
}

impl<B: Default> Default for TimedBody<B> {
    fn default() -> Self {
        Self::bare(B::default())
    }
}

impl<B: HttpBody<Data = Bytes> + Default> HttpBody for TimedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        // A stream that always has something more must not outrun its end either.
        if let Some(end) = this.end.as_mut()
            && let Poll::Ready(status) = end.poll(context)
        {
            *this.end = None;
            *this.rest = Bytes::new();
            this.inner.set(B::default());
            Said::Nothing.tell();
            return Poll::Ready(Some(Ok(trailers::frame(&status))));
        }
        let mut polled = match this.rest.is_empty() {
            true => this.inner.poll_frame(context),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.rest))))),
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(data) = frame.data_mut()
        {
            *this.rest = data.split_off(data.len().min(PIECE));
            Said::Piece(*this.at).tell();
        } else {
            Said::Nothing.tell();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest.is_empty() {
            true => self.inner.size_hint(),
            false => SizeHint::default(),
        }
    }
}

fn exceeded() -> Status {
    status::deadline_exceeded("not done by the deadline")
}

fn stopping() -> Status {
    const MESSAGE: &str = "the process is stopping, the connection is too old, or who may call has \
        changed: open it again";
    status::unavailable(ErrorReason::ShuttingDown, MESSAGE, REOPEN_AFTER).into_status()
}

fn unreadable(malformed: Malformed) -> Status {
    status::invalid_field(deadline::HEADER, malformed.to_string())
}
