//! The span that a program begins with which is told what to do once, such as a command: a trace of
//! its own, or the one that its caller names in the environment.

use std::collections::HashMap;
use std::env;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Where a caller names its trace, by OpenTelemetry's convention: W3C trace context.
const VARIABLES: [(&str, &str); 2] = [("TRACEPARENT", "traceparent"), ("TRACESTATE", "tracestate")];

/// The span of the command `name`.
pub fn command(name: &str) -> Span {
    let span = info_span!("command", otel.name = name, otel.kind = "internal");
    let given: HashMap<String, String> = VARIABLES
        .iter()
        .filter_map(|(variable, header)| Some(((*header).to_owned(), env::var(variable).ok()?)))
        .collect();
    // Fails only where no layer exports traces.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&given));
    span
}
