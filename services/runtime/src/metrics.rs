//! The metrics of one component: a registry that everything in it registers with, and the text
//! that Prometheus reads. It knows no metric of anyone.

pub(crate) mod recent;
pub(crate) mod standard;

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry, Unit};

/// What OpenMetrics ends with.
const END: &str = "# EOF\n";

/// Registers metrics. Cheap to clone; each component has its own.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    registry: Registry,
    /// Everything registered. The encoding leaves out what nothing was counted of yet, and nobody
    /// would learn that it exists.
    registered: Vec<Described>,
}

/// A metric before anything is counted.
#[derive(Debug)]
struct Described {
    name: String,
    help: String,
    kind: MetricType,
}

impl Described {
    fn new<M: Metric>(name: String, help: &str, metric: &M) -> Self {
        Self {
            name,
            help: help.to_owned(),
            kind: metric.metric_type(),
        }
    }
}

impl Metrics {
    /// No metrics yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `metric` (a cheap clone of what the caller keeps) and gives it back. `name` is without
    /// unit; a counter's `_total` is added by the encoding.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut inner = self.lock();
        inner.registry.register(name, help, metric.clone());
        let described = Described::new(name.to_owned(), help, &metric);
        inner.registered.push(described);
        metric
    }

    /// Adds `metric` measured in seconds: `_seconds` is added to its name.
    pub fn register_seconds<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut inner = self.lock();
        inner
            .registry
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        let described = Described::new(format!("{name}_seconds"), help, &metric);
        inner.registered.push(described);
        metric
    }

    /// Adds what is counted only when asked for.
    pub fn collect(&self, collector: impl Collector) {
        self.lock().registry.register_collector(Box::new(collector));
    }

    /// The OpenMetrics text of everything registered; of what was never counted, its description.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        let inner = self.lock();
        encode(&mut text, &inner.registry)?;
        text.truncate(text.trim_end_matches(END).len());
        for Described { name, help, kind } in &inner.registered {
            if !text.contains(&format!("# TYPE {name} ")) {
                writeln!(text, "# HELP {name} {help}.")?;
                writeln!(text, "# TYPE {name} {}", kind.as_str())?;
            }
        }
        text.push_str(END);
        Ok(text)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;

    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        let calls: Counter = metrics.register("calls", "Calls", Counter::default());
        calls.inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("calls_total 1"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_was_never_counted_is_described() {
        type PerCode = Family<Vec<(String, String)>, Counter>;
        let metrics = Metrics::new();
        let calls: PerCode = metrics.register_seconds("calls", "Calls", Family::default());
        let described = "# HELP calls_seconds Calls.\n# TYPE calls_seconds counter\n# EOF\n";
        assert_eq!(metrics.render().unwrap(), described);
        calls
            .get_or_create(&vec![("code".to_owned(), "OK".to_owned())])
            .inc();
        let text = metrics.render().unwrap();
        assert_eq!(text.matches("# TYPE calls_seconds").count(), 1, "{text}");
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
    }
}
