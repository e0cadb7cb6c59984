//! Whether a component is live and ready, and why: checks report here, and the gRPC health service
//! and the ops port read from memory. It decides readiness and liveness from the checks; it never
//! runs a check itself, and never waits for one.

mod bounds;
pub mod poll;
mod report;
pub mod service;
pub mod stall;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;

pub use report::{CheckReport, Found, Report, Tier};

/// The service name of readiness, beside the empty one.
pub const READINESS: &str = "readiness";
/// The service name of liveness.
pub const LIVENESS: &str = "liveness";

const STARTUP: &str = "startup";
const SHUTDOWN: &str = "shutdown";
const MAINTENANCE: &str = "maintenance";
const EVENT_LOOP: &str = "event-loop";

/// The health of one component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    checks: Mutex<BTreeMap<Cow<'static, str>, Entry>>,
    verdict: watch::Sender<Verdict>,
    /// Open Watches of the health protocol, on all ports together.
    watches: Arc<AtomicUsize>,
    /// Calls of it whose requests have not come, on all ports together.
    waiting: Arc<AtomicUsize>,
}

/// What the health protocol answers from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    ready: bool,
    live: bool,
    services: Arc<BTreeSet<Cow<'static, str>>>,
}

#[derive(Debug)]
struct Entry {
    tier: Tier,
    found: Found,
    since: SystemTime,
    detail: String,
    heard: Instant,
    /// Silent for longer than this, it counts as stuck.
    expires: Option<Duration>,
}

/// Where one check reports to. Dropping it leaves what it reported last.
#[derive(Debug, Clone)]
pub struct Check {
    health: Health,
    name: Cow<'static, str>,
}

impl Health {
    /// A component that has not started: live and not ready, until [`Health::started`].
    pub fn new(clock: Clock) -> Self {
        let health = Self(Arc::new(Inner {
            clock,
            checks: Mutex::default(),
            verdict: watch::Sender::new(Verdict {
                ready: false,
                live: true,
                services: Arc::default(),
            }),
            watches: Arc::default(),
            waiting: Arc::default(),
        }));
        health
            .check(STARTUP, Tier::Core)
            .set(Found::Pending, "starting");
        for name in [SHUTDOWN, MAINTENANCE, EVENT_LOOP] {
            health.check(name, Tier::Core).ok("");
        }
        health
    }

    /// Adds a check, or takes over the one of that name. It counts as not well until it reports.
    pub fn check(&self, name: impl Into<Cow<'static, str>>, tier: Tier) -> Check {
        let name = name.into();
        let entry = Entry {
            tier,
            found: Found::Pending,
            since: self.0.clock.now(),
            detail: String::new(),
            heard: Instant::now(),
            expires: None,
        };
        self.change(|checks| {
            checks.insert(name.clone(), entry);
        });
        Check {
            health: self.clone(),
            name,
        }
    }

    /// Removes a check.
    pub fn forget(&self, name: &str) {
        self.change(|checks| {
            checks.remove(name);
        });
    }

    /// Makes the gRPC service `name` known: it is as ready as the whole.
    pub fn serve(&self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        self.0
            .verdict
            .send_if_modified(|verdict| Arc::make_mut(&mut verdict.services).insert(name));
    }

    /// The component has all that it needs to begin to serve.
    pub fn started(&self) {
        self.own(STARTUP).ok("");
    }

    /// The component stops: not ready, for good.
    pub fn stopping(&self) {
        self.own(SHUTDOWN).failed("stopping");
    }

    /// Turns maintenance on with a reason, or off. Readiness follows; liveness does not.
    pub fn maintenance(&self, reason: Option<&str>) {
        match reason {
            Some(reason) => self.own(MAINTENANCE).failed(reason),
            None => self.own(MAINTENANCE).ok(""),
        }
    }

    /// The event loop makes no progress, with how long in words, or does again. It turns liveness
    /// off as well.
    pub fn stalled(&self, stalled: Option<&str>) {
        match stalled {
            Some(detail) => self.own(EVENT_LOOP).failed(detail),
            None => self.own(EVENT_LOOP).ok(""),
        }
    }

    /// Whether the component is ready for traffic.
    pub fn is_ready(&self) -> bool {
        self.0.verdict.borrow().ready
    }

    /// Whether the component makes progress.
    pub fn is_live(&self) -> bool {
        self.0.verdict.borrow().live
    }

    /// Whether `service` is well; `None` if there is none of that name.
    pub fn of(&self, service: &str) -> Option<bool> {
        self.0.verdict.borrow().of(service)
    }

    /// Resolves when the component is ready.
    pub async fn until_ready(&self) {
        let mut verdict = self.0.verdict.subscribe();
        // The sender lives in `self`.
        let _ = verdict.wait_for(|verdict| verdict.ready).await;
    }

    /// Everything at once, as of now.
    pub fn report(&self) -> Report {
        self.review();
        let checks: Vec<CheckReport> = self
            .checks()
            .iter()
            .map(|(name, e)| e.render(name))
            .collect();
        let verdict = self.0.verdict.borrow();
        let degraded = checks
            .iter()
            .any(|check| check.tier == Tier::Auxiliary && check.found != Found::Ok);
        Report {
            ready: verdict.ready,
            live: verdict.live,
            degraded,
            checks,
        }
    }

    /// Looks for checks that went silent. The process wrapper calls this each second.
    pub fn review(&self) {
        self.change(|_| ());
    }

    pub(crate) fn verdict(&self) -> watch::Receiver<Verdict> {
        self.0.verdict.subscribe()
    }

    fn own(&self, name: &'static str) -> Check {
        Check {
            health: self.clone(),
            name: Cow::Borrowed(name),
        }
    }

    /// The one way to change checks: what follows from them is decided anew each time.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<Cow<'static, str>, Entry>)) {
        let mut checks = self.checks();
        change(&mut checks);
        let now = self.0.clock.now();
        for entry in checks.values_mut() {
            entry.expire(now);
        }
        let ready = checks
            .values()
            .all(|entry| entry.tier != Tier::Core || entry.is_ok());
        let live = checks.get(EVENT_LOOP).is_none_or(Entry::is_ok);
        self.0.verdict.send_if_modified(|verdict| {
            let changed = (verdict.ready, verdict.live) != (ready, live);
            (verdict.ready, verdict.live) = (ready, live);
            changed
        });
    }

    fn checks(&self) -> MutexGuard<'_, BTreeMap<Cow<'static, str>, Entry>> {
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Check {
    /// All is well; `detail` may add words.
    pub fn ok(&self, detail: impl Into<String>) {
        self.set(Found::Ok, detail);
    }

    /// Something is not well.
    pub fn failed(&self, detail: impl Into<String>) {
        self.set(Found::Failed, detail);
    }

    /// No answer came in time.
    pub fn stuck(&self, detail: impl Into<String>) {
        self.set(Found::Stuck, detail);
    }

    /// Silent for longer than `after`, the check counts as stuck.
    pub fn expires(&self, after: Duration) {
        self.health.change(|checks| {
            if let Some(entry) = checks.get_mut(&self.name) {
                entry.expires = Some(after);
            }
        });
    }

    fn set(&self, found: Found, detail: impl Into<String>) {
        let detail = detail.into();
        let now = self.health.0.clock.now();
        let changed = self.health.update(&self.name, found, &detail, now);
        let is_trouble = matches!(found, Found::Failed | Found::Stuck) && self.name != SHUTDOWN;
        if changed && is_trouble {
            tracing::warn!(check = %self.name, found = found.name(), detail, "check is not well");
        } else if changed {
            tracing::debug!(check = %self.name, found = found.name(), detail, "check changed");
        }
    }
}

impl Health {
    /// Whether what was found has changed.
    fn update(&self, name: &str, found: Found, detail: &str, now: SystemTime) -> bool {
        let mut changed = false;
        self.change(|checks| {
            let Some(entry) = checks.get_mut(name) else {
                return;
            };
            entry.heard = Instant::now();
            changed = entry.found != found;
            if changed {
                entry.found = found;
                entry.since = now;
            }
            if entry.detail != detail {
                detail.clone_into(&mut entry.detail);
            }
        });
        changed
    }
}

impl Entry {
    fn is_ok(&self) -> bool {
        self.found == Found::Ok
    }

    fn expire(&mut self, now: SystemTime) {
        let silent = self.heard.elapsed();
        if self.expires.is_some_and(|after| silent > after) && self.found != Found::Stuck {
            self.found = Found::Stuck;
            self.since = now;
            self.detail = format!("no answer for {} s", silent.as_secs());
        }
    }

    fn render(&self, name: &str) -> CheckReport {
        CheckReport {
            name: name.to_owned(),
            tier: self.tier,
            found: self.found,
            since: self.since,
            detail: self.detail.clone(),
        }
    }
}

impl Verdict {
    pub(crate) fn of(&self, service: &str) -> Option<bool> {
        match service {
            "" | READINESS => Some(self.ready),
            LIVENESS => Some(self.live),
            name => self.services.contains(name).then_some(self.ready),
        }
    }

    /// Every service with whether it is well, in order of name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, bool)> {
        let own = [
            ("", self.ready),
            (LIVENESS, self.live),
            (READINESS, self.ready),
        ];
        own.into_iter()
            .chain(self.services.iter().map(|name| (name.as_ref(), self.ready)))
    }
}
