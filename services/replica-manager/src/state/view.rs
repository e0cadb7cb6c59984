//! The records in memory: a fold over what the store has made durable, in the store's order. Reads answer
//! from here; nothing but the fold changes it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use muster_proto::replicas::v1::AttemptReport;
use muster_proto::types::v1::Event;
use muster_store::{Batch, Change, Listing, Record, Revision};
use rustc_hash::FxHashMap;

use super::keys;
use super::record::{self, Unreadable, Used, Version};
use crate::domain::failure::Class;
use crate::domain::replica::{Replica, State};
use crate::domain::service::{Header, Service, differing};

/// A service's uid.
pub(crate) type Uid = Arc<str>;

/// A service as it is durable.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) service: Arc<Service>,
    /// The revision of its own record, which every change of anything of it puts anew.
    pub(crate) revision: Revision,
}

/// What one revision did to one service.
#[derive(Clone, Debug)]
pub(crate) struct Touched {
    pub(crate) uid: Uid,
    pub(crate) before: Option<Arc<Service>>,
    pub(crate) after: Option<Arc<Service>>,
}

/// What one revision did.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    pub(crate) services: Vec<Touched>,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) forgotten_events: Vec<Arc<Event>>,
}

/// The records in memory. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct View(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) revision: u64,
    services: FxHashMap<Uid, Stored>,
    names: BTreeMap<(String, String), Uid>,
    versions: FxHashMap<Uid, BTreeMap<u64, Version>>,
    pub(crate) events: BTreeMap<Arc<str>, Arc<Event>>,
    pub(crate) event_batches: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    pub(crate) requests: FxHashMap<Arc<str>, Used>,
    /// What agents run that no record of a service knows, by worker and attempt.
    pub(crate) orphans: BTreeMap<(String, String), Arc<AttemptReport>>,
    /// How many replicas of a service have something on a worker.
    by_worker: FxHashMap<String, BTreeMap<Uid, usize>>,
    /// How many replicas of a service wait for a place.
    waiting: BTreeMap<Uid, usize>,
}

impl View {
    /// The view of everything that the store holds.
    pub(crate) fn load(listing: &Listing) -> Result<Self, Unreadable> {
        let mut inner = Inner::default();
        let changes = listing.records.iter().map(|record| Change {
            key: Arc::clone(&record.key),
            before: None,
            after: Some(record.clone()),
        });
        let batch = Batch {
            revision: listing.revision,
            changes: changes.collect(),
        };
        inner.fold(&batch)?;
        Ok(Self(Arc::new(RwLock::new(inner))))
    }

    /// Takes in what one revision did.
    pub(crate) fn fold(&self, batch: &Batch) -> Result<Folded, Unreadable> {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .fold(batch)
    }

    /// The view at one revision. Must not be held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, uid: &str) -> Option<Stored> {
        self.read().services.get(uid).cloned()
    }
}

impl Inner {
    pub(crate) fn named(&self, project: &str, name: &str) -> Option<&Stored> {
        let uid = self.names.get(&(project.to_owned(), name.to_owned()))?;
        self.services.get(uid)
    }

    pub(crate) fn of(&self, uid: &str) -> Option<&Stored> {
        self.services.get(uid)
    }

    /// Services of a project whose names are at or after `from`, in order of name.
    pub(crate) fn services_from<'a>(
        &'a self,
        project: &str,
        from: &str,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let first = (project.to_owned(), from.to_owned());
        let project = project.to_owned();
        let names = self.names.range(first..);
        let names = names.take_while(move |((of, _), _)| *of == project);
        names.filter_map(|(_, uid)| self.services.get(uid).map(|stored| &stored.service))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&Uid, &Arc<Service>)> {
        self.services
            .iter()
            .map(|(uid, stored)| (uid, &stored.service))
    }

    pub(crate) fn versions(&self, uid: &str) -> Option<&BTreeMap<u64, Version>> {
        self.versions.get(uid)
    }

    /// Services that have something on a worker.
    pub(crate) fn on_worker(&self, worker: &str) -> Vec<Uid> {
        let uids = self.by_worker.get(worker);
        uids.map_or_else(Vec::new, |uids| uids.keys().cloned().collect())
    }

    /// The orphans on a worker, by attempt.
    pub(crate) fn orphans_on<'a>(
        &'a self,
        worker: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<AttemptReport>)> {
        let from = self.orphans.range((worker.to_owned(), String::new())..);
        let here = from.take_while(move |((of, _), _)| of == worker);
        here.map(|((_, attempt), report)| (attempt.as_str(), report))
    }

    /// Services that wait for a place.
    pub(crate) fn waiting(&self) -> Vec<Uid> {
        self.waiting.keys().cloned().collect()
    }

    fn fold(&mut self, batch: &Batch) -> Result<Folded, Unreadable> {
        let mut folded = Folded::default();
        let mut touched = Parts::default();
        for change in &batch.changes {
            self.take(change, &mut touched, &mut folded)?;
        }
        for (uid, part) in touched.0 {
            folded.services.extend(self.rebuild(uid, part));
        }
        self.revision = batch.revision.0;
        Ok(folded)
    }

    fn take(
        &mut self,
        change: &Change,
        touched: &mut Parts,
        folded: &mut Folded,
    ) -> Result<(), Unreadable> {
        let key = &*change.key;
        if key.starts_with(keys::SERVICES) {
            self.take_header(change, touched)?;
        } else if let Some((uid, ordinal)) = keys::numbered(keys::REPLICAS, key) {
            let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
            let after = change.after.as_ref();
            let replica = after.map(|record| record::from_json::<Replica>(key, &record.value));
            let replica = replica.transpose()?.map(Arc::new);
            touched.of(uid).replicas.push((ordinal, replica));
        } else if let Some((uid, version)) = keys::numbered(keys::VERSIONS, key) {
            self.take_version(uid, version, change.after.as_deref(), key)?;
            touched.of(uid);
        } else if key.starts_with(keys::EVENTS) {
            self.take_events(change, folded)?;
        } else if let Some((worker, attempt)) = keys::worker_and_attempt(key) {
            let id = (worker.to_owned(), attempt.to_owned());
            match &change.after {
                Some(record) => {
                    let report = record::from_report(key, &record.value)?;
                    self.orphans.insert(id, Arc::new(report));
                }
                None => {
                    self.orphans.remove(&id);
                }
            }
        } else if key.starts_with(keys::REQUESTS) {
            match &change.after {
                Some(record) => {
                    let used = record::from_json(key, &record.value)?;
                    self.requests.insert(Arc::clone(&change.key), used);
                }
                None => {
                    self.requests.remove(key);
                }
            }
        }
        Ok(())
    }

    fn take_header(&mut self, change: &Change, touched: &mut Parts) -> Result<(), Unreadable> {
        let key = &*change.key;
        if let Some(record) = &change.after {
            let header: Header = record::from_json(key, &record.value)?;
            let uid = header.uid.clone();
            touched.of(&uid).header = Some(Part::Put(Box::new(header), record.modified));
        } else if let Some(uid) = self.uid_of_key(key) {
            touched.of(&uid).header = Some(Part::Deleted);
        }
        Ok(())
    }

    fn uid_of_key(&self, key: &str) -> Option<Uid> {
        let (project, name) = key.strip_prefix(keys::SERVICES)?.split_once('/')?;
        self.names
            .get(&(project.to_owned(), name.to_owned()))
            .cloned()
    }

    fn take_version(
        &mut self,
        uid: &str,
        version: u64,
        record: Option<&Record>,
        key: &str,
    ) -> Result<(), Unreadable> {
        match record {
            Some(record) => {
                let read = record::from_version(key, &record.value)?;
                self.versions
                    .entry(Arc::from(uid))
                    .or_default()
                    .insert(version, read);
            }
            None => {
                if let Some(versions) = self.versions.get_mut(uid) {
                    versions.remove(&version);
                }
            }
        }
        Ok(())
    }

    fn take_events(&mut self, change: &Change, folded: &mut Folded) -> Result<(), Unreadable> {
        match &change.after {
            Some(record) => {
                let events = record::from_events(&change.key, &record.value)?;
                let mut ids = Vec::with_capacity(events.len());
                for event in events {
                    let id: Arc<str> = Arc::from(event.id.as_str());
                    let event = Arc::new(event);
                    self.events.insert(Arc::clone(&id), Arc::clone(&event));
                    folded.events.push(event);
                    ids.push(id);
                }
                self.event_batches.insert(Arc::clone(&change.key), ids);
            }
            None => {
                for id in self.event_batches.remove(&change.key).unwrap_or_default() {
                    folded.forgotten_events.extend(self.events.remove(&id));
                }
            }
        }
        Ok(())
    }

    /// Puts a service together again from what it was and what changed of it.
    fn rebuild(&mut self, uid: Uid, part: Parted) -> Option<Touched> {
        let stored = self.services.remove(&uid);
        let before = stored.as_ref().map(|stored| Arc::clone(&stored.service));
        let (header, revision) = match part.header {
            Some(Part::Deleted) => {
                let gone = before.clone()?;
                self.forget(&uid, &gone);
                return Some(Touched {
                    uid,
                    before,
                    after: None,
                });
            }
            Some(Part::Put(header, revision)) => (*header, revision),
            None => {
                let stored = stored?;
                (stored.service.header.clone(), stored.revision)
            }
        };
        let mut replicas = before
            .as_ref()
            .map_or_else(BTreeMap::new, |s| s.replicas.clone());
        for (ordinal, replica) in part.replicas {
            match replica {
                Some(replica) => replicas.insert(ordinal, replica),
                None => replicas.remove(&ordinal),
            };
        }
        let versions = self.versions.get(&uid)?;
        let applied = Arc::clone(&versions.get(&header.version)?.spec);
        let mut service = Service {
            header,
            replicas,
            applied,
            earlier: BTreeMap::new(),
        };
        let needed = service.versions_in_use();
        let kept = versions
            .iter()
            .filter(|(number, _)| **number != service.header.version && needed.contains(number));
        service.earlier = kept
            .map(|(n, version)| (*n, Arc::clone(&version.spec)))
            .collect();
        let service = Arc::new(service);
        self.index(&uid, before.as_deref(), Some(&service));
        let name = (service.header.project.clone(), service.header.name.clone());
        self.names.insert(name, Arc::clone(&uid));
        let stored = Stored {
            service: Arc::clone(&service),
            revision,
        };
        self.services.insert(Arc::clone(&uid), stored);
        Some(Touched {
            uid,
            before,
            after: Some(service),
        })
    }

    /// Counts what differs of a service.
    fn index(&mut self, uid: &Uid, before: Option<&Service>, after: Option<&Service>) {
        for (was, is) in differing(before, after) {
            let (was, is) = (was.map(AsRef::as_ref), is.map(AsRef::as_ref));
            // What is counted anew is counted first: what goes to nought is forgotten.
            if let Some(worker) = is.and_then(Replica::worker) {
                let uids = self.by_worker.entry(worker.to_owned()).or_default();
                *uids.entry(Arc::clone(uid)).or_default() += 1;
            }
            if let Some(worker) = was.and_then(Replica::worker)
                && let Some(uids) = self.by_worker.get_mut(worker)
            {
                count_down(uids, uid);
                if uids.is_empty() {
                    self.by_worker.remove(worker);
                }
            }
            if is.is_some_and(waits) {
                *self.waiting.entry(Arc::clone(uid)).or_default() += 1;
            }
            if was.is_some_and(waits) {
                count_down(&mut self.waiting, uid);
            }
        }
    }

    fn forget(&mut self, uid: &Uid, service: &Service) {
        let name = (service.header.project.clone(), service.header.name.clone());
        // A namesake may have been created in the same revision.
        if self.names.get(&name) == Some(uid) {
            self.names.remove(&name);
        }
        self.versions.remove(uid);
        self.index(uid, Some(service), None);
    }
}

fn count_down(counts: &mut BTreeMap<Uid, usize>, uid: &Uid) {
    if let Some(count) = counts.get_mut(uid) {
        *count -= 1;
        if *count == 0 {
            counts.remove(uid);
        }
    }
}

/// What changed of each service.
#[derive(Debug, Default)]
struct Parts(BTreeMap<Uid, Parted>);

#[derive(Debug, Default)]
struct Parted {
    header: Option<Part>,
    replicas: Vec<(u32, Option<Arc<Replica>>)>,
}

#[derive(Debug)]
enum Part {
    Put(Box<Header>, Revision),
    Deleted,
}

impl Parts {
    fn of(&mut self, uid: &str) -> &mut Parted {
        self.0.entry(Arc::from(uid)).or_default()
    }
}

fn waits(replica: &Replica) -> bool {
    matches!(&replica.state, State::Backoff(backoff) if backoff.class == Class::NoCapacity)
}
