//! What an answer says of each backend, on two axes that are never mixed: how old its offers are,
//! and what came of refreshing it.

use std::time::{Duration, SystemTime};

use super::backend::{Fault, Standing};
use super::breaker;

/// How old a backend's offers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Fetched for this call.
    Fresh,
    /// At most one and a half refresh intervals old.
    Cached,
    /// Older.
    Stale,
    /// There are none in the answer.
    None,
}

/// What came of refreshing a backend, for this call or last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Not tried, and nothing is wrong.
    NotTried,
    /// It went well.
    Ok,
    /// No answer in time; it may still come.
    TimedOut,
    /// An error.
    Failed,
    /// Not tried: it failed often.
    BreakerOpen,
    /// Not tried: it is not configured to be.
    Disabled,
}

/// What came of refreshing a backend for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It went well.
    Ok,
    /// It failed.
    Failed(Fault),
    /// The caller waited for so long, and no longer.
    OutOfTime(Duration),
    /// It was not asked: the breaker is open.
    BreakerOpen,
}

/// What an answer says of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How old its offers are.
    pub data: Data,
    /// What came of refreshing it.
    pub refresh: Refresh,
    /// Time since its offers were read.
    pub age: Option<Duration>,
    /// How long its last refresh took.
    pub latency: Option<Duration>,
    /// What went wrong, in words; empty if nothing did.
    pub error: String,
}

/// What an answer of `now` says of a backend, with what came of `waited` for it, if it was.
pub fn report(standing: &Standing, waited: Option<&Waited>, now: SystemTime) -> Report {
    let (refresh, error) = match (&standing.facts.disabled, waited) {
        (Some(reason), _) => (Refresh::Disabled, reason.clone()),
        (None, Some(waited)) => of_call(standing, waited),
        (None, None) => of_last(standing),
    };
    let fresh = waited == Some(&Waited::Ok);
    Report {
        data: data(standing, fresh, now),
        refresh,
        age: standing.age(now),
        latency: standing.ended.as_ref().map(|ended| ended.took),
        error,
    }
}

/// How old a backend's offers are, apart from any call.
pub fn data(standing: &Standing, fresh: bool, now: SystemTime) -> Data {
    if standing.shown().is_none() || standing.is_too_old(now) {
        return Data::None;
    }
    let limit = standing.refresh_interval().mul_f64(1.5);
    match standing.age(now) {
        None => Data::None,
        Some(_) if fresh => Data::Fresh,
        Some(age) if age <= limit => Data::Cached,
        Some(_) => Data::Stale,
    }
}

/// Whether time alone has made a backend's offers old since `before`.
pub fn has_aged(standing: &Standing, before: SystemTime, now: SystemTime) -> bool {
    data(standing, false, before) != data(standing, false, now)
}

/// When a backend's offers next grow old after `now`; none if they do not.
pub fn next_ageing(standing: &Standing, now: SystemTime) -> Option<SystemTime> {
    let times = [standing.drop_time(), stale_time(standing)];
    times.into_iter().flatten().filter(|at| *at > now).min()
}

/// When offers that are CACHED now turn STALE.
pub fn stale_time(standing: &Standing) -> Option<SystemTime> {
    let told = standing.shown()?;
    Some(told.observed + standing.refresh_interval().mul_f64(1.5) + Duration::from_millis(1))
}

fn of_call(standing: &Standing, waited: &Waited) -> (Refresh, String) {
    match waited {
        Waited::Ok => (Refresh::Ok, String::new()),
        Waited::Failed(fault) => of_fault(fault),
        Waited::OutOfTime(after) => (
            Refresh::TimedOut,
            format!("no answer within {}", seconds(*after)),
        ),
        Waited::BreakerOpen => (Refresh::BreakerOpen, failing(standing)),
    }
}

fn of_last(standing: &Standing) -> (Refresh, String) {
    let open = matches!(standing.breaker.state(), breaker::State::Open { .. });
    match standing.fault() {
        Some(_) if open => (Refresh::BreakerOpen, failing(standing)),
        Some(fault) => of_fault(fault),
        None if standing.is_awaited() => (
            Refresh::NotTried,
            "its first refresh is under way".to_owned(),
        ),
        None => (Refresh::NotTried, String::new()),
    }
}

/// What came of a backend's last refresh, apart from any call.
pub fn last_refresh(standing: &Standing) -> Refresh {
    match (&standing.facts.disabled, &standing.ended) {
        (Some(_), _) => Refresh::Disabled,
        (None, None) => Refresh::NotTried,
        (None, Some(ended)) => ended
            .fault
            .as_ref()
            .map_or(Refresh::Ok, |_| of_last(standing).0),
    }
}

fn of_fault(fault: &Fault) -> (Refresh, String) {
    let refresh = if fault.timed_out {
        Refresh::TimedOut
    } else {
        Refresh::Failed
    };
    (refresh, fault.message.clone())
}

fn failing(standing: &Standing) -> String {
    let failures = standing.breaker.failures();
    let last = standing.fault().map_or("unknown", |fault| &fault.message);
    format!("left alone after {failures} failures, the last: {last}")
}

/// A duration as people say it.
pub fn seconds(duration: Duration) -> String {
    muster_model::quantity::duration::print(duration)
}

#[cfg(test)]
mod tests;
