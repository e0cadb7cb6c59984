//! Events.

use std::borrow::Cow;

use muster_proto::types::v1 as types;

use super::ask::DEFAULT_PROJECT;
use super::time::{parse_time, render_time};
use crate::domain::event::{Event, Severity};

/// The component that tells these events.
const COMPONENT: &str = "worker-registry";

/// An event.
pub(crate) fn render_event(event: &Event) -> types::Event {
    types::Event {
        id: event.id.to_string(),
        time: Some(render_time(event.at)),
        project: DEFAULT_PROJECT.to_owned(),
        component: COMPONENT.to_owned(),
        subject: event.subject.clone(),
        subject_uid: event.uid.to_string(),
        kind: event.kind.clone().into_owned(),
        severity: render_severity(event.severity).into(),
        message: event.message.clone(),
        actor: event.actor.to_string(),
        attributes: event
            .attributes
            .iter()
            .map(|(key, value)| (key.clone().into_owned(), value.clone()))
            .collect(),
    }
}

/// An event from its record; none if the record is damaged.
pub(crate) fn parse_event(event: types::Event) -> Option<Event> {
    Some(Event {
        severity: parse_severity(event.severity())?,
        id: event.id.into(),
        at: parse_time(event.time.as_ref())?,
        subject: event.subject,
        uid: event.subject_uid.into(),
        kind: Cow::Owned(event.kind),
        message: event.message,
        actor: event.actor.into(),
        attributes: event
            .attributes
            .into_iter()
            .map(|(key, value)| (Cow::Owned(key), value))
            .collect(),
    })
}

/// How much an event matters; none if it is not said.
pub(crate) fn parse_severity(severity: types::EventSeverity) -> Option<Severity> {
    match severity {
        types::EventSeverity::Unspecified => None,
        types::EventSeverity::Info => Some(Severity::Info),
        types::EventSeverity::Warning => Some(Severity::Warning),
        types::EventSeverity::Error => Some(Severity::Error),
    }
}

fn render_severity(severity: Severity) -> types::EventSeverity {
    match severity {
        Severity::Info => types::EventSeverity::Info,
        Severity::Warning => types::EventSeverity::Warning,
        Severity::Error => types::EventSeverity::Error,
    }
}
