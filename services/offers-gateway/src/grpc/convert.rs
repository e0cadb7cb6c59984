//! Between the wire's words and ours: `parse_*` checks what callers send and notes every fault,
//! `render_*` says what we know. It decides nothing else.

mod backend;
mod filter;
mod offer;
mod service;

pub use backend::{render_backend, render_report};
pub use filter::{parse_filter, parse_group_by, parse_order, parse_outcome};
pub use offer::{
    render_availability, render_capacity_type, render_group, render_machine, render_offer,
    render_price, render_source,
};
pub use service::{BackendOffer, parse_backend_offer};

use std::time::{Duration, SystemTime};

use muster_runtime::status::Violations;

/// A time on the wire.
pub fn render_time(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

/// A duration on the wire; one beyond what it can hold is its most.
pub fn render_duration(duration: Duration) -> prost_types::Duration {
    let most = prost_types::Duration {
        seconds: 315_576_000_000,
        nanos: 0,
    };
    duration.try_into().unwrap_or(most)
}

/// A duration that is not negative.
pub fn parse_duration(
    field: &str,
    duration: Option<prost_types::Duration>,
    violations: &mut Violations,
) -> Option<Duration> {
    let parsed = duration?.try_into();
    violations.take(field, parsed.map_err(|_| "must be a duration of 0 or more"))
}
