use std::time::Duration;

use super::*;

fn tasks() -> (Tasks, Shutdown) {
    let shutdown = Shutdown::new();
    (Tasks::new(shutdown.clone()), shutdown)
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_without_its_waiter() {
    let (tasks, _) = tasks();
    let (done, outcome) = tokio::sync::oneshot::channel();
    drop(tasks.spawn("write", async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.send(7)
    }));
    assert_eq!(tasks.running(), [("write".into(), 1)]);
    assert_eq!(outcome.await, Ok(7));
    tasks.ended().await;
    assert_eq!(tasks.running(), []);
}

#[tokio::test]
async fn a_panic_is_an_outcome_and_leaves_no_entry() {
    let (tasks, shutdown) = tasks();
    let handle = tasks.spawn("odd", async { panic!("odd") });
    let outcome: Result<(), _> = handle.await;
    assert_eq!(outcome, Err(Failed::Panicked(Panicked("odd".to_owned()))));
    assert_eq!(tasks.running(), []);
    assert!(!shutdown.is_begun());
}

#[tokio::test(start_paused = true)]
async fn a_critical_task_that_ends_stops_the_process() {
    for (ending, words) in [
        ("ok", "ended without"),
        ("error", "disk"),
        ("panic", "panicked"),
    ] {
        let (tasks, shutdown) = tasks();
        tasks.critical("judge", async move {
            match ending {
                "ok" => Ok(()),
                "error" => Err("disk is gone"),
                _ => panic!("boom"),
            }
        });
        let report = shutdown.finished().await;
        assert!(report.cause.contains("task judge"), "{}", report.cause);
        assert!(report.cause.contains(words), "{}", report.cause);
        assert_eq!(report.exit_code, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_critical_task_that_was_asked_to_end_is_no_failure() {
    let (tasks, shutdown) = tasks();
    let begun = shutdown.begun();
    tasks.critical("loop", begun);
    shutdown.begin(Cause::asked("test"));
    tasks.ended().await;
    assert_eq!(shutdown.finished().await.exit_code, 0);
}

#[tokio::test]
async fn cut_ends_what_never_ends() {
    let (tasks, _) = tasks();
    let handle = tasks.spawn("stuck", std::future::pending::<()>());
    tasks.cut();
    assert_eq!(handle.await, Err(Failed::Cut));
    tasks.ended().await;
}

#[tokio::test]
async fn a_dismissed_task_ends_and_the_process_goes_on() {
    let (tasks, shutdown) = tasks();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tasks.critical_until(stopped, "backend", std::future::pending::<()>());
    drop(stop);
    tasks.ended().await;
    drop(task);
    assert!(!shutdown.is_begun());
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tasks.critical_until(stopped, "backend", async {});
    tasks.ended().await;
    drop(task);
    assert!(shutdown.is_begun(), "it ended without being dismissed");
}

#[tokio::test(start_paused = true)]
async fn work_does_nothing_once_its_phase_is_reached() {
    for _ in 0..50 {
        let (tasks, shutdown) = tasks();
        shutdown.begin(Cause::asked("test"));
        shutdown.reached(Phase::Readiness).await;
        let (went_on, is_on) = tokio::sync::oneshot::channel();
        tasks.until(Phase::Readiness, "work", async move { went_on.send(()) });
        tasks.ended().await;
        assert!(is_on.await.is_err(), "it went on");
    }
}
