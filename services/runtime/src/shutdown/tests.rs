use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::{Previous, Record};
use super::*;
use crate::context::Context;

const SECOND: Duration = Duration::from_secs(1);

/// How the step under test misbehaves.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Error,
    Hang,
    Panic,
    PanicBeforeItsFuture,
}

impl Fault {
    const ALL: [Self; 4] = [
        Self::Error,
        Self::Hang,
        Self::Panic,
        Self::PanicBeforeItsFuture,
    ];

    fn outcome(self) -> Outcome {
        match self {
            Self::Error => Outcome::Error,
            Self::Hang => Outcome::Timeout,
            Self::Panic | Self::PanicBeforeItsFuture => Outcome::Panic,
        }
    }

    fn add(self, shutdown: &Shutdown, phase: Phase) {
        self.add_as("faulty", shutdown, phase);
    }

    fn add_as(self, name: &'static str, shutdown: &Shutdown, phase: Phase) {
        shutdown.step(phase, name, 2 * SECOND, move || {
            if let Self::PanicBeforeItsFuture = self {
                panic!("early");
            }
            async move {
                match self {
                    Self::Error => return Err("refused"),
                    Self::Hang => std::future::pending().await,
                    Self::Panic | Self::PanicBeforeItsFuture => panic!("late"),
                }
                Ok(())
            }
        });
    }
}

fn count(shutdown: &Shutdown, phase: Phase, ran: &Arc<AtomicUsize>) {
    let ran = ran.clone();
    shutdown.step(phase, phase.name(), SECOND, move || async move {
        ran.fetch_add(1, Ordering::Relaxed);
    });
}

#[tokio::test(start_paused = true)]
async fn a_fault_at_any_step_stops_no_other_step() {
    for fault in Fault::ALL {
        for faulty in Phase::ALL {
            let shutdown = Shutdown::new();
            let ran = Arc::new(AtomicUsize::new(0));
            for phase in Phase::ALL {
                count(&shutdown, phase, &ran);
            }
            fault.add(&shutdown, faulty);
            shutdown.begin(Cause::asked("test"));
            let report = shutdown.finished().await;
            assert_eq!(ran.load(Ordering::Relaxed), 7, "{fault:?} in {faulty:?}");
            assert_eq!(
                report.outcome("faulty"),
                Some(fault.outcome()),
                "{fault:?} in {faulty:?}"
            );
            let counts = faulty != Phase::Telemetry;
            assert_eq!(
                report.exit_code,
                u8::from(counts),
                "{fault:?} in {faulty:?}"
            );
            assert!(report.ms <= 2_000, "{} ms", report.ms);
        }
    }
}

/// Every fault in every phase.
fn all_faults() -> impl Iterator<Item = (Fault, Phase)> {
    let faults = Fault::ALL.into_iter();
    faults.flat_map(|fault| Phase::ALL.map(|phase| (fault, phase)))
}

#[tokio::test(start_paused = true)]
async fn any_two_faults_together_stop_no_other_step() {
    for (one, one_phase) in all_faults() {
        for (two, two_phase) in all_faults() {
            let shutdown = Shutdown::new();
            let ran = Arc::new(AtomicUsize::new(0));
            one.add_as("one", &shutdown, one_phase);
            for phase in Phase::ALL {
                count(&shutdown, phase, &ran);
            }
            two.add_as("two", &shutdown, two_phase);
            shutdown.begin(Cause::asked("test"));
            let report = shutdown.finished().await;
            let which = format!("{one:?} in {one_phase:?}, {two:?} in {two_phase:?}");
            assert_eq!(ran.load(Ordering::Relaxed), 7, "{which}");
            assert_eq!(report.outcome("one"), Some(one.outcome()), "{which}");
            assert_eq!(report.outcome("two"), Some(two.outcome()), "{which}");
            assert!(report.ms <= 4_000, "{which}: {} ms", report.ms);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_every_fault_in_every_phase_the_end_comes_within_the_budget() {
    for seconds in [0, 1, 3, 7, 30] {
        let shutdown = Shutdown::new();
        shutdown.set_budget(seconds * SECOND);
        for (fault, phase) in all_faults() {
            fault.add(&shutdown, phase);
        }
        shutdown.begin(Cause::asked("test"));
        let report = shutdown.finished().await;
        assert_eq!(report.steps.len(), 28, "each is told");
        let outcomes = report.steps.iter().map(|step| step.outcome);
        assert!(outcomes.clone().all(|outcome| outcome != Outcome::Ok));
        let skipped = outcomes.filter(|outcome| *outcome == Outcome::Skipped);
        assert_eq!(
            skipped.count() == 0,
            seconds >= 7,
            "{seconds} s: {report:?}"
        );
        assert!(report.ms <= u64::from(seconds) * 1_000, "{} ms", report.ms);
        assert_eq!(report.exit_code, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn phases_come_in_order_and_can_be_awaited() {
    let shutdown = Shutdown::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    for phase in Phase::ALL.into_iter().rev() {
        let order = order.clone();
        shutdown.step(phase, phase.name(), SECOND, move || async move {
            tokio::time::sleep(SECOND / 10).await;
            order.lock().unwrap().push(phase);
        });
    }
    let drain = shutdown.reached(Phase::Drain);
    assert!(!shutdown.has_reached(Phase::Readiness));
    shutdown.begin(Cause::asked("test"));
    drain.await;
    assert!(shutdown.has_reached(Phase::LameDuck) && !shutdown.has_reached(Phase::Loops));
    assert!(shutdown.finished().await.is_clean());
    assert_eq!(*order.lock().unwrap(), Phase::ALL);
    shutdown.reached(Phase::Telemetry).await;
}

#[tokio::test(start_paused = true)]
async fn every_caller_gets_the_same_outcome_of_one_run() {
    let shutdown = Shutdown::new();
    let ran = Arc::new(AtomicUsize::new(0));
    count(&shutdown, Phase::Store, &ran);
    shutdown.begin(Cause::asked("first"));
    shutdown.begin(Cause::failed("second"));
    let (one, two) = tokio::join!(shutdown.finished(), shutdown.finished());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(one.cause, "first");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_the_whole_and_owes_each_later_phase_a_second() {
    let shutdown = Shutdown::new();
    shutdown.set_budget(10 * SECOND);
    for phase in [Phase::StepDown, Phase::Drain, Phase::Loops] {
        shutdown.step(phase, phase.name(), 60 * SECOND, std::future::pending::<()>);
    }
    shutdown.step(Phase::Store, "close", 5 * SECOND, || {
        tokio::time::sleep(SECOND / 2)
    });
    shutdown.begin(Cause::asked("test"));
    let report = shutdown.finished().await;
    assert_eq!(report.outcome("close"), Some(Outcome::Ok));
    assert!(report.ms <= 10_000, "{} ms", report.ms);
    let steps: Vec<u64> = report.steps.iter().map(|step| step.ms / 100).collect();
    assert_eq!(steps, [70, 10, 10, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_means_now() {
    let shutdown = Shutdown::new();
    let ran = Arc::new(AtomicUsize::new(0));
    shutdown.step(
        Phase::StepDown,
        "leave",
        20 * SECOND,
        std::future::pending::<()>,
    );
    count(&shutdown, Phase::Store, &ran);
    shutdown.signalled("SIGTERM");
    tokio::time::sleep(SECOND).await;
    shutdown.signalled("SIGTERM");
    let report = shutdown.finished().await;
    assert_eq!(report.ms / 100, 10);
    assert_eq!(report.outcome("leave"), Some(Outcome::Skipped));
    assert_eq!(report.outcome("store"), Some(Outcome::Skipped));
    assert_eq!((ran.load(Ordering::Relaxed), report.exit_code), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failed_cause_ends_with_one_although_all_steps_went_well() {
    let shutdown = Shutdown::new();
    shutdown.begin(Cause::failed("store: fsync failed"));
    let report = shutdown.finished().await;
    assert_eq!(
        (report.exit_code, report.cause.as_str()),
        (1, "store: fsync failed")
    );
}

#[tokio::test(start_paused = true)]
async fn steps_added_after_the_begin_run_if_their_phase_is_still_to_come() {
    let shutdown = Shutdown::new();
    let ran = Arc::new(AtomicUsize::new(0));
    shutdown.step(Phase::LameDuck, "wait", SECOND, || {
        tokio::time::sleep(SECOND / 2)
    });
    shutdown.begin(Cause::asked("test"));
    shutdown.reached(Phase::LameDuck).await;
    count(&shutdown, Phase::Loops, &ran);
    count(&shutdown, Phase::StepDown, &ran);
    shutdown.finished().await;
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_step_that_blocks_its_thread_is_given_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let (free, blocked) = std::sync::mpsc::channel::<()>();
    let report = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.step(Phase::Loops, "block", SECOND / 10, move || async move {
            let _ = blocked.recv();
        });
        shutdown.begin(Cause::asked("test"));
        shutdown.finished().await
    });
    assert_eq!(report.outcome("block"), Some(Outcome::Timeout));
    drop(free);
}

#[tokio::test(start_paused = true)]
async fn the_report_is_on_disk_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (first, record) = Record::open(folder.path()).unwrap();
    assert_eq!(first, Previous::None);
    drop(record);

    let (killed, record) = Record::open(folder.path()).unwrap();
    assert_eq!(killed, Previous::Unclean);

    let shutdown = Shutdown::new();
    shutdown.keep(record);
    Fault::Error.add(&shutdown, Phase::Loops);
    shutdown.begin(Cause::asked("test"));
    let report = shutdown.finished().await;
    let (told, _) = Record::open(folder.path()).unwrap();
    assert_eq!(told, Previous::Reported((*report).clone()));
}

#[tokio::test(start_paused = true)]
async fn the_last_end_is_shown_by_metrics_of_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let context = Context::for_tests("sample");
        context.keep_reports(folder.path()).unwrap();
        context
    };
    let shown = |context: &Context| context.metrics.render().unwrap();
    let first = start();
    assert!(!shown(&first).contains("last_shutdown"));
    let second = start();
    assert!(shown(&second).contains("muster_last_shutdown_clean 0"));
    second.shutdown.begin(Cause::asked("test"));
    second.shutdown.finished().await;
    let third = shown(&start());
    assert!(third.contains("muster_last_shutdown_clean 1"), "{third}");
    let step = "muster_last_shutdown_step_seconds{phase=\"loops\",step=\"tasks\",outcome=\"ok\"}";
    assert!(third.contains(step), "{third}");
}

#[test]
fn components_in_one_folder_keep_their_reports_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (first, _) = Record::open_beside(&file("a.db")).unwrap();
    let (other, _) = Record::open_beside(&file("b.db")).unwrap();
    let (again, _) = Record::open_beside(&file("a.db")).unwrap();
    assert_eq!((first, other), (Previous::None, Previous::None));
    assert_eq!(again, Previous::Unclean);
}
