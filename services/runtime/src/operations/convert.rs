//! From and to the messages of the operations service.

use muster_proto::ops::v1 as proto;
use tonic::Status;

use super::backing::Instance;
use super::maintenance::Wanted;
use crate::context::{COMMIT, Context};
use crate::health::{CheckReport, Found, Tier};
use crate::layers::shed::Lane;
use crate::status::Violations;

/// The longest reason, in characters.
const MAX_REASON: usize = 256;

pub(super) fn parse_wanted(
    request: proto::SetMaintenanceRequest,
    actor: String,
) -> Result<Wanted, Status> {
    let proto::SetMaintenanceRequest { on, reason } = request;
    let mut violations = Violations::new();
    if on && reason.trim().is_empty() {
        violations.add("reason", "is required to turn maintenance on");
    }
    if reason.chars().count() > MAX_REASON {
        violations.add("reason", format!("is longer than {MAX_REASON} characters"));
    }
    violations.into_result()?;
    Ok(Wanted { on, reason, actor })
}

pub(super) fn render_status(
    context: &Context,
    instance: Instance,
    maintenance: proto::Maintenance,
) -> proto::GetStatusResponse {
    let report = context.health.report();
    let load = &context.load;
    let in_flight = load.in_flight(Lane::Shared) + load.in_flight(Lane::Vital);
    proto::GetStatusResponse {
        component: context.identity.name.to_owned(),
        ready: report.ready,
        live: report.live,
        checks: report.checks.into_iter().map(render_check).collect(),
        maintenance: Some(maintenance),
        store: instance.position.store.to_owned(),
        epoch: instance.position.epoch.clone(),
        in_flight: i32::try_from(in_flight).unwrap_or(i32::MAX),
        commit: COMMIT.to_owned(),
        instance: Some(render_instance(instance)),
    }
}

pub(super) fn render_instance(instance: Instance) -> proto::Instance {
    let Instance {
        id,
        address,
        version,
        started,
        position,
    } = instance;
    proto::Instance {
        id,
        address,
        version,
        leader: position.leader,
        start_time: Some(started.into()),
        revision: position.revision,
        lag: position.lag.and_then(|lag| lag.try_into().ok()),
    }
}

fn render_check(check: CheckReport) -> proto::ComponentCheck {
    let tier = match check.tier {
        Tier::Core => proto::CheckTier::Core,
        Tier::Auxiliary => proto::CheckTier::Auxiliary,
    };
    let state = match check.found {
        Found::Pending => proto::CheckState::Unspecified,
        Found::Ok => proto::CheckState::Ok,
        Found::Failed => proto::CheckState::Failed,
        Found::Stuck => proto::CheckState::Stuck,
    };
    proto::ComponentCheck {
        name: check.name,
        tier: tier.into(),
        state: state.into(),
        since_time: Some(check.since.into()),
        detail: check.detail,
    }
}
