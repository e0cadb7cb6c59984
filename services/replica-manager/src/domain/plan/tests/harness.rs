//! A world that does what plans ask for: workers with slots, processes with scripted lives, and a clock
//! that jumps from one event to the next. After each plan it checks what must hold always.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::{Plan, Reason, plan};
use crate::domain::failure::Class;
use crate::domain::replica::attempt::{Allocation, End, Exit};
use crate::domain::replica::observe::{Observation, Report, ReportedPhase};
use crate::domain::replica::{Phase, Place, Replica, Role, State, StopWhy};
use crate::domain::scaling::Measure;
use crate::domain::service::apply::Action;
use crate::domain::service::command::Identity;
use crate::domain::service::{Intent, Service};
use crate::domain::spec::{OnDisconnect, Spec, diff};
use crate::domain::status::ServicePhase;
use crate::domain::time::Time;
use crate::domain::world::{Drain, Liveness, Position, Terms, Worker, WorkerState, World};

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long a call or a report takes in this world.
const LATENCY: Duration = Duration::from_millis(1);

/// What an attempt is when it starts.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    pub(super) ordinal: u32,
    pub(super) attempt: u32,
    pub(super) version: u64,
    pub(super) worker: String,
}

/// How an attempt lives, told from its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// When it is ready; `None` is never.
    pub(super) ready: Option<Duration>,
    /// When it ends by itself, and how.
    pub(super) end: Option<(Duration, Class)>,
}

impl Life {
    pub(super) fn healthy() -> Self {
        Self {
            ready: Some(secs(2)),
            end: None,
        }
    }

    pub(super) fn slow(ready: Duration) -> Self {
        Self {
            ready: Some(ready),
            end: None,
        }
    }

    pub(super) fn crash(after: Duration) -> Self {
        Self::dies(after, Class::Error)
    }

    pub(super) fn dies(after: Duration, class: Class) -> Self {
        Self {
            ready: None,
            end: Some((after, class)),
        }
    }

    pub(super) fn ready_then_dies(ready: Duration, after: Duration, class: Class) -> Self {
        Self {
            ready: Some(ready),
            end: Some((after, class)),
        }
    }

    pub(super) fn never_ready() -> Self {
        Self {
            ready: None,
            end: None,
        }
    }
}

/// What happens at a time.
#[derive(Clone, Debug)]
enum Event {
    Answer {
        ordinal: u32,
        attempt: u32,
    },
    Released {
        ordinal: u32,
        room: String,
    },
    Start {
        ordinal: u32,
        attempt: u32,
    },
    Report {
        ordinal: u32,
        attempt: u32,
        phase: ReportedPhase,
    },
    Exit {
        ordinal: u32,
        attempt: u32,
        class: Class,
    },
    Stopped {
        ordinal: u32,
        attempt: u32,
    },
    Look,
}

/// A process on a machine.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) worker: String,
    pub(super) stopping: bool,
}

#[derive(Clone, Debug)]
struct Room {
    worker: String,
    attempt: (u32, u32),
    released: bool,
    ended: bool,
}

type Script = Box<dyn Fn(&Birth) -> Life>;

/// The world, with one service in it.
pub(super) struct Sim {
    pub(super) now: Time,
    pub(super) service: Service,
    pub(super) workers: BTreeMap<String, Worker>,
    /// How far the registry's history is known.
    pub(super) position: Position,
    pub(super) slots: BTreeMap<String, usize>,
    pub(super) processes: BTreeMap<(u32, u32), Process>,
    pub(super) elsewhere: BTreeMap<String, u32>,
    pub(super) measure: Option<Measure>,
    pub(super) terms: Terms,
    /// (time, phase) of each change of status.
    pub(super) phases: Vec<(Time, ServicePhase)>,
    /// (time, ordinal, attempt, worker) of each start.
    pub(super) starts: Vec<(Time, u32, u32, String)>,
    /// Acts, with their times.
    pub(super) acts: Vec<(Time, Action)>,
    pub(super) reasons: Vec<Reason>,
    pub(super) most_copies: u32,
    pub(super) least_ready: u32,
    /// Since when somebody plans.
    pub(super) since: Time,
    /// Workers whose agents cannot be heard.
    silent: BTreeSet<String>,
    rooms: BTreeMap<String, Room>,
    events: BTreeMap<(Time, u64), Event>,
    asked: BTreeSet<(u32, u32, usize)>,
    releasing: BTreeSet<String>,
    script: Script,
    room: u64,
    next: u64,
    wake_at: Option<Time>,
    began: Time,
    pub(super) gone: bool,
}

impl Sim {
    /// A service of this spec, which is about to be planned for the first time.
    pub(super) fn new(spec: Spec, workers: &[(&str, usize)]) -> Self {
        let now = Time::from(SystemTime::UNIX_EPOCH + secs(1_700_000_000));
        let identity = Identity {
            project: "default".to_owned(),
            uid: "uid".to_owned(),
        };
        let mut sim = Self {
            now,
            service: Service::create(identity, spec, true, now),
            workers: BTreeMap::new(),
            position: Position::default(),
            slots: BTreeMap::new(),
            processes: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            measure: None,
            terms: Terms::default(),
            phases: Vec::new(),
            starts: Vec::new(),
            acts: Vec::new(),
            reasons: Vec::new(),
            most_copies: 0,
            least_ready: u32::MAX,
            since: now,
            silent: BTreeSet::new(),
            rooms: BTreeMap::new(),
            events: BTreeMap::new(),
            asked: BTreeSet::new(),
            releasing: BTreeSet::new(),
            script: Box::new(|_| Life::healthy()),
            room: 1,
            next: 0,
            wake_at: None,
            began: now,
            gone: false,
        };
        for (name, slots) in workers {
            sim.add_worker(name, *slots, "");
        }
        sim.look();
        sim
    }

    pub(super) fn script(mut self, script: impl Fn(&Birth) -> Life + 'static) -> Self {
        self.script = Box::new(script);
        self
    }

    pub(super) fn rescript(&mut self, script: impl Fn(&Birth) -> Life + 'static) {
        self.script = Box::new(script);
    }

    pub(super) fn add_worker(&mut self, name: &str, slots: usize, region: &str) {
        let worker = Worker {
            region: region.to_owned(),
            ..Worker::in_state(WorkerState::Active)
        };
        self.workers.insert(name.to_owned(), worker);
        self.slots.insert(name.to_owned(), slots);
        self.room += 1;
        self.look();
    }

    pub(super) fn set_worker(&mut self, name: &str, change: impl FnOnce(&mut Worker)) {
        change(self.workers.get_mut(name).unwrap());
        self.room += 1;
        self.look();
    }

    pub(super) fn drain(&mut self, name: &str, max_parallel: u32) {
        self.set_worker(name, |worker| {
            worker.state = WorkerState::Draining;
            worker.drain = Some(Drain {
                max_parallel,
                began: Time::default(),
                moved: 0,
            });
        });
    }

    pub(super) fn resume(&mut self, name: &str) {
        self.set_worker(name, |worker| {
            worker.state = WorkerState::Active;
            worker.drain = None;
        });
    }

    /// The machine is cut off: what runs there runs on, and nobody hears of it.
    pub(super) fn cut_off(&mut self, name: &str) {
        self.silent.insert(name.to_owned());
        self.set_worker(name, |worker| worker.liveness = Liveness::Lost);
    }

    /// The fence has passed: supervisors have killed what asked for it.
    pub(super) fn fence(&mut self, name: &str) {
        if self.service.spec().on_disconnect == OnDisconnect::Stop {
            self.processes.retain(|_, process| process.worker != name);
        }
        self.set_worker(name, |worker| worker.fenced = true);
    }

    /// A machine that was cut off is taken out of use by force: its rooms are revoked, and soon forgotten.
    pub(super) fn force_off(&mut self, name: &str) {
        self.rooms.retain(|_, room| room.worker != name);
        self.set_worker(name, |worker| {
            worker.state = WorkerState::Disabled;
            worker.drain = None;
            worker.unconfirmed = true;
            worker.revoked_through = worker.generation;
            worker.generation += 1;
        });
    }

    /// An emptied worker is deleted, and that is known.
    pub(super) fn delete(&mut self, name: &str, position: Position) {
        self.rooms.retain(|_, room| room.worker != name);
        self.processes.retain(|_, process| process.worker != name);
        self.silent.insert(name.to_owned());
        self.workers.remove(name);
        self.position = position;
        self.look();
    }

    /// An emptied worker is deleted, and another has registered by its name.
    pub(super) fn replace(&mut self, name: &str) {
        self.rooms.retain(|_, room| room.worker != name);
        self.processes.retain(|_, process| process.worker != name);
        self.set_worker(name, |worker| {
            worker.revoked_through = worker.generation;
            worker.generation += 1;
        });
    }

    /// The agent of such a machine is back, and has yet to stop what runs there.
    pub(super) fn register_again(&mut self, name: &str) {
        self.silent.remove(name);
        self.set_worker(name, |worker| {
            worker.liveness = Liveness::Alive;
            worker.fenced = false;
            worker.generation += 1;
        });
    }

    /// The machine is back: it stops what its room was taken from, and tells what runs.
    pub(super) fn come_back(&mut self, name: &str) {
        self.silent.remove(name);
        if self.workers[name].unconfirmed {
            self.processes.retain(|_, process| process.worker != name);
        }
        let here = self
            .processes
            .iter()
            .filter(|(_, process)| process.worker == name);
        let here: Vec<(u32, u32)> = here.map(|(key, _)| *key).collect();
        for (ordinal, attempt) in here {
            let released = self.rooms.values().any(|room| {
                room.attempt == (ordinal, attempt) && room.released && room.worker == name
            });
            if released {
                self.schedule(LATENCY, Event::Stopped { ordinal, attempt });
            } else {
                let phase = ReportedPhase::Ready;
                self.schedule(
                    LATENCY,
                    Event::Report {
                        ordinal,
                        attempt,
                        phase,
                    },
                );
            }
        }
        self.set_worker(name, |worker| {
            worker.liveness = Liveness::Alive;
            worker.fenced = false;
            worker.unconfirmed = false;
        });
    }

    /// Asks a user's wish of the service.
    pub(super) fn ask<T>(&mut self, wish: impl FnOnce(&mut Service, Time) -> T) -> T {
        let answer = wish(&mut self.service, self.now);
        self.look();
        answer
    }

    pub(super) fn apply(&mut self, change: impl FnOnce(&mut Spec)) -> diff::Effect {
        let mut spec = self.service.spec().clone();
        change(&mut spec);
        let differs = diff::diff(self.service.spec(), &spec);
        let effect = differs.effect;
        self.ask(|service, now| service.update(spec, &differs, now).unwrap());
        effect
    }

    /// A running attempt ends by itself.
    pub(super) fn kill(&mut self, ordinal: u32, class: Class) {
        let attempt = self.replica(ordinal).attempt.as_ref().unwrap().number;
        self.schedule(
            Duration::ZERO,
            Event::Exit {
                ordinal,
                attempt,
                class,
            },
        );
    }

    /// The agent says this of a running attempt.
    pub(super) fn report(&mut self, ordinal: u32, phase: ReportedPhase) {
        let attempt = self.replica(ordinal).attempt.as_ref().unwrap().number;
        self.schedule(
            Duration::ZERO,
            Event::Report {
                ordinal,
                attempt,
                phase,
            },
        );
    }

    pub(super) fn load(&mut self, total: f64) {
        self.measure = Some(Measure {
            total,
            at: self.now,
        });
        self.look();
    }

    pub(super) fn replica(&self, ordinal: u32) -> &Replica {
        &self.service.replicas[&ordinal]
    }

    pub(super) fn ordinals(&self) -> Vec<u32> {
        self.service.replicas.keys().copied().collect()
    }

    pub(super) fn phase(&self) -> ServicePhase {
        self.service.header.status.phase
    }

    pub(super) fn reason(&self) -> &str {
        &self.service.header.status.reason
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self, at: Time) -> f64 {
        at.since(self.began).as_secs_f64()
    }

    pub(super) fn elapsed(&self) -> f64 {
        self.seconds(self.now)
    }

    /// (second, ordinal) of each start of a process, rounded.
    pub(super) fn started(&self, ordinal: u32) -> Vec<f64> {
        let starts = self.starts.iter().filter(|(_, of, _, _)| *of == ordinal);
        starts.map(|(at, ..)| self.seconds(*at)).collect()
    }

    pub(super) fn phases_seen(&self) -> Vec<ServicePhase> {
        self.phases.iter().map(|(_, phase)| *phase).collect()
    }

    pub(super) fn stops(&self, why: StopWhy) -> usize {
        let stop = |action: &&(Time, Action)| matches!(&action.1, Action::Stop { why: of, .. } if *of == why);
        self.acts.iter().filter(stop).count()
    }

    /// Things happen, and nobody plans.
    pub(super) fn away(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(((at, _), _)) = self.events.first_key_value()
            && *at <= until
        {
            let ((at, _), event) = self.events.pop_first().unwrap();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = until;
        self.since = until;
        self.look();
    }

    /// The clock is set back. What is to happen happens when it would have.
    pub(super) fn set_back(&mut self, span: Duration) {
        let back = |at: Time| Time::from(SystemTime::from(at) - span);
        self.now = back(self.now);
        let events = std::mem::take(&mut self.events);
        let events = events.into_iter();
        let events = events.map(|((at, number), event)| ((back(at), number), event));
        self.events = events.collect();
        self.measure = self.measure.map(|measure| Measure {
            at: measure.at.min(self.now),
            ..measure
        });
        self.wake_at = None;
        self.look();
    }

    pub(super) fn schedule_look(&mut self, after: Duration) {
        self.schedule(after, Event::Look);
    }

    fn look(&mut self) {
        self.schedule(Duration::ZERO, Event::Look);
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.next += 1;
        self.events.insert((self.now + after, self.next), event);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        self.run_until(until, |_| false);
    }

    /// Lets time pass until a test holds; fails if it does not within `span`.
    #[track_caller]
    pub(super) fn run_to(&mut self, span: Duration, what: &str, test: impl Fn(&Sim) -> bool) {
        let until = self.now + span;
        assert!(
            self.run_until(until, test),
            "not {what} after {span:?}: {:?} {:#?}",
            self.service.header.status,
            self.service
                .replicas
                .values()
                .map(|r| (r.ordinal, &r.state, &r.stop))
                .collect::<Vec<_>>(),
        );
    }

    #[track_caller]
    pub(super) fn run_to_phase(&mut self, span: Duration, phase: ServicePhase) {
        self.run_to(span, phase.word(), |sim| sim.phase() == phase);
    }

    fn run_until(&mut self, until: Time, test: impl Fn(&Sim) -> bool) -> bool {
        for _ in 0..200_000 {
            if test(self) {
                return true;
            }
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = self.wake_at.map(|at| at.max(self.now));
            let next = [event, wake].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= until) else {
                self.now = until;
                return test(self);
            };
            self.now = next;
            while let Some(((at, _), _)) = self.events.first_key_value()
                && *at <= self.now
            {
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            }
            self.pass();
        }
        panic!(
            "the world does not come to rest: {:?}",
            self.acts.iter().rev().take(20).collect::<Vec<_>>()
        );
    }

    pub(super) fn world(&self) -> World<'_> {
        World {
            workers: Some(&self.workers),
            position: &self.position,
            room: self.room,
            moves_elsewhere: &self.elsewhere,
            measure: self.measure,
            since: self.since,
            terms: &self.terms,
        }
    }

    /// Plans, checks the plan, applies it, and does what it asks for.
    fn pass(&mut self) {
        let before = self.service.clone();
        let planned = plan(self.now.into(), &before, &self.world());
        let mut after = before.clone();
        for action in &planned.actions {
            after.apply(action, self.room, self.now);
            self.acts.push((self.now, action.clone()));
        }
        self.check(&before, &planned, &after);
        if planned.actions.contains(&Action::Delete) {
            self.gone = true;
        }
        for reason in &planned.reasons {
            if !self.reasons.contains(reason) {
                self.reasons.push(reason.clone());
            }
        }
        let phase = after.header.status.phase;
        if self.phases.last().map(|(_, phase)| *phase) != Some(phase) {
            self.phases.push((self.now, phase));
        }
        self.most_copies = self.most_copies.max(after.copies());
        self.least_ready = self.least_ready.min(after.ready());
        self.wake_at = planned.wake_at.filter(|_| !self.gone);
        self.service = after;
        self.execute();
    }

    fn check(&self, before: &Service, planned: &Plan, after: &Service) {
        let full = planned.wake_at == Some(self.now);
        if !full && !planned.actions.contains(&Action::Delete) {
            let again = plan(self.now.into(), after, &self.world());
            assert!(
                again.actions.is_empty(),
                "a second plan does {:?} after {:?}",
                again.actions,
                planned.actions
            );
        }
        assert!(
            after.copies() <= after.most_copies().max(before.copies()),
            "{} copies, at most {}: {:?}, from {:#?}",
            after.copies(),
            after.most_copies(),
            planned.actions,
            before
                .replicas
                .values()
                .map(|r| (r.ordinal, r.role, &r.state, r.stop))
                .collect::<Vec<_>>(),
        );
        let spares = after.replicas.values().filter(|r| {
            let kind = matches!(r.role, Role::Member | Role::Spare { .. });
            kind && !r.leaving()
        });
        if planned
            .actions
            .iter()
            .any(|a| matches!(a, Action::Create { role, .. } if matches!(role, Role::Spare { .. })))
        {
            assert!(
                spares.count() <= after.bounds().max as usize,
                "spares beyond max"
            );
        }
        let running = after.header.intent == Intent::Run;
        let (was, is) = (before.ready(), after.ready());
        let asked = planned.actions.iter().any(|action| {
            matches!(
                action,
                Action::GiveUp { .. } | Action::Unreachable { .. } | Action::Revoked { .. }
            )
        });
        if running && !asked && is < was {
            assert!(
                is >= after.floor(),
                "{is} ready, and {} have to stay",
                after.floor()
            );
        }
        self.check_stops(before, planned, running);
    }

    /// A replica that serves is stopped only because an update, a scale or a drain asks for it.
    fn check_stops(&self, before: &Service, planned: &Plan, running: bool) {
        for action in &planned.actions {
            let Action::Stop { ordinal, why, .. } = action else {
                continue;
            };
            let ready = before
                .replicas
                .get(ordinal)
                .is_some_and(|replica| replica.ready());
            if !running || !ready {
                continue;
            }
            assert!(
                matches!(
                    why,
                    StopWhy::ScaleDown
                        | StopWhy::Update
                        | StopWhy::Rollback
                        | StopWhy::Moved
                        | StopWhy::MoveUndone
                        | StopWhy::SpareNotNeeded
                ),
                "{ordinal} is stopped: {why}"
            );
        }
    }

    /// Does what the records ask for.
    fn execute(&mut self) {
        let replicas: Vec<Arc<Replica>> = self.service.replicas.values().map(Arc::clone).collect();
        for replica in replicas {
            let ordinal = replica.ordinal;
            let attempt = replica.attempts;
            for room in &replica.releases {
                if self.releasing.insert(room.clone()) {
                    let room = room.clone();
                    self.schedule(LATENCY, Event::Released { ordinal, room });
                }
            }
            match &replica.state {
                State::Placing(placing) => {
                    let question = (ordinal, attempt, placing.choices.len());
                    if self.asked.insert(question) {
                        self.schedule(LATENCY, Event::Answer { ordinal, attempt });
                    }
                }
                State::Running(_) => self.drive(&replica, attempt),
                State::Pending { .. }
                | State::Refused(_)
                | State::Ended
                | State::Backoff(_)
                | State::Stopped
                | State::Failed { .. } => {}
            }
        }
    }

    /// Starts and stops the process of an attempt that has room.
    fn drive(&mut self, replica: &Replica, attempt: u32) {
        let ordinal = replica.ordinal;
        let room = replica
            .attempt
            .as_ref()
            .unwrap()
            .allocation
            .as_ref()
            .unwrap();
        if self.silent.contains(&room.worker) || replica.state == State::Running(Phase::Revoked) {
            return;
        }
        let key = (ordinal, attempt);
        let told = replica.stop.is_some_and(|stop| stop.told);
        match self.processes.get_mut(&key) {
            Some(process) if told && !process.stopping => {
                process.stopping = true;
                self.schedule(secs(1), Event::Stopped { ordinal, attempt });
            }
            Some(_) => {}
            None if told => self.schedule(LATENCY, Event::Stopped { ordinal, attempt }),
            None => self.schedule(LATENCY, Event::Start { ordinal, attempt }),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Look => {}
            Event::Answer { ordinal, attempt } => self.answer(ordinal, attempt),
            Event::Released { ordinal, room } => {
                self.releasing.remove(&room);
                if let Some(held) = self.rooms.get_mut(&room) {
                    held.released = true;
                }
                self.free();
                if let Some(replica) = self.service.replica_mut(ordinal) {
                    let _ = replica.released(&room);
                }
            }
            Event::Start { ordinal, attempt } => self.start(ordinal, attempt),
            Event::Report {
                ordinal,
                attempt,
                phase,
            } => self.tell(ordinal, attempt, phase),
            Event::Exit {
                ordinal,
                attempt,
                class,
            } => {
                let running = self.processes.contains_key(&(ordinal, attempt));
                if running {
                    self.end(ordinal, attempt, Some(class));
                }
            }
            Event::Stopped { ordinal, attempt } => self.end(ordinal, attempt, None),
        }
    }

    fn answer(&mut self, ordinal: u32, attempt: u32) {
        let Some(replica) = self.service.replicas.get(&ordinal) else {
            return;
        };
        let State::Placing(placing) = &replica.state else {
            return;
        };
        let placing = placing.clone();
        self.asked
            .remove(&(ordinal, attempt, placing.choices.len()));
        let place = &placing.choices[0].place;
        let taken_over = match place {
            Place::Same { .. } => placing.hold.clone(),
            Place::Avoid { .. } | Place::Anywhere => None,
        };
        let observation = match self.pick(place, taken_over.as_deref()) {
            Some(worker) => {
                if let Some(old) = &taken_over {
                    self.rooms.remove(old);
                }
                self.next += 1;
                let id = format!("a-{}", self.next);
                let region = self.workers[&worker].region.clone();
                let generation = self.workers[&worker].generation;
                self.rooms.insert(
                    id.clone(),
                    Room {
                        worker: worker.clone(),
                        attempt: (ordinal, attempt),
                        released: false,
                        ended: false,
                    },
                );
                Observation::Allocated(Allocation {
                    id,
                    worker,
                    generation,
                    region,
                    gpu_uuids: Vec::new(),
                    fencing_token: format!("e1-{:020}", self.next),
                    replaces: taken_over.unwrap_or_default(),
                    host_ports: Vec::new(),
                    at: self.now,
                })
            }
            None => Observation::Refused {
                message: "no room".to_owned(),
            },
        };
        self.observe(ordinal, attempt, observation);
    }

    fn pick(&self, place: &Place, taken_over: Option<&str>) -> Option<String> {
        let open = self.workers.iter().filter(|(_, worker)| worker.placeable());
        let wanted = open.filter(|(name, worker)| match place {
            Place::Same { worker } => worker == *name,
            Place::Avoid { workers, regions } => {
                !workers.contains(*name) && !regions.contains(&worker.region)
            }
            Place::Anywhere => true,
        });
        let free = wanted.filter_map(|(name, _)| {
            let used = self
                .rooms
                .iter()
                .filter(|(id, room)| room.worker == *name && taken_over != Some(id.as_str()));
            let used = used.count();
            (used < self.slots[name]).then(|| (used, name.clone()))
        });
        free.min().map(|(_, name)| name)
    }

    fn start(&mut self, ordinal: u32, attempt: u32) {
        let Some(replica) = self.service.replicas.get(&ordinal) else {
            return;
        };
        let current = replica.attempts == attempt && replica.state.phase().is_some();
        let told = replica.stop.is_some_and(|stop| stop.told);
        if !current || told || self.processes.contains_key(&(ordinal, attempt)) {
            return;
        }
        let known = replica.attempt.as_ref().unwrap();
        let worker = known.allocation.as_ref().unwrap().worker.clone();
        let birth = Birth {
            ordinal,
            attempt,
            version: known.version,
            worker: worker.clone(),
        };
        let life = (self.script)(&birth);
        if self.service.spec().on_disconnect == OnDisconnect::Stop {
            let siblings = self.processes.keys().filter(|(of, _)| *of == ordinal);
            assert_eq!(siblings.count(), 0, "two processes of one replica");
        }
        self.processes.insert(
            (ordinal, attempt),
            Process {
                worker: worker.clone(),
                stopping: false,
            },
        );
        self.starts.push((self.now, ordinal, attempt, worker));
        let report = |phase| Event::Report {
            ordinal,
            attempt,
            phase,
        };
        self.schedule(Duration::ZERO, report(ReportedPhase::Starting));
        if let Some(ready) = life.ready {
            self.schedule(ready, report(ReportedPhase::Ready));
        }
        if let Some((after, class)) = life.end {
            self.schedule(
                after,
                Event::Exit {
                    ordinal,
                    attempt,
                    class,
                },
            );
        }
    }

    fn tell(&mut self, ordinal: u32, attempt: u32, phase: ReportedPhase) {
        let Some(process) = self.processes.get(&(ordinal, attempt)) else {
            return;
        };
        if process.stopping || self.silent.contains(&process.worker) {
            return;
        }
        let ready = matches!(phase, ReportedPhase::Ready).then_some(self.now);
        let report = Report {
            phase,
            started: Some(self.now),
            ready,
            addresses: Vec::new(),
        };
        self.observe(ordinal, attempt, Observation::Reported(report));
    }

    fn end(&mut self, ordinal: u32, attempt: u32, class: Option<Class>) {
        let process = self.processes.remove(&(ordinal, attempt));
        for room in self.rooms.values_mut() {
            room.ended |= room.attempt == (ordinal, attempt);
        }
        self.free();
        if process.is_some_and(|process| self.silent.contains(&process.worker)) {
            return;
        }
        let end = End {
            at: self.now,
            exit: Some(Exit {
                code: Some(i32::from(class.is_some())),
                ..Exit::default()
            }),
            class: class.or(Some(Class::Interruption)),
            message: String::new(),
            last_log_lines: vec!["last words".to_owned()],
        };
        let report = Report {
            phase: ReportedPhase::Ended(end),
            started: None,
            ready: None,
            addresses: Vec::new(),
        };
        self.observe(ordinal, attempt, Observation::Reported(report));
    }

    fn free(&mut self) {
        let before = self.rooms.len();
        self.rooms.retain(|_, room| !(room.released && room.ended));
        // What never started has ended as soon as it is asked about.
        let processes = &self.processes;
        self.rooms
            .retain(|_, room| !room.released || processes.contains_key(&room.attempt));
        if self.rooms.len() < before {
            self.room += 1;
        }
    }

    fn observe(&mut self, ordinal: u32, attempt: u32, observation: Observation) {
        let now = self.now;
        if let Some(replica) = self.service.replica_mut(ordinal) {
            let _ = replica.observe(attempt, observation, now);
        }
    }

    /// Rooms that nobody gave back.
    pub(super) fn rooms_held(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn on(&self, worker: &str) -> Vec<u32> {
        let replicas = self.service.replicas.values();
        replicas
            .filter(|r| r.worker() == Some(worker))
            .map(|r| r.ordinal)
            .collect()
    }

    pub(super) fn ready(&self) -> u32 {
        self.service.ready()
    }

    pub(super) fn is_ready(&self, ordinal: u32) -> bool {
        self.service
            .replicas
            .get(&ordinal)
            .is_some_and(|r| r.state == State::Running(Phase::Ready) && r.stop.is_none())
    }
}
