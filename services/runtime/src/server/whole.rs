//! A request's body that is read to its end even if its call was answered before. What comes of a body
//! that was dropped half way is charged to its connection by h2 for good, and thousands of calls that
//! were refused before their bodies had come would cost all the others their connection.
//!
//! Nothing is kept of what is read then. A body that goes on for too long or too far is dropped, and its
//! stream is reset; until then the stream counts among those that its connection may have.
//!
//! A request that is kept until it is whole has its own time to come, and all of them together have so much
//! memory: a call's place says nothing of how much its caller has sent of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::codegen::StdError;

use crate::layers::shed::overloaded;
use crate::{status, task};

/// What is read of a body that nobody wants; more is a call that never ends.
const AT_MOST: usize = 64 * 1024;

/// What a request may have without taking of the room, which most stay within: a reader's first buffer is as large.
const UNCOUNTED: usize = 8 << 10;

/// For a request to be whole.
const WITHIN: Duration = Duration::from_secs(30);

/// The body of a request.
pub(super) struct Whole {
    body: Option<Incoming>,
    patience: Duration,
    /// Of a request that is kept until it is whole.
    kept: Option<Kept>,
}

impl Whole {
    /// Of `body`, whose rest has `patience` to come once nobody wants it. One that is kept until it is whole
    /// takes of `room`.
    pub(super) fn new(body: Incoming, patience: Duration, room: Option<&Arc<Room>>) -> Self {
        Self {
            body: Some(body),
            patience,
            kept: room.map(Kept::new),
        }
    }
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let Self { body, kept, .. } = &mut *self;
        let Some(body) = body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        let Some(kept) = kept else {
            return polled.map_err(Into::into);
        };
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => return kept.poll_late(context).map(|late| Some(Err(late.into()))),
        };
        let length = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        Poll::Ready(match kept.grow(length) {
            Ok(()) => frame.map(|frame| frame.map_err(Into::into)),
            Err(refused) => Some(Err(refused.into())),
        })
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

/// The memory for the requests of one server.
#[derive(Debug)]
pub(super) struct Room {
    left: AtomicUsize,
    refused: AtomicU64,
}

impl Room {
    /// Of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            left: AtomicUsize::new(bytes),
            refused: AtomicU64::new(0),
        }
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        const MESSAGE: &str = "the requests that are coming take more memory than they have";
        let less = |left: usize| left.checked_sub(bytes);
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        {
            Ok(_) => Ok(()),
            Err(_) => {
                let before = self.refused.fetch_add(1, Ordering::Relaxed);
                Err(overloaded(MESSAGE, before))
            }
        }
    }
}

/// A request that is kept until it is whole.
struct Kept {
    room: Arc<Room>,
    length: usize,
    /// What of the room it has.
    taken: usize,
    /// Once it had to be waited for.
    until: Option<Pin<Box<Sleep>>>,
}

impl Kept {
    fn new(room: &Arc<Room>) -> Self {
        Self {
            room: Arc::clone(room),
            length: 0,
            taken: 0,
            until: None,
        }
    }

    /// Takes room for `more` bytes.
    fn grow(&mut self, more: usize) -> Result<(), Status> {
        self.length += more;
        if more > 0 && self.length > UNCOUNTED {
            let missing = self.length - self.taken;
            self.room.take(missing)?;
            self.taken += missing;
        }
        Ok(())
    }

    /// Resolves when it should have been whole.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(WITHIN)));
        until.as_mut().poll(context).map(|()| late())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

fn late() -> Status {
    status::deadline_exceeded(format!("the request was not whole within {WITHIN:?}"))
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

    use tonic::Code;

    use super::*;
    use crate::status::Details;

    #[test]
    fn requests_take_of_the_room_beyond_their_first_bytes_and_give_it_back() {
        let room = Arc::new(Room::new(100 << 10));
        let left = || room.left.load(Ordering::Relaxed) >> 10;
        let mut small: Vec<_> = (0..100).map(|_| Kept::new(&room)).collect();
        for one in &mut small {
            one.grow(UNCOUNTED).unwrap();
        }
        assert_eq!(left(), 100);
        let (mut first, mut second) = (Kept::new(&room), Kept::new(&room));
        for _ in 0..4 {
            first.grow(16 << 10).unwrap();
        }
        assert_eq!(left(), 36);
        let refused = second.grow(40 << 10).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let details = Details::of(&refused);
        assert_eq!(details.reason, "OVERLOADED");
        assert!(details.retry_delay.is_some());
        drop(second);
        assert_eq!(left(), 36);
        drop(first);
        Kept::new(&room).grow(100 << 10).unwrap();
        assert_eq!(left(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_its_time_to_be_whole_however_it_trickles() {
        let mut kept = Kept::new(&Arc::new(Room::new(1 << 20)));
        let begun = tokio::time::Instant::now();
        let late = std::future::poll_fn(|context| {
            kept.grow(1).unwrap();
            kept.poll_late(context)
        });
        let late = tokio::time::timeout(WITHIN * 2, late).await.unwrap();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert!(begun.elapsed() < WITHIN + Duration::from_secs(1));
    }

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
