//! Records as bytes. Headers and replicas are JSON of the domain's types; versions and events are the
//! contract's own messages, whose compatibility is checked anyway.

use std::sync::Arc;

use bytes::Bytes;
use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::Event;
use muster_runtime::status::Violations;
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::spec::Spec;
use crate::domain::time::Time;
use crate::grpc::convert::spec::read_spec;

/// A record that cannot be read: the store is of a newer version, or damaged.
#[derive(Debug, thiserror::Error)]
#[error("the record {key} cannot be read: {why}")]
pub(crate) struct Unreadable {
    key: String,
    why: String,
}

/// A request id that was used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Used {
    /// A hash of the request's body.
    pub(crate) body: String,
    /// The service that it made or changed.
    pub(crate) uid: String,
    /// Whether it made it.
    pub(crate) created: bool,
    /// When.
    pub(crate) at: Time,
}

/// A kept version with its spec, as both sides need it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) stored: Arc<wire::ServiceVersion>,
    pub(crate) spec: Arc<Spec>,
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Bytes {
    // Serialising to memory fails only for types that these are not: maps with keys that are no text.
    serde_json::to_vec(value).map_or_else(|_| Bytes::new(), Bytes::from)
}

pub(crate) fn from_json<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(value).map_err(|error| unreadable(key, &error))
}

pub(crate) fn to_version(version: &wire::ServiceVersion) -> Bytes {
    version.encode_to_vec().into()
}

pub(crate) fn from_version(key: &str, value: &[u8]) -> Result<Version, Unreadable> {
    let stored = wire::ServiceVersion::decode(value).map_err(|error| unreadable(key, &error))?;
    let spec = stored.spec.clone().unwrap_or_default();
    let spec = read_spec(spec, &mut Violations::new());
    Ok(Version {
        stored: Arc::new(stored),
        spec: Arc::new(spec),
    })
}

/// All events of one transaction.
pub(crate) fn to_events(events: Vec<Event>) -> Bytes {
    let batch = wire::ListEventsResponse {
        events,
        ..wire::ListEventsResponse::default()
    };
    batch.encode_to_vec().into()
}

pub(crate) fn from_events(key: &str, value: &[u8]) -> Result<Vec<Event>, Unreadable> {
    let batch = wire::ListEventsResponse::decode(value);
    batch
        .map(|batch| batch.events)
        .map_err(|error| unreadable(key, &error))
}

/// What an agent told of an attempt that nobody knows.
pub(crate) fn to_report(report: &wire::AttemptReport) -> Bytes {
    report.encode_to_vec().into()
}

pub(crate) fn from_report(key: &str, value: &[u8]) -> Result<wire::AttemptReport, Unreadable> {
    wire::AttemptReport::decode(value).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &str, why: &dyn std::fmt::Display) -> Unreadable {
    Unreadable {
        key: key.to_owned(),
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::domain::failure::Class;
    use crate::domain::failure::episode::Episode;
    use crate::domain::replica::attempt::Attempt;
    use crate::domain::replica::{Backoff, Replica, Role, State};
    use crate::domain::rollout::Edition;

    #[test]
    fn a_replica_comes_back_as_it_was() {
        let now = Time::default() + Duration::from_secs(5);
        let edition = Edition {
            template: 1,
            restart: 0,
            version: 2,
        };
        let mut replica = Replica::new(3, Role::Move { of: 1 }, edition, now);
        replica.attempt = Some(Attempt::new(4, 2));
        let mut episode = Episode::begin(Class::Error, now);
        episode.add(Class::NoCapacity, now);
        replica.episode = Some(episode);
        replica.state = State::Backoff(Backoff {
            due: now,
            class: Class::Error,
            hold: Some("a-1".to_owned()),
            message: "failed".to_owned(),
            room_seen: u64::MAX,
        });
        let read: Replica = from_json("k", &to_json(&replica)).unwrap();
        assert_eq!(read, replica);
        let map: BTreeMap<String, u32> = BTreeMap::new();
        assert!(from_json::<Replica>("k", &to_json(&map)).is_err());
    }
}
