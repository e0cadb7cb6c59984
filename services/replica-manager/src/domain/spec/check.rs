//! The rules that a spec has to keep, all judged at once. It changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_model::name;
use muster_model::requirements::{MAX_ALTERNATIVES, MAX_NAMES};

use super::{Check, MASKED, Metric, OnDisconnect, Probe, Runtime, Spec};
use crate::domain::failure::policy::{Growth, Retry};

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where: `probes.ready.http.port`.
    pub path: String,
    /// What is allowed, and what was found.
    pub message: String,
}

/// More replicas than this are taken for a slip.
pub const MAX_REPLICAS: u32 = 10_000;
/// `retry.stages`.
pub const MAX_STAGES: usize = 100;
/// `labels`.
pub const MAX_LABELS: usize = 100;
/// `stop.grace` with `on_disconnect: stop`.
pub const MAX_FENCED_GRACE: Duration = Duration::from_secs(30);
/// `probes.*.interval`.
pub const MIN_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Every rule that the spec breaks, in the order of its fields.
#[must_use]
pub fn violations(spec: &Spec) -> Vec<Violation> {
    let mut found = Found(Vec::new());
    if let Err(error) = name::check(&spec.name) {
        found.add("name", error.to_string());
    }
    counts(spec, &mut found);
    run(spec, &mut found);
    gpus(spec, &mut found);
    for (path, probe) in [
        ("probes.ready", &spec.probes.ready),
        ("probes.alive", &spec.probes.alive),
    ] {
        if let Some(checked) = probe {
            self::probe(path, checked, spec, &mut found);
        }
    }
    if spec.start_timeout.is_zero() {
        found.add("start.timeout", "must be above 0".to_owned());
    }
    if let Some(policy) = &spec.retry {
        retry(policy, &mut found);
    }
    scaling(spec, &mut found);
    update(spec, &mut found);
    if spec.on_disconnect == OnDisconnect::Stop && spec.stop_grace > MAX_FENCED_GRACE {
        let rule = "must be at most 30s with on_disconnect: stop";
        found.add("stop.grace", rule.to_owned());
    }
    labels(spec, &mut found);
    found.0
}

struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation {
            path: path.into(),
            message: message.into(),
        });
    }
}

fn counts(spec: &Spec, found: &mut Found) {
    let count = spec.replicas;
    if count.min > count.max {
        let message = format!(
            "must be at least min, which is {}, not {}",
            count.min, count.max
        );
        found.add("replicas.max", message);
    }
    if count.max == 0 {
        found.add("replicas.max", "must be at least 1");
    }
    if count.max > MAX_REPLICAS {
        let message = format!("must be at most {MAX_REPLICAS}, not {}", count.max);
        found.add("replicas.max", message);
    }
    if count.min > 0 && spec.min_healthy > count.min {
        let message = format!(
            "must be at most replicas.min, which is {}, not {}",
            count.min, spec.min_healthy
        );
        found.add("min_healthy", message);
    }
}

fn gpus(spec: &Spec, found: &mut Found) {
    let requests = &spec.resources.gpu_any_of;
    if requests.len() > MAX_ALTERNATIVES {
        let message = format!("must be at most {MAX_ALTERNATIVES}, not {}", requests.len());
        found.add("resources.gpu_any_of", message);
    }
    for (place, request) in requests.iter().enumerate() {
        let names = request.names.len();
        if names > MAX_NAMES {
            let path = format!("resources.gpu_any_of[{place}].names");
            found.add(path, format!("must be at most {MAX_NAMES}, not {names}"));
        }
    }
}

fn run(spec: &Spec, found: &mut Found) {
    let run = &spec.run;
    match &run.runtime {
        Runtime::Process if run.command.is_empty() => {
            found.add(
                "run.command",
                "is required: there is no image to say what runs",
            );
        }
        Runtime::Container { image } if image.is_empty() => {
            found.add("run.container.image", "is required");
        }
        Runtime::Process | Runtime::Container { .. } => {}
    }
    if run.command.first().is_some_and(String::is_empty) {
        found.add("run.command[0]", "is the program, and must not be empty");
    }
    if run.command.iter().any(|word| word.contains('\0')) {
        found.add("run.command", "must not contain NUL");
    }
    let mut names = BTreeSet::new();
    for (index, (name, value)) in run.env.iter().enumerate() {
        let path = format!("run.env[{index}]");
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            found.add(path, "needs a name without '=', and no NUL");
        } else if !names.insert(name) {
            found.add(path, format!("{name} is given twice"));
        } else if value == MASKED {
            // Else whoever applies what a viewer was shown would lose every value.
            let message =
                format!("{name} needs its value: {MASKED} is what viewers are shown for it");
            found.add(path, message);
        }
    }
    ports(spec, found);
    for (index, volume) in run.volumes.iter().enumerate() {
        for (field, value) in [
            ("host_path", &volume.host_path),
            ("mount_path", &volume.mount_path),
        ] {
            if !value.starts_with('/') {
                found.add(format!("run.volumes[{index}].{field}"), "must be absolute");
            }
        }
    }
    if !run.working_dir.is_empty() && !run.working_dir.starts_with('/') {
        found.add("run.working_dir", "must be absolute");
    }
}

fn ports(spec: &Spec, found: &mut Found) {
    let mut numbers = BTreeSet::new();
    for (index, port) in spec.run.ports.iter().enumerate() {
        let path = format!("run.ports[{index}].number");
        if !(1..=65535).contains(&port.number) {
            found.add(path, format!("must be 1 to 65535, not {}", port.number));
        } else if !numbers.insert((port.number, port.udp)) {
            found.add(path, format!("{} is given twice", port.number));
        }
    }
}

fn port_exists(path: &str, port: u32, spec: &Spec, found: &mut Found) {
    let ports = &spec.run.ports;
    if port == 0 && ports.is_empty() {
        found.add(path, "needs a port, and run.ports has none");
    } else if port != 0 && !ports.iter().any(|known| known.number == port) {
        found.add(path, format!("{port} is not one of run.ports"));
    }
}

fn probe(path: &str, probe: &Probe, spec: &Spec, found: &mut Found) {
    match &probe.check {
        Check::Http { port, path: route } => {
            port_exists(&format!("{path}.http.port"), *port, spec, found);
            if !route.starts_with('/') {
                found.add(format!("{path}.http.path"), "must begin with '/'");
            }
        }
        Check::Tcp { port } => port_exists(&format!("{path}.tcp.port"), *port, spec, found),
        Check::Grpc { port, .. } => port_exists(&format!("{path}.grpc.port"), *port, spec, found),
        Check::Exec { command } => {
            if command.first().is_none_or(String::is_empty) {
                found.add(format!("{path}.command.command"), "is required");
            }
        }
    }
    if probe.interval < MIN_PROBE_INTERVAL {
        found.add(format!("{path}.interval"), "must be at least 100ms");
    }
    if probe.timeout.is_zero() {
        found.add(format!("{path}.timeout"), "must be above 0");
    }
}

fn retry(retry: &Retry, found: &mut Found) {
    growth("retry.backoff", retry.growth, found);
    for (class, rule) in &retry.classes {
        let path = format!("retry.classes[{class}]");
        growth(&format!("{path}.backoff"), rule.growth, found);
        let limited = rule.interval.is_some()
            || rule.max_duration.is_some()
            || rule.max_attempts.is_some()
            || rule.growth.is_some();
        if rule.fail && limited {
            found.add(path, "has limits beside fail, which allows no retry");
        }
    }
    if retry.stages.len() > MAX_STAGES {
        let found_so_many = retry.stages.len();
        let message = format!("must be at most {MAX_STAGES}, not {found_so_many}");
        found.add("retry.stages", message);
        return;
    }
    for (index, stage) in retry.stages.iter().enumerate() {
        if stage.attempts.is_none() && index + 1 < retry.stages.len() {
            let path = format!("retry.stages[{index}].attempts");
            found.add(path, "is required but for the last stage");
        }
    }
}

fn growth(path: &str, growth: Option<Growth>, found: &mut Found) {
    let Some(growth) = growth else { return };
    if !(1.0..=10.0).contains(&growth.factor) {
        let message = format!("must be 1 to 10, not {}", growth.factor);
        found.add(format!("{path}.factor"), message);
    }
    if !(0.0..=1.0).contains(&growth.jitter) {
        let message = format!("must be 0 to 1, not {}", growth.jitter);
        found.add(format!("{path}.jitter"), message);
    }
}

fn scaling(spec: &Spec, found: &mut Found) {
    let Some(scaling) = &spec.scaling else { return };
    if !(scaling.target.is_finite() && scaling.target > 0.0) {
        let message = format!("must be above 0, not {}", scaling.target);
        found.add("scaling.target", message);
    }
    if let Metric::Prometheus(name) = &scaling.metric {
        if name.is_empty() {
            found.add("scaling.prometheus", "must name a metric");
        }
        port_exists("scaling.port", scaling.port, spec, found);
        if !scaling.path.starts_with('/') {
            found.add("scaling.path", "must begin with '/'");
        }
    }
    if scaling.metric == Metric::Cpu && spec.resources.cpu_milli == 0 {
        let message = "is required to scale by cpu: its use is measured in percent of this";
        found.add("resources.cpu_milli", message);
    }
    if scaling.metric != Metric::Load && spec.replicas.min == 0 {
        let message =
            "must not be 0 but with the metric load: where nothing runs, nothing is measured";
        found.add("replicas.min", message);
    }
}

fn update(spec: &Spec, found: &mut Found) {
    let update = spec.update;
    if update.max_surge == 0 && update.max_unavailable == 0 {
        let message = "must not be 0 while max_unavailable is 0: nothing could be replaced";
        found.add("update.max_surge", message);
    } else if update.max_surge == 0 && spec.min_healthy >= spec.replicas.min.max(1) {
        let message = format!(
            "must not be 0 while min_healthy is {}: nothing could be replaced",
            spec.min_healthy
        );
        found.add("update.max_surge", message);
    }
    for (path, number) in [
        ("update.max_surge", update.max_surge),
        ("update.max_unavailable", update.max_unavailable),
    ] {
        if number > MAX_REPLICAS {
            found.add(
                path,
                format!("must be at most {MAX_REPLICAS}, not {number}"),
            );
        }
    }
    if update.progress_deadline <= update.min_ready {
        found.add("update.progress_deadline", "must be longer than min_ready");
    }
}

fn labels(spec: &Spec, found: &mut Found) {
    let count = spec.labels.len();
    if count > MAX_LABELS {
        found.add(
            "labels",
            format!("must be at most {MAX_LABELS}, not {count}"),
        );
        return;
    }
    for (key, value) in &spec.labels {
        let checked = name::check_label_key(key).and_then(|()| name::check_label_value(value));
        if let Err(error) = checked {
            found.add(format!("labels[{key}]"), error.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
