//! A service as the demo acts on it and sees it.

use std::{future::Future, time::Duration};

use muster_proto::replicas::v1::{
    DeleteServiceRequest, ReplicaCounts, ServicePhase, UpdateServiceRequest,
};
use prost_types::FieldMask;
use tokio::sync::watch;

use super::step;
use crate::{
    commands::{
        live::{self, Flow},
        services::Services,
    },
    failure::Failure,
    session::{Component, Session},
    spec, text,
};

/// A service as it was seen.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) name: String,
    pub(crate) reason: String,
    counts: ReplicaCounts,
}

impl Observed {
    /// How many are ready, in words.
    pub(crate) fn words(&self) -> String {
        format!("{} of {} ready", self.counts.ready, self.counts.wanted)
    }
}

/// Applies a spec, as `muster apply` does.
pub(crate) async fn apply(session: &Session, yaml: &str) -> Result<Observed, Failure> {
    let wrong = |problems: Vec<spec::Problem>| {
        Failure::Failed(
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        )
    };
    let spec = spec::parse(yaml)
        .map_err(wrong)?
        .into_iter()
        .next()
        .unwrap_or_default();
    let name = spec.name.clone();
    let request = UpdateServiceRequest {
        spec: Some(spec),
        update_mask: Some(FieldMask {
            paths: vec!["*".to_owned()],
        }),
        allow_missing: true,
        ..UpdateServiceRequest::default()
    };
    session
        .call(
            Component::Manager,
            session.replicas().update_service(request),
        )
        .await?;
    Ok(Observed {
        name,
        reason: String::new(),
        counts: ReplicaCounts::default(),
    })
}

fn watched(name: &str) -> Services {
    Services {
        names: vec![name.to_owned()],
    }
}

/// Waits until a service is in a phase.
pub(crate) async fn until(
    session: &Session,
    service: &Observed,
    phase: ServicePhase,
    patience: Duration,
) -> Result<Observed, Failure> {
    let mut seen = None;
    let mut last = String::new();
    let services = watched(&service.name);
    let watch = live::follow(session, &services, |changes| {
        for now in changes.into_iter().filter_map(|(_, now)| now) {
            let status = now.status.unwrap_or_default();
            last = format!(
                "{}: {}",
                text::word(status.phase().as_str_name(), "SERVICE_PHASE_"),
                status.reason
            );
            if status.phase() == phase {
                let counts = status.counts.unwrap_or_default();
                seen = Some(Observed {
                    name: now.name,
                    reason: status.reason,
                    counts,
                });
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::GoOn)
    });
    let word = text::word(phase.as_str_name(), "SERVICE_PHASE_");
    let waited = step::within(patience, &format!("{} was not {word}", service.name), watch).await;
    if let Err(failure) = waited {
        return Err(Failure::Failed(format!("{failure}; it is {last}")));
    }
    seen.ok_or_else(|| Failure::Failed(format!("{} was not seen", service.name)))
}

/// Watches how many replicas are ready, and keeps the least.
pub(crate) fn least_ready<'s>(
    session: &'s Session,
    service: &Observed,
) -> (
    watch::Receiver<i32>,
    impl Future<Output = Result<(), Failure>> + use<'s>,
) {
    let (least, seen) = watch::channel(i32::MAX);
    let services = watched(&service.name);
    let watching = async move {
        live::follow(session, &services, |changes| {
            for now in changes.into_iter().filter_map(|(_, now)| now) {
                let counts = now
                    .status
                    .and_then(|status| status.counts)
                    .unwrap_or_default();
                least.send_modify(|least| *least = counts.ready.min(*least));
            }
            Ok(Flow::GoOn)
        })
        .await
    };
    (seen, watching)
}

/// Deletes a service and waits until it is gone.
pub(crate) async fn remove(
    session: &Session,
    name: &str,
    patience: Duration,
) -> Result<(), Failure> {
    let request = DeleteServiceRequest {
        name: name.to_owned(),
        ..DeleteServiceRequest::default()
    };
    session
        .call(
            Component::Manager,
            session.replicas().delete_service(request),
        )
        .await?;
    let services = watched(name);
    let mut present = false;
    let watch = live::follow(session, &services, |changes| {
        for (_, now) in changes {
            present = now.is_some();
        }
        Ok(if present { Flow::GoOn } else { Flow::Done })
    });
    step::within(patience, &format!("{name} was not gone"), watch).await
}
