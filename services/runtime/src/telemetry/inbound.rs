//! The span of an inbound call, with the caller's trace as its parent. There is one where the
//! process exports traces, or where the caller sent a trace that log lines are to name; elsewhere
//! it is the empty span, which costs nothing.

use std::net::SocketAddr;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::status::code_name;

/// The W3C header that names the caller's trace.
const TRACEPARENT: &str = "traceparent";

/// The target of call spans. Where traces are exported, the filter lets its debug level pass, which
/// is how it is known here that spans are wanted.
pub(crate) const TARGET: &str = "muster_runtime::rpc";

/// The span of a call to `method` (`package.Service/Method`).
pub(crate) fn span(method: &'static str, headers: &HeaderMap, peer: SocketAddr) -> Span {
    let traced = headers.contains_key(TRACEPARENT);
    if !traced && !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: TARGET,
        "call",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = field::Empty,
        client.address = %peer.ip(),
        trace_id = field::Empty,
    );
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    let sent = parent.span().span_context().trace_id();
    // Fails only where no layer exports traces, and then the caller's trace is all there is.
    let _ = span.set_parent(parent);
    let own = span.context().span().span_context().trace_id();
    let trace = if own == opentelemetry::TraceId::INVALID {
        sent
    } else {
        own
    };
    span.record("trace_id", field::display(trace));
    span
}

/// Notes how the call of `span` has ended.
pub(crate) fn ended(span: &Span, code: Code) {
    if span.is_none() {
        return;
    }
    span.record("rpc.response.status_code", code_name(code));
    if is_servers_fault(code) {
        span.record("otel.status_code", "ERROR");
    }
}

/// Which codes the semantic conventions take for an error of the server's span.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
