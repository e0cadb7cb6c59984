//! A handler that panics is answered INTERNAL, where tonic would break the connection's stream and
//! the caller would see CANCELLED. The panic itself is logged; the caller learns nothing of it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

use super::{Inbound, trailers};
use crate::panic::{Panicked, catch};
use crate::server::method::Entry;
use crate::status;

/// Catches the panics of `inner`.
#[derive(Debug, Clone)]
pub(crate) struct Catch<S> {
    inner: S,
}

impl<S> Catch<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Inbound> for Catch<S>
where
    S: Service<Inbound, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<CatchBody<B>>;
    type Error = Infallible;
    type Future = CatchFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let entry = Arc::clone(&inbound.entry);
        let inner = catch(|| self.inner.call(inbound));
        match inner {
            Ok(inner) => CatchFuture {
                inner: Some(inner),
                entry,
            },
            Err(panicked) => {
                tell(&entry, &panicked);
                CatchFuture { inner: None, entry }
            }
        }
    }
}

pin_project! {
    pub(crate) struct CatchFuture<F> {
        #[pin]
        inner: Option<F>,
        entry: Arc<Entry>,
    }
}

impl<F, B> Future for CatchFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Default,
{
    type Output = Result<Response<CatchBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(Ok(trailers::response(status::internal())));
        };
        match catch(|| inner.poll(context)) {
            Ok(polled) => {
                let Ok(response) = ready!(polled);
                let entry = Arc::clone(this.entry);
                let watched = |inner| CatchBody {
                    inner,
                    entry: Some(entry),
                };
                Poll::Ready(Ok(response.map(watched)))
            }
            Err(panicked) => {
                tell(this.entry, &panicked);
                this.inner.set(None);
                Poll::Ready(Ok(trailers::response(status::internal())))
            }
        }
    }
}

pin_project! {
    /// A body whose panic ends it with INTERNAL.
    pub(crate) struct CatchBody<B> {
        #[pin]
        inner: B,
        // None once the body has panicked, and for one that is not watched.
        entry: Option<Arc<Entry>>,
    }
}

impl<B> CatchBody<B> {
    pub(crate) fn bare(inner: B) -> Self {
        Self { inner, entry: None }
    }
}

impl<B: Default> Default for CatchBody<B> {
    fn default() -> Self {
        Self::bare(B::default())
    }
}

impl<B: HttpBody<Data = Bytes> + Default> HttpBody for CatchBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        match catch(|| this.inner.as_mut().poll_frame(context)) {
            Ok(polled) => polled,
            Err(panicked) => {
                if let Some(entry) = this.entry.take() {
                    tell(&entry, &panicked);
                }
                this.inner.set(B::default());
                Poll::Ready(Some(Ok(trailers::frame(&status::internal()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn tell(entry: &Entry, panicked: &Panicked) {
    entry.metrics.panicked();
    tracing::error!(rpc.method = entry.method.path, error = %panicked, "handler panicked");
}
