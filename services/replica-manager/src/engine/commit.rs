//! What a change of a service comes to in the store: the records that differ, the version that is new,
//! and the events that tell of it. Pure but for the ids of events.

use std::collections::BTreeSet;

use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::{Event, EventSeverity};
use muster_store::Transaction;

use super::Cause;
use super::journal::Journal;
use crate::domain::events::{self, Happening, Severity};
use crate::domain::service::{Service, differing};
use crate::domain::time::Time;
use crate::grpc::convert::spec::render_spec;
use crate::grpc::convert::{number, render_time};
use crate::state::keys;
use crate::state::record::{self, to_json};
use crate::state::view::{Stored, View};

/// Versions kept of a service, besides those in use.
const KEPT_VERSIONS: usize = 20;

/// A change that is to be committed.
pub(super) struct Draft<'a> {
    pub(super) before: Option<&'a Stored>,
    pub(super) after: &'a Service,
    pub(super) deleted: bool,
    pub(super) cause: &'a Cause,
    pub(super) now: Time,
}

impl Draft<'_> {
    /// The writes; `None` if nothing differs.
    pub(super) fn transaction(&self, journal: &Journal, view: &View) -> Option<Transaction> {
        let before = self.before.map(|stored| &*stored.service);
        let same = before.is_some_and(|before| before == self.after);
        if same && !self.deleted && self.cause.request.is_none() {
            return None;
        }
        let header = &self.after.header;
        let key = keys::service(&header.project, &header.name);
        let mut transaction = Transaction::new();
        if let Some((request, used)) = &self.cause.request {
            transaction = transaction.put(request.clone(), to_json(used));
        }
        if self.deleted {
            transaction = self.delete_versions(transaction.delete(key), view);
        } else {
            transaction = transaction.put(key, to_json(header));
            transaction = self.put_versions(transaction, view);
        }
        transaction = self.put_replicas(transaction);
        let told = self.events(journal);
        if let Some((key, told)) = told {
            transaction = transaction.put(key, record::to_events(told));
        }
        Some(transaction)
    }

    fn put_replicas(&self, mut transaction: Transaction) -> Transaction {
        let uid = &self.after.header.uid;
        let before = self.before.map(|stored| &*stored.service);
        for (was, is) in differing(before, Some(self.after)) {
            match (was, is) {
                (Some(was), Some(is)) if was == is => {}
                (_, Some(replica)) => {
                    let key = keys::replica(uid, replica.ordinal);
                    transaction = transaction.put(key, to_json(&**replica));
                }
                (Some(gone), None) => {
                    transaction = transaction.delete(keys::replica(uid, gone.ordinal));
                }
                (None, None) => {}
            }
        }
        transaction
    }

    /// Keeps the version that is new, marks the one that is proven, and lets go of old ones.
    fn put_versions(&self, mut transaction: Transaction, view: &View) -> Transaction {
        let header = &self.after.header;
        let old = self.before.map(|stored| &stored.service.header);
        let proven = header
            .proven
            .filter(|_| old.is_none_or(|old| old.proven != header.proven));
        let is_new = old.is_none_or(|old| old.version != header.version);
        if is_new {
            let version = wire::ServiceVersion {
                version: number(header.version),
                spec: Some(render_spec(&self.after.applied)),
                create_time: Some(render_time(self.now)),
                actor: self.cause.actor.clone(),
                proven: false,
            };
            let key = keys::version(&header.uid, header.version);
            transaction = transaction.put(key, record::to_version(&version));
        }
        let inner = view.read();
        let Some(versions) = inner.versions(&header.uid) else {
            return transaction;
        };
        if let Some(edition) = proven
            && let Some(known) = versions.get(&edition.version)
        {
            let version = wire::ServiceVersion {
                proven: true,
                ..(*known.stored).clone()
            };
            let key = keys::version(&header.uid, edition.version);
            transaction = transaction.put(key, record::to_version(&version));
        }
        if is_new && versions.len() >= KEPT_VERSIONS {
            let needed = self.after.versions_in_use();
            let surplus = versions.len() + 1 - KEPT_VERSIONS;
            let old = versions.keys().filter(|version| !needed.contains(version));
            for version in old.take(surplus) {
                transaction = transaction.delete(keys::version(&header.uid, *version));
            }
        }
        transaction
    }

    fn delete_versions(&self, mut transaction: Transaction, view: &View) -> Transaction {
        let uid = &self.after.header.uid;
        let inner = view.read();
        let versions = inner.versions(uid).map(|versions| versions.keys().copied());
        for version in versions.into_iter().flatten().collect::<BTreeSet<u64>>() {
            transaction = transaction.delete(keys::version(uid, version));
        }
        transaction
    }

    fn events(&self, journal: &Journal) -> Option<(String, Vec<Event>)> {
        let before = self.before.map(|stored| &*stored.service);
        let mut told = events::between(before, self.after);
        if self.deleted {
            told.push(Happening {
                ordinal: None,
                kind: "ServiceDeleted",
                severity: Severity::Info,
                message: "nothing of it is left".to_owned(),
                attributes: std::collections::BTreeMap::new(),
            });
        }
        if told.is_empty() {
            return None;
        }
        let batch = journal.next(self.now);
        let events = told.into_iter().enumerate();
        let events = events.map(|(index, happening)| self.event(&batch, index, happening));
        Some((format!("{}{batch}", keys::EVENTS), events.collect()))
    }

    fn event(&self, batch: &str, index: usize, happening: Happening) -> Event {
        let header = &self.after.header;
        let subject = match happening.ordinal {
            Some(ordinal) => format!("replica/{}", self.after.replica_id(ordinal)),
            None => format!("service/{}", header.name),
        };
        let severity = match happening.severity {
            Severity::Info => EventSeverity::Info,
            Severity::Warning => EventSeverity::Warning,
            Severity::Error => EventSeverity::Error,
        };
        Event {
            id: format!("{batch}.{index:04}"),
            time: Some(render_time(self.now)),
            project: header.project.clone(),
            component: "replica-manager".to_owned(),
            subject,
            subject_uid: header.uid.clone(),
            kind: happening.kind.to_owned(),
            severity: severity.into(),
            message: happening.message,
            actor: self.cause.actor.clone(),
            attributes: happening.attributes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use muster_store::Revision;

    use super::*;
    use crate::domain::plan::plan;
    use crate::domain::replica::attempt::{Allocation, Attempt};
    use crate::domain::replica::observe::{Observation, Report};
    use crate::domain::replica::{Phase, Replica, Role, State};
    use crate::domain::service::command::Identity;
    use crate::domain::spec::defaults;
    use crate::domain::spec::testing::spec;
    use crate::domain::world::{Position, Terms, World};
    use crate::grpc::agents::AT_ONCE;
    use crate::grpc::convert::report::parse_report;

    /// An end with all the words that an agent may find.
    fn last_words(letter: &str) -> Report {
        let report = wire::AttemptReport {
            phase: wire::AttemptPhase::Ended.into(),
            message: letter.repeat(1024),
            last_log_lines: vec![letter.repeat(1024); 20],
            ..wire::AttemptReport::default()
        };
        parse_report(&report, Time::default()).unwrap()
    }

    fn attempt(number: u32) -> Attempt {
        let mut attempt = Attempt::new(number, 1);
        attempt.allocation = Some(Allocation {
            id: format!("{number:032}"),
            worker: "w".repeat(63),
            generation: 1,
            region: "r".repeat(63),
            gpu_uuids: vec!["GPU-00000000-0000-0000-0000-000000000000".to_owned(); 16],
            fencing_token: "f".repeat(64),
            replaces: String::new(),
            host_ports: Vec::new(),
            at: Time::default(),
        });
        attempt
    }

    fn running(ordinal: u32, service: &Service) -> Replica {
        let edition = service.header.edition;
        let mut replica = Replica::new(ordinal, Role::Member, edition, Time::default());
        replica.attempts = 2;
        replica.state = State::Running(Phase::Ready);
        replica.attempt = Some(attempt(2));
        replica.previous = Some(attempt(1));
        replica
    }

    #[test]
    fn as_many_ends_as_are_recorded_and_planned_for_at_once_fit_whatever_was_printed() {
        let now = Time::default();
        let terms = Terms::default();
        let planned = u32::try_from(terms.batch).unwrap();
        let recorded = u32::try_from(AT_ONCE).unwrap();
        for letter in ["\u{1f980}", "\"", "\\", "\u{1}", "x"] {
            let mut spec = spec("chat");
            spec.retry = Some(defaults::retry());
            spec.replicas.min = planned + recorded;
            spec.replicas.max = planned + recorded;
            let identity = Identity {
                project: "default".to_owned(),
                uid: "u".repeat(32),
            };
            let mut before = Service::create(identity, spec, true, now);
            for ordinal in 0..planned + recorded {
                let mut replica = running(ordinal, &before);
                if ordinal < planned {
                    // Recorded before, and not planned for yet.
                    let end = Observation::Reported(last_words(letter));
                    let _ = replica.observe(2, end, now).unwrap();
                }
                before.replicas.insert(ordinal, Arc::new(replica));
            }
            let mut after = before.clone();
            for ordinal in planned..planned + recorded {
                let end = Observation::Reported(last_words(letter));
                let replica = after.replica_mut(ordinal).unwrap();
                let _ = replica.observe(2, end, now).unwrap();
            }
            let world = World {
                workers: None,
                position: &Position::default(),
                room: 1,
                moves_elsewhere: &BTreeMap::new(),
                measure: None,
                since: Time::default(),
                terms: &terms,
            };
            let actions = plan(now.into(), &after, &world).actions;
            assert!(actions.len() >= terms.batch);
            for action in &actions {
                after.apply(action, 1, now);
            }
            let draft = Draft {
                before: Some(&Stored {
                    service: Arc::new(before),
                    revision: Revision(1),
                }),
                after: &after,
                deleted: false,
                cause: &Cause::system(),
                now,
            };
            let journal = Journal::new("e".to_owned());
            let written = draft.transaction(&journal, &View::default()).unwrap();
            written.check_size().unwrap();
        }
    }
}
