//! What the gateway tells of its backends, for Prometheus. What a refresh came to is counted as it
//! ends; how a backend stands is read off the board when asked for, so that a backend that goes takes
//! its series with it. It is told; it judges nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::Clock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use crate::board::{Board, State};
use crate::domain::backend::{Fault, Standing};
use crate::domain::breaker;
use crate::domain::report::{Data, Refresh, Report};

/// The gateway's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    durations: Family<OfBackend, Histogram, Buckets>,
    refreshes: Family<WithOutcome, Counter>,
    left_out: Family<WithReason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBackend {
    backend: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithOutcome {
    backend: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithReason {
    backend: Arc<str>,
    reason: &'static str,
}

/// What a refresh came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It brought offers.
    Offers,
    /// It brought word that nothing has changed.
    Unchanged,
}

impl Came {
    fn name(came: Result<Self, &Fault>) -> &'static str {
        match came {
            Ok(Self::Offers) => OUTCOMES[0],
            Ok(Self::Unchanged) => OUTCOMES[1],
            Err(fault) if fault.timed_out => OUTCOMES[2],
            Err(_) => OUTCOMES[3],
        }
    }
}

/// Every outcome of a refresh.
const OUTCOMES: [&str; 4] = ["offers", "unchanged", "timed_out", "failed"];

/// Every reason for which an answer lacks a backend's offers.
const REASONS: [&str; 6] = [
    "not_read_yet",
    "timed_out",
    "failed",
    "breaker_open",
    "disabled",
    "too_old",
];

/// From a look at a file's date to the slowest of live APIs, in seconds.
const DURATIONS: [f64; 11] = [
    0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0,
];

#[derive(Clone, Copy, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(DURATIONS)
    }
}

impl Metrics {
    /// Registers them; `board` is read whenever they are asked for.
    pub fn new(registry: &muster_runtime::metrics::Metrics, board: &Board, clock: &Clock) -> Self {
        registry.collect(Stands {
            board: board.clone(),
            clock: clock.clone(),
        });
        Self {
            durations: registry.register_seconds(
                "muster_backend_refresh_duration",
                "How long refreshes of a backend took, with all their attempts",
                Family::new_with_constructor(Buckets),
            ),
            refreshes: registry.register(
                "muster_backend_refreshes",
                "Refreshes of a backend that ended, by outcome",
                Family::default(),
            ),
            left_out: registry.register(
                "muster_backend_left_out",
                "Answers that lack a backend's offers, by reason",
                Family::default(),
            ),
        }
    }

    /// A refresh ended that took so long.
    pub(crate) fn refreshed(&self, backend: &Arc<str>, took: Duration, came: Result<Came, &Fault>) {
        let label = OfBackend {
            backend: Arc::clone(backend),
        };
        self.durations
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        let label = WithOutcome {
            backend: Arc::clone(backend),
            outcome: Came::name(came),
        };
        self.refreshes.get_or_create(&label).inc();
    }

    /// An answer has no offers of a backend, because of what is reported of it.
    pub(crate) fn left_out(&self, standing: &Standing, report: &Report) {
        if let Some(reason) = reason(standing, report) {
            let label = WithReason {
                backend: standing.facts.name.as_str().into(),
                reason,
            };
            self.left_out.get_or_create(&label).inc();
        }
    }

    /// A backend is gone: so is all that was counted of it.
    pub(crate) fn forget(&self, backend: &str) {
        let backend: Arc<str> = backend.into();
        self.durations.remove(&OfBackend {
            backend: Arc::clone(&backend),
        });
        for outcome in OUTCOMES {
            self.refreshes.remove(&WithOutcome {
                backend: Arc::clone(&backend),
                outcome,
            });
        }
        for reason in REASONS {
            self.left_out.remove(&WithReason {
                backend: Arc::clone(&backend),
                reason,
            });
        }
    }
}

/// Why an answer lacks a backend's offers; none if it has them.
fn reason(standing: &Standing, report: &Report) -> Option<&'static str> {
    if report.data != Data::None {
        return None;
    }
    Some(match report.refresh {
        _ if standing.dropped => REASONS[5],
        Refresh::NotTried | Refresh::Ok => REASONS[0],
        Refresh::TimedOut => REASONS[1],
        Refresh::Failed => REASONS[2],
        Refresh::BreakerOpen => REASONS[3],
        Refresh::Disabled => REASONS[4],
    })
}

/// How every backend stands, read when asked for.
#[derive(Debug)]
struct Stands {
    board: Board,
    clock: Clock,
}

impl Collector for Stands {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (state, now) = (self.board.state(), self.clock.now());
        let mut gauges = |name: &str, help: &str, unit: Option<&Unit>, values: &Values<'_>| {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for (labels, value) in values {
                ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
            }
            Ok::<(), fmt::Error>(())
        };
        gauges(
            "muster_backend_age",
            "Time since a backend's offers were read",
            Some(&Unit::Seconds),
            &each(&state, |standing| {
                standing.age(now).map(|age| age.as_secs_f64())
            }),
        )?;
        gauges(
            "muster_backend_offers",
            "Offers that are shown of a backend",
            None,
            &each(&state, |standing| {
                let shown = standing.shown().map(|told| told.snapshot.len());
                Some(count(shown.unwrap_or_default()))
            }),
        )?;
        gauges(
            "muster_backend_skipped_rows",
            "Rows of a backend's last answer that could not be used",
            None,
            &each(&state, |standing| {
                let told = standing.told.as_ref()?;
                Some(f64::from(told.snapshot.intake().skipped_rows()))
            }),
        )?;
        gauges(
            "muster_backend_breaker_state",
            "1 for the state that a backend's breaker is in",
            None,
            &breakers(&state),
        )
    }
}

type Labels<'a> = Vec<(&'a str, &'a str)>;
type Values<'a> = Vec<(Labels<'a>, f64)>;

fn each(state: &State, value: impl Fn(&Standing) -> Option<f64>) -> Values<'_> {
    let backends = state.backends.iter();
    let values = backends
        .filter_map(|backend| Some((vec![("backend", &*backend.facts.name)], value(backend)?)));
    values.collect()
}

fn breakers(state: &State) -> Values<'_> {
    let of = |backend: &Standing| match backend.breaker.state() {
        breaker::State::Closed => "closed",
        breaker::State::HalfOpen => "half_open",
        breaker::State::Open { .. } => "open",
    };
    let all = |standing: &'_ Arc<Standing>| {
        ["closed", "half_open", "open"]
            .map(|name| (name, f64::from(u8::from(name == of(standing)))))
    };
    let mut values = Vec::new();
    for standing in &state.backends {
        for (name, value) in all(standing) {
            let labels = vec![("backend", &*standing.facts.name), ("state", name)];
            values.push((labels, value));
        }
    }
    values
}

fn count(count: usize) -> f64 {
    // Rows are counted with 32 bits.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
