//! What is in memory of each worker: when it was heard, what its owners say of its drain, which
//! credential it was last known by.
//!
//! A heartbeat takes one short lock of its own worker and nothing else. Who is silent is found by the
//! timing wheel, which looks at a worker only when its time may have come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use muster_runtime::clock::Clock;
use rustc_hash::FxHashMap;

use crate::config::Config;
use crate::domain::drain::{Progress, Report, Reports};
use crate::domain::fleet::Fleet;
use crate::domain::liveness::{Census, Liveness, Moment, Observer, Pulse, Terms, Verdict, Wheel};
use crate::domain::text::Text;
use crate::domain::worker::Worker;
use crate::seen::Observed;

/// Everything in memory, by worker.
pub(crate) struct Lives {
    clock: Clock,
    owner_silent_after: Duration,
    observer: Mutex<Observer>,
    wheel: Mutex<Wheel<Arc<Live>>>,
    workers: RwLock<FxHashMap<Text, Arc<Live>>>,
}

/// What is in memory of one worker.
pub(crate) struct Live {
    name: Text,
    state: Mutex<State>,
}

struct State {
    pulse: Pulse,
    /// Wall time at which its liveness became what it is.
    since: SystemTime,
    /// Wall time at which it was heard last.
    heard: Option<SystemTime>,
    /// It is expected, so its silence means something.
    expected: bool,
    in_wheel: bool,
    zone: Text,
    /// What its owners last said of its drain.
    reports: Option<Box<Reports>>,
    /// SHA-256 of the credential that was verified last.
    credential: Option<Box<[u8; 32]>>,
    /// What the leader says of it, where that is another instance.
    told: Option<Box<Told>>,
}

/// What the leader says of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) observed: Observed,
    /// How far its running drain has come.
    pub(crate) progress: Option<Arc<Progress>>,
}

/// What a heartbeat changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing that is shown.
    Heard,
    /// It was not ALIVE before; it was SUSPECT if so said.
    Alive { was_suspect: bool },
}

/// What a look at those who may be silent finds.
#[derive(Default)]
pub(super) struct Found {
    /// Those who are SUSPECT from now on.
    pub(super) suspects: Vec<Text>,
    /// Those whose time has passed, each with its zone.
    pub(super) expired: Vec<(Text, Text)>,
}

impl Lives {
    /// Everybody who is expected counts as heard now.
    pub(super) fn start(fleet: &Fleet, terms: Terms, config: &Config, clock: &Clock) -> Self {
        let lives = Self {
            observer: Mutex::new(Observer::new(config.stall_step(), clock.uptime())),
            wheel: Mutex::new(Wheel::new(config.tick(), Moment::ZERO)),
            workers: RwLock::default(),
            clock: clock.clone(),
            owner_silent_after: config.owner_silent_after,
        };
        let now = clock.now();
        for entry in fleet.workers() {
            lives.add(&entry.worker, Pulse::unknown(Moment::ZERO, terms), now);
        }
        lives
    }

    /// How long an owner may say nothing of a drain.
    pub(super) fn owner_silent_after(&self) -> Duration {
        self.owner_silent_after
    }

    /// Observed time.
    pub(crate) fn moment(&self) -> Moment {
        lock(&self.observer).moment(self.clock.uptime())
    }

    /// Ticks; answers how long this registry stood still, if it did.
    pub(super) fn tick(&self) -> Option<Duration> {
        lock(&self.observer).tick(self.clock.uptime())
    }

    /// What is in memory of a worker.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Live>> {
        self.workers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Hears a worker.
    pub(crate) fn beat(&self, name: &str, terms: Terms) -> Beat {
        let Some(live) = self.get(name) else {
            return Beat::Heard;
        };
        let moment = self.moment();
        let mut state = live.lock();
        let beat = state.hear(moment, terms, self.clock.now());
        self.enter_wheel(&live, &mut state);
        beat
    }

    /// When a worker was heard last, in observed time; the start if it was not since.
    pub(super) fn heard(&self, name: &str) -> Moment {
        self.get(name)
            .map_or(Moment::ZERO, |live| live.lock().pulse.heard())
    }

    /// Brings what is in memory in line with a record. `came` says that the worker has just spoken.
    pub(super) fn follow(&self, worker: &Worker, came: bool, terms: Terms, now: SystemTime) {
        let Some(live) = self.get(&worker.name) else {
            let pulse = Pulse::alive(self.moment(), terms);
            self.add(worker, pulse, now);
            if came && let Some(live) = self.get(&worker.name) {
                live.lock().heard = Some(now);
            }
            return;
        };
        let moment = self.moment();
        let mut state = live.lock();
        state.expected = worker.is_expected();
        if state.zone != worker.machine.zone {
            state.zone = worker.machine.zone.clone();
        }
        if worker.running_drain().is_none() {
            state.reports = None;
        }
        if came && state.expected {
            state.hear(moment, terms, now);
            self.enter_wheel(&live, &mut state);
        }
    }

    /// Forgets a worker.
    pub(super) fn remove(&self, name: &str) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = workers.remove(name) {
            live.lock().expected = false;
        }
    }

    /// Hears from another instance that it heard a worker so long ago. Answers what that changes.
    pub(super) fn hear_of(&self, name: &str, ago: Duration, terms: Terms) -> Beat {
        let Some(live) = self.get(name) else {
            return Beat::Heard;
        };
        let moment = self.moment();
        let now = self.clock.now();
        let mut state = live.lock();
        let was_suspect = state.pulse.liveness() == Liveness::Suspect;
        state.heard = state.heard.max(now.checked_sub(ago));
        let changes = state
            .pulse
            .heard_at(moment.saturating_sub(ago), moment, terms);
        self.enter_wheel(&live, &mut state);
        if !changes {
            return Beat::Heard;
        }
        state.since = now;
        Beat::Alive { was_suspect }
    }

    /// How long ago this instance heard a worker; none if it never did.
    pub(crate) fn heard_ago(&self, name: &str) -> Option<Duration> {
        let live = self.get(name)?;
        let moment = self.moment();
        let state = live.lock();
        state
            .heard
            .map(|_| moment.saturating_sub(state.pulse.heard()))
    }

    /// Counts everybody as heard now, and forgets what another leader said. Answers those who were SUSPECT.
    pub(super) fn trust_all(&self, terms: Terms) -> Vec<Text> {
        let moment = self.moment();
        let now = self.clock.now();
        let mut suspects = Vec::new();
        for live in self.all() {
            let mut state = live.lock();
            let said = state.told.take();
            let was_told = said.is_some_and(|told| told.observed.liveness == Liveness::Suspect);
            if state.pulse.trust(moment, terms) || was_told {
                state.since = now;
                suspects.push(live.name.clone());
            }
            self.enter_wheel(&live, &mut state);
        }
        suspects
    }

    /// Those who are SUSPECT.
    pub(super) fn suspects(&self) -> Vec<Text> {
        let all = self.all().into_iter();
        all.filter(|live| live.is_suspect())
            .map(|live| live.name.clone())
            .collect()
    }

    /// Takes what the leader says of a worker. Whether there is such a worker.
    pub(crate) fn tell(&self, name: &str, told: Told) -> bool {
        let Some(live) = self.get(name) else {
            return false;
        };
        live.lock().told = Some(Box::new(told));
        true
    }

    /// Lets those be looked at again of whom nothing could be written.
    pub(super) fn look_again(&self, names: &[Text]) {
        for live in names.iter().filter_map(|name| self.get(name)) {
            let mut state = live.lock();
            self.enter_wheel(&live, &mut state);
        }
    }

    fn all(&self) -> Vec<Arc<Live>> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.values().cloned().collect()
    }

    /// Looks at those whose time may have come.
    pub(super) fn look(&self) -> Found {
        let due = lock(&self.wheel).advance(self.moment());
        for live in &due {
            live.lock().in_wheel = false;
        }
        self.judge(due, true)
    }

    /// Those whose time has come, as far as is known here. They are judged, or looked at again, later.
    pub(super) fn due(&self) -> Vec<Arc<Live>> {
        let moment = self.moment();
        let mut due = lock(&self.wheel).advance(moment);
        due.retain(|live| {
            let mut state = live.lock();
            state.in_wheel = false;
            if moment < state.pulse.look_at() {
                self.enter_wheel(live, &mut state);
            }
            state.expected && !state.in_wheel
        });
        due
    }

    /// Judges those whose time may have come. Where not all have `spoken` who may have heard them, nobody's
    /// time has passed yet.
    pub(super) fn judge(&self, due: Vec<Arc<Live>>, spoken: bool) -> Found {
        let moment = self.moment();
        let now = self.clock.now();
        let mut found = Found::default();
        for live in due {
            let mut state = live.lock();
            if !state.expected {
                continue;
            }
            let was_suspect = state.pulse.liveness() == Liveness::Suspect;
            match state.pulse.judge(moment) {
                Verdict::Fine(_) => {}
                Verdict::Suspect(_) => {
                    state.since = now;
                    found.suspects.push(live.name.clone());
                }
                Verdict::Expired if !spoken => {
                    if !was_suspect {
                        state.since = now;
                        found.suspects.push(live.name.clone());
                    }
                }
                Verdict::Expired => {
                    // The wheel has done with it; its next heartbeat brings it back.
                    found.expired.push((live.name.clone(), state.zone.clone()));
                    continue;
                }
            }
            self.enter_wheel(&live, &mut state);
        }
        found
    }

    /// Counts zones: expected workers, and those of them that are SUSPECT.
    pub(super) fn census(&self) -> BTreeMap<Text, Census> {
        let mut zones = BTreeMap::<Text, Census>::new();
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        for live in workers.values() {
            let state = live.lock();
            if !state.expected {
                continue;
            }
            let silent = u32::from(state.pulse.liveness() == Liveness::Suspect);
            match zones.get_mut(&state.zone) {
                Some(census) => {
                    census.members += 1;
                    census.silent += silent;
                }
                None => {
                    let census = Census { members: 1, silent };
                    zones.insert(state.zone.clone(), census);
                }
            }
        }
        zones
    }

    fn add(&self, worker: &Worker, pulse: Pulse, now: SystemTime) {
        let live = Arc::new(Live {
            name: worker.name.clone(),
            state: Mutex::new(State {
                pulse,
                since: now,
                heard: None,
                expected: worker.is_expected(),
                in_wheel: false,
                zone: worker.machine.zone.clone(),
                reports: None,
                credential: None,
                told: None,
            }),
        });
        self.enter_wheel(&live, &mut live.lock());
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.insert(worker.name.clone(), live);
    }

    fn enter_wheel(&self, live: &Arc<Live>, state: &mut State) {
        if state.expected && !state.in_wheel {
            state.in_wheel = true;
            lock(&self.wheel).insert(state.pulse.look_at(), Arc::clone(live));
        }
    }
}

impl Live {
    /// Its name.
    pub(super) fn name(&self) -> &Text {
        &self.name
    }

    /// How far its running drain has come, as the leader says, where that is another instance.
    pub(super) fn told_progress(&self) -> Option<Arc<Progress>> {
        self.lock().told.as_ref()?.progress.clone()
    }

    /// What is known of its being there.
    pub(crate) fn observed(&self) -> Observed {
        let state = self.lock();
        if let Some(told) = &state.told {
            return Observed {
                heard: told.observed.heard.max(state.heard),
                ..told.observed
            };
        }
        Observed {
            liveness: state.pulse.liveness(),
            since: state.since,
            heard: state.heard,
        }
    }

    /// Whether its silence goes on.
    pub(super) fn is_suspect(&self) -> bool {
        self.lock().pulse.liveness() == Liveness::Suspect
    }

    /// What its owners last said of its drain.
    pub(crate) fn reports(&self) -> Reports {
        self.lock().reports.as_deref().cloned().unwrap_or_default()
    }

    /// Takes what an owner says of its drain.
    pub(crate) fn report(&self, owner: Text, report: Report) {
        let mut state = self.lock();
        state.reports.get_or_insert_default().insert(owner, report);
    }

    /// Whether the worker is known by the credential with this hash.
    pub(crate) fn is_known_by(&self, hash: &[u8; 32]) -> bool {
        self.lock().credential.as_deref() == Some(hash)
    }

    /// The worker has proved itself by the credential with this hash.
    pub(crate) fn known_by(&self, hash: [u8; 32]) {
        self.lock().credential = Some(Box::new(hash));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn hear(&mut self, moment: Moment, terms: Terms, now: SystemTime) -> Beat {
        self.heard = Some(now);
        let was_suspect = self.pulse.liveness() == Liveness::Suspect;
        if !self.pulse.beat(moment, terms) {
            return Beat::Heard;
        }
        self.since = now;
        Beat::Alive { was_suspect }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
