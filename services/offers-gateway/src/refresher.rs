//! Keeps one backend fresh: a task of its own asks the source when it is due or wanted, one refresh
//! at a time, each attempt and the whole bounded, and puts what comes of it on the board. Whoever
//! wants fresh offers asks through a [`Handle`] and waits as long as it likes; the refresh goes on
//! without it. Nobody else waits for a source, ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use muster_runtime::backoff;
use muster_runtime::clock::Clock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::board::Board;
use crate::domain::backend::{Ended, Fault, Standing, Told};
use crate::domain::report::{self, Refresh};
use crate::keeper::{self, Keeper};
use crate::metrics::{Came, Metrics};
use crate::source::{Failure, Fetched, Source};
use crate::spec::{Spec, Times};

/// The delays between the attempts of one refresh.
const BETWEEN_ATTEMPTS: backoff::Policy =
    backoff::Policy::doubling(Duration::from_millis(250), Duration::from_secs(10));

/// How long nobody looks how old offers are, at most: while the machine sleeps, or its clock is set, they
/// grow old by no timer.
const LOOKS_EVERY: Duration = Duration::from_secs(10);

/// How refreshes of one backend are asked for and followed. Cheap to clone. It outlives the task: then
/// whoever waits is told that the backend is gone, or was configured otherwise.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    flight: watch::Receiver<Flight>,
}

#[derive(Debug)]
struct Shared {
    /// When the backend was configured: its first refresh is waited for from then.
    since: Instant,
    wanted: Notify,
    forced: AtomicBool,
}

/// What came of a refresh.
type Outcome = Result<(), Fault>;

/// Refreshes so far.
#[derive(Clone, Debug)]
struct Flight {
    under_way: bool,
    /// What will have come of the refresh under way, or else of the next one. Each has its own, so
    /// that a following refresh takes nothing from whoever waits for this one.
    outcome: watch::Receiver<Option<Outcome>>,
    /// What came of the last one that ended.
    last: Option<Outcome>,
    /// What came of the last attempt of the one under way, or of the last one.
    fault: Option<Fault>,
    /// Whether offers kept from before the start have been looked for.
    restored: bool,
}

/// The task of one backend.
#[derive(Debug)]
pub struct Refresher {
    name: Arc<str>,
    times: Times,
    source: Source,
    board: Board,
    /// Where its offers are kept.
    kept: keeper::Place,
    metrics: Metrics,
    clock: Clock,
    handle: Handle,
    flight: watch::Sender<Flight>,
    /// Tells what came of the refresh under way, or else of the next one.
    outcome: watch::Sender<Option<Outcome>>,
    /// Names to the source the offers at hand.
    validator: String,
    /// The part of each delay that is this backend's own.
    seed: u64,
    refreshes: u64,
    /// When it is refreshed next: the wall clock may be set back meanwhile.
    due: Instant,
    /// When the source was last asked.
    asked: Option<Instant>,
}

/// What a backend's task works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where what comes of it is put.
    pub board: Board,
    /// Where its offers are kept.
    pub keeper: Keeper,
    /// Where its refreshes are counted.
    pub metrics: Metrics,
    /// Tells the time.
    pub clock: Clock,
}

impl Handle {
    /// When the backend was configured.
    pub fn since(&self) -> Instant {
        self.shared.since
    }

    /// Whether a refresh is under way.
    pub fn is_under_way(&self) -> bool {
        self.flight.borrow().under_way
    }

    /// Refreshes the backend, or joins the refresh under way, and waits for its end. With `force`
    /// also while the breaker is open. It is asked for at once, whenever the future is looked at, and
    /// dropping that leaves the refresh alone.
    pub fn refresh(&self, force: bool) -> impl Future<Output = Outcome> + Send + use<> {
        let Flight {
            under_way,
            mut outcome,
            ..
        } = self.flight.borrow().clone();
        if !under_way {
            if force {
                self.shared.forced.store(true, Ordering::Relaxed);
            }
            self.shared.wanted.notify_one();
        }
        async move {
            let ended = outcome.wait_for(Option::is_some).await;
            ended
                .map_err(|_| gone())?
                .clone()
                .unwrap_or_else(|| Err(gone()))
        }
    }

    /// Waits until the backend has been refreshed once, or has offers kept from before the start: then
    /// nothing has come of a refresh yet, and it is none.
    pub async fn first(&self, board: &Board, name: &str) -> Option<Outcome> {
        let mut flight = self.flight.clone();
        let awaited = || {
            board
                .state()
                .backend(name)
                .is_some_and(|standing| standing.is_awaited())
        };
        let ready = |flight: &Flight| flight.last.is_some() || flight.restored && !awaited();
        match flight.wait_for(ready).await {
            Ok(ready) => ready.last.clone(),
            Err(_) => Some(Err(gone())),
        }
    }

    /// What came of the last attempt of the refresh under way; none while there was none.
    pub fn attempt_fault(&self) -> Option<Fault> {
        self.flight.borrow().fault.clone()
    }
}

fn gone() -> Fault {
    Fault {
        timed_out: false,
        message: "the backend was configured otherwise meanwhile, or is gone: ask again".to_owned(),
    }
}

impl Refresher {
    /// A task for a backend that is on the board. It does nothing before [`Refresher::run`].
    pub fn new(spec: &Spec, source: Source, surroundings: Surroundings) -> Self {
        let seed = backoff::seed(&spec.name);
        let (outcome, will_come) = watch::channel(None);
        let (flight, following) = watch::channel(Flight {
            under_way: false,
            outcome: will_come,
            last: None,
            fault: None,
            restored: false,
        });
        let handle = Handle {
            shared: Arc::new(Shared {
                since: Instant::now(),
                wanted: Notify::new(),
                forced: AtomicBool::new(false),
            }),
            flight: following,
        };
        let Surroundings {
            board,
            keeper,
            metrics,
            clock,
        } = surroundings;
        Self {
            name: spec.name.as_str().into(),
            times: spec.times.clone(),
            source,
            board,
            kept: keeper.place(&spec.name, &spec.kind.origin()),
            metrics,
            clock,
            handle,
            flight,
            outcome,
            validator: String::new(),
            seed,
            refreshes: 0,
            due: Instant::now(),
            asked: None,
        }
    }

    /// How its refreshes are asked for.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Keeps the backend fresh until `stop` resolves.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = stop => {}
            () = ageing(self.board.clone(), self.clock.clone(), Arc::clone(&self.name)) => {}
            () = self.keep_fresh() => {}
        }
        self.kept.settle().await;
    }

    async fn keep_fresh(&mut self) {
        self.restore().await;
        self.schedule();
        loop {
            let due = self.wait_until_due().await;
            if due {
                // What a refresh needs is large, and most of the time there is none.
                Box::pin(self.refresh()).await;
                self.schedule();
            }
        }
    }

    /// Shows the offers kept from before the start, if any.
    async fn restore(&mut self) {
        if let Some((told, validator)) = self.kept.load().await {
            self.show_kept(told, validator);
        }
        self.flight.send_modify(|flight| flight.restored = true);
    }

    /// Shows offers that were kept, unless there are newer ones, of when the backend was configured
    /// otherwise, that could not be written.
    fn show_kept(&mut self, told: Told, validator: String) {
        let state = self.board.state();
        let known = state.backend(&self.name);
        let known = known.and_then(|standing| standing.told.as_ref());
        if let Some(newer) = known.filter(|known| known.observed > told.observed) {
            self.kept.keep(newer, &self.validator, false);
            return;
        }
        self.validator = validator;
        let (now, jitter) = (self.clock.now(), self.jitter());
        self.board
            .change(&self.name, |standing| standing.restore(told, now, jitter));
    }

    /// Takes from the board when the next refresh is due; at once if it does not say.
    fn schedule(&mut self) {
        let now = self.clock.now();
        let state = self.board.state();
        let next = state
            .backend(&self.name)
            .and_then(|standing| standing.next_refresh);
        let left = next.and_then(|next| next.duration_since(now).ok());
        self.due = Instant::now() + left.unwrap_or_default();
    }

    /// Waits until something is to be done: true if it is a refresh.
    async fn wait_until_due(&mut self) -> bool {
        let due = self.due;
        tokio::select! {
            biased;
            () = self.handle.shared.wanted.notified() => {
                let forced = self.handle.shared.forced.swap(false, Ordering::Relaxed);
                if let Some(fault) = self.too_soon() {
                    self.land(Some(fault));
                    return false;
                }
                forced || self.is_allowed()
            }
            () = sleep_until(due) => true,
        }
    }

    fn is_allowed(&self) -> bool {
        let state = self.board.state();
        let standing = state.backend(&self.name);
        standing.is_some_and(|standing| standing.breaker.allows(self.clock.now()))
    }

    /// Why the source may not be asked yet; none if it may.
    fn too_soon(&self) -> Option<Fault> {
        let least = self.source.least_interval();
        let left = least.checked_sub(self.asked?.elapsed())?;
        let (least, left) = (report::seconds(least), report::seconds(round(left)));
        Some(Fault {
            timed_out: false,
            message: format!("it is to be asked every {least} at most, so not for {left}"),
        })
    }

    async fn refresh(&mut self) {
        let began = Instant::now();
        self.refreshes += 1;
        let before = self.condition();
        self.board.change(&self.name, Standing::begin);
        self.flight.send_modify(|flight| {
            flight.under_way = true;
            flight.fault = None;
        });
        let outcome = self
            .try_within_budget(began + self.times.refresh_timeout)
            .await;
        let (now, jitter) = (self.clock.now(), self.jitter());
        let ended = |fault| Ended {
            at: now,
            took: began.elapsed(),
            fault,
        };
        let came = match outcome {
            Ok(fetched) => self.take(fetched, now, ended(None), jitter),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &came {
            let ended = ended(Some(fault.clone()));
            let least = self.source.least_interval();
            self.board.change(&self.name, |standing| {
                standing.refresh_at_most_every(least);
                standing.fail(ended, jitter);
            });
        }
        self.metrics
            .refreshed(&self.name, began.elapsed(), came.as_ref().map(|came| *came));
        self.log_change(before);
        self.land(came.err());
    }

    /// Tells what came of the refresh to those who wait for it.
    fn land(&mut self, fault: Option<Fault>) {
        let (next, will_come) = watch::channel(None);
        let outcome = fault.clone().map_or(Ok(()), Err);
        self.flight.send_modify(|flight| {
            flight.under_way = false;
            flight.outcome = will_come;
            flight.last = Some(outcome.clone());
            flight.fault = fault;
        });
        std::mem::replace(&mut self.outcome, next).send_replace(Some(outcome));
    }

    async fn try_within_budget(&mut self, deadline: Instant) -> Result<Fetched, Fault> {
        let mut attempts = Attempts::new(self.times.attempt_timeout, deadline);
        let mut delays = backoff::Backoff::new(BETWEEN_ATTEMPTS, self.seed ^ self.refreshes);
        loop {
            self.asked = Some(Instant::now());
            let failure = match attempts.run(self.source.fetch(&self.validator)).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            self.flight
                .send_modify(|flight| flight.fault = Some(failure.fault.clone()));
            let delay = failure
                .retry_after
                .unwrap_or_default()
                .max(delays.next_delay())
                .max(self.source.least_interval());
            if failure.permanent || Instant::now() + delay >= deadline {
                return Err(failure.fault);
            }
            sleep(delay).await;
        }
    }

    /// Puts what the source answered on the board, and has it kept.
    fn take(
        &mut self,
        fetched: Fetched,
        now: SystemTime,
        ended: Ended,
        jitter: f64,
    ) -> Result<Came, Fault> {
        let state = self.board.state();
        let old = state
            .backend(&self.name)
            .and_then(|standing| standing.told.clone());
        let (came, told) = match (fetched, old) {
            (Fetched::Unchanged, Some(old)) => {
                let told = Told {
                    observed: now,
                    ..old
                };
                (Came::Unchanged, told)
            }
            (Fetched::Unchanged, None) => {
                self.validator.clear();
                return Err(Fault {
                    timed_out: false,
                    message: "it says that nothing changed, but nothing is known of it".to_owned(),
                });
            }
            (Fetched::Offers(offers), old) => {
                let snapshot = match old {
                    Some(old) if old.snapshot.parts() == offers.snapshot.parts() => old.snapshot,
                    _ => Arc::new(offers.snapshot),
                };
                self.validator = offers.validator;
                let told = Told {
                    snapshot,
                    observed: now,
                    live_capacity: offers.live_capacity,
                };
                (Came::Offers, told)
            }
        };
        let (least, shown) = (self.source.least_interval(), told.clone());
        self.board.change(&self.name, |standing| {
            standing.refresh_at_most_every(least);
            standing.succeed(shown, ended, jitter);
        });
        self.kept
            .keep(&told, &self.validator, came == Came::Unchanged);
        Ok(came)
    }

    fn jitter(&self) -> f64 {
        backoff::unit(self.seed, self.refreshes)
    }

    fn condition(&self) -> Option<Refresh> {
        let state = self.board.state();
        let standing = state.backend(&self.name)?;
        // Before its first refresh nothing is known, which is no condition to compare with.
        standing.ended.as_ref()?;
        Some(report::last_refresh(standing))
    }

    /// Says once what has changed about the backend.
    fn log_change(&self, before: Option<Refresh>) {
        let after = self.condition();
        let state = self.board.state();
        let (Some(after), Some(standing)) = (after, state.backend(&self.name)) else {
            return;
        };
        if before == Some(after) {
            return;
        }
        let error = standing.fault().map_or("", |fault| fault.message.as_str());
        match after {
            Refresh::Ok | Refresh::NotTried => tracing::info!(
                backend = &*self.name,
                offers = standing.told.as_ref().map(|told| told.snapshot.len()),
                "backend is well"
            ),
            Refresh::TimedOut => tracing::warn!(
                backend = &*self.name,
                error,
                "backend does not answer in time"
            ),
            Refresh::Failed => tracing::warn!(backend = &*self.name, error, "backend fails"),
            Refresh::BreakerOpen => tracing::warn!(
                backend = &*self.name,
                error,
                "backend is left alone for failing"
            ),
            Refresh::Disabled => {}
        }
    }
}

/// Shows, for ever, how a backend's offers grow old, also while a refresh hangs.
async fn ageing(board: Board, clock: Clock, name: Arc<str>) {
    let mut changed = board.changed();
    loop {
        changed.borrow_and_update();
        let now = clock.now();
        let state = board.state();
        let standing = state.backend(&name);
        if standing.is_some_and(|standing| standing.is_too_old(now) && !standing.dropped) {
            tracing::warn!(
                backend = &*name,
                "its offers are too old to be shown any longer"
            );
            board.change(&name, |standing| standing.dropped = true);
            continue;
        }
        if standing.is_some_and(|standing| standing.is_ahead_of(now)) {
            board.change(&name, |standing| standing.clock_set_back(now));
            continue;
        }
        if standing.is_some_and(|standing| report::has_aged(standing, state.at, now)) {
            // Those who watch are told as the board sees it.
            board.change(&name, |_| {});
            continue;
        }
        let next = standing.and_then(|standing| report::next_ageing(standing, now));
        let left = next.map(|at| at.duration_since(now).unwrap_or_default());
        tokio::select! {
            () = sleep(left.unwrap_or_default().min(LOOKS_EVERY)), if left.is_some() => {}
            _ = changed.changed() => {}
        }
    }
}

/// The attempts of one refresh: each has its time, the last what is left of the whole.
struct Attempts {
    each: Duration,
    deadline: Instant,
    /// What came of the last one that had all its time, or ended by itself.
    telling: Option<Failure>,
}

impl Attempts {
    fn new(each: Duration, deadline: Instant) -> Self {
        Self {
            each,
            deadline,
            telling: None,
        }
    }

    /// Waits for an attempt. One that is cut short says nothing of the source: then what came of
    /// the one before it is told again.
    async fn run<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let patience = self.each.min(left);
        let failure = match timeout(patience, attempt).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failure)) => failure,
            Err(_) if patience < self.each => {
                self.telling.take().unwrap_or_else(|| out_of_time(patience))
            }
            Err(_) => out_of_time(patience),
        };
        self.telling = Some(failure.clone());
        Err(failure)
    }
}

fn out_of_time(patience: Duration) -> Failure {
    let message = format!("no answer within {}", report::seconds(round(patience)));
    Failure {
        fault: Fault {
            timed_out: true,
            message,
        },
        permanent: false,
        retry_after: None,
    }
}

/// To whole milliseconds, as people read it.
fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
