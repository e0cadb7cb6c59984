//! What is told to watchers: workers, allocations and events, each by a hub, all by the same revisions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use muster_runtime::watch::{Hub, Options, Update};

use super::live::Lives;
use super::{Registry, seen};
use crate::domain::event::{self, Event};
use crate::domain::fleet::{Change, Fleet};
use crate::domain::text::{Text, each_once};
use crate::domain::worker::Worker;
use crate::seen::{Seen, SeenAllocation, SeenEvent};

/// Events kept for those who list or watch.
pub(super) const EVENTS: usize = 10_000;

/// Bytes of history that each hub keeps: beside the store's own, and enough to resume after a pause of
/// a busy fleet.
const HISTORY_BYTES: usize = 8 << 20;

/// The hubs of the registry.
pub(crate) struct Hubs {
    pub(crate) workers: Hub<Seen>,
    pub(crate) allocations: Hub<SeenAllocation>,
    /// By ids that are in order of time.
    pub(crate) events: Hub<SeenEvent>,
}

/// What the changes of one revision mean for watchers.
#[derive(Default)]
struct News {
    workers: Vec<Text>,
    allocations: Vec<Text>,
    events: Vec<Event>,
    /// Workers whose records changed, and whether they have just come.
    changed: Vec<(Arc<Worker>, bool)>,
    gone: Vec<Text>,
}

impl Hubs {
    /// Hubs of a fleet that has not changed since a revision: who watched it up to there, before a restart,
    /// goes on from there.
    pub(super) fn start(
        fleet: &Fleet,
        since: u64,
        lives: &Lives,
        epoch: &str,
        now: SystemTime,
    ) -> Self {
        let options = Options {
            history_bytes: HISTORY_BYTES,
            ..Options::default()
        };
        let workers = fleet
            .workers()
            .map(|entry| (entry.worker.name.clone(), Arc::new(seen(entry, lives, now))));
        let allocations = fleet.allocations().map(|allocation| {
            let worker = fleet.worker(&allocation.worker).map(|entry| &*entry.worker);
            (
                allocation.id.clone(),
                Arc::new(SeenAllocation::new(allocation, worker)),
            )
        });
        // As far back as there are events: who was away for longer lists them again.
        let of_events = Options {
            history_revisions: EVENTS,
            history_bytes: HISTORY_BYTES,
            ..Options::default()
        };
        let hubs = Self {
            workers: Hub::new(epoch, since, workers, options.clone()),
            allocations: Hub::new(epoch, since, allocations, options),
            events: Hub::new(epoch, since, recorded_events(fleet), of_events),
        };
        hubs.begin(fleet);
        hubs
    }

    /// Moves on to the fleet's revision. What was in memory before the start is not known any more, so it
    /// is news to those who go on.
    fn begin(&self, fleet: &Fleet) {
        self.workers.tell_anew();
        let revision = fleet.revision();
        self.workers.publish(revision, []);
        self.allocations.publish(revision, []);
        self.events.publish(revision, []);
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        self.workers.close();
        self.allocations.close();
        self.events.close();
    }

    /// Starts over from the records, after some of what happened was missed. What else is known stays.
    fn retell(&self, fleet: &Fleet) {
        let mut events = recorded_events(fleet);
        let known = self.events.after("", |_| true, EVENTS);
        events.extend(known.into_iter().map(|event| (event.0.id.clone(), event)));
        while events.len() > EVENTS {
            events.pop_first();
        }
        self.events.reset(fleet.revision(), events);
    }
}

/// The events that the records still tell, the latest of them.
fn recorded_events(fleet: &Fleet) -> BTreeMap<Text, Arc<SeenEvent>> {
    let of_workers = fleet
        .workers()
        .flat_map(|entry| event::of_record(&entry.worker));
    let of_stones = fleet
        .tombstones()
        .map(|(name, stone)| event::of_tombstone(name, stone));
    let own = fleet.events().map(|event| Event::clone(event));
    let mut events = BTreeMap::new();
    for event in of_workers.chain(of_stones).chain(own) {
        events.insert(event.id.clone(), Arc::new(SeenEvent(event)));
        if events.len() > EVENTS {
            events.pop_first();
        }
    }
    events
}

impl Registry {
    /// Takes durable changes into the view, and tells watchers.
    pub(super) fn show(&self, landed: Vec<(u64, Vec<Change>)>) {
        let Some(last) = landed.last().map(|(revision, _)| *revision) else {
            return;
        };
        let now = self.clock.now();
        let mut told = Vec::with_capacity(landed.len());
        let mut came = Vec::new();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        for (revision, changes) in landed {
            let mut news = News::default();
            for change in &changes {
                news.note(change, &view);
            }
            view.apply(&changes, revision);
            self.follow_all(&news, &mut came);
            told.push((revision, news.tell(&view, &self.lives, now)));
        }
        drop(view);
        // Whoever has come takes work before its caller is answered.
        if !came.is_empty() {
            self.with_book(|book| came.iter().for_each(|name| book.set_suspect(name, false)));
        }
        for (revision, told) in told {
            self.hubs.workers.publish(revision, told.workers);
            self.hubs.allocations.publish(revision, told.allocations);
            self.hubs.events.publish(revision, told.events);
        }
        self.hubs.events.keep_last(EVENTS);
        self.progress.advance(last);
    }

    /// Brings what is in memory in line with changed records.
    fn follow_all(&self, news: &News, came: &mut Vec<Text>) {
        for (worker, has_come) in &news.changed {
            self.follow(worker, *has_come);
            if *has_come && worker.is_expected() {
                came.push(worker.name.clone());
            }
        }
        for name in &news.gone {
            self.lives.remove(name);
            self.chores().forget(name);
        }
    }

    /// Brings what is in memory of a worker in line with its record. `came` says that it registered, or
    /// is back.
    fn follow(&self, worker: &Worker, came: bool) {
        let terms = self.terms();
        self.lives.follow(worker, came, terms, self.clock.now());
        let fence = self.config.rules.fenced_after(terms.fence_after);
        let fenced_at = self.lives.heard(&worker.name) + fence;
        self.chores().follow(worker, fenced_at);
    }

    /// Starts over from another fleet, after this instance has lost its place in the store.
    pub(super) fn show_all(&self, fleet: Fleet) {
        let revision = fleet.revision();
        for entry in fleet.workers() {
            let known = self
                .view()
                .worker(&entry.worker.name)
                .map(|entry| Arc::clone(&entry.worker));
            self.follow(&entry.worker, has_come(known.as_deref(), &entry.worker));
        }
        self.forget_missing(&fleet);
        let now = self.clock.now();
        let workers: Vec<_> = fleet
            .workers()
            .map(|entry| {
                (
                    entry.worker.name.clone(),
                    Arc::new(seen(entry, &self.lives, now)),
                )
            })
            .collect();
        let allocations: Vec<_> = fleet
            .allocations()
            .map(|allocation| {
                (
                    allocation.id.clone(),
                    Arc::new(self.seen_allocation(&fleet, allocation)),
                )
            })
            .collect();
        self.hubs.retell(&fleet);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = fleet;
        self.hubs.workers.reset(revision, workers);
        self.hubs.allocations.reset(revision, allocations);
        self.progress.advance(revision);
    }

    /// Forgets what is in memory of workers that are not in another fleet any more.
    fn forget_missing(&self, fleet: &Fleet) {
        let view = self.view();
        let known = view.workers().map(|entry| &entry.worker.name);
        for name in known.filter(|name| fleet.worker(name).is_none()) {
            self.lives.remove(name);
            self.chores().forget(name);
        }
    }

    /// Tells watchers what is in memory of a worker now.
    pub(crate) fn observe(&self, name: &str) {
        let now = self.clock.now();
        let view = self.view();
        let Some(entry) = view.worker(name) else {
            return;
        };
        let fresh = seen(entry, &self.lives, now);
        drop(view);
        self.hubs.workers.observe(name, |known| {
            // A later record carries these facts already, or will.
            let same_record = Arc::ptr_eq(&known.worker, &fresh.worker);
            let changed = known.observed != fresh.observed || known.progress != fresh.progress;
            (same_record && changed).then_some(fresh)
        });
    }
}

/// What watchers are told of one revision.
struct Told {
    workers: Vec<Update<Seen>>,
    allocations: Vec<Update<SeenAllocation>>,
    events: Vec<Update<SeenEvent>>,
}

impl News {
    /// Everything that the revision changed, as it is now.
    fn tell(self, view: &Fleet, lives: &Lives, now: SystemTime) -> Told {
        let workers = each_once(self.workers)
            .into_iter()
            .map(|name| match view.worker(&name) {
                Some(entry) => Update::put(name, seen(entry, lives, now)),
                None => Update::delete(name),
            });
        let allocations = each_once(self.allocations).into_iter().map(|id| {
            let Some(allocation) = view.allocation(&id) else {
                return Update::delete(id);
            };
            let worker = view.worker(&allocation.worker).map(|entry| &*entry.worker);
            Update::put(id, SeenAllocation::new(allocation, worker))
        });
        let events = self.events.into_iter();
        let events = events.map(|event| Update::put(event.id.clone(), SeenEvent(event)));
        Told {
            workers: workers.collect(),
            allocations: allocations.collect(),
            events: events.collect(),
        }
    }

    fn note(&mut self, change: &Change, before: &Fleet) {
        match change {
            Change::Worker(worker) => self.note_worker(worker, before),
            Change::WorkerGone(name) => {
                self.workers.push(name.clone());
                self.gone.push(name.clone());
            }
            Change::Room(name) => {
                self.workers.push(name.clone());
            }
            Change::Allocation(allocation) => {
                self.allocations.push(allocation.id.clone());
                if let Some(entry) = before.worker(&allocation.worker) {
                    let known = before.allocation(&allocation.id);
                    self.events.extend(event::of_allocation(
                        known.map(|known| &**known),
                        allocation,
                        &entry.worker,
                    ));
                }
            }
            Change::AllocationGone(id) => {
                self.allocations.push(id.clone());
            }
            Change::Tombstone(name, stone) => self.events.push(event::of_tombstone(name, stone)),
            Change::Event(event) => self.events.push(Event::clone(event)),
            Change::RoomGone(_)
            | Change::Owner(..)
            | Change::Token(_)
            | Change::TokenGone(_)
            | Change::Spent(..)
            | Change::SpentGone(_)
            | Change::EventGone(_)
            | Change::Longest(_) => {}
        }
    }

    fn note_worker(&mut self, worker: &Arc<Worker>, before: &Fleet) {
        self.workers.push(worker.name.clone());
        let known = before.worker(&worker.name);
        let came = has_come(known.map(|entry| &*entry.worker), worker);
        self.changed.push((Arc::clone(worker), came));
        self.events
            .extend(event::of_change(known.map(|entry| &*entry.worker), worker));
        // Force-disabling takes allocations without writing their records.
        let taken = known.filter(|entry| entry.worker.revoked_through != worker.revoked_through);
        if let Some(entry) = taken {
            self.allocations
                .extend(entry.allocations().iter().map(|one| one.id.clone()));
        }
    }
}

/// Whether a worker has just registered, or is back after it was not expected.
fn has_come(before: Option<&Worker>, after: &Worker) -> bool {
    before.is_none_or(|before| before.generation != after.generation || !before.is_expected())
}
