//! What the ops port answers: JSON for people and probes, text for Prometheus. It decides the
//! status code from health, and nothing else.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use prost_types::Timestamp;
use serde::Serialize;
use tonic::body::Body;

use crate::context::{COMMIT, Context};
use crate::health::{CheckReport, Report};
use crate::layers::shed::Lane;

const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Serialize)]
struct Check<'a> {
    name: &'a str,
    tier: &'static str,
    status: &'static str,
    since: String,
    detail: &'a str,
}

impl<'a> From<&'a CheckReport> for Check<'a> {
    fn from(check: &'a CheckReport) -> Self {
        Self {
            name: &check.name,
            tier: check.tier.name(),
            status: check.found.name(),
            since: time(check.since),
            detail: &check.detail,
        }
    }
}

#[derive(Serialize)]
struct Live<'a> {
    status: &'static str,
    component: &'static str,
    uptime_seconds: u64,
    checks: Vec<Check<'a>>,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: &'static str,
    component: &'static str,
    version: &'static str,
    instance: &'a str,
    uptime_seconds: u64,
    in_flight: usize,
    vital_in_flight: usize,
    /// Of calls that are no streams, over the last minute.
    p99_ms: Option<f64>,
    queues: BTreeMap<&'static str, usize>,
    checks: Vec<Check<'a>>,
}

#[derive(Serialize)]
struct Version<'a> {
    component: &'static str,
    version: &'static str,
    commit: &'static str,
    instance: &'a str,
    start_time: String,
}

#[derive(Serialize)]
struct Error {
    error: &'static str,
}

/// Whether the process makes progress: only its event loop is asked.
pub(super) fn live(context: &Context) -> Response<Body> {
    let report = context.health.report();
    let body = Live {
        status: if report.live { "live" } else { "stalled" },
        component: context.identity.name,
        uptime_seconds: context.clock.uptime().as_secs(),
        checks: report
            .checks
            .iter()
            .filter(|check| check.is_of_liveness())
            .map(Check::from)
            .collect(),
    };
    json(code(report.live), &body)
}

/// Whether the process takes traffic, and everything that bears on it.
pub(super) fn ready(context: &Context) -> Response<Body> {
    let report = context.health.report();
    let body = Ready {
        status: ready_word(&report),
        component: context.identity.name,
        version: context.identity.version,
        instance: &context.identity.instance,
        uptime_seconds: context.clock.uptime().as_secs(),
        in_flight: context.load.in_flight(Lane::Shared),
        vital_in_flight: context.load.in_flight(Lane::Vital),
        p99_ms: context.load.p99().map(|time| time.as_secs_f64() * 1e3),
        queues: context.load.queues(),
        checks: report.checks.iter().map(Check::from).collect(),
    };
    json(code(report.ready), &body)
}

pub(super) fn metrics(context: &Context) -> Response<Body> {
    match context.metrics.render() {
        Ok(text) => respond(StatusCode::OK, OPENMETRICS, text.into()),
        Err(_) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written",
        ),
    }
}

pub(super) fn version(context: &Context) -> Response<Body> {
    let body = Version {
        component: context.identity.name,
        version: context.identity.version,
        commit: COMMIT,
        instance: &context.identity.instance,
        start_time: time(context.clock.started()),
    };
    json(StatusCode::OK, &body)
}

pub(super) fn error(status: StatusCode, error: &'static str) -> Response<Body> {
    json(status, &Error { error })
}

fn ready_word(report: &Report) -> &'static str {
    match (report.ready, report.degraded) {
        (true, false) => "ready",
        (true, true) => "degraded",
        (false, _) => "not ready",
    }
}

fn code(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Plain data with text keys cannot fail to be written.
    let mut text = serde_json::to_vec_pretty(body).unwrap_or_default();
    text.push(b'\n');
    respond(status, JSON, text.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn time(time: SystemTime) -> String {
    Timestamp::from(time).to_string()
}
