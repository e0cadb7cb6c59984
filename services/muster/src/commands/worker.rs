//! What is done to one worker: drain, resume, disable, enable, delete; and to the silent ones of a zone.

use std::time::Duration;

use muster_proto::workers::v1::{
    AfterDeadline, DeleteWorkerRequest, DisableWorkerRequest, Drain, DrainCause,
    DrainWorkerRequest, DrainWorkerResponse, EnableWorkerRequest, ReleaseMassLossRequest,
    ResumeWorkerRequest, Worker, WorkerFilter, WorkerState,
};

use super::{
    change::confirm,
    follow::{Progress, gave_up},
    live::{self, Flow},
    workers::{Workers, drain_words, get, state},
};
use crate::{
    args::{self, DeleteWorker, Disable, Reasoned, ReleaseMassLoss},
    failure::Failure,
    session::{Component, Session},
};

/// Empties a worker, and follows until it is DISABLED.
pub(crate) async fn drain(session: &Session, args: &args::Drain) -> Result<(), Failure> {
    let already = match has_terms(args) {
        true => None,
        false => drains_already(session, &args.name).await?,
    };
    let drains = already.is_some();
    let answer = match already {
        Some(worker) => DrainWorkerResponse {
            worker: Some(worker),
            ..DrainWorkerResponse::default()
        },
        None => begin_drain(session, args).await?,
    };
    let worker = answer.worker.clone().unwrap_or_default();
    let sentence = match (args.dry_run, worker.usage.unwrap_or_default().allocations) {
        (false, _) if drains => format!("{} is {} already\n", args.name, state(&worker)),
        (false, _) => format!("{} is {}\n", args.name, state(&worker)),
        (true, 1) => format!("{} would be drained: 1 replica would move\n", args.name),
        (true, left) => format!(
            "{} would be drained: {left} replicas would move\n",
            args.name
        ),
    };
    session.print_answer(&answer, &args.name, &sentence)?;
    let forces = matches!(args.after_deadline, Some(args::AfterDeadline::Force));
    if forces && !answer.would_fail.is_empty() {
        session.say(&forced(&answer.would_fail))?;
    }
    if args.dry_run || !session.follows(&args.following) {
        return Ok(());
    }
    until_disabled(session, &args.name, args.following.timeout).await
}

async fn begin_drain(
    session: &Session,
    args: &args::Drain,
) -> Result<DrainWorkerResponse, Failure> {
    let after_deadline = match args.after_deadline {
        None | Some(args::AfterDeadline::Wait) => AfterDeadline::Wait,
        Some(args::AfterDeadline::Force) => AfterDeadline::Force,
    };
    let request = DrainWorkerRequest {
        name: args.name.clone(),
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

async fn until_disabled(session: &Session, name: &str, timeout: Duration) -> Result<(), Failure> {
    let filter = WorkerFilter {
        names: vec![name.to_owned()],
        ..WorkerFilter::default()
    };
    let mut progress = Progress::new();
    let mut last = String::new();
    let mut ended = None;
    let watched = Workers { filter };
    let watch = live::follow(session, &watched, |changes| {
        for (_, worker) in changes {
            let Some(worker) = worker else {
                ended = Some(Err(Failure::Failed(format!("{name} was deleted"))));
                return Ok(Flow::Done);
            };
            last = line(session, &worker);
            progress.show(&last, worker.drain.as_ref().map(fraction))?;
            if let Some(end) = end(&worker) {
                ended = Some(end);
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::GoOn)
    });
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(timeout, watch) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            progress.finish()?;
            let message = format!("the drain of {name} goes on; `muster resume {name}` calls it off");
            return Err(Failure::Interrupted(message));
        }
    };
    progress.finish()?;
    let drain = format!("the drain of {name}");
    match outcome {
        Ok(result) => result?,
        Err(_) => {
            return Err(gave_up(
                session,
                Component::Registry,
                timeout,
                &drain,
                &last,
            ));
        }
    }
    ended.unwrap_or(Ok(()))?;
    session.say(&format!("{name} is DISABLED\n"))
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

/// Calls a drain off.
pub(crate) async fn resume(session: &Session, args: &Reasoned) -> Result<(), Failure> {
    let request = ResumeWorkerRequest {
        name: args.name.clone(),
        reason: reason(args.reason.as_deref()),
        ..ResumeWorkerRequest::default()
    };
    let answer = session
        .call(
            Component::Registry,
            session.workers().resume_worker(request),
        )
        .await?;
    tell(session, answer.worker)
}

/// Takes a worker out of use.
pub(crate) async fn disable(session: &Session, args: &Disable) -> Result<(), Failure> {
    let request = DisableWorkerRequest {
        name: args.name.clone(),
        reason: reason(args.reason.as_deref()),
        force: args.force,
        ..DisableWorkerRequest::default()
    };
    let answer = session
        .call(
            Component::Registry,
            session.workers().disable_worker(request),
        )
        .await?;
    tell(session, answer.worker)
}

/// Puts a worker back.
pub(crate) async fn enable(session: &Session, args: &Reasoned) -> Result<(), Failure> {
    let request = EnableWorkerRequest {
        name: args.name.clone(),
        reason: reason(args.reason.as_deref()),
        ..EnableWorkerRequest::default()
    };
    let answer = session
        .call(
            Component::Registry,
            session.workers().enable_worker(request),
        )
        .await?;
    tell(session, answer.worker)
}

/// Forgets a worker that is out of use.
pub(crate) async fn delete(session: &Session, args: &DeleteWorker) -> Result<(), Failure> {
    let worker = get(session, &args.name).await?.worker.unwrap_or_default();
    if !args.yes {
        let (name, state) = (&worker.name, state(&worker));
        confirm(&format!("forget {name}, which is {state}?"))?;
    }
    let request = DeleteWorkerRequest {
        name: args.name.clone(),
        // What was shown is what is forgotten.
        etag: worker.etag,
    };
    let mut registry = session.workers();
    let asked = registry.delete_worker(request);
    let answer = session.call(Component::Registry, asked).await?;
    let sentence = format!("{} is forgotten\n", args.name);
    session.print_answer(&answer, &args.name, &sentence)
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

fn tell(session: &Session, worker: Option<Worker>) -> Result<(), Failure> {
    let worker = worker.unwrap_or_default();
    let sentence = format!("{} is {}\n", worker.name, state(&worker));
    session.print_answer(&worker, &worker.name, &sentence)
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
