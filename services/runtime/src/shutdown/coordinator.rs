//! Runs the steps of a shutdown, phase by phase. It decides how long each may take: its own
//! timeout, what the budget has left, and never the second that each later phase is owed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::report::millis;
use super::{Cause, Outcome, Phase, Report, Shutdown, Step, StepReport};
use crate::panic;
use crate::task;

/// What a step's time cannot take from a later phase that has steps, so that a drain which uses all
/// of its time still leaves the store a moment to close.
const OWED_TO_LATER_PHASE: Duration = Duration::from_secs(1);

pub(super) async fn run(shutdown: Shutdown, cause: Cause) {
    let started = Instant::now();
    let mut steps = Vec::new();
    for phase in Phase::ALL {
        shutdown
            .0
            .state
            .send_modify(|state| state.reached = Some(phase));
        let ending = Ending {
            shutdown: &shutdown,
            phase,
            started,
        };
        steps.extend(ending.run_phase().await);
    }
    let report = Report::new(&cause, started.elapsed(), steps);
    log(&report);
    let record = shutdown.0.plan().record.take();
    if let Some(record) = record {
        record.close(&report);
    }
    shutdown
        .0
        .state
        .send_modify(|state| state.report = Some(Arc::new(report)));
}

/// One phase of a shutdown that runs.
struct Ending<'a> {
    shutdown: &'a Shutdown,
    phase: Phase,
    started: Instant,
}

impl Ending<'_> {
    async fn run_phase(&self) -> Vec<StepReport> {
        let steps: Vec<Step> = {
            let mut plan = self.shutdown.0.plan();
            plan.steps
                .extract_if(.., |step| step.phase == self.phase)
                .collect()
        };
        let until = self.time_is_up_at();
        join_all(steps.into_iter().map(|step| self.run_step(step, until))).await
    }

    /// When this phase has to be over, whatever its steps say.
    fn time_is_up_at(&self) -> Instant {
        let plan = self.shutdown.0.plan();
        let later = Phase::ALL.into_iter().filter(|phase| *phase > self.phase);
        let owed = later.map(|phase| {
            let longest = plan
                .steps
                .iter()
                .filter(|step| step.phase == phase)
                .map(|s| s.timeout);
            longest.max().unwrap_or_default().min(OWED_TO_LATER_PHASE)
        });
        self.started + plan.budget.saturating_sub(owed.sum())
    }

    async fn run_step(&self, step: Step, until: Instant) -> StepReport {
        let Step {
            phase,
            name,
            timeout,
            work,
        } = step;
        let begun = Instant::now();
        let limit = timeout.min(until.saturating_duration_since(begun));
        let (outcome, detail) = if self.is_to_end_now() {
            (Outcome::Skipped, "the shutdown was to end now".to_owned())
        } else if limit.is_zero() {
            (Outcome::Skipped, "no time was left for it".to_owned())
        } else {
            self.bounded(Step::run(work), limit).await
        };
        let report = StepReport {
            phase,
            name: name.into_owned(),
            ms: millis(begun.elapsed()),
            outcome,
            detail,
        };
        if outcome != Outcome::Ok {
            let StepReport {
                name, detail, ms, ..
            } = &report;
            let (phase, outcome) = (phase.name(), outcome.name());
            tracing::warn!(step = %name, phase, outcome, %detail, ms, "shutdown step did not end well");
        }
        report
    }

    /// Runs `work` as a task of its own, so that one which blocks its thread blocks only that.
    async fn bounded(
        &self,
        work: impl Future<Output = Option<String>> + Send + 'static,
        limit: Duration,
    ) -> (Outcome, String) {
        let mut running = task::spawn(work);
        tokio::select! {
            biased;
            ended = &mut running => return judge(ended),
            () = self.end_now() => {}
            () = tokio::time::sleep(limit) => {
                running.abort();
                return (Outcome::Timeout, format!("not done within {limit:?}"));
            }
        }
        running.abort();
        (
            Outcome::Skipped,
            "cut off, the shutdown was to end now".to_owned(),
        )
    }

    fn is_to_end_now(&self) -> bool {
        self.shutdown.0.state.borrow().now
    }

    fn end_now(&self) -> impl Future<Output = ()> + use<> {
        self.shutdown.when(|state| state.now)
    }
}

fn judge(ended: Result<Option<String>, JoinError>) -> (Outcome, String) {
    match ended {
        Ok(None) => (Outcome::Ok, String::new()),
        Ok(Some(error)) => (Outcome::Error, error),
        Err(join) => match join.try_into_panic() {
            Ok(payload) => (Outcome::Panic, panic::said(payload.as_ref())),
            Err(_) => (Outcome::Skipped, "its runtime ended".to_owned()),
        },
    }
}

fn log(report: &Report) {
    let Report {
        cause,
        ms,
        exit_code,
        steps,
    } = report;
    let steps: Vec<String> = steps
        .iter()
        .map(|step| format!("{} {} {}ms", step.name, step.outcome.name(), step.ms))
        .collect();
    let steps = steps.join(", ");
    tracing::info!(cause, ms, exit_code, steps, "shutdown done");
}
