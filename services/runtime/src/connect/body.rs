//! An answer's body, watched to its end: the call's deadline holds for it too, a silent watch is
//! ended, and what breaks is a status.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::Endpoint;
use super::failure;
use super::observe::Observation;

/// What bounds an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) deadline: Option<Instant>,
    pub(super) silence: Option<Duration>,
}

/// The body of an answer to a call on a [`super::Channel`].
#[derive(Debug)]
pub struct ResponseBody {
    inner: Incoming,
    endpoint: Endpoint,
    bounds: Bounds,
    /// When the peer was last heard.
    heard: Instant,
    /// Made at the first wait: most answers are complete when they come.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
    observation: Observation,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        endpoint: Endpoint,
        bounds: Bounds,
        observation: Observation,
    ) -> Self {
        let heard = Instant::now();
        Self {
            inner,
            endpoint,
            bounds,
            heard,
            timer: None,
            ended: false,
            observation,
        }
    }

    fn fail(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.ended = true;
        self.observation.end(status.code());
        Some(Err(status))
    }

    /// The next time at which something is to be decided, if any.
    fn due(&self) -> Option<Instant> {
        let silent_at = self.bounds.silence.map(|silence| self.heard + silence);
        [self.bounds.deadline, silent_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// That the deadline has passed, if it has.
    fn late(&self, now: Instant) -> Option<Status> {
        let is_late = self.bounds.deadline.is_some_and(|deadline| now >= deadline);
        is_late.then(|| failure::out_of_time(&format!("while {} was answering", self.endpoint)))
    }

    /// What has passed, if anything has.
    fn overdue(&self, now: Instant) -> Option<Status> {
        if let Some(late) = self.late(now) {
            return Some(late);
        }
        let silence = self.bounds.silence?;
        (now >= self.heard + silence).then(|| failure::silent(&self.endpoint, silence))
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        while let Some(due) = self.due() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            // Each frame moves `due`, but the timer is moved only when it fires.
            if timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if let Some(status) = self.overdue(Instant::now()) {
                return Poll::Ready(status);
            }
        }
        Poll::Pending
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut body.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                // Of a peer that always says something more nobody would ever have to wait.
                if frame.is_data()
                    && let Some(late) = body.late(Instant::now())
                {
                    return Poll::Ready(body.fail(late));
                }
                if body.bounds.silence.is_some() {
                    body.heard = Instant::now();
                }
                if let Some(trailers) = frame.trailers_mut() {
                    failure::drop_malformed_details(trailers);
                    body.observation.end_if_said(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let status = failure::broken(&body.endpoint, &error);
                Poll::Ready(body.fail(status))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => body.poll_timer(context).map(|status| body.fail(status)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
