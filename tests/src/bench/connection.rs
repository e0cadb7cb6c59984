//! A connection of a bench's client. A request goes out whole, its end with its message, as our own clients
//! send it; tonic's channel sends the end apart, and so writes, and wakes the server, twice for each message
//! of 256 bytes or more.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{self, Channel, Endpoint};

/// An open connection; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Connection(Channel);

impl Connection {
    /// Connects to `address`, without TLS.
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(5))
            // As our own clients have it: a page of 2 MiB in one go.
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.context("cannot connect")?;
        Ok(Self(channel))
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        self.0.call(request.map(|body| Body::new(Ahead::of(body))))
    }
}

/// A body that knows with each frame whether it is the last: it has the next one ready, if that can be had.
struct Ahead {
    body: Body,
    next: Option<Result<Frame<Bytes>, Status>>,
    ended: bool,
}

impl Ahead {
    fn of(body: Body) -> Self {
        Self {
            body,
            next: None,
            ended: false,
        }
    }

    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.ended = matches!(polled, Poll::Ready(None));
        polled
    }
}

impl HttpBody for Ahead {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match self.next.take() {
            Some(frame) => Some(frame),
            None => ready!(self.poll_body(context)),
        };
        if let Poll::Ready(next) = self.poll_body(context) {
            self.next = next;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn the_last_frame_is_known_to_be_the_last() {
        let parts = ["one", "two"].map(|part| Ok::<_, Status>(Frame::data(Bytes::from(part))));
        let body = StreamBody::new(tokio_stream::iter(parts));
        let mut ahead = Ahead::of(Body::new(body));
        for (part, is_last) in [("one", false), ("two", true)] {
            let frame = ahead.frame().await.unwrap().unwrap();
            assert_eq!(frame.data_ref().unwrap(), part);
            assert_eq!(ahead.is_end_stream(), is_last, "{part}");
        }
        assert!(ahead.frame().await.is_none());
    }
}
