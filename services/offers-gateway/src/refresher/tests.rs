use std::path::Path;

use futures_util::StreamExt as _;
use muster_proto::offers::v1 as pb;
use muster_runtime::connect::{Connector, Options};
use muster_runtime::shutdown::Shutdown;
use muster_runtime::task::Tasks;
use muster_runtime::watch::Filter;
use tokio::net::TcpListener;
use tokio::task::yield_now;

use super::*;
use crate::gather;
use crate::roster;
use crate::spec::{Kind, Place};

fn refresher(path: &Path) -> Refresher {
    let mut spec = Spec::new("one", Kind::Catalog(Place::File(path.to_owned())));
    // Often, so that whoever misses one refresh soon meets the next.
    spec.times.refresh_interval = Duration::from_millis(50);
    spec.times.breaker.threshold = u32::MAX;
    refresher_of(&spec, Clock::system())
}

fn refresher_of(spec: &Spec, clock: Clock) -> Refresher {
    let board = Board::new("epoch".to_owned(), clock.clone(), [roster::facts(spec)]);
    let source = Source::new(spec, &Connector::new(Options::default()));
    let surroundings = Surroundings {
        metrics: Metrics::new(&Default::default(), &board, &clock),
        board,
        keeper: Keeper::none(),
        clock,
    };
    Refresher::new(spec, source, surroundings)
}

/// A backend whose server takes connections and never answers, and which may take an hour for it.
async fn hanging() -> (Spec, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/vms.csv", listener.local_addr().unwrap());
    let mut spec = Spec::new("one", Kind::Catalog(Place::Url(url.parse().unwrap())));
    spec.times.refresh_interval = Duration::from_secs(10);
    spec.times.drop_after = Some(Duration::from_secs(30));
    spec.times.attempt_timeout = Duration::from_secs(3600);
    spec.times.refresh_timeout = Duration::from_secs(3600);
    (spec, listener)
}

fn told(observed: SystemTime) -> Told {
    let rows = b"InstanceType,Region,Price\nt,eu,1\n";
    Told {
        snapshot: Arc::new(crate::domain::skypilot::read("one", "f", rows).unwrap()),
        observed,
        live_capacity: false,
    }
}

/// Offers as they are after a refresh that ended at `at`.
fn tell(board: &Board, at: SystemTime) {
    let told = told(at);
    let ended = Ended {
        at,
        took: Duration::ZERO,
        fault: None,
    };
    board.change("one", |standing| standing.succeed(told, ended, 0.0));
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
    let gone = "the backend was configured otherwise meanwhile, or is gone: ask again";
    assert_eq!(waits.await.unwrap_err().message, gone);
    assert_eq!(first.await.unwrap().unwrap_err().message, gone);
    assert_eq!(handle.refresh(false).await.unwrap_err().message, gone);
}

#[tokio::test(start_paused = true)]
async fn offers_grow_old_while_a_refresh_hangs() {
    let (spec, _listener) = hanging().await;
    let refresher = refresher_of(&spec, Clock::system());
    let (board, handle) = (refresher.board.clone(), refresher.handle());
    tell(&board, refresher.clock.now());
    let mut watch = board.backends().watch("", Filter::all()).unwrap();
    run(refresher);
    let mut seen = Vec::new();
    while seen.last() != Some(&pb::BackendData::None) {
        let message = timeout(Duration::from_secs(60), watch.next()).await;
        let message = message.expect("a change within a minute").unwrap().unwrap();
        let changes = message.changes.iter();
        seen.extend(changes.map(|change| change.resource().data()));
        seen.dedup();
    }
    let (cached, stale) = (pb::BackendData::Cached, pb::BackendData::Stale);
    assert_eq!(seen, [cached, stale, pb::BackendData::None]);
    assert!(handle.is_under_way());
    assert!(board.state().backend("one").unwrap().dropped);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_holds_up_no_refresh() {
    let (spec, _listener) = hanging().await;
    let ahead = Clock::system().now() + Duration::from_secs(3600);
    let mut refresher = refresher_of(&spec, Clock::starting_at(ahead));
    let (board, clock) = (refresher.board.clone(), refresher.clock.clone());
    // As a refresh leaves it, just before the clock is set back.
    tell(&board, clock.now());
    refresher.schedule();
    clock.resync();
    assert!(
        board
            .state()
            .backend("one")
            .unwrap()
            .is_ahead_of(clock.now())
    );
    let (began, due) = (Instant::now(), refresher.wait_until_due().await);
    assert!(due && began.elapsed() <= Duration::from_secs(11));
    // Its offers grow old from then on, since it does not answer.
    run(refresher);
    while !board.state().backend("one").unwrap().dropped {
        assert!(began.elapsed() < Duration::from_secs(120));
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn offers_that_were_kept_are_no_refresh() {
    let (spec, _listener) = hanging().await;
    let folder = tempfile::tempdir().unwrap();
    let mut refresher = refresher_of(&spec, Clock::system());
    let keeper = Keeper::open(folder.path()).unwrap();
    refresher.kept = keeper.place("one", "here");
    refresher.kept.keep(&told(refresher.clock.now()), "", false);
    refresher.kept.settle().await;
    let (board, clock) = (refresher.board.clone(), refresher.clock.clone());
    let handles = [("one".to_owned(), refresher.handle())].into();
    let patience = gather::Patience {
        max_age: None,
        backend_timeout: Duration::from_secs(60),
        until: None,
    };
    let (mut waits, _) = gather::waits(&board, &handles, |_| true, patience, clock.now());
    run(refresher);
    assert_eq!(waits.next().await, Some(("one".to_owned(), None)));
    assert!(board.state().backend("one").unwrap().told.is_some());
}

#[tokio::test]
async fn older_offers_that_were_kept_replace_no_newer_ones() {
    let (spec, _listener) = hanging().await;
    let folder = tempfile::tempdir().unwrap();
    let mut refresher = refresher_of(&spec, Clock::system());
    let (board, now) = (refresher.board.clone(), refresher.clock.now());
    let keeper = Keeper::open(folder.path()).unwrap();
    refresher.kept = keeper.place("one", "here");
    let older = told(now - Duration::from_secs(25));
    refresher.kept.keep(&older, "older", false);
    refresher.kept.settle().await;
    // It was configured otherwise, while the disk could not be written.
    tell(&board, now);
    refresher.restore().await;
    let observed = |board: &Board| {
        let state = board.state();
        state
            .backend("one")
            .unwrap()
            .told
            .as_ref()
            .unwrap()
            .observed
    };
    assert_eq!(observed(&board), now);
    assert_eq!(refresher.validator, "", "that names the older ones");
    // What is at hand is what is to be kept.
    refresher.kept.keep(&told(now), "", true);
    refresher.kept.settle().await;
    let (back, _) = refresher.kept.load().await.unwrap();
    assert_eq!(back.observed, now);
}

#[tokio::test]
async fn what_is_to_be_refreshed_is_asked_before_anybody_looks_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let refresher = refresher(&folder.path().join("missing.csv"));
    let (board, now) = (refresher.board.clone(), refresher.clock.now());
    let handles = [("one".to_owned(), refresher.handle())].into();
    let patience = gather::Patience {
        max_age: Some(Duration::ZERO),
        backend_timeout: Duration::from_secs(60),
        until: None,
    };
    let (mut waits, _) = gather::waits(&board, &handles, |_| true, patience, now);
    let mut wanted = Box::pin(refresher.handle.shared.wanted.notified());
    assert!(futures_util::poll!(&mut wanted).is_ready());
    drop(wanted);
    run(refresher);
    let (_, waited) = waits.next().await.unwrap();
    let Some(report::Waited::Failed(fault)) = waited else {
        panic!("{waited:?}");
    };
    assert!(fault.message.contains("there is no file"), "{fault:?}");
}

#[tokio::test(start_paused = true)]
async fn offers_are_too_old_soon_after_the_machine_slept() {
    let (mut spec, _listener) = hanging().await;
    spec.times.drop_after = Some(Duration::from_secs(24 * 3600));
    let before = Clock::system().now() - Duration::from_secs(48 * 3600);
    let refresher = refresher_of(&spec, Clock::starting_at(before));
    let (board, clock) = (refresher.board.clone(), refresher.clock.clone());
    tell(&board, before);
    run(refresher);
    sleep(Duration::from_secs(60)).await;
    assert!(!board.state().backend("one").unwrap().dropped);
    // Its timers stood still meanwhile.
    clock.resync();
    sleep(Duration::from_secs(60)).await;
    assert!(board.state().backend("one").unwrap().dropped);
}

/// An attempt that fails like this after so many seconds.
async fn fails_after(seconds: u64, message: &str) -> Result<(), Failure> {
    sleep(Duration::from_secs(seconds)).await;
    Err(Failure::passing(message))
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_cut_short_hides_nothing() {
    let seconds = Duration::from_secs;
    let mut attempts = Attempts::new(seconds(20), Instant::now() + seconds(30));
    let refused = attempts.run(fails_after(10, "refused")).await.unwrap_err();
    assert_eq!(refused.fault.message, "refused");
    sleep(Duration::from_millis(19_990)).await;
    let cut = attempts.run(fails_after(15, "never told")).await;
    assert_eq!(cut.unwrap_err(), refused, "10 ms tell nothing");
    let none_left = attempts.run(fails_after(15, "never told")).await;
    assert_eq!(none_left.unwrap_err(), refused);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_had_its_time_or_ended_by_itself_is_told() {
    let seconds = Duration::from_secs;
    let mut attempts = Attempts::new(seconds(20), Instant::now() + seconds(30));
    attempts.run(fails_after(1, "refused")).await.unwrap_err();
    let late = attempts.run(fails_after(60, "never told")).await;
    let late = late.unwrap_err().fault;
    assert!(late.timed_out, "{late:?}");
    assert_eq!(late.message, "no answer within 20s");
    // 9 s are left.
    let ended = attempts.run(fails_after(5, "broken")).await.unwrap_err();
    assert_eq!(ended.fault.message, "broken");

    let mut only = Attempts::new(seconds(20), Instant::now() + seconds(5));
    let late = only.run(fails_after(60, "never told")).await.unwrap_err();
    assert_eq!(late.fault.message, "no answer within 5s");
}

/// Log lines of this thread, as they are written.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let of_backend = text.lines().filter(|line| line.contains("backend="));
        of_backend.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn each_change_of_a_backends_state_is_logged_once_with_its_name_and_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.csv");
    let mut refresher = refresher(&path);
    refresher.board.change("one", |standing| {
        let mut facts = (*standing.facts).clone();
        facts.breaker.threshold = 2;
        facts.breaker.initial = Duration::from_millis(20);
        standing.facts = Arc::new(facts);
    });
    for _ in 0..5 {
        refresher.refresh().await;
    }
    std::fs::write(&path, "InstanceType,Price,Region\na,1,eu\n").unwrap();
    for _ in 0..3 {
        refresher.refresh().await;
    }
    let lines = log.lines();
    let expected = [
        ["WARN", "backend fails", "there is no file"],
        ["WARN", "left alone for failing", "there is no file"],
        ["INFO", "backend is well", "offers=1"],
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, words) in std::iter::zip(&lines, expected) {
        assert!(line.contains("backend=\"one\""), "{line}");
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
}

#[tokio::test]
async fn what_refreshes_came_to_is_counted_until_the_backend_goes() {
    let registry = muster_runtime::metrics::Metrics::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.csv");
    let mut refresher = refresher(&path);
    refresher.metrics = Metrics::new(&registry, &refresher.board, &refresher.clock);
    refresher.refresh().await;
    std::fs::write(&path, "InstanceType,Price,Region\na,1,eu\nb,free,eu\n").unwrap();
    refresher.refresh().await;
    refresher.refresh().await;
    let text = registry.render().unwrap();
    for line in [
        "muster_backend_refreshes_total{backend=\"one\",outcome=\"failed\"} 1",
        "muster_backend_refreshes_total{backend=\"one\",outcome=\"offers\"} 1",
        "muster_backend_refreshes_total{backend=\"one\",outcome=\"unchanged\"} 1",
        "muster_backend_refresh_duration_seconds_count{backend=\"one\"} 3",
        "muster_backend_offers{backend=\"one\"} 1.0",
        "muster_backend_skipped_rows{backend=\"one\"} 1.0",
        "muster_backend_age_seconds{backend=\"one\"}",
        "muster_backend_breaker_state{backend=\"one\",state=\"closed\"} 1.0",
        "muster_backend_breaker_state{backend=\"one\",state=\"open\"} 0.0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    refresher.metrics.forget("one");
    refresher.board.configure([]);
    let text = registry.render().unwrap();
    assert!(!text.contains("backend=\"one\""), "{text}");
}
