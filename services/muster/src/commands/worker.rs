//! What is done to workers: drain, resume, disable, enable, delete; and to the silent ones of a zone.

use std::{collections::BTreeMap, time::Duration};

use muster_proto::workers::v1::{
    AfterDeadline, DeleteWorkerRequest, DisableWorkerRequest, Drain, DrainCause,
    DrainWorkerRequest, DrainWorkerResponse, EnableWorkerRequest, ReleaseMassLossRequest,
    ResumeWorkerRequest, Worker, WorkerFilter, WorkerState,
};

use super::{
    change::confirm,
    each::each,
    follow::{Progress, gave_up},
    live::{self, Flow},
    workers::{Workers, drain_words, get, state},
};
use crate::{
    args::{self, DeleteWorker, Disable, Reasoned, ReleaseMassLoss},
    failure::Failure,
    session::{Component, Session},
};

/// Empties workers, and follows until they are DISABLED.
pub(crate) async fn drain(session: &Session, args: &args::Drain) -> Result<(), Failure> {
    all_there(session, &args.names).await?;
    let act = async |name: &str| {
        let already = match has_terms(args) {
            true => None,
            false => drains_already(session, name).await?,
        };
        let drains = already.is_some();
        let answer = match already {
            Some(worker) => DrainWorkerResponse {
                worker: Some(worker),
                ..DrainWorkerResponse::default()
            },
            None => begin_drain(session, args, name).await?,
        };
        let worker = answer.worker.clone().unwrap_or_default();
        let sentence = match (args.dry_run, worker.usage.unwrap_or_default().allocations) {
            (false, _) if drains => format!("{name} is {} already\n", state(&worker)),
            (false, _) => format!("{name} is {}\n", state(&worker)),
            (true, 1) => format!("{name} would be drained: 1 replica would move\n"),
            (true, left) => format!("{name} would be drained: {left} replicas would move\n"),
        };
        Ok((answer, sentence))
    };
    let answers = each(session, &args.names, act).await?;
    let forces = matches!(args.after_deadline, Some(args::AfterDeadline::Force));
    for answer in answers.iter().filter(|_| forces) {
        if !answer.would_fail.is_empty() {
            session.say(&forced(&answer.would_fail))?;
        }
    }
    if args.dry_run || !session.follows(&args.following) {
        return Ok(());
    }
    until_disabled(session, &args.names, args.following.timeout).await
}

/// That of several workers each is there, before anything is done to one of them.
async fn all_there(session: &Session, names: &[String]) -> Result<(), Failure> {
    if names.len() > 1 {
        for name in names {
            get(session, name).await?;
        }
    }
    Ok(())
}

async fn begin_drain(
    session: &Session,
    args: &args::Drain,
    name: &str,
) -> Result<DrainWorkerResponse, Failure> {
    let after_deadline = match args.after_deadline {
        None | Some(args::AfterDeadline::Wait) => AfterDeadline::Wait,
        Some(args::AfterDeadline::Force) => AfterDeadline::Force,
    };
    let request = DrainWorkerRequest {
        name: name.to_owned(),
        cause: DrainCause::Operator.into(),
        reason: reason(args.reason.as_deref()),
        deadline: args.deadline.and_then(|deadline| deadline.try_into().ok()),
        max_parallel: args.max_parallel.unwrap_or(1),
        after_deadline: after_deadline.into(),
        validate_only: args.dry_run,
        ..DrainWorkerRequest::default()
    };
    let mut registry = session.workers();
    let asked = registry.drain_worker(request);
    session.call(Component::Registry, asked).await
}

/// Whether a drain is asked for in other words than its name.
fn has_terms(args: &args::Drain) -> bool {
    let terms = args.deadline.is_some() || args.after_deadline.is_some();
    terms || args.max_parallel.is_some() || args.reason.is_some() || args.dry_run
}

/// The worker, if an operator's drain empties it: asked for again without terms, it keeps those that it has.
async fn drains_already(session: &Session, name: &str) -> Result<Option<Worker>, Failure> {
    let worker = get(session, name).await?.worker.unwrap_or_default();
    let cause = worker.drain.as_ref().map(Drain::cause);
    let drains = worker.state() == WorkerState::Draining && cause == Some(DrainCause::Operator);
    Ok(drains.then_some(worker))
}

/// The drains that are waited for.
struct Drains {
    /// The workers that are not yet DISABLED, and how each was last.
    left: BTreeMap<String, String>,
    /// Why one of them will not be.
    failed: Option<Failure>,
    progress: Progress,
}

impl Drains {
    /// Takes what a watch tells of a worker; nothing if it is gone.
    fn see(&mut self, session: &Session, name: &str, now: Option<&Worker>) -> Result<(), Failure> {
        let Some(last) = self.left.get_mut(name) else {
            return Ok(());
        };
        let Some(now) = now else {
            self.failed = Some(Failure::Failed(format!("{name} was deleted")));
            return Ok(());
        };
        let line = line(session, now);
        if *last != line {
            self.progress
                .show(&line, now.drain.as_ref().map(fraction))?;
            *last = line;
        }
        match end(now) {
            None => {}
            Some(Ok(())) => drop(self.left.remove(name)),
            Some(Err(failure)) => self.failed = Some(failure),
        }
        Ok(())
    }
}

async fn until_disabled(
    session: &Session,
    names: &[String],
    timeout: Duration,
) -> Result<(), Failure> {
    let filter = WorkerFilter {
        names: names.to_vec(),
        ..WorkerFilter::default()
    };
    let left = names.iter().map(|name| (name.clone(), String::new()));
    let mut drains = Drains {
        left: left.collect(),
        failed: None,
        progress: Progress::new(),
    };
    let watched = Workers { filter };
    let watch = live::follow(session, &watched, |changes| {
        for (name, worker) in changes {
            drains.see(session, &name, worker.as_ref())?;
        }
        Ok(match drains.failed.is_some() || drains.left.is_empty() {
            true => Flow::Done,
            false => Flow::GoOn,
        })
    });
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(timeout, watch) => Some(outcome),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None)?,
    };
    drains.progress.finish()?;
    let (names_left, last): (Vec<_>, Vec<_>) = drains.left.into_iter().unzip();
    let drain = format!("the drain of {}", names_left.join(", "));
    match outcome {
        None => {
            let resume = format!("muster resume {}", names_left.join(" "));
            let message = format!("{drain} goes on; `{resume}` calls it off");
            return Err(Failure::Interrupted(message));
        }
        Some(Err(_)) => {
            let last = last.join("; ");
            return Err(gave_up(
                session,
                Component::Registry,
                timeout,
                &drain,
                &last,
            ));
        }
        Some(Ok(result)) => result.and(drains.failed.map_or(Ok(()), Err))?,
    }
    for name in names {
        session.say(&format!("{name} is DISABLED\n"))?;
    }
    Ok(())
}

/// What a forced end would do to these replicas.
fn forced(would_fail: &[String]) -> String {
    let names = would_fail.join(", ");
    let have = if would_fail.len() == 1 { "has" } else { "have" };
    format!("a forced end would fail {names}, which {have} no retry policy\n")
}

fn line(session: &Session, worker: &Worker) -> String {
    match &worker.drain {
        Some(drain) => format!(
            "{} {}: {}",
            worker.name,
            state(worker),
            drain_words(session, drain)
        ),
        None => format!("{} {}", worker.name, state(worker)),
    }
}

/// How much of a drain is done, in hundredths.
fn fraction(drain: &Drain) -> u32 {
    let total = u32::try_from(drain.total).unwrap_or_default();
    let left = u32::try_from(drain.left).unwrap_or_default();
    match total {
        0 => 100,
        total => 100 * total.saturating_sub(left) / total,
    }
}

fn end(worker: &Worker) -> Option<Result<(), Failure>> {
    match worker.state() {
        WorkerState::Disabled => Some(Ok(())),
        WorkerState::Active | WorkerState::Provisioning => {
            let message = format!("the drain of {} was called off", worker.name);
            Some(Err(Failure::Failed(message)))
        }
        WorkerState::Draining | WorkerState::Unspecified => None,
    }
}

/// Calls drains off.
pub(crate) async fn resume(session: &Session, args: &Reasoned) -> Result<(), Failure> {
    all_there(session, &args.names).await?;
    let act = async |name: &str| {
        let request = ResumeWorkerRequest {
            name: name.to_owned(),
            reason: reason(args.reason.as_deref()),
            ..ResumeWorkerRequest::default()
        };
        let mut registry = session.workers();
        let asked = registry.resume_worker(request);
        let answer = session.call(Component::Registry, asked).await?;
        Ok(told(answer.worker))
    };
    each(session, &args.names, act).await.map(drop)
}

/// Takes workers out of use.
pub(crate) async fn disable(session: &Session, args: &Disable) -> Result<(), Failure> {
    all_there(session, &args.names).await?;
    let act = async |name: &str| {
        let request = DisableWorkerRequest {
            name: name.to_owned(),
            reason: reason(args.reason.as_deref()),
            force: args.force,
            ..DisableWorkerRequest::default()
        };
        let mut registry = session.workers();
        let asked = registry.disable_worker(request);
        let answer = session.call(Component::Registry, asked).await?;
        Ok(told(answer.worker))
    };
    each(session, &args.names, act).await.map(drop)
}

/// Puts workers back.
pub(crate) async fn enable(session: &Session, args: &Reasoned) -> Result<(), Failure> {
    all_there(session, &args.names).await?;
    let act = async |name: &str| {
        let request = EnableWorkerRequest {
            name: name.to_owned(),
            reason: reason(args.reason.as_deref()),
            ..EnableWorkerRequest::default()
        };
        let mut registry = session.workers();
        let asked = registry.enable_worker(request);
        let answer = session.call(Component::Registry, asked).await?;
        Ok(told(answer.worker))
    };
    each(session, &args.names, act).await.map(drop)
}

/// Forgets workers that are out of use.
pub(crate) async fn delete(session: &Session, args: &DeleteWorker) -> Result<(), Failure> {
    let mut shown = BTreeMap::new();
    for name in &args.names {
        let worker = get(session, name).await?.worker.unwrap_or_default();
        shown.insert(name.as_str(), worker);
    }
    if !args.yes {
        let words = shown
            .iter()
            .map(|(name, worker)| format!("{name}, which is {}", state(worker)));
        let words: Vec<_> = words.collect();
        confirm(&format!("forget {}?", words.join(", and ")))?;
    }
    let act = async |name: &str| {
        let request = DeleteWorkerRequest {
            name: name.to_owned(),
            // What was shown is what is forgotten.
            etag: shown
                .get(name)
                .map_or_else(String::new, |worker| worker.etag.clone()),
        };
        let mut registry = session.workers();
        let asked = registry.delete_worker(request);
        let answer = session.call(Component::Registry, asked).await?;
        Ok((answer, format!("{name} is forgotten\n")))
    };
    each(session, &args.names, act).await.map(drop)
}

/// Ends the brake of a zone.
pub(crate) async fn release_mass_loss(
    session: &Session,
    args: &ReleaseMassLoss,
) -> Result<(), Failure> {
    let request = ReleaseMassLossRequest {
        zone: args.zone.clone(),
        reason: reason(args.reason.as_deref()),
    };
    let mut registry = session.workers();
    let asked = registry.release_mass_loss(request);
    let answer = session.call(Component::Registry, asked).await?;
    let sentence = released(answer.workers, &args.zone);
    session.print_answer(&answer, &args.zone, &sentence)
}

/// What has become of a zone's silent workers.
fn released(workers: i32, zone: &str) -> String {
    let place = match zone {
        "" => "without a zone".to_owned(),
        zone => format!("of {zone}"),
    };
    match workers {
        0 => format!("no worker {place} was held\n"),
        1 => format!("1 silent worker {place} is held no longer\n"),
        many => format!("{many} silent workers {place} are held no longer\n"),
    }
}

/// A worker that was changed, and the sentence that says so.
fn told(worker: Option<Worker>) -> (Worker, String) {
    let worker = worker.unwrap_or_default();
    let sentence = format!("{} is {}\n", worker.name, state(&worker));
    (worker, sentence)
}

/// The reason given, or who asks.
pub(crate) fn reason(given: Option<&str>) -> String {
    given.map_or_else(|| format!("by {}", actor()), str::to_owned)
}

/// The person at the terminal: USER@HOST.
pub(crate) fn actor() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{}@{host}", user.unwrap_or_else(|_| "unknown".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_zone_is_told_with_its_workers() {
        assert_eq!(released(0, "a"), "no worker of a was held\n");
        let one = "1 silent worker of a is held no longer\n";
        assert_eq!(released(1, "a"), one);
        let two = "2 silent workers without a zone are held no longer\n";
        assert_eq!(released(2, ""), two);
    }

    #[test]
    fn a_forced_end_is_told_of_one_replica_and_of_several() {
        let said = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            forced(&names)
        };
        let one = "a forced end would fail a/0, which has no retry policy\n";
        assert_eq!(said(&["a/0"]), one);
        let two = "a forced end would fail a/0, a/1, which have no retry policy\n";
        assert_eq!(said(&["a/0", "a/1"]), two);
    }
}
