//! What happens to a service as a whole.

use super::{Happening, Severity, about};
use crate::domain::rollout::Stage;
use crate::domain::service::{Intent, Service};
use crate::domain::status::ServicePhase;

pub(super) fn tell(before: Option<&Service>, after: &Service, told: &mut Vec<Happening>) {
    let Some(before) = before else {
        let mode = match after.spec().retry {
            Some(_) => "a failed replica is tried again",
            None => "the first failure ends the service",
        };
        told.push(about(
            None,
            "ServiceCreated",
            Severity::Info,
            format!("created: {mode}"),
        ));
        return;
    };
    written(before, after, told);
    rollout(before, after, told);
    phase(before, after, told);
}

fn written(before: &Service, after: &Service, told: &mut Vec<Happening>) {
    let (old, new) = (&before.header, &after.header);
    if old.version != new.version {
        let message = format!("version {} applied", new.version);
        let event = about(None, "ServiceUpdated", Severity::Info, message);
        told.push(event.with("version", &new.version));
    } else if old.edition.restart != new.edition.restart {
        let event = about(
            None,
            "ServiceRestarted",
            Severity::Info,
            "all replicas are replaced",
        );
        told.push(event);
    }
    if old.scale != new.scale {
        let message = match new.scale {
            Some(number) => format!("scaled to {number}"),
            None => "scaled back to the spec's number".to_owned(),
        };
        told.push(about(None, "ServiceScaled", Severity::Info, message));
    }
    let (was, desired) = (old.autoscaler.desired, new.autoscaler.desired);
    if let (Some(was), Some(desired)) = (was, desired)
        && was != desired
    {
        let total = new.autoscaler.measure.map_or(0.0, |measure| measure.total);
        let message =
            format!("the load of {total:.1} asks for {desired} replicas instead of {was}");
        let event = about(None, "ServiceAutoscaled", Severity::Info, message);
        told.push(event.with("from", &was).with("to", &desired));
    }
    if old.intent == new.intent {
        return;
    }
    told.push(match new.intent {
        Intent::Run => about(None, "ServiceStarted", Severity::Info, &new.intent_reason),
        Intent::Stop => about(None, "ServiceStopping", Severity::Info, &new.intent_reason),
        Intent::Delete => about(None, "ServiceDeleting", Severity::Info, &new.intent_reason),
        Intent::Failed => {
            let failure = new.failure.as_ref();
            let message = failure.map_or("failed", |failure| failure.message.as_str());
            let event = about(None, "ServiceFailed", Severity::Error, message);
            event.with(
                "reason",
                &failure.map_or("", |failure| failure.reason.word()),
            )
        }
    });
}

fn rollout(before: &Service, after: &Service, told: &mut Vec<Happening>) {
    let Some(new) = &after.header.rollout else {
        return;
    };
    let old = before.header.rollout.as_ref();
    let same = old.is_some_and(|old| old.target == new.target);
    let was = old.filter(|_| same).map(|old| old.stage);
    if was == Some(new.stage) {
        return;
    }
    let version = new.target.version;
    let resumed = matches!(was, Some(Stage::Paused { .. }));
    let (kind, severity, message) = match new.stage {
        Stage::Running if resumed => return,
        Stage::Running => (
            "UpdateStarted",
            Severity::Info,
            format!("to version {version}"),
        ),
        Stage::Paused { .. } if resumed => return,
        Stage::Paused { .. } => ("UpdatePaused", Severity::Warning, new.reason.clone()),
        Stage::Complete => (
            "UpdateComplete",
            Severity::Info,
            format!("version {version} runs"),
        ),
        Stage::RollingBack => ("UpdateRollingBack", Severity::Error, new.reason.clone()),
        Stage::RolledBack => ("UpdateRolledBack", Severity::Warning, new.reason.clone()),
    };
    told.push(about(None, kind, severity, message).with("version", &version));
}

fn phase(before: &Service, after: &Service, told: &mut Vec<Happening>) {
    let (old, new) = (&before.header.status, &after.header.status);
    if old.phase == new.phase {
        return;
    }
    let (kind, severity) = match new.phase {
        ServicePhase::Pending | ServicePhase::Starting => ("ServiceStarting", Severity::Info),
        ServicePhase::Healthy => ("ServiceHealthy", Severity::Info),
        ServicePhase::Degraded => ("ServiceDegraded", Severity::Warning),
        ServicePhase::Down => ("ServiceDown", Severity::Error),
        ServicePhase::Stopped => ("ServiceStopped", Severity::Info),
        // The change of the intent told it already.
        ServicePhase::Stopping | ServicePhase::Failed => return,
    };
    let mut event = about(None, kind, severity, &new.reason);
    event = event
        .with("from", &old.phase.word())
        .with("ready", &new.counts.ready);
    event = event.with("wanted", &new.counts.wanted);
    let recovered = old.phase == ServicePhase::Down || new.phase == ServicePhase::Healthy;
    let troubled = matches!(old.phase, ServicePhase::Down | ServicePhase::Degraded);
    if let Some(lasted) = after
        .header
        .totals
        .last_recovery
        .filter(|_| recovered && troubled)
    {
        event = event.with("lasted_ms", &lasted.as_millis());
    }
    told.push(event);
}
