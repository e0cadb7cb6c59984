//! What the registry does by itself, tick by tick: judges silence, lifts brakes, marks fences, calls
//! deadlines, tells of drains, forgets what is over.
//!
//! It carries out what the domain decides; nothing here waits for a caller, and one failed chore delays
//! no other.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Error, Registry};
use crate::domain::decide::{self, CHUNK, Decision};
use crate::domain::event::{Event, Severity};
use crate::domain::fleet::{Change, Draft, Fleet};
use crate::domain::liveness::{Brake, Judged, Moment, ZoneNews};
use crate::domain::text::{SYSTEM, Text};
use crate::domain::worker::{By, Presence, Worker};

/// How often what need not be exact is looked at.
const NOW_AND_THEN: Duration = Duration::from_secs(1);

/// Events of their own records that are kept.
const OWN_EVENTS: usize = 1000;

/// Someone asks for a zone's brake to be taken off.
pub(super) struct Release {
    zone: Text,
    /// Told how many workers it held.
    answer: oneshot::Sender<usize>,
}

/// What is to be done about single workers.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Workers with a running drain.
    draining: BTreeSet<Text>,
    /// LOST workers by when their fences have passed.
    fences: BTreeSet<(Moment, Text)>,
    /// When the fence of each of them has passed.
    fenced_at: BTreeMap<Text, Moment>,
    /// Workers whose allocations force-disabling took.
    taken: BTreeSet<Text>,
}

impl Chores {
    /// Of a fleet at the start: every fence counts anew and whole.
    pub(super) fn of(fleet: &Fleet, fence: Duration) -> Self {
        let mut chores = Self::default();
        for entry in fleet.workers() {
            chores.follow(&entry.worker, fence);
        }
        chores
    }

    /// A worker's record has changed; were it LOST, its fence passes at `fenced_at`.
    pub(super) fn follow(&mut self, worker: &Worker, fenced_at: Moment) {
        let name = &worker.name;
        if worker.running_drain().is_some() {
            self.draining.insert(name.clone());
        } else {
            self.draining.remove(name);
        }
        if worker.revoked_through > 0 {
            self.taken.insert(name.clone());
        }
        match (worker.presence, self.fenced_at.get(name)) {
            (Presence::Lost { fenced: false, .. }, None) => {
                self.fenced_at.insert(name.clone(), fenced_at);
                self.fences.insert((fenced_at, name.clone()));
            }
            (Presence::Lost { fenced: false, .. }, Some(_)) => {}
            (
                Presence::Lost { .. }
                | Presence::Left { .. }
                | Presence::Expected
                | Presence::Awaited,
                known,
            ) => {
                if let Some(at) = known.copied() {
                    self.fences.remove(&(at, name.clone()));
                    self.fenced_at.remove(name);
                }
            }
        }
    }

    /// A worker is gone.
    pub(super) fn forget(&mut self, name: &Text) {
        self.draining.remove(name);
        self.taken.remove(name);
        if let Some(at) = self.fenced_at.remove(name) {
            self.fences.remove(&(at, name.clone()));
        }
    }

    /// Looks at a LOST worker again only then.
    fn postpone(&mut self, name: &Text, until: Moment) {
        if let Some(at) = self.fenced_at.insert(name.clone(), until) {
            self.fences.remove(&(at, name.clone()));
            self.fences.insert((until, name.clone()));
        }
    }

    /// LOST workers whose fences have passed by now.
    fn fenced_by(&self, now: Moment) -> Vec<Text> {
        self.fences
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, name)| name.clone())
            .collect()
    }
}

impl Registry {
    /// Keeps the registry until `stopped`.
    pub(super) async fn keep(&self, stopped: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(self.config.tick());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut brake = Brake::new(self.config.mass_loss_hold);
        let mut rarely = self.clock.uptime();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                _ = ticks.tick() => {}
            }
            if let Some(stall) = self.lives.tick() {
                self.metrics.stalled.inc_by(stall.as_secs_f64());
                warn!(
                    ?stall,
                    "this registry stood still; every worker is given that time back"
                );
            }
            let now = self.clock.uptime();
            let is_time = now >= rarely;
            if is_time {
                rarely = now + NOW_AND_THEN;
            }
            self.judge(&mut brake, is_time);
            self.call_fences();
            self.call_deadlines();
            if is_time {
                self.tell_drains();
                self.keep_terms();
                self.clear();
            }
        }
    }

    /// Takes a zone's brake off, and tells it. Answers how many workers it held.
    pub(crate) async fn release_mass_loss(&self, zone: Text, by: By) -> Result<usize, Error> {
        let (answer, held) = oneshot::channel();
        self.releases().push(Release {
            zone: zone.clone(),
            answer,
        });
        let held = held.await.map_err(|_| Error::Stopping)?;
        let message = format!(
            "the brake was taken off {held} silent workers: {}",
            by.reason
        );
        let event = Event::of_zone(
            &zone,
            self.clock.now(),
            "MassLossReleased",
            Severity::Warning,
            message,
            by.actor,
        );
        let draft = Draft::of(Change::Event(event.into()));
        self.decide(|_, _| {
            Ok(Decision {
                draft: draft.clone(),
                answer: held,
            })
        })
        .await
        .map(|told| told.value)
    }

    /// Finds who is silent, and declares lost who is lost.
    fn judge(&self, brake: &mut Brake, is_time: bool) {
        let found = self.lives.look();
        if !found.suspects.is_empty() {
            self.suspect(&found.suspects);
        }
        let released = std::mem::take(&mut *self.releases());
        if found.expired.is_empty() && released.is_empty() && !is_time {
            return;
        }
        let window = self.terms().lost_after;
        let now = self.lives.moment();
        let mut lost = Vec::new();
        for release in released {
            let held = brake.release(&release.zone, window, now);
            let _ = release.answer.send(held.len());
            lost.extend(held);
        }
        let mut zones: BTreeMap<Text, Vec<Text>> = BTreeMap::new();
        for (zone, _) in brake.holding() {
            zones.entry(zone.clone()).or_default();
        }
        for (name, zone) in found.expired {
            zones.entry(zone).or_default().push(name);
        }
        if !zones.is_empty() {
            let census = self.lives.census();
            for (zone, expired) in zones {
                let counted = census.get(&zone).copied().unwrap_or_default();
                let judged = brake.judge(&zone, counted, expired, window, now);
                self.tell_zone(&zone, &judged);
                lost.extend(judged.lost);
            }
        }
        self.metrics.braked.set(
            brake
                .holding()
                .map(|(_, held)| i64::try_from(held).unwrap_or(i64::MAX))
                .sum(),
        );
        self.declare_lost(lost);
    }

    fn suspect(&self, names: &[Text]) {
        self.with_book(|book| names.iter().for_each(|name| book.set_suspect(name, true)));
        for name in names {
            // A heartbeat may have come between the look and the note.
            if !self.lives.get(name).is_some_and(|live| live.is_suspect()) {
                self.with_book(|book| book.set_suspect(name, false));
            }
            self.observe(name);
        }
        self.metrics.suspects.inc_by(names.len() as u64);
    }

    fn declare_lost(&self, names: Vec<Text>) {
        if names.is_empty() {
            return;
        }
        warn!(count = names.len(), "workers were not heard for lost_after");
        let registry = self.clone();
        self.tasks.spawn("registry-lost", async move {
            // Chunks go to the store one behind the other, without waiting for each other.
            let mut writes: FuturesUnordered<_> = names
                .chunks(CHUNK)
                .map(|chunk| registry.mark_lost(chunk))
                .collect();
            while let Some(marked) = writes.next().await {
                match marked {
                    Ok(marked) => _ = registry.metrics.lost.inc_by(marked),
                    Err(error) => warn!(%error, "lost workers could not be recorded"),
                }
            }
        });
    }

    async fn mark_lost(&self, names: &[Text]) -> Result<u64, Error> {
        let still_silent = |worker: &Worker| {
            self.lives
                .get(&worker.name)
                .is_some_and(|live| live.is_suspect())
        };
        let marked = self
            .decide(|book, now| Ok(decide::lost(book, names, still_silent, now)))
            .await?;
        Ok(marked.value.len() as u64)
    }

    fn tell_zone(&self, zone: &Text, judged: &Judged) {
        let Some(news) = judged.news else { return };
        let (kind, severity, message) = match news {
            ZoneNews::Holds(census) => (
                "MassLossHeld",
                Severity::Error,
                format!(
                    "{} of {} workers fell silent at once; it is more likely that we are cut off, so none is declared lost",
                    census.silent, census.members,
                ),
            ),
            ZoneNews::Recovered(census) => (
                "MassLossRecovered",
                Severity::Info,
                format!(
                    "{} of {} workers are silent; the brake is off",
                    census.silent, census.members,
                ),
            ),
            ZoneNews::HeldOut(census) => (
                "MassLossHeldOut",
                Severity::Error,
                format!(
                    "{} of {} workers stayed silent for as long as the brake may hold; they are lost",
                    census.silent, census.members,
                ),
            ),
        };
        warn!(%zone, kind, message);
        let event = Event::of_zone(
            zone,
            self.clock.now(),
            kind,
            severity,
            message,
            SYSTEM.into(),
        );
        self.write_later("registry-zone-event", Change::Event(event.into()));
    }

    /// Marks LOST workers whose fences have passed.
    fn call_fences(&self) {
        let passed = self.chores().fenced_by(self.lives.moment());
        for chunk in passed.chunks(CHUNK) {
            let names = chunk.to_vec();
            for name in &names {
                // Until the record is written nobody else takes it up; a failure is looked at again.
                let later = self.lives.moment() + NOW_AND_THEN;
                self.chores().postpone(name, later);
            }
            let registry = self.clone();
            self.tasks.spawn("registry-fenced", async move {
                let marked = registry.decide(|book, now| Ok(decide::fenced(book, &names, now)));
                if let Err(error) = marked.await {
                    warn!(%error, "passed fences could not be recorded; tried again");
                }
            });
        }
    }

    /// Calls the deadlines of drains that have passed with FORCE.
    fn call_deadlines(&self) {
        let now = self.clock.now();
        let due: Vec<_> = {
            let chores = self.chores();
            if chores.draining.is_empty() {
                return;
            }
            let names: Vec<_> = chores.draining.iter().cloned().collect();
            drop(chores);
            let view = self.view();
            let is_due = |name: &Text| {
                let worker = view.worker(name).map(|entry| &entry.worker);
                worker.is_some_and(|worker| {
                    worker.running_drain().is_some_and(|drain| {
                        drain.is_due(now) || (drain.forced && worker.is_lost())
                    })
                })
            };
            names.into_iter().filter(is_due).collect()
        };
        for name in due {
            let registry = self.clone();
            self.tasks.spawn("registry-deadline", async move {
                let called = registry.decide(|book, now| Ok(decide::call_deadline(book, &name, now))).await;
                match called {
                    Ok(called) if called.value => info!(worker = %name, "the drain's deadline has passed"),
                    Ok(_) => {}
                    Err(error) => warn!(worker = %name, %error, "a drain's deadline could not be recorded; tried again"),
                }
            });
        }
    }

    /// Tells watchers how drains stand: owners fall silent without saying so.
    fn tell_drains(&self) {
        let names: Vec<_> = self.chores().draining.iter().cloned().collect();
        for name in names {
            self.observe(&name);
        }
    }

    /// Adapts what heartbeats are asked for to the size of the fleet. A longer fence is handed out only
    /// once it is stored.
    fn keep_terms(&self) {
        let (workers, longest) = {
            let view = self.view();
            (view.workers().len(), view.fence().unwrap_or_default())
        };
        let terms = self.config.rules.terms(workers, longest);
        if terms.fence_after <= longest {
            *self
                .terms
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = terms;
            return;
        }
        // With room to grow, so that a growing fleet does not write this each second.
        let roomy = match longest.is_zero() {
            true => terms.fence_after,
            false => terms.fence_after + terms.fence_after / 4,
        };
        self.write_later("registry-fence", Change::Fence(roomy));
    }

    /// Forgets what is over.
    fn clear(&self) {
        let taken = std::mem::take(&mut self.chores().taken);
        let registry = self.clone();
        self.tasks.spawn("registry-clear", async move {
            for name in taken {
                while let Ok(more) = registry
                    .decide(|book, now| Ok(decide::clear_revoked(book, &name, now)))
                    .await
                    && more.value
                {}
            }
            while let Ok(more) = registry
                .decide(|book, now| Ok(decide::sweep(book, OWN_EVENTS, now)))
                .await
                && more.value
            {}
        });
    }

    fn write_later(&self, task: &'static str, change: Change) {
        let registry = self.clone();
        self.tasks.spawn(task, async move {
            let draft = Draft::of(change);
            let written = registry.decide(|_, _| {
                Ok(Decision {
                    draft: draft.clone(),
                    answer: (),
                })
            });
            if let Err(error) = written.await {
                warn!(task, %error, "could not be recorded");
            }
        });
    }
}
