//! Waiting for what was begun: a service that becomes HEALTHY, stops, or is
//! gone; and the line on a terminal that shows how far it is.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use muster_model::quantity;
use muster_proto::replicas::v1::{Service, ServicePhase};

use super::{
    live::{self, Flow},
    services::{Services, phase},
};
use crate::{
    args::Following,
    failure::Failure,
    session::{Component, Session},
    text,
};

/// A line that is written over until it is finished.
pub(crate) struct Progress {
    on_terminal: bool,
    last: String,
}

impl Progress {
    /// Where stderr is a terminal, one line that changes; elsewhere a line for each change.
    pub(crate) fn new() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
            last: String::new(),
        }
    }

    /// Shows a line, with a bar if there is a part that is done, in hundredths.
    pub(crate) fn show(&mut self, line: &str, done: Option<u32>) -> Result<(), Failure> {
        if self.last == line {
            return Ok(());
        }
        self.last = line.to_owned();
        let mut out = io::stderr().lock();
        if self.on_terminal {
            let line = format!("{}{}", bar(done), line.lines().next().unwrap_or_default());
            write!(out, "\r\u{1b}[K{}", text::cut(&line, columns()))?;
        } else {
            writeln!(out, "{line}")?;
        }
        Ok(out.flush()?)
    }

    /// Ends the line.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if self.on_terminal && !self.last.is_empty() {
            writeln!(io::stderr())?;
        }
        Ok(())
    }
}

/// How long a line on the terminal may be: a longer one would go on in the next, and stay there.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    // The last column stays free, since some terminals go on in the next line at once. A terminal that
    // does not know its size says 0.
    match size.map_or(0, |size| size.ws_col) {
        0 => usize::MAX,
        columns => usize::from(columns) - 1,
    }
}

fn bar(done: Option<u32>) -> String {
    const WIDTH: usize = 20;
    let Some(done) = done else {
        return String::new();
    };
    let full = usize::try_from(done.min(100)).unwrap_or_default() * WIDTH / 100;
    format!(
        "[{}{}] {done:>3} %  ",
        "█".repeat(full),
        "░".repeat(WIDTH - full)
    )
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// As many replicas are ready as are wanted, of this version or a later one.
    Healthy {
        /// The version.
        version: i64,
    },
    /// It is STOPPED.
    Stopped,
    /// It is gone.
    Gone,
}

impl Goal {
    /// That a service is up, as a call has left it: in the version that is to be, or that was gone back to before.
    pub(crate) fn up(service: &Service) -> Self {
        let running = service.status.as_ref().map(|status| status.running_version);
        Self::Healthy {
            version: match rolled_back(service, service.version) {
                true => running.unwrap_or_default(),
                false => service.version,
            },
        }
    }
}

/// What is waited for of one service.
struct Awaited<'a> {
    service: &'a Service,
    goal: Goal,
    /// How it was last.
    last: String,
    /// What it has come to.
    end: Option<Result<(), Failure>>,
}

impl Awaited<'_> {
    /// Takes what a watch tells of it; nothing if it is gone.
    fn see(&mut self, now: Option<&Service>) {
        match now.filter(|now| now.uid == self.service.uid) {
            Some(now) => {
                self.last = line(now);
                self.end = reached(now, self.goal);
            }
            None => self.end = Some(gone(&self.service.name, self.goal)),
        }
    }
}

/// Waits until each service has reached its goal, or one shows that it will not.
pub(crate) async fn services(
    session: &Session,
    goals: &[(Goal, Service)],
    following: &Following,
) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let awaited = goals.iter().map(|(goal, service)| Awaited {
        service,
        goal: *goal,
        last: String::new(),
        end: None,
    });
    let mut awaited: Vec<_> = awaited.collect();
    let watched = Services {
        names: goals
            .iter()
            .map(|(_, service)| service.name.clone())
            .collect(),
    };
    let watch = live::follow(session, &watched, |changes| {
        let changes: BTreeMap<_, _> = changes.into_iter().collect();
        for one in awaited.iter_mut().filter(|one| one.end.is_none()) {
            match changes.get(&one.service.name) {
                Some(change) => one.see(change.as_ref()),
                // The first that is told is the whole state.
                None if one.last.is_empty() => one.see(None),
                None => continue,
            }
            if !one.last.is_empty() {
                progress.show(&one.last, None)?;
            }
        }
        Ok(match is_over(&awaited) {
            true => Flow::Done,
            false => Flow::GoOn,
        })
    });
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(following.timeout, watch) => Some(outcome),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| None)?,
    };
    progress.finish()?;
    let (ended, go_on): (Vec<_>, Vec<_>) = awaited.into_iter().partition(|one| one.end.is_some());
    let go_on: Vec<_> = go_on.into_iter().map(|one| one.last).collect();
    match outcome {
        None => {
            let message = format!("what was begun goes on: {}", go_on.join("; "));
            return Err(Failure::Interrupted(message));
        }
        Some(Ok(result)) => result?,
        Some(Err(_)) => {
            let (timeout, last) = (following.timeout, go_on.join("; "));
            return Err(gave_up(session, Component::Manager, timeout, "it", &last));
        }
    }
    for last in go_on {
        session.say(&format!("not waited for any more: {last}\n"))?;
    }
    ended.into_iter().filter_map(|one| one.end).collect()
}

/// Whether nothing is left to wait for: all have what was wanted, or one will not.
fn is_over(awaited: &[Awaited<'_>]) -> bool {
    let ends = || awaited.iter().map(|one| one.end.as_ref());
    ends().all(|end| end.is_some()) || ends().flatten().any(Result::is_err)
}

/// That a wait was given up, and what goes on all the same, as a component told of it last.
pub(crate) fn gave_up(
    session: &Session,
    component: Component,
    timeout: Duration,
    what: &str,
    last: &str,
) -> Failure {
    let away = if session.is_away(component) {
        format!("; the {} cannot be reached", component.name())
    } else {
        String::new()
    };
    let timeout = quantity::duration::print(timeout);
    // Nothing was told yet where the time was too short for that.
    let last = match last {
        "" => String::new(),
        last => format!(": {last}"),
    };
    Failure::TimedOut(format!(
        "gave up waiting after {timeout}; {what} goes on{last}{away}"
    ))
}

fn line(service: &Service) -> String {
    let status = service.status.clone().unwrap_or_default();
    let counts = status.counts.unwrap_or_default();
    let updating = if status.updating { ", updating" } else { "" };
    let reason = if status.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", status.reason)
    };
    let line = format!(
        "{} {} {}/{} ready{updating}{reason}",
        service.name,
        phase(service),
        counts.ready,
        counts.wanted,
    );
    line.lines().next().unwrap_or_default().to_owned()
}

fn gone(name: &str, goal: Goal) -> Result<(), Failure> {
    match goal {
        Goal::Gone => Ok(()),
        Goal::Healthy { .. } | Goal::Stopped => Err(Failure::Failed(format!("{name} was deleted"))),
    }
}

/// How the wait ends, if it does.
fn reached(service: &Service, goal: Goal) -> Option<Result<(), Failure>> {
    let status = service.status.clone().unwrap_or_default();
    let counts = status.counts.unwrap_or_default();
    let failed = || {
        let message = format!("{} has FAILED: {}", service.name, status.reason);
        Some(Err(Failure::Failed(message)))
    };
    match (goal, status.phase()) {
        (Goal::Healthy { version }, ServicePhase::Healthy)
            if !status.updating
                && counts.ready >= counts.wanted
                && service.version >= version
                && status.running_version >= version =>
        {
            Some(Ok(()))
        }
        (Goal::Healthy { version }, _) if rolled_back(service, version) => {
            let reason = status.rollout.clone().unwrap_or_default().reason;
            let message = format!("{} was rolled back: {reason}", service.name);
            Some(Err(Failure::Failed(message)))
        }
        (Goal::Healthy { .. }, ServicePhase::Failed) => failed(),
        (Goal::Healthy { .. }, ServicePhase::Stopped) => Some(Err(Failure::Failed(format!(
            "{} was stopped",
            service.name
        )))),
        (Goal::Stopped, ServicePhase::Stopped) => Some(Ok(())),
        (Goal::Stopped, ServicePhase::Failed) => failed(),
        _ => None,
    }
}

/// Whether this version of a service was gone back from.
pub(crate) fn rolled_back(service: &Service, version: i64) -> bool {
    use muster_proto::replicas::v1::RolloutState;
    let rollout = service
        .status
        .as_ref()
        .and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| {
        rollout.target_version == version && rollout.state() == RolloutState::RolledBack
    })
}

#[cfg(test)]
mod tests {
    use muster_proto::replicas::v1::{ReplicaCounts, Rollout, RolloutState, ServiceStatus};

    use super::*;

    fn service(phase: ServicePhase, ready: i32, wanted: i32) -> Service {
        Service {
            version: 1,
            status: Some(ServiceStatus {
                phase: phase.into(),
                running_version: 1,
                counts: Some(ReplicaCounts {
                    ready,
                    wanted,
                    ..ReplicaCounts::default()
                }),
                ..ServiceStatus::default()
            }),
            ..Service::default()
        }
    }

    #[test]
    fn what_was_rolled_back_before_is_up_in_the_version_that_runs() {
        let rollout = Rollout {
            target_version: 2,
            state: RolloutState::RolledBack.into(),
            ..Rollout::default()
        };
        let mut now = service(ServicePhase::Healthy, 3, 3);
        now.version = 2;
        let up_before = Goal::up(&now);
        if let Some(status) = &mut now.status {
            status.rollout = Some(rollout);
        }
        assert!(matches!(reached(&now, up_before), Some(Err(_))));
        assert_eq!(Goal::up(&now), Goal::Healthy { version: 1 });
        assert!(matches!(reached(&now, Goal::up(&now)), Some(Ok(()))));
    }

    #[test]
    fn several_are_waited_for_until_all_are_up_or_one_will_not_be() {
        let one = service(ServicePhase::Pending, 0, 1);
        let with = |ends: [Option<bool>; 2]| {
            let awaited = ends.map(|end| Awaited {
                service: &one,
                goal: Goal::up(&one),
                last: String::new(),
                end: end.map(|up| up.then_some(()).ok_or(Failure::Failed(String::new()))),
            });
            is_over(&awaited)
        };
        assert!(!with([None, None]) && !with([Some(true), None]));
        assert!(with([Some(true), Some(true)]) && with([None, Some(false)]));
    }

    #[test]
    fn healthy_with_copies_that_still_start_is_waited_for() {
        use ServicePhase::{Degraded, Failed, Healthy};
        let goal = Goal::Healthy { version: 1 };
        let end = |phase, ready| {
            let end = reached(&service(phase, ready, 3), goal);
            end.map(|outcome| outcome.is_ok())
        };
        assert_eq!(end(Healthy, 2), None);
        assert_eq!(end(Degraded, 2), None);
        assert_eq!(end(Healthy, 3), Some(true));
        assert_eq!(end(Failed, 0), Some(false));
    }
}
