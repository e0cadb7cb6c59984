//! What the manager tells of its services and of itself, for Prometheus: outages apart from degradations,
//! how long each status lasted, and how long recovery took. It is told; it judges nothing.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::domain::failure::Class;
use crate::domain::replica::Replica;
use crate::domain::service::{Service, differing};
use crate::domain::status::ServicePhase;
use crate::domain::time::Time;
use crate::state::view::{Touched, Uid};

/// The manager's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    passes: Histogram,
    services: Family<InPhase, Gauge>,
    seconds: Family<InPhase, Counter<f64, std::sync::atomic::AtomicU64>>,
    outages: Counter,
    degradations: Counter,
    recovery: Histogram,
    failures: Family<OfClass, Counter>,
    restarts: Family<OfClass, Counter>,
    /// Since when each service's time in its phase has not been counted yet.
    counted: Arc<Mutex<FxHashMap<Uid, (ServicePhase, Time)>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: &'static str,
}

/// In place of a class: what came before did not fail, but was stopped as a user, or a plan, asked.
const ASKED: &str = "ASKED";

/// From a single replica to thousands of them, in seconds.
const PASS_BUCKETS: [f64; 9] = [
    0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.01, 0.1,
];

/// From a restart at once to a long outage, in seconds.
const RECOVERY_BUCKETS: [f64; 10] = [
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0,
];

impl Metrics {
    pub(crate) fn new(registry: &muster_runtime::metrics::Metrics) -> Self {
        let passes = Histogram::new(PASS_BUCKETS);
        let recovery = Histogram::new(RECOVERY_BUCKETS);
        let (services, seconds) = (Family::default(), Family::default());
        let (failures, restarts) = (Family::default(), Family::default());
        Self {
            passes: registry.register_seconds(
                "muster_planner_pass_duration",
                "Time to plan for one service",
                passes,
            ),
            services: registry.register("muster_services", "Services by phase", services),
            seconds: registry.register_seconds(
                "muster_service_phase",
                "Time that services spent in each phase",
                seconds,
            ),
            outages: registry.register(
                "muster_service_outages",
                "Outages begun: fewer ready than min_healthy",
                Counter::default(),
            ),
            degradations: registry.register(
                "muster_service_degradations",
                "Degradations begun: fewer ready than wanted",
                Counter::default(),
            ),
            recovery: registry.register_seconds(
                "muster_service_recovery",
                "How long outages and degradations lasted",
                recovery,
            ),
            failures: registry.register(
                "muster_replica_failures",
                "Attempts that failed, by class",
                failures,
            ),
            restarts: registry.register(
                "muster_replica_restarts",
                "Attempts after a replica's first, by what ended the one before; ASKED is no failure",
                restarts,
            ),
            counted: Arc::default(),
        }
    }

    /// A plan was made that began then.
    pub(crate) fn passed(&self, started: Instant) {
        self.passes.observe(started.elapsed().as_secs_f64());
    }

    /// Services are as the store had them at the start: nothing of it happened now.
    pub(crate) fn begin<'a>(
        &self,
        services: impl Iterator<Item = (&'a Uid, &'a Service)>,
        now: Time,
    ) {
        for (uid, service) in services {
            self.enter(uid, service.header.status.phase, now);
        }
    }

    /// Another instance counts from now on.
    pub(crate) fn end(&self, now: Time) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (phase, since)) in counted.drain() {
            self.count(phase, since, now);
            self.services.get_or_create(&label(phase)).dec();
        }
    }

    /// A revision changed a service.
    pub(crate) fn changed(&self, touched: &Touched, now: Time) {
        let (before, after) = (touched.before.as_deref(), touched.after.as_deref());
        match after {
            Some(service) => self.enter(&touched.uid, service.header.status.phase, now),
            None => self.leave(&touched.uid, now),
        }
        if let (Some(before), Some(after)) = (before, after) {
            self.differ(before, after);
        }
    }

    /// Counts the time up to now, so that a scrape sees it.
    pub(crate) fn catch_up(&self, now: Time) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (phase, since) in counted.values_mut() {
            self.count(*phase, *since, now);
            *since = now;
        }
    }

    fn differ(&self, before: &Service, after: &Service) {
        let (old, new) = (&before.header.totals, &after.header.totals);
        self.outages.inc_by(new.outages.saturating_sub(old.outages));
        let degradations = new.degradations.saturating_sub(old.degradations);
        self.degradations.inc_by(degradations);
        let (was, is) = (before.header.status.phase, after.header.status.phase);
        let ended = was == ServicePhase::Down && is != was
            || was == ServicePhase::Degraded && is == ServicePhase::Healthy;
        if let Some(lasted) = new.last_recovery.filter(|_| ended) {
            self.recovery.observe(lasted.as_secs_f64());
        }
        for (known, replica) in differing(Some(before), Some(after)) {
            if let Some(replica) = replica {
                self.count_failures(known.map(AsRef::as_ref), replica);
                self.count_restart(known.map(AsRef::as_ref), replica);
            }
        }
    }

    /// Counts each attempt's failure once: when its end is first seen.
    fn count_failures(&self, before: Option<&Replica>, after: &Replica) {
        let ended = |replica: &Replica, number: u32| {
            let attempts = [replica.attempt.as_ref(), replica.previous.as_ref()];
            let mut known = attempts.into_iter().flatten();
            known.any(|attempt| attempt.number == number && attempt.end.is_some())
        };
        for attempt in [after.previous.as_ref(), after.attempt.as_ref()]
            .into_iter()
            .flatten()
        {
            let class = attempt.end.as_ref().and_then(|end| end.class);
            let seen = before.is_some_and(|before| ended(before, attempt.number));
            if let Some(class) = class.filter(|_| !seen) {
                let label = OfClass {
                    class: class.word(),
                };
                self.failures.get_or_create(&label).inc();
            }
        }
    }

    /// Counts an attempt that follows another, when it is first seen.
    fn count_restart(&self, before: Option<&Replica>, after: &Replica) {
        let known = before.map_or(0, |before| before.attempts);
        let Some(previous) = after.previous.as_ref().filter(|_| after.attempts > known) else {
            return;
        };
        let end = previous.end.as_ref();
        let class = end.and_then(|end| end.class).map_or(ASKED, Class::word);
        self.restarts.get_or_create(&OfClass { class }).inc();
    }

    fn enter(&self, uid: &Uid, phase: ServicePhase, now: Time) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.insert(Arc::clone(uid), (phase, now)) {
            // The time before goes on in the same phase.
            Some((old, since)) if old == phase => {
                counted.insert(Arc::clone(uid), (old, since));
                return;
            }
            Some((old, since)) => {
                self.count(old, since, now);
                self.services.get_or_create(&label(old)).dec();
            }
            None => {}
        }
        self.services.get_or_create(&label(phase)).inc();
    }

    fn leave(&self, uid: &Uid, now: Time) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((phase, since)) = counted.remove(uid) {
            self.count(phase, since, now);
            self.services.get_or_create(&label(phase)).dec();
        }
    }

    fn count(&self, phase: ServicePhase, since: Time, now: Time) {
        let seconds = now.since(since).as_secs_f64();
        self.seconds.get_or_create(&label(phase)).inc_by(seconds);
    }
}

fn label(phase: ServicePhase) -> InPhase {
    InPhase {
        phase: phase.word(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::replica::Role;
    use crate::domain::replica::attempt::{Attempt, End};
    use crate::domain::rollout::Edition;
    use crate::domain::service::command::Identity;
    use crate::domain::spec::testing::spec;

    fn at(second: u64) -> Time {
        Time::default() + Duration::from_secs(second)
    }

    fn in_phase(phase: ServicePhase) -> Service {
        let identity = Identity {
            project: "default".to_owned(),
            uid: "uid".to_owned(),
        };
        let mut service = Service::create(identity, spec("chat"), true, at(0));
        service.header.status.phase = phase;
        service
    }

    fn touch(before: Option<&Service>, after: Option<&Service>) -> Touched {
        Touched {
            uid: Arc::from("uid"),
            before: before.cloned().map(Arc::new),
            after: after.cloned().map(Arc::new),
        }
    }

    #[test]
    fn an_outage_is_told_from_a_degradation_and_time_goes_to_the_right_phase() {
        let registry = muster_runtime::metrics::Metrics::new();
        let metrics = Metrics::new(&registry);
        let healthy = in_phase(ServicePhase::Healthy);
        let mut down = in_phase(ServicePhase::Down);
        down.header.totals.outages = 1;
        let mut back = in_phase(ServicePhase::Healthy);
        back.header.totals.outages = 1;
        back.header.totals.last_recovery = Some(Duration::from_secs(7));
        metrics.changed(&touch(None, Some(&healthy)), at(0));
        metrics.changed(&touch(Some(&healthy), Some(&down)), at(10));
        metrics.changed(&touch(Some(&down), Some(&back)), at(17));
        metrics.catch_up(at(20));
        metrics.changed(&touch(Some(&back), None), at(21));
        let text = registry.render().unwrap();
        for line in [
            "muster_service_phase_seconds_total{phase=\"HEALTHY\"} 14.0",
            "muster_service_phase_seconds_total{phase=\"DOWN\"} 7.0",
            "muster_service_outages_total 1",
            "muster_service_degradations_total 0",
            "muster_service_recovery_seconds_sum 7.0",
            "muster_services{phase=\"HEALTHY\"} 0",
            "muster_services{phase=\"DOWN\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn whoever_counts_no_more_shows_no_services_and_keeps_its_seconds() {
        let registry = muster_runtime::metrics::Metrics::new();
        let metrics = Metrics::new(&registry);
        let (uid, healthy) = (Uid::from("uid"), in_phase(ServicePhase::Healthy));
        metrics.begin([(&uid, &healthy)].into_iter(), at(0));
        metrics.end(at(3));
        metrics.catch_up(at(50));
        let text = registry.render().unwrap();
        for line in [
            "muster_service_phase_seconds_total{phase=\"HEALTHY\"} 3.0",
            "muster_services{phase=\"HEALTHY\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    /// A replica of which the attempt before the current one ended so.
    fn restarted(attempts: u32, class: Option<Class>) -> Replica {
        let edition = Edition {
            template: 1,
            restart: 0,
            version: 1,
        };
        let mut replica = Replica::new(0, Role::Member, edition, at(0));
        replica.attempts = attempts;
        replica.attempt = Some(Attempt::new(attempts, 1));
        replica.previous = Some(Attempt {
            end: Some(End {
                at: at(1),
                exit: None,
                class,
                message: String::new(),
                last_log_lines: Vec::new(),
            }),
            ..Attempt::new(attempts - 1, 1)
        });
        replica
    }

    #[test]
    fn restarts_are_counted_once_by_what_ended_the_attempt_before() {
        let registry = muster_runtime::metrics::Metrics::new();
        let metrics = Metrics::new(&registry);
        let with = |replica: Option<Replica>| {
            let mut service = in_phase(ServicePhase::Healthy);
            let replicas = replica.into_iter().map(|one| (0, Arc::new(one)));
            service.replicas = replicas.collect();
            service
        };
        let histories = [
            with(None),
            with(Some(restarted(2, Some(Class::Error)))),
            with(Some(restarted(3, Some(Class::Oom)))),
            with(Some(restarted(3, Some(Class::Oom)))),
            with(Some(restarted(4, None))),
        ];
        for two in histories.windows(2) {
            metrics.changed(&touch(Some(&two[0]), Some(&two[1])), at(2));
        }
        let text = registry.render().unwrap();
        for class in ["ERROR", "OOM", "ASKED"] {
            let line = format!("muster_replica_restarts_total{{class=\"{class}\"}} 1");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
