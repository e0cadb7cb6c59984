//! How many calls are in flight, over all connections and with open streams counted to their end.
//! Beyond the limit a call is refused at once with UNAVAILABLE and the time after which another try
//! may work. What tells that someone is alive has a lane of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, Ready};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use muster_proto::types::v1::ErrorReason;
use pin_project_lite::pin_project;
use tower::Service;

use super::{Inbound, trailers};
use crate::metrics::recent::Recent;
use crate::status;

/// The shortest time after which a refused caller may try again; up to as much again is added, so
/// that those refused together do not come back together.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Which crowd a call counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The one that most calls share.
    Shared,
    /// The one of calls that others must not crowd out.
    Vital,
}

/// The calls in flight of one component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Load(Arc<Lanes>);

#[derive(Debug)]
struct Lanes {
    shared: LaneLoad,
    vital: LaneLoad,
    recent: Recent,
    queues: Mutex<BTreeMap<&'static str, Length>>,
}

/// Asks how long a queue is.
struct Length(Box<dyn Fn() -> usize + Send + Sync>);

impl std::fmt::Debug for Length {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}", (self.0)())
    }
}

#[derive(Debug)]
struct LaneLoad {
    limit: usize,
    open: AtomicUsize,
    refused: AtomicU64,
}

impl LaneLoad {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            open: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Load {
    /// At most `shared` and `vital` calls in flight in the two lanes.
    pub fn new(shared: usize, vital: usize) -> Self {
        Self(Arc::new(Lanes {
            shared: LaneLoad::new(shared),
            vital: LaneLoad::new(vital),
            recent: Recent::default(),
            queues: Mutex::default(),
        }))
    }

    /// Calls in flight in `lane`.
    pub fn in_flight(&self, lane: Lane) -> usize {
        self.lane(lane).open.load(Ordering::Relaxed)
    }

    /// Calls refused in `lane` so far. One refused in the vital lane says that this process was the
    /// one that did not listen.
    pub fn refused(&self, lane: Lane) -> u64 {
        self.lane(lane).refused.load(Ordering::Relaxed)
    }

    /// The time that 99 of 100 calls of the last minute did not exceed, streams not counted;
    /// `None` without calls.
    pub fn p99(&self) -> Option<Duration> {
        self.0.recent.quantile(0.99)
    }

    /// Shows the length of the queue `name`, which `length` tells at once, on the ops port.
    pub fn show_queue(
        &self,
        name: &'static str,
        length: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.queues_lock().insert(name, Length(Box::new(length)));
    }

    /// How long each queue is that is shown.
    pub fn queues(&self) -> BTreeMap<&'static str, usize> {
        self.queues_lock()
            .iter()
            .map(|(name, length)| (*name, (length.0)()))
            .collect()
    }

    fn queues_lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Length>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that is no stream took `took`.
    pub(crate) fn took(&self, took: Duration) {
        self.0.recent.observe(took);
    }

    /// Takes a place in `lane`. `Err` is how many were refused before.
    fn take(&self, lane: Lane) -> Result<Place, u64> {
        let load = self.lane(lane);
        let place = Place {
            load: self.clone(),
            lane,
        };
        if load.open.fetch_add(1, Ordering::Relaxed) < load.limit {
            Ok(place)
        } else {
            Err(load.refused.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn lane(&self, lane: Lane) -> &LaneLoad {
        match lane {
            Lane::Shared => &self.0.shared,
            Lane::Vital => &self.0.vital,
        }
    }
}

/// A place among the calls in flight; given back when dropped.
#[derive(Debug)]
struct Place {
    load: Load,
    lane: Lane,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load
            .lane(self.lane)
            .open
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses calls beyond the limits of `load`.
#[derive(Debug, Clone)]
pub(crate) struct Shed<S> {
    inner: S,
    load: Load,
}

impl<S> Shed<S> {
    pub(crate) fn new(inner: S, load: Load) -> Self {
        Self { inner, load }
    }
}

impl<S, B> Service<Inbound> for Shed<S>
where
    S: Service<Inbound, Response = Response<B>, Error = Infallible>,
    B: Default,
{
    type Response = Response<PlacedBody<B>>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Self::Response, Infallible>>, PlacedFuture<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        match self.load.take(inbound.entry.method.lane) {
            Ok(place) => Either::Right(PlacedFuture {
                inner: self.inner.call(inbound),
                place: Some(place),
            }),
            Err(before) => {
                const MESSAGE: &str = "more calls are in flight than are taken";
                let refused = trailers::response(overloaded(MESSAGE, before));
                Either::Left(futures_util::future::ready(Ok(refused)))
            }
        }
    }
}

pin_project! {
    pub(crate) struct PlacedFuture<F> {
        #[pin]
        inner: F,
        place: Option<Place>,
    }
}

impl<F, B> Future for PlacedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<PlacedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(context));
        let place = this.place.take();
        Poll::Ready(Ok(response.map(|inner| PlacedBody { inner, place })))
    }
}

pin_project! {
    /// A body that keeps its call's place until it ends.
    #[derive(Default)]
    pub(crate) struct PlacedBody<B> {
        #[pin]
        inner: B,
        place: Option<Place>,
    }
}

impl<B> PlacedBody<B> {
    pub(crate) fn bare(inner: B) -> Self {
        Self { inner, place: None }
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for PlacedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Refuses a call for want of what `message` says, after so many were refused `before`.
pub(crate) fn overloaded(message: &str, before: u64) -> tonic::Status {
    // Steps of the golden ratio spread any number of callers evenly.
    let spread = u32::try_from(before.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33).unwrap_or(0);
    let wait = RETRY_AFTER + RETRY_AFTER.mul_f64(f64::from(spread) / f64::from(u32::MAX >> 1));
    status::unavailable(ErrorReason::Overloaded, message, wait).into_status()
}
