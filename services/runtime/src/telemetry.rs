//! Logs and traces of a process: where they go, and whether they arrive. Logs go to stderr, one
//! line each; traces go to an OTLP collector if the environment names one
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`; the sampler and the rest are set by OpenTelemetry's own
//! variables). It decides nothing about what is logged.
//!
//! The subscriber is the one thing that a process has only once, by the nature of `tracing`.

mod export;
pub(crate) mod inbound;
pub mod root;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry};

use self::export::Deliveries;
use crate::args::LogFormat;
use crate::context::{Context, Identity};
use crate::health::Tier;
use crate::health::poll::{self, Pace};
use crate::shutdown::Phase;
use crate::task;

/// For the last spans to reach the collector.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// Why there can be no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter of log lines cannot be read.
    #[error("log filter: {0}")]
    Filter(#[from] ParseError),
    /// Another subscriber is installed already.
    #[error(transparent)]
    Installed(#[from] TryInitError),
}

/// The telemetry of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    export: Option<Export>,
}

#[derive(Debug, Clone)]
struct Export {
    provider: SdkTracerProvider,
    deliveries: Arc<Deliveries>,
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

impl Telemetry {
    /// Starts logs, and traces if a collector is named, for the process that `identity` names.
    /// Needs a tokio runtime around it, on which spans are sent off. Panics are logged from now on.
    pub fn start(identity: &Identity, format: LogFormat, filter: &str) -> Result<Self, Error> {
        let filter = EnvFilter::try_new(filter)?;
        let logs = log_layer(format, io::stderr).with_filter(filter);
        let (traces, export, trouble) = match export::start(identity) {
            None => (None, None, None),
            Some(Ok((layer, export))) => (Some(layer), Some(export), None),
            Some(Err(error)) => (None, None, Some(error)),
        };
        Registry::default().with(traces).with(logs).try_init()?;
        log_panics();
        if let Some(error) = trouble {
            tracing::error!(error, "traces are not exported");
        }
        Ok(Self { export })
    }

    /// Whether the environment names a collector of traces.
    pub fn is_wanted() -> bool {
        export::is_wanted()
    }

    /// Shows in `context` whether spans arrive, and sends off the last ones when it shuts down.
    pub fn attach(&self, context: &Context) {
        let Some(export) = self.export.clone() else {
            return;
        };
        export.deliveries.register(&context.metrics);
        let deliveries = Arc::clone(&export.deliveries);
        let check = ("telemetry", Tier::Auxiliary, Pace::default());
        poll::start(
            &context.health,
            &context.tasks,
            &context.shutdown,
            check,
            move || std::future::ready(deliveries.verdict()),
        );
        let telemetry = self.clone();
        let limit = FLUSH_WITHIN + Duration::from_secs(1);
        context
            .shutdown
            .step(Phase::Telemetry, "traces", limit, move || telemetry.end());
    }

    /// Sends off what is left. For who has no component to attach to.
    pub async fn end(self) -> Result<(), String> {
        let Some(Export { provider, .. }) = self.export else {
            return Ok(());
        };
        // It blocks its thread until the collector has answered.
        let flushed = task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_WITHIN));
        match flushed.await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn log_layer<S, W>(format: LogFormat, writer: W) -> BoxedLayer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Pretty => fmt::layer()
            .compact()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(writer)
            .boxed(),
    }
}

/// Makes a log line of each panic, where the default is lines that no collector can read.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let words = crate::panic::said(info.payload());
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        tracing::error!(words, place, thread, "panic");
    }));
}
