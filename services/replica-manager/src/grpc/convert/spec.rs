//! A service's spec: defaults are filled in, and every rule is checked.

mod policies;
mod run;

use muster_proto::replicas::v1 as wire;
use muster_runtime::status::Violations;
use prost::Message as _;

use super::resources::{
    parse_placement, parse_requirements, render_placement, render_requirements,
};
use super::{count, known, natural, render_span, span};
use crate::domain::spec::{Count, OnDisconnect, Spec, check, defaults};

pub(crate) use policies::{parse_class, render_class, render_scaling};
pub(crate) use run::{mask_values, render_probes, render_run};

/// The most bytes of a spec as it is stored: half of what a transaction takes, which has to write it again with
/// whatever else happens then.
const MOST_BYTES: usize = 512 * 1024;

/// The spec with its defaults.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse_spec(spec: wire::ServiceSpec) -> Result<Spec, Violations> {
    let mut faults = Violations::new();
    let size = spec.encoded_len();
    if size > MOST_BYTES {
        let message = format!("must be at most {MOST_BYTES} bytes in all, is {size}");
        faults.add("", message);
        return Err(faults);
    }
    let parsed = read_spec(spec, &mut faults);
    for violation in check::violations(&parsed) {
        if !faults.iter().any(|(path, _)| path == violation.path) {
            faults.add(violation.path, violation.message);
        }
    }
    if faults.is_empty() {
        Ok(parsed)
    } else {
        Err(faults)
    }
}

/// The spec with its defaults, as far as it can be read: one that is stored has been checked.
pub(crate) fn read_spec(spec: wire::ServiceSpec, faults: &mut Violations) -> Spec {
    let replicas = parse_count(spec.replicas, faults);
    let min_healthy = spec.min_healthy.map(|n| natural(n, "min_healthy", faults));
    let on_disconnect = known(spec.on_disconnect, "on_disconnect", faults);
    if spec.nodes < 0 || spec.nodes > 1 {
        faults.add("nodes", "must be 1: a replica spans one machine yet");
    }
    let timeout = spec.start.and_then(|start| start.timeout);
    let grace = spec.stop.and_then(|stop| stop.grace);
    Spec {
        name: spec.name,
        replicas,
        run: run::parse_run(spec.run, faults),
        resources: parse_requirements("resources", &spec.resources.unwrap_or_default(), faults),
        placement: parse_placement("placement", spec.placement.unwrap_or_default(), faults),
        start_timeout: span(timeout, defaults::START_TIMEOUT, "start.timeout", faults),
        probes: run::parse_probes(spec.probes.unwrap_or_default(), faults),
        min_healthy: min_healthy.unwrap_or(1),
        retry: spec.retry.map(|retry| policies::parse_retry(retry, faults)),
        scaling: spec
            .scaling
            .map(|scaling| policies::parse_scaling(scaling, faults)),
        update: policies::parse_update(spec.update.unwrap_or_default(), faults),
        stop_grace: span(grace, defaults::STOP_GRACE, "stop.grace", faults),
        on_disconnect: match on_disconnect {
            wire::OnDisconnect::Unspecified | wire::OnDisconnect::Keep => OnDisconnect::Keep,
            wire::OnDisconnect::Stop => OnDisconnect::Stop,
        },
        labels: spec.labels,
    }
}

fn parse_count(replicas: Option<wire::ReplicaCount>, faults: &mut Violations) -> Count {
    let replicas = replicas.unwrap_or_default();
    let min = replicas
        .min
        .map_or(1, |min| natural(min, "replicas.min", faults));
    let max = replicas.max.map(|max| natural(max, "replicas.max", faults));
    Count {
        min,
        max: max.unwrap_or(min.max(1)),
    }
}

/// The spec with every default spelled out.
pub(crate) fn render_spec(spec: &Spec) -> wire::ServiceSpec {
    wire::ServiceSpec {
        name: spec.name.clone(),
        replicas: Some(wire::ReplicaCount {
            min: Some(count(spec.replicas.min)),
            max: Some(count(spec.replicas.max)),
        }),
        run: Some(render_run(&spec.run)),
        resources: Some(render_requirements(&spec.resources)),
        placement: Some(render_placement(&spec.placement)),
        start: Some(render_start(spec)),
        probes: Some(render_probes(&spec.probes)),
        min_healthy: Some(count(spec.min_healthy)),
        retry: spec.retry.as_ref().map(policies::render_retry),
        scaling: spec.scaling.as_ref().map(render_scaling),
        update: Some(policies::render_update(&spec.update)),
        stop: Some(render_stop(spec)),
        on_disconnect: render_on_disconnect(spec.on_disconnect).into(),
        labels: spec.labels.clone(),
        nodes: 1,
    }
}

pub(crate) fn render_start(spec: &Spec) -> wire::StartPolicy {
    wire::StartPolicy {
        timeout: Some(render_span(spec.start_timeout)),
    }
}

pub(crate) fn render_stop(spec: &Spec) -> wire::StopPolicy {
    wire::StopPolicy {
        grace: Some(render_span(spec.stop_grace)),
    }
}

pub(crate) fn render_on_disconnect(policy: OnDisconnect) -> wire::OnDisconnect {
    match policy {
        OnDisconnect::Keep => wire::OnDisconnect::Keep,
        OnDisconnect::Stop => wire::OnDisconnect::Stop,
    }
}

#[cfg(test)]
mod tests;
