//! What every component tells of itself when asked: build, health, load, and the process around it.
//! It counts nothing; it reads what others know.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::clock::Clock;
use crate::context::{COMMIT, Identity};
use crate::health::{Found, Health};
use crate::layers::shed::{Lane, Load};

/// Clock ticks a second in `/proc`, the same on every Linux that is not ancient.
const TICKS_PER_SECOND: f64 = 100.0;

/// The source of the standard metrics of one component.
#[derive(Debug)]
pub(crate) struct Standard {
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) load: Load,
}

impl Collector for Standard {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        self.build(&mut sheet)?;
        self.health(&mut sheet)?;
        self.load(&mut sheet)?;
        process(&mut sheet, self.clock.started())
    }
}

impl Standard {
    fn build(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Identity { name, version, .. } = self.identity;
        let labels = vec![
            ("component", name),
            ("version", version),
            ("commit", COMMIT),
        ];
        sheet.gauges("muster_build_info", "What runs here", &[(labels, 1.0)])
    }

    fn health(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let report = self.health.report();
        sheet.gauge(
            "muster_live",
            "1 while the process makes progress",
            flag(report.live),
        )?;
        sheet.gauge(
            "muster_ready",
            "1 while the component takes traffic",
            flag(report.ready),
        )?;
        let checks: Vec<_> = report
            .checks
            .iter()
            .map(|check| {
                let labels = vec![("check", check.name.as_str()), ("tier", check.tier.name())];
                (labels, flag(check.found == Found::Ok))
            })
            .collect();
        sheet.gauges(
            "muster_check_ok",
            "1 while the check finds all well",
            &checks,
        )
    }

    fn load(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let lanes = [("shared", Lane::Shared), ("vital", Lane::Vital)];
        let open =
            lanes.map(|(name, lane)| (vec![("lane", name)], count(self.load.in_flight(lane))));
        sheet.gauges(
            "muster_in_flight",
            "Calls and open streams in flight",
            &open,
        )?;
        let refused = lanes.map(|(name, lane)| (vec![("lane", name)], self.load.refused(lane)));
        sheet.counters(
            "muster_shed",
            "Calls refused because too many were in flight",
            &refused,
        )?;
        let queues: Vec<_> = self
            .load
            .queues()
            .into_iter()
            .map(|(name, length)| (vec![("queue", name)], count(length)))
            .collect();
        sheet.gauges("muster_queue_length", "Items that wait in a queue", &queues)
    }
}

/// The process, as `/proc` tells it; nothing where there is none.
fn process(sheet: &mut Sheet<'_>, started: SystemTime) -> fmt::Result {
    let since = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    sheet.seconds(
        "process_start_time",
        "When the process started",
        since.as_secs_f64(),
    )?;
    if let Some(cpu) = cpu_seconds() {
        sheet.seconds_total("process_cpu", "Time on processors", cpu)?;
    }
    if let Some(bytes) = resident_bytes() {
        sheet.gauge("process_resident_memory_bytes", "Memory in use", bytes)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        sheet.gauge(
            "process_open_fds",
            "Open files and sockets",
            count(open.count()),
        )?;
    }
    Ok(())
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold anything; utime and stime are the 12th and 13th after it.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Metrics as they are written out.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let metric =
            self.0
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn seconds_total(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let kind = MetricType::Counter;
        let metric = self
            .0
            .encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        ConstCounter::new(value).encode(metric)
    }

    fn gauges(&mut self, name: &str, help: &str, values: &[(Labels<'_>, f64)]) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values, |value| {
            ConstGauge::new(*value)
        })
    }

    fn counters(&mut self, name: &str, help: &str, values: &[(Labels<'_>, u64)]) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values, |value| {
            ConstCounter::new(*value)
        })
    }

    fn family<T, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: &[(Labels<'_>, T)],
        metric_of: impl Fn(&T) -> M,
    ) -> fmt::Result
    where
        for<'a> Labels<'a>: EncodeLabelSet,
    {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            metric_of(value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

fn count(count: usize) -> f64 {
    // Nothing here counts beyond four billion.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
