//! What the agent exports of itself for Prometheus. It decides nothing; who does something notes it
//! here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Bounds of what takes milliseconds when all is well, in seconds.
const QUICK: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];
/// Bounds of what a replica takes to be ready, in seconds.
const SLOW: [f64; 10] = [
    0.05, 0.2, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 7200.0,
];

/// How far attempts have come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

/// Why attempts have ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    class: &'static str,
}

/// How calls came out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The agent's own metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Measures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    attempts: Family<PhaseLabel, Gauge>,
    ended: Family<EndLabel, Counter>,
    heartbeats: Family<OutcomeLabel, Counter>,
    registrations: Counter,
    gpus: Gauge,
    gpus_gone: Counter,
    ready: Histogram,
    told: Histogram,
}

impl Measures {
    /// Registers them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            attempts: metrics.register(
                "muster_agent_attempts",
                "Attempts on this machine by how far they have come",
                Family::default(),
            ),
            ended: metrics.register(
                "muster_agent_attempts_ended",
                "Attempts that have ended on this machine by class of failure, or stopped",
                Family::default(),
            ),
            heartbeats: metrics.register(
                "muster_agent_heartbeats",
                "Heartbeats by outcome: answered or failed",
                Family::default(),
            ),
            registrations: metrics.register(
                "muster_agent_registrations",
                "Registrations that the registry has taken",
                Counter::default(),
            ),
            gpus: metrics.register(
                "muster_agent_gpus",
                "Accelerators that this machine offers, without those that are merely declared",
                Gauge::default(),
            ),
            gpus_gone: metrics.register(
                "muster_agent_gpus_gone",
                "Times that the driver said that an accelerator is gone",
                Counter::default(),
            ),
            ready: metrics.register_seconds(
                "muster_agent_attempt_ready_duration",
                "From the start of an attempt's process until it was ready first",
                Histogram::new(SLOW),
            ),
            told: metrics.register_seconds(
                "muster_agent_end_told_duration",
                "From the end of an attempt until the replica-manager has stored it",
                Histogram::new(QUICK),
            ),
        }))
    }

    /// Notes how many attempts are in each phase now.
    pub(crate) fn set_attempts(&self, phases: impl Iterator<Item = &'static str>) {
        let all = [
            "waiting", "starting", "running", "ready", "unready", "stopping", "ended",
        ];
        let mut counts = all.map(|phase| (phase, 0_i64));
        for phase in phases {
            for (name, count) in &mut counts {
                *count += i64::from(*name == phase);
            }
        }
        for (phase, count) in counts {
            self.0
                .attempts
                .get_or_create(&PhaseLabel { phase })
                .set(count);
        }
    }

    /// Notes that an attempt has ended.
    pub(crate) fn note_end(&self, class: &'static str) {
        self.0.ended.get_or_create(&EndLabel { class }).inc();
    }

    /// Notes that an attempt was ready for the first time.
    pub(crate) fn note_ready(&self, started: SystemTime, ready: SystemTime) {
        self.0.ready.observe(
            ready
                .duration_since(started)
                .unwrap_or_default()
                .as_secs_f64(),
        );
    }

    /// Notes that the manager has stored an end.
    pub(crate) fn note_told(&self, since_end: Duration) {
        self.0.told.observe(since_end.as_secs_f64());
    }

    /// Notes what came of a heartbeat.
    pub(crate) fn note_heartbeat(&self, answered: bool) {
        let outcome = if answered { "answered" } else { "failed" };
        self.0
            .heartbeats
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    /// Notes how many accelerators are offered.
    pub(crate) fn set_gpus(&self, count: usize) {
        self.0.gpus.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes that an accelerator is gone.
    pub(crate) fn note_gpu_gone(&self) {
        self.0.gpus_gone.inc();
    }

    /// Notes a registration.
    pub(crate) fn note_registration(&self) {
        self.0.registrations.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_exported() {
        let metrics = Metrics::new();
        let measures = Measures::new(&metrics);
        measures.set_attempts(["ready", "ready", "ended"].into_iter());
        measures.note_end("stopped");
        measures.note_heartbeat(true);
        measures.note_registration();
        measures.set_gpus(7);
        measures.note_gpu_gone();
        measures.note_told(Duration::from_millis(3));
        measures.note_ready(
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + Duration::from_secs(3),
        );
        let text = metrics.render().unwrap();
        for line in [
            "muster_agent_attempts{phase=\"ready\"} 2",
            "muster_agent_attempts{phase=\"waiting\"} 0",
            "muster_agent_attempts_ended_total{class=\"stopped\"} 1",
            "muster_agent_heartbeats_total{outcome=\"answered\"} 1",
            "muster_agent_registrations_total 1",
            "muster_agent_gpus 7",
            "muster_agent_gpus_gone_total 1",
            "muster_agent_end_told_duration_seconds_bucket{le=\"0.005\"} 1",
            "muster_agent_attempt_ready_duration_seconds_sum 3.0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
