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
use crate::domain::drain::{Report, Reports};
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
    rare: Option<Box<Rare>>,
}

/// What most workers have not.
#[derive(Default)]
struct Rare {
    reports: Reports,
    /// SHA-256 of the credential that was verified last.
    credential: Option<[u8; 32]>,
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
        if worker.running_drain().is_none()
            && let Some(rare) = &mut state.rare
        {
            rare.reports.clear();
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

    /// Looks at those whose time may have come.
    pub(super) fn look(&self) -> Found {
        let moment = self.moment();
        let due = lock(&self.wheel).advance(moment);
        let now = self.clock.now();
        let mut found = Found::default();
        for live in due {
            let mut state = live.lock();
            state.in_wheel = false;
            if !state.expected {
                continue;
            }
            match state.pulse.judge(moment) {
                Verdict::Fine(_) => {}
                Verdict::Suspect(_) => {
                    state.since = now;
                    found.suspects.push(live.name.clone());
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
                rare: None,
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
    /// What is known of its being there.
    pub(crate) fn observed(&self) -> Observed {
        let state = self.lock();
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
        self.lock()
            .rare
            .as_ref()
            .map(|rare| rare.reports.clone())
            .unwrap_or_default()
    }

    /// Takes what an owner says of its drain.
    pub(crate) fn report(&self, owner: Text, report: Report) {
        self.lock().rare().reports.insert(owner, report);
    }

    /// Whether the worker is known by the credential with this hash.
    pub(crate) fn is_known_by(&self, hash: &[u8; 32]) -> bool {
        self.lock()
            .rare
            .as_ref()
            .is_some_and(|rare| rare.credential.as_ref() == Some(hash))
    }

    /// The worker has proved itself by the credential with this hash.
    pub(crate) fn known_by(&self, hash: [u8; 32]) {
        self.lock().rare().credential = Some(hash);
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

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
