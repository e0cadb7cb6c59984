//! What is asked for, and why it is refused.

use muster_model::constraints::Constraints;
use muster_model::gpu::{self, ComputeCapability};
use muster_model::requirements::{Bounds, GpuRequest, MAX_ALTERNATIVES, MAX_NAMES, Requirements};
use muster_model::shortfall::Shortfall;
use muster_proto::types::v1 as types;
use muster_proto::workers::v1 as proto;
use muster_runtime::status::Violations;

use super::allocation::parse_port;
use super::enums::{known, parse_arch, parse_capacity_type, parse_vendor};
use super::machine::parse_price;
use super::time::parse_duration;
use super::{MAX_ID, MAX_REASON, parse_count, parse_name, parse_text, render_count};
use crate::domain::allocation::{DEFAULT_STOP_GRACE, OwnerTerm, Request};
use crate::domain::decide::Item;
use crate::domain::placement::{Ask, Refusal};
use crate::domain::text::Text;

/// The most avoided workers and the like of one request.
const MAX_LIST: usize = 1000;

/// The most attributes of an allocation, and the longest of them.
const MAX_ATTRIBUTES: usize = 16;

/// The only project there is yet.
pub(super) const DEFAULT_PROJECT: &str = "default";

/// One allocation that is asked for, its fields under no path.
pub(crate) fn parse_item(
    owner: Text,
    term: OwnerTerm,
    spec: proto::AllocationSpec,
    request: Option<Request>,
    violations: &mut Violations,
) -> Item {
    for (key, value) in &spec.attributes {
        if key.len() > MAX_REASON || value.len() > MAX_REASON {
            violations.add(
                format!("attributes[{key:?}]"),
                "must be at most 256 characters",
            );
        }
    }
    if spec.attributes.len() > MAX_ATTRIBUTES {
        violations.add("attributes", format!("must be at most {MAX_ATTRIBUTES}"));
    }
    if !spec.project.is_empty() && spec.project != DEFAULT_PROJECT {
        violations.add(
            "project",
            "must be \"default\" or empty: there is no other project yet",
        );
    }
    let grace = parse_duration("stop_grace", spec.stop_grace.as_ref(), violations);
    Item {
        owner,
        term,
        request,
        subject: parse_text("subject", &spec.subject, MAX_REASON, violations),
        fails_if_forced: spec.fails_if_forced,
        stop_grace: grace.unwrap_or(DEFAULT_STOP_GRACE),
        project: DEFAULT_PROJECT.into(),
        ask: parse_ask(&spec, violations),
        attributes: spec.attributes,
    }
}

fn parse_ask(spec: &proto::AllocationSpec, violations: &mut Violations) -> Ask {
    let mut inner = Violations::new();
    let requirements = spec.requirements.clone().unwrap_or_default();
    let requirements = parse_requirements(requirements, &mut inner);
    violations.extend_under("requirements", std::mem::take(&mut inner));
    let constraints = parse_constraints(spec.constraints.clone().unwrap_or_default(), &mut inner);
    violations.extend_under("constraints", inner);
    for (field, count) in [
        ("avoid_workers", spec.avoid_workers.len()),
        ("avoid_regions", spec.avoid_regions.len()),
        ("host_ports", spec.host_ports.len()),
    ] {
        if count > MAX_LIST {
            violations.add(field, format!("must be at most {MAX_LIST}"));
        }
    }
    let worker = Some(&spec.worker).filter(|name| !name.is_empty());
    let ports = spec
        .host_ports
        .iter()
        .map(|port| parse_port("host_ports", *port, violations));
    Ask {
        host_ports: ports.collect(),
        requirements,
        constraints,
        spread_key: parse_text("spread_key", &spec.spread_key, MAX_REASON, violations),
        avoid_workers: spec
            .avoid_workers
            .iter()
            .map(|name| Text::from(name.as_str()))
            .collect(),
        avoid_regions: spec
            .avoid_regions
            .iter()
            .map(|name| Text::from(name.as_str()))
            .collect(),
        worker: worker.map(|name| parse_name("worker", name, violations)),
        replaces: Some(&spec.replaces)
            .filter(|id| !id.is_empty())
            .map(|id| parse_text("replaces", id, MAX_ID, violations)),
    }
}

fn parse_requirements(needs: types::Requirements, violations: &mut Violations) -> Requirements {
    if needs.gpu_any_of.len() > MAX_ALTERNATIVES {
        violations.add("gpu_any_of", format!("must be at most {MAX_ALTERNATIVES}"));
    }
    let mut gpu_any_of = Vec::new();
    let requests = needs.gpu_any_of.into_iter().take(MAX_ALTERNATIVES);
    for (place, request) in requests.enumerate() {
        let mut inner = Violations::new();
        gpu_any_of.push(parse_gpu_request(request, &mut inner));
        violations.extend_under(&format!("gpu_any_of[{place}]"), inner);
    }
    Requirements {
        gpu_any_of,
        cpu_milli: parse_count("cpu_milli", needs.cpu_milli, violations),
        memory_mib: parse_count("memory_mib", needs.memory_mib, violations),
        disk_mib: parse_count("disk_mib", needs.disk_mib, violations),
        arch: parse_arch(known("architecture", needs.architecture, violations)),
    }
}

fn parse_gpu_request(request: types::GpuRequest, violations: &mut Violations) -> GpuRequest {
    let share = parse_count("share_milli", request.share_milli, violations);
    if share >= gpu::WHOLE {
        violations.add("share_milli", "must be 0, or 1 to 999");
    }
    let capability = Some(request.min_compute_capability).filter(|text| !text.is_empty());
    let capability = capability.and_then(|text| {
        violations.take("min_compute_capability", text.parse::<ComputeCapability>())
    });
    if request.names.len() > MAX_NAMES {
        violations.add("names", format!("must be at most {MAX_NAMES}"));
    }
    GpuRequest {
        names: request
            .names
            .iter()
            .take(MAX_NAMES)
            .map(|name| gpu::canonical(name))
            .collect(),
        vendor: parse_vendor(known("vendor", request.vendor, violations)),
        count: parse_bounds("count", request.count, violations),
        memory_mib: parse_bounds("memory_mib", request.memory_mib, violations),
        total_memory_mib: parse_bounds("total_memory_mib", request.total_memory_mib, violations),
        share_milli: (share > 0).then_some(share),
        min_compute_capability: capability,
    }
    .with_sized_names()
}

fn parse_bounds(
    field: &str,
    range: Option<types::Int32Range>,
    violations: &mut Violations,
) -> Bounds {
    let range = range.unwrap_or_default();
    let min = range
        .min
        .map(|min| parse_count(&format!("{field}.min"), min, violations));
    let max = range
        .max
        .map(|max| parse_count(&format!("{field}.max"), max, violations));
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        violations.add(field, "min must not be above max");
    }
    Bounds { min, max }
}

fn parse_constraints(
    constraints: types::PlacementConstraints,
    violations: &mut Violations,
) -> Constraints {
    Constraints {
        backends: constraints.backends,
        regions: constraints.regions,
        zones: constraints.zones,
        labels: constraints.labels,
        capacity_type: parse_capacity_type(known(
            "capacity_type",
            constraints.capacity_type,
            violations,
        )),
        max_price: parse_price("max_price", constraints.max_price, violations),
    }
}

/// Workers that were refused for one reason.
pub(crate) fn render_refusal(refusal: &Refusal) -> proto::Refusal {
    proto::Refusal {
        reason: refusal.reason.to_owned(),
        message: refusal.message.clone(),
        count: render_count(refusal.count),
        workers: refusal.workers.iter().map(ToString::to_string).collect(),
        shortfall: refusal.shortfall.as_ref().map(render_shortfall),
    }
}

fn render_shortfall(shortfall: &Shortfall) -> types::Shortfall {
    types::Shortfall {
        resource: shortfall.resource().to_owned(),
        requested: shortfall.requested(),
        available: shortfall.available(),
    }
}
