use std::path::Path;

use muster_runtime::shutdown::Shutdown;
use muster_runtime::task::Tasks;
use tokio::task::yield_now;

use super::*;
use crate::domain::backend::Facts;
use crate::spec::{Kind, Spec};

fn refresher(path: &Path) -> Refresher {
    let mut spec = Spec::new("one", Kind::CatalogFile(path.to_owned()));
    // Often, so that whoever misses one refresh soon meets the next.
    spec.times.refresh_interval = Duration::from_millis(50);
    spec.times.breaker.threshold = u32::MAX;
    let clock = Clock::system();
    let facts = Facts {
        name: spec.name.clone(),
        kind: spec.kind.name(),
        source: spec.kind.source(),
        refresh_interval: spec.times.refresh_interval,
        drop_after: spec.times.drop_after,
        breaker: spec.times.breaker,
        disabled: None,
    };
    let board = Board::new("epoch".to_owned(), clock.clone(), [facts]);
    let source = Source::new(&spec);
    Refresher::new(spec.name, spec.times, source, board, Keeper::none(), clock)
}

fn run(refresher: Refresher) {
    let stop = std::future::pending();
    Tasks::new(Shutdown::new()).spawn("backend one", refresher.run(stop));
}

/// Runs the refresher until a refresh is under way. On one thread it stays so until the test yields.
async fn under_way(handle: &Handle) {
    while !handle.is_under_way() {
        yield_now().await;
    }
}

#[tokio::test]
async fn whoever_joins_a_refresh_is_told_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let refresher = refresher(&folder.path().join("missing.csv"));
    let handle = refresher.handle();
    run(refresher);
    under_way(&handle).await;
    let joined = handle.refresh(false).await;
    let fault = joined.expect_err("there is no such file");
    assert!(fault.message.contains("there is no file"), "{fault:?}");
    assert!(!handle.is_under_way(), "joining asks for no further one");
}

#[tokio::test]
async fn what_came_of_a_refresh_stands_while_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let refresher = refresher(&folder.path().join("missing.csv"));
    let handle = refresher.handle();
    run(refresher);
    under_way(&handle).await;
    let mut joined = Box::pin(handle.refresh(false));
    assert!(futures_util::poll!(&mut joined).is_pending());
    assert!(handle.refresh(true).await.is_err());
    let mut next = Box::pin(handle.refresh(true));
    assert!(futures_util::poll!(&mut next).is_pending());
    under_way(&handle).await;
    assert!(joined.await.is_err(), "the one that it joined had failed");
}

#[tokio::test]
async fn those_who_wait_are_told_when_the_backend_goes() {
    let folder = tempfile::tempdir().unwrap();
    let refresher = refresher(&folder.path().join("missing.csv"));
    let handle = refresher.handle();
    let board = refresher.board.clone();
    let mut waits = Box::pin(handle.refresh(false));
    assert!(futures_util::poll!(&mut waits).is_pending());
    let mut first = Box::pin(handle.first(&board, "one"));
    assert!(futures_util::poll!(&mut first).is_pending());
    refresher.run(std::future::ready(())).await;
    let gone = "the backend is no longer configured";
    assert_eq!(waits.await.unwrap_err().message, gone);
    assert_eq!(first.await.unwrap_err().message, gone);
    assert_eq!(handle.refresh(false).await.unwrap_err().message, gone);
}
