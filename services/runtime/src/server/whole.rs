//! A request's body that is read to its end even if its call was answered before. What comes of a body
//! that was dropped half way is charged to its connection by h2 for good, and thousands of calls that
//! were refused before their bodies had come would cost all the others their connection.
//!
//! Nothing is kept of what is read. A body that goes on for too long or too far is dropped, and its
//! stream is reset; until then the stream counts among those that its connection may have.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::task;

/// What is read of a body that nobody wants; more is a call that never ends.
const AT_MOST: usize = 64 * 1024;

/// The body of a request.
pub(super) struct Whole {
    body: Option<Incoming>,
    patience: Duration,
}

impl Whole {
    /// Of `body`, whose rest has `patience` to come once nobody wants it.
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        let body = Some(body);
        Self { body, patience }
    }
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        // Without a runtime the connection ends as well.
        if let Some(body) = body
            && tokio::runtime::Handle::try_current().is_ok()
        {
            task::spawn(tokio::time::timeout(self.patience, read_off(body)));
        }
    }
}

async fn read_off(mut body: impl HttpBody<Data = Bytes> + Unpin) {
    let mut left = AT_MOST;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn a_body_without_an_end_is_read_no_further_than_its_bound() {
        let mut frames = 0;
        let endless = std::iter::repeat_with(|| {
            frames += 1;
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(&[0; 1024])))
        });
        read_off(StreamBody::new(tokio_stream::iter(endless))).await;
        assert_eq!(frames * 1024, AT_MOST + 1024);
    }
}
