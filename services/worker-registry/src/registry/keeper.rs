//! What the registry does by itself, tick by tick: marks fences, calls deadlines, tells of drains, forgets what
//! is over. Of several instances on a store the one that leads does it; judging silence stands in `judge`.
//!
//! It carries out what the domain decides; nothing here waits for a caller, and one failed chore delays
//! no other.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use muster_store::Leadership;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::judge::Duty;
use super::{Error, Registry};
use crate::domain::decide::{self, CHUNK, Decision};
use crate::domain::event::{Event, Severity};
use crate::domain::fleet::{Change, Draft, Fleet};
use crate::domain::liveness::Moment;
use crate::domain::text::Text;
use crate::domain::worker::{By, Presence, Worker};

/// How often what need not be exact is looked at.
const NOW_AND_THEN: Duration = Duration::from_secs(1);

/// Events of their own records that are kept.
const OWN_EVENTS: usize = 1000;

/// Someone asks for a zone's brake to be taken off.
pub(super) struct Release {
    pub(super) zone: Text,
    /// Told how many workers it held.
    pub(super) answer: oneshot::Sender<usize>,
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
    /// Workers that may have allocations that are over: force-disabling took them, or the agent has left.
    over: BTreeSet<Text>,
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
        if worker.revoked_through > 0 || worker.has_left() {
            self.over.insert(name.clone());
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
        self.over.remove(name);
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
        let mut rarely = self.clock.uptime();
        let mut duty = None;
        self.take_up(&mut duty);
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                round = Duty::asked(&mut duty) => {
                    self.take_up(&mut duty);
                    if let Some(duty) = &mut duty {
                        self.end_round(duty, round);
                    }
                    continue;
                }
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
            self.take_up(&mut duty);
            if let Some(duty) = &mut duty {
                self.do_duty(duty, is_time);
                continue;
            }
            // Whoever waits for them is told that this is not the leader, or not any more.
            self.releases().clear();
            if is_time {
                self.keep_terms(None);
            }
        }
    }

    /// Does what the leader does.
    fn do_duty(&self, duty: &mut Duty, is_time: bool) {
        match self.is_shared() {
            true => self.begin_round(duty, is_time),
            false => self.judge(duty, is_time),
        }
        let lead = &duty.lead;
        if !self.is_shared() {
            let passed = self.passed_fences();
            self.call_fences(lead, &passed);
        }
        self.call_deadlines(lead);
        if is_time {
            self.tell_drains();
            self.keep_terms(Some(lead));
            self.clear(lead);
        }
    }

    /// Takes a zone's brake off, and tells it. Answers how many workers it held.
    pub(crate) async fn release_mass_loss(&self, zone: Text, by: Arc<By>) -> Result<usize, Error> {
        let (answer, held) = oneshot::channel();
        self.releases().push(Release {
            zone: zone.clone(),
            answer,
        });
        let held = held.await.map_err(|_| Error::NotLeading)?;
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
            by.actor.clone(),
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

    /// LOST workers whose fences have passed, as far as is known here.
    pub(super) fn passed_fences(&self) -> Vec<Text> {
        self.chores().fenced_by(self.lives.moment())
    }

    /// Marks LOST workers whose fences have passed.
    pub(super) fn call_fences(&self, lead: &Leadership, passed: &[Text]) {
        let now = self.lives.moment();
        let fence = self.config.rules.fenced_after(self.terms().fence_after);
        // Whoever was heard since, by an instance that does not know it as LOST, counts its lease from then.
        let passed: Vec<Text> = passed
            .iter()
            .filter(|name| {
                let at = self.lives.heard(name) + fence;
                if at > now {
                    self.chores().postpone(name, at);
                }
                at <= now
            })
            .cloned()
            .collect();
        for chunk in passed.chunks(CHUNK) {
            let names = chunk.to_vec();
            for name in &names {
                // Until the record is written nobody else takes it up; a failure is looked at again.
                let later = self.lives.moment() + NOW_AND_THEN;
                self.chores().postpone(name, later);
            }
            let (registry, lead) = (self.clone(), lead.clone());
            self.tasks.spawn("registry-fenced", async move {
                let marked = registry.decide_in_parts(&lead, &names, decide::fenced);
                if let Err(error) = marked.await {
                    warn!(%error, "passed fences could not be recorded; tried again");
                }
            });
        }
    }

    /// Calls the deadlines of drains that have passed with FORCE.
    fn call_deadlines(&self, lead: &Leadership) {
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
                        drain.is_due(now) || (drain.forced && worker.is_gone())
                    })
                })
            };
            names.into_iter().filter(is_due).collect()
        };
        for name in due {
            let (registry, lead) = (self.clone(), lead.clone());
            self.tasks.spawn("registry-deadline", async move {
                let make = |book: &_, now| Ok(decide::call_deadline(book, &name, now));
                let called = registry.decide_leading(&lead, make).await;
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

    /// Adapts what heartbeats are asked for to the size of the fleet. Longer times are handed out only once
    /// they are stored.
    fn keep_terms(&self, lead: Option<&Leadership>) {
        let (workers, longest) = {
            let view = self.view();
            (view.worker_count(), view.longest())
        };
        let terms = self.config.rules.terms(workers, longest);
        if longest.covers(terms) {
            *self
                .terms
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = terms;
            return;
        }
        // Until the leader has stored it, the terms stay.
        let Some(lead) = lead else { return };
        let roomy = longest.with_room_for(terms);
        let (registry, lead) = (self.clone(), lead.clone());
        self.tasks.spawn("registry-longest", async move {
            let longer = |book: &_, _| Ok(decide::hand_out(book, roomy));
            if let Err(error) = registry.decide_leading(&lead, longer).await {
                warn!(%error, "longer times for agents could not be recorded; tried again");
            }
        });
    }

    /// Forgets what is over.
    fn clear(&self, lead: &Leadership) {
        let over = std::mem::take(&mut self.chores().over);
        let (registry, lead) = (self.clone(), lead.clone());
        self.tasks.spawn("registry-clear", async move {
            for name in over {
                loop {
                    let clear = |book: &_, now| Ok(decide::clear_over(book, &name, now));
                    match registry.decide_leading(&lead, clear).await {
                        Ok(more) if more.value => {}
                        Ok(_) => break,
                        Err(error) => {
                            warn!(worker = %name, %error, "what is over could not be cleared; tried again");
                            registry.chores().over.insert(name);
                            break;
                        }
                    }
                }
            }
            while let Ok(more) = registry
                .decide_leading(&lead, |book, now| Ok(decide::sweep(book, OWN_EVENTS, now)))
                .await
                && more.value
            {}
        });
    }

    pub(super) fn write_later(&self, lead: &Leadership, task: &'static str, change: Change) {
        let (registry, lead) = (self.clone(), lead.clone());
        self.tasks.spawn(task, async move {
            let draft = Draft::of(change);
            let written = registry.decide_leading(&lead, |_, _| {
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
