//! What a question waits for before it is answered: nothing, but for a backend's very first refresh
//! after the start, and for what a `max_age` asks. Every wait is side by side with the others and
//! bounded; whoever is late is told, and what it told before is served all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use crate::board::Board;
use crate::domain::backend::Standing;
use crate::domain::report::Waited;
use crate::refresher::Handle;

/// The handles of every backend that is asked, by name.
pub type Handles = Arc<ArcSwap<BTreeMap<String, Handle>>>;

/// How long a question waits, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Offers older than this are refreshed first; none waits for no refresh but the first.
    pub max_age: Option<Duration>,
    /// How long to wait for each backend.
    pub backend_timeout: Duration,
    /// When all waiting ends; none if only the backends' time counts.
    pub until: Option<Instant>,
}

/// A backend whose wait is over, with what came of it; none if it has offers that were kept from before
/// the start, so that nothing was waited for after all.
pub type Arrived = (String, Option<Waited>);

/// The waits of one question, in whatever order they end, and the names of those waited for. What is to
/// be refreshed for it is asked at once, however late somebody looks what came of it.
pub fn waits(
    board: &Board,
    handles: &BTreeMap<String, Handle>,
    asks: impl Fn(&str) -> bool,
    patience: Patience,
    now: SystemTime,
) -> (
    FuturesUnordered<BoxFuture<'static, Arrived>>,
    BTreeSet<String>,
) {
    let state = board.state();
    let asked = state
        .backends
        .iter()
        .filter(|standing| asks(&standing.facts.name));
    let waits = asked.filter_map(|standing| {
        let handle = handles.get(&standing.facts.name)?;
        let wait = Wait::of(standing, handle, patience, now)?;
        let name = standing.facts.name.clone();
        let over = wait.over(board, &name, handle, patience);
        let over = over.map({
            let name = name.clone();
            move |waited| (name, waited)
        });
        Some((over.boxed(), name))
    });
    let (waits, names): (FuturesUnordered<_>, BTreeSet<_>) = waits.unzip();
    (waits, names)
}

/// Waits for all that a question waits for, and tells what came of each.
pub async fn all(
    board: &Board,
    handles: &BTreeMap<String, Handle>,
    asks: impl Fn(&str) -> bool,
    patience: Patience,
    now: SystemTime,
) -> BTreeMap<String, Waited> {
    let (waits, _) = waits(board, handles, asks, patience, now);
    let came = waits.filter_map(async |(name, waited)| Some((name, waited?)));
    came.collect().await
}

/// Why a backend is waited for.
enum Wait {
    /// It is asked for fresh offers.
    Refresh,
    /// It has never told anything.
    First { until: Instant },
    /// There is nothing to wait for, only this to tell.
    Told(Waited),
}

impl Wait {
    fn of(
        standing: &Standing,
        handle: &Handle,
        patience: Patience,
        now: SystemTime,
    ) -> Option<Self> {
        if let Some(max_age) = patience.max_age {
            let old = standing.is_older_than(max_age, now);
            return match (old, standing.breaker.allows(now)) {
                (false, _) => None,
                (true, true) => Some(Self::Refresh),
                (true, false) => Some(Self::Told(Waited::BreakerOpen)),
            };
        }
        if !standing.is_awaited() {
            return None;
        }
        let until = handle.since() + patience.backend_timeout;
        if until > Instant::now() {
            return Some(Self::First { until });
        }
        Some(Self::Told(late(handle, handle.since().elapsed())))
    }

    /// Asks what is to be asked, and waits for what comes of it.
    fn over(
        self,
        board: &Board,
        name: &str,
        handle: &Handle,
        patience: Patience,
    ) -> BoxFuture<'static, Option<Waited>> {
        let (began, handle) = (Instant::now(), handle.clone());
        let (until, came) = match self {
            Self::Told(waited) => return ready(Some(waited)).boxed(),
            Self::First { until } => {
                let (board, name, handle) = (board.clone(), name.to_owned(), handle.clone());
                let first = async move { handle.first(&board, &name).await.transpose() };
                (until, first.boxed())
            }
            Self::Refresh => {
                let refreshed = handle.refresh(false).map(|outcome| outcome.map(Some));
                (began + patience.backend_timeout, refreshed.boxed())
            }
        };
        let until = patience.until.map_or(until, |all| all.min(until));
        let over = async move {
            match timeout_at(until, came).await {
                Ok(Ok(came)) => came.map(|()| Waited::Ok),
                Ok(Err(fault)) => Some(Waited::Failed(fault)),
                Err(_) => Some(late(&handle, until.saturating_duration_since(began))),
            }
        };
        over.boxed()
    }
}

/// Time ran out: an attempt that has failed meanwhile says more than that.
fn late(handle: &Handle, waited: Duration) -> Waited {
    let rounded = Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    handle
        .attempt_fault()
        .map_or(Waited::OutOfTime(rounded), Waited::Failed)
}
