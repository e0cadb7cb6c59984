//! Tells watchers of each revision: services, replicas, endpoints, assignments and events, rendered once
//! for all of them.

use std::sync::Arc;

use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::Event;
use muster_runtime::watch::{Hub, Options, Update};

use super::view::{Folded, Inner, Touched};
use crate::domain::endpoints;
use crate::domain::replica::Replica;
use crate::domain::service::{Service, differing};
use crate::fleet::Fleet;
use crate::grpc::convert::assignment::render_assignment;
use crate::grpc::convert::replica::{render_endpoint, render_replica};
use crate::grpc::convert::service::render_service;

/// The hubs of everything that can be watched.
#[derive(Clone, Debug)]
pub(crate) struct Hubs {
    /// By `project/name`.
    pub(crate) services: Hub<wire::Service>,
    /// By `project/service/uid/ordinal`.
    pub(crate) replicas: Hub<wire::Replica>,
    /// By `uid/ordinal`.
    pub(crate) endpoints: Hub<wire::Endpoint>,
    /// By `worker/attempt`.
    pub(crate) assignments: Hub<wire::Assignment>,
    /// By id.
    pub(crate) events: Hub<Event>,
    epoch: Arc<str>,
    fleet: Fleet,
}

impl Hubs {
    /// Hubs that know what the view holds, which has not changed since a revision: who watched up to there,
    /// before a restart, goes on from there.
    pub(crate) fn new(view: &Inner, since: u64, epoch: &str, fleet: Fleet) -> Self {
        let mut all = Folded {
            events: view.events.values().cloned().collect(),
            ..Folded::default()
        };
        for (uid, service) in view.all() {
            all.services.push(Touched {
                uid: Arc::clone(uid),
                before: None,
                after: Some(Arc::clone(service)),
            });
        }
        let options = Options::default;
        let hubs = Self {
            services: Hub::new(epoch, 0, [], options()),
            replicas: Hub::new(epoch, 0, [], options()),
            endpoints: Hub::new(epoch, 0, [], options()),
            assignments: Hub::new(epoch, 0, [], options()),
            events: Hub::new(epoch, 0, [], options()),
            epoch: Arc::from(epoch),
            fleet,
        };
        let state = hubs.render(&all);
        hubs.services.reset(since, put_only(state.services));
        hubs.replicas.reset(since, put_only(state.replicas));
        hubs.endpoints.reset(since, put_only(state.endpoints));
        hubs.assignments.reset(since, put_only(state.assignments));
        hubs.events.reset(since, put_only(state.events));
        // What was known of workers before the start is not known any more, so it is news to those who go on.
        hubs.endpoints.tell_anew();
        hubs.publish(view.revision, &Folded::default());
        hubs
    }

    /// Publishes what one revision did.
    pub(crate) fn publish(&self, revision: u64, folded: &Folded) {
        let changes = self.render(folded);
        self.services.publish(revision, changes.services);
        self.replicas.publish(revision, changes.replicas);
        // Endpoints first: they are left before an agent is told to stop.
        self.endpoints.publish(revision, changes.endpoints);
        self.assignments.publish(revision, changes.assignments);
        self.events.publish(revision, changes.events);
    }

    /// Shows what is newly known of a worker at the endpoints on it.
    pub(crate) fn worker_observed(&self, worker: &str, services: &[Arc<Service>]) {
        for service in services {
            for replica in service.replicas.values() {
                if replica.worker() != Some(worker) {
                    continue;
                }
                if let Some((key, fresh)) = self.endpoint_of((service, replica)) {
                    self.endpoints
                        .observe(&key, |old| (*old != fresh).then_some(fresh));
                }
            }
        }
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.services.close();
        self.replicas.close();
        self.endpoints.close();
        self.assignments.close();
        self.events.close();
    }

    fn render(&self, folded: &Folded) -> Changes {
        let mut changes = Changes::default();
        for touched in &folded.services {
            self.render_one(touched, &mut changes);
        }
        for event in &folded.forgotten_events {
            changes.events.push(Update::delete(event.id.as_str()));
        }
        for event in &folded.events {
            changes
                .events
                .push(Update::put(event.id.as_str(), Arc::clone(event)));
        }
        changes
    }

    fn render_one(&self, touched: &Touched, changes: &mut Changes) {
        let (before, after) = (touched.before.as_deref(), touched.after.as_deref());
        match (before, after) {
            (_, Some(service)) if looks_new(before, service) => {
                let rendered = render_service(service, &self.epoch, None);
                changes
                    .services
                    .push(Update::put(service_key(service), rendered));
            }
            (Some(service), None) => changes.services.push(Update::delete(service_key(service))),
            (_, Some(_)) | (None, None) => {}
        }
        for pair in pairs(before, after) {
            if !pair.is_one_replica() {
                replica_update(pair, &mut changes.replicas);
            }
            let (old, new) = pair.map(|side| self.endpoint_of(side));
            difference(old.as_ref(), new, &mut changes.endpoints);
            let (old, new) = pair.map(assignment_of);
            difference(old.as_ref(), new, &mut changes.assignments);
        }
    }

    fn endpoint_of(&self, (service, replica): Side<'_>) -> Option<Keyed<wire::Endpoint>> {
        let weight = endpoints::weight(replica)?;
        let attempt = replica.attempt.as_ref()?;
        let key = endpoint_key(&service.header.uid, replica.ordinal);
        let endpoint = self.fleet.with_worker(replica.worker()?, |worker| {
            render_endpoint(service, replica, attempt, weight, worker)
        });
        Some((key, endpoint))
    }
}

/// A replica with its service.
type Side<'a> = (&'a Service, &'a Replica);

type Keyed<T> = (Arc<str>, T);

/// A replica before and after a revision that changed it, or what its service applies.
#[derive(Clone, Copy)]
struct Pair<'a> {
    before: Option<Side<'a>>,
    after: Option<Side<'a>>,
}

impl<'a> Pair<'a> {
    /// Whether only its service is another one.
    fn is_one_replica(&self) -> bool {
        let replicas = self.before.zip(self.after);
        replicas.is_some_and(|((_, was), (_, is))| std::ptr::eq(was, is))
    }

    fn map<T>(self, render: impl Fn(Side<'a>) -> Option<T>) -> (Option<T>, Option<T>) {
        (self.before.and_then(&render), self.after.and_then(&render))
    }
}

/// The replicas that a revision changed, and all if the applied spec is another one: agents are told what is
/// changed in place also of replicas that keep their version.
fn pairs<'a>(before: Option<&'a Service>, after: Option<&'a Service>) -> Vec<Pair<'a>> {
    let applied = before.zip(after);
    let respecified = applied.filter(|(was, is)| !Arc::ptr_eq(&was.applied, &is.applied));
    if let Some((was, is)) = respecified {
        let gone = differing(before, after).filter(|(_, is)| is.is_none());
        let gone = gone.map(|(replica, _)| (replica, None));
        let left = is.replicas.values();
        let left = left.map(|replica| (was.replicas.get(&replica.ordinal), Some(replica)));
        return gone
            .chain(left)
            .map(|pair| paired(before, after, pair))
            .collect();
    }
    let changed = differing(before, after);
    changed.map(|pair| paired(before, after, pair)).collect()
}

fn paired<'a>(
    before: Option<&'a Service>,
    after: Option<&'a Service>,
    (was, is): (Option<&'a Arc<Replica>>, Option<&'a Arc<Replica>>),
) -> Pair<'a> {
    let side = |service: Option<&'a Service>, replica: Option<&'a Arc<Replica>>| {
        Some((service?, replica?.as_ref()))
    };
    Pair {
        before: side(before, was),
        after: side(after, is),
    }
}

/// Whether the service shows otherwise than before.
fn looks_new(before: Option<&Service>, after: &Service) -> bool {
    before.is_none_or(|before| {
        before.header != after.header
            || !Arc::ptr_eq(&before.applied, &after.applied)
            || after.header.rollout.is_some()
    })
}

#[derive(Default)]
struct Changes {
    services: Vec<Update<wire::Service>>,
    replicas: Vec<Update<wire::Replica>>,
    endpoints: Vec<Update<wire::Endpoint>>,
    assignments: Vec<Update<wire::Assignment>>,
    events: Vec<Update<Event>>,
}

fn put_only<T>(updates: Vec<Update<T>>) -> Vec<(Arc<str>, Arc<T>)> {
    let puts = updates.into_iter();
    puts.filter_map(|update| Some((update.key, update.value?)))
        .collect()
}

/// The key of a service in its hub.
pub(crate) fn service_key(service: &Service) -> Arc<str> {
    Arc::from(format!(
        "{}/{}",
        service.header.project, service.header.name
    ))
}

/// The key of a replica in its hub: in order of service and ordinal.
pub(crate) fn replica_key(service: &Service, ordinal: u32) -> Arc<str> {
    let header = &service.header;
    let (project, name, uid) = (&header.project, &header.name, &header.uid);
    Arc::from(format!("{project}/{name}/{uid}/{ordinal:010}"))
}

/// The key of an endpoint in its hub.
pub(crate) fn endpoint_key(uid: &str, ordinal: u32) -> Arc<str> {
    Arc::from(format!("{uid}/{ordinal:010}"))
}

fn assignment_of((service, replica): Side<'_>) -> Option<Keyed<wire::Assignment>> {
    let assignment = render_assignment(service, replica)?;
    let worker = replica.worker()?;
    let key = Arc::from(format!("{worker}/{}", assignment.attempt_id));
    Some((key, assignment))
}

fn replica_update(pair: Pair<'_>, updates: &mut Vec<Update<wire::Replica>>) {
    if let Some((service, replica)) = pair.after {
        let rendered = render_replica(service, replica);
        updates.push(Update::put(replica_key(service, replica.ordinal), rendered));
    } else if let Some((service, replica)) = pair.before {
        updates.push(Update::delete(replica_key(service, replica.ordinal)));
    }
}

fn difference<T: PartialEq>(
    old: Option<&Keyed<T>>,
    new: Option<Keyed<T>>,
    updates: &mut Vec<Update<T>>,
) {
    let key = new.as_ref().map(|(key, _)| Arc::clone(key));
    if let Some((old_key, _)) = old.filter(|(old, _)| Some(old) != key.as_ref()) {
        updates.push(Update::delete(Arc::clone(old_key)));
    }
    if new.as_ref() != old
        && let Some((key, value)) = new
    {
        updates.push(Update::put(key, value));
    }
}

#[cfg(test)]
mod tests;
