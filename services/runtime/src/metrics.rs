//! The metrics of one component: a registry that everything in it registers with, and the text
//! that Prometheus reads. It knows no metric of anyone.

pub(crate) mod recent;
pub(crate) mod standard;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Registers metrics. Cheap to clone; each component has its own.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// No metrics yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `metric` (a cheap clone of what the caller keeps) and gives it back. `name` is without
    /// unit; a counter's `_total` is added by the encoding.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.registry().register(name, help, metric.clone());
        metric
    }

    /// Adds `metric` measured in seconds: `_seconds` is added to its name.
    pub fn register_seconds<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.registry()
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// Adds what is counted only when asked for.
    pub fn collect(&self, collector: impl Collector) {
        self.registry().register_collector(Box::new(collector));
    }

    /// The OpenMetrics text of everything registered.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry())?;
        Ok(text)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

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
}
