//! Sees each call from its headers to the end of its body: how long it took and how it ended, as a
//! metric, as a span where traces are wanted, and in the log where it is our fault. It changes
//! nothing about a call.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tonic::Code;
use tower::Service;
use tracing::Span;

use super::shed::Load;
use super::{Inbound, trailers};
use crate::age::Age;
use crate::metrics::Metrics;
use crate::server::method::Entry;
use crate::status::code_name;
use crate::telemetry::inbound;

/// Upper bounds in seconds: the semantic conventions' list, with finer ones below, since most calls
/// here take well under 5 ms.
const BUCKETS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Codes of gRPC, 0 to 16.
const CODES: usize = 17;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    rpc_system_name: &'static str,
    rpc_method: &'static str,
    rpc_response_status_code: &'static str,
}

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of calls: of a server, and of one of its methods.
#[derive(Debug, Clone)]
pub(crate) struct CallMetrics {
    durations: Durations,
    active: Gauge,
    panics: Counter,
    load: Load,
    age: Age,
    method: &'static str,
    by_code: Arc<[OnceLock<Histogram>; CODES]>,
}

impl CallMetrics {
    /// Registers them. `load` gets the times of calls that are no streams.
    pub(crate) fn new(metrics: &Metrics, load: Load, age: Age) -> Self {
        let durations = Durations::new_with_constructor(|| Histogram::new(BUCKETS));
        Self {
            durations: metrics.register_seconds(
                "rpc_server_call_duration",
                "How long calls took, from their headers to the end of their answer",
                durations,
            ),
            active: metrics.register(
                "rpc_server_active_calls",
                "Calls and streams that run",
                Gauge::default(),
            ),
            panics: metrics.register(
                "rpc_server_panics",
                "Handlers that panicked",
                Counter::default(),
            ),
            load,
            age,
            method: "_OTHER",
            by_code: Arc::default(),
        }
    }

    /// Those of the method at `path`.
    pub(crate) fn of_method(&self, path: &'static str) -> Self {
        let method = path.strip_prefix('/').unwrap_or(path);
        Self {
            method,
            by_code: Arc::default(),
            ..self.clone()
        }
    }

    /// A handler has panicked.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    fn duration_of(&self, code: Code) -> &Histogram {
        let labels = || Labels {
            rpc_system_name: "grpc",
            rpc_method: self.method,
            rpc_response_status_code: code_name(code),
        };
        let slot = usize::try_from(code as i32).unwrap_or(0).min(CODES - 1);
        self.by_code[slot].get_or_init(|| self.durations.get_or_create(&labels()).clone())
    }
}

/// Observes the calls to `inner`.
#[derive(Debug, Clone)]
pub(crate) struct Observe<S> {
    inner: S,
}

impl<S> Observe<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Inbound> for Observe<S>
where
    S: Service<Inbound, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<ObservedBody<B>>;
    type Error = Infallible;
    type Future = ObservedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let mut call = Observed::new(&inbound);
        let inner = call.within(|| self.inner.call(inbound));
        ObservedFuture {
            inner,
            call: Some(call),
        }
    }
}

/// A call that is observed; what it comes to is told once, at the latest when this is dropped.
struct Observed {
    entry: Arc<Entry>,
    started: Instant,
    span: Span,
    /// How the call has ended if this is dropped now.
    if_dropped: Code,
    told: bool,
}

impl Observed {
    fn new(inbound: &Inbound) -> Self {
        let entry = Arc::clone(&inbound.entry);
        entry.metrics.active.inc();
        let span = inbound::span(
            entry.metrics.method,
            inbound.request.headers(),
            inbound.peer.address,
        );
        Self {
            entry,
            started: Instant::now(),
            span,
            if_dropped: Code::Cancelled,
            told: false,
        }
    }

    /// Works on the call, in its span. A panic in there ends the call with INTERNAL.
    fn within<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let _inside = self.span.enter();
        self.if_dropped = Code::Internal;
        let done = work();
        self.if_dropped = Code::Cancelled;
        done
    }

    fn tell(&mut self, code: Code) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let took = self.started.elapsed();
        let metrics = &self.entry.metrics;
        metrics.active.dec();
        metrics.duration_of(code).observe(took.as_secs_f64());
        if !self.entry.streams {
            metrics.load.took(took);
        }
        inbound::ended(&self.span, code);
        let _inside = self.span.enter();
        if matches!(code, Code::Internal | Code::Unknown | Code::DataLoss) {
            tracing::warn!(
                rpc.method = metrics.method,
                code = code_name(code),
                ?took,
                "call failed"
            );
        } else {
            tracing::debug!(
                rpc.method = metrics.method,
                code = code_name(code),
                ?took,
                "call ended"
            );
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.tell(self.if_dropped);
    }
}

pin_project! {
    pub(crate) struct ObservedFuture<F> {
        #[pin]
        inner: F,
        // None once the response is there.
        call: Option<Observed>,
    }
}

impl<F, B> Future for ObservedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<ObservedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.call.as_mut() {
            Some(call) => call.within(|| this.inner.poll(context)),
            None => this.inner.poll(context),
        };
        polled.map(|Ok(mut response)| {
            let mut call = this.call.take();
            if let Some(call) = &call {
                call.entry.metrics.age.tell(response.headers_mut());
            }
            if let Some(code) = trailers::code_in(response.headers())
                && let Some(mut call) = call.take()
            {
                call.tell(code);
            }
            Ok(response.map(|inner| ObservedBody { inner, call }))
        })
    }
}

pin_project! {
    /// A body whose end tells how the call ended.
    #[derive(Default)]
    pub(crate) struct ObservedBody<B> {
        #[pin]
        inner: B,
        // None once that is told, and for a call that is not observed.
        call: Option<Observed>,
    }
}

impl<B> ObservedBody<B> {
    pub(crate) fn bare(inner: B) -> Self {
        Self { inner, call: None }
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for ObservedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let Some(call) = this.call.as_mut() else {
            return this.inner.poll_frame(context);
        };
        let polled = call.within(|| this.inner.poll_frame(context));
        let code = match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.trailers_ref() {
                Some(trailers) => trailers::code_in(trailers).unwrap_or(Code::Unknown),
                None => return polled,
            },
            // A body that breaks off, or ends without a status, is taken so by the caller too.
            Poll::Ready(Some(Err(_)) | None) => Code::Unknown,
            Poll::Pending => return polled,
        };
        call.tell(code);
        *this.call = None;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
