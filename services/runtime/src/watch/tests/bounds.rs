//! What is refused, cut off and forgotten.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;

/// A waker that counts.
fn counting_waker() -> (Waker, Arc<AtomicUsize>) {
    struct Counting(Arc<AtomicUsize>);
    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let woken = Arc::<AtomicUsize>::default();
    (Waker::from(Arc::new(Counting(Arc::clone(&woken)))), woken)
}

#[tokio::test(start_paused = true)]
async fn tokens_of_elsewhere_are_refused() {
    let hub = hub(5);
    let malformed = refusal(hub.watch("nonsense", Filter::all()));
    assert_eq!(malformed.code, Code::InvalidArgument);
    assert_eq!(malformed.violations[0].field, "resume_token");
    let foreign = refusal(hub.watch(&resume::token("epoch-2", 5), Filter::all()));
    assert_eq!(foreign.code, Code::OutOfRange);
    assert!(foreign.is(ErrorReason::HistoryChanged));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_latest_revision_resumes_and_no_older_one() {
    let hub = hub(5);
    assert!(hub.watch(&token(5), Filter::all()).is_ok());
    let older = refusal(hub.watch(&token(4), Filter::all()));
    assert!(older.is(ErrorReason::HistoryChanged));
}

#[tokio::test(start_paused = true)]
async fn history_is_bounded_by_revisions() {
    let hub = hub_with(
        0,
        0,
        Options {
            history_revisions: 10,
            ..Options::default()
        },
    );
    for revision in 1..=30 {
        hub.publish(revision, [put("a", revision)]);
    }
    assert!(refusal(hub.watch(&token(19), Filter::all())).is(ErrorReason::HistoryChanged));
    let mut watch = hub.watch(&token(20), Filter::all()).unwrap();
    assert_eq!(now(&mut watch).unwrap().changes.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn history_is_bounded_by_age() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1)]);
    advance(Duration::from_secs(400)).await;
    hub.publish(2, [put("a", 2)]);
    advance(Duration::from_secs(400)).await;
    hub.publish(3, [put("a", 3)]);
    assert!(refusal(hub.watch(&token(0), Filter::all())).is(ErrorReason::HistoryChanged));
    assert!(hub.watch(&token(1), Filter::all()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn history_is_bounded_by_bytes_but_never_forgets_the_newest() {
    let hub = hub_with(
        0,
        0,
        Options {
            history_bytes: 1_000,
            ..Options::default()
        },
    );
    let sized = |revision, size| {
        Update::put(
            "a",
            Thing {
                size,
                ..thing("a", revision)
            },
        )
    };
    for revision in 1..=20 {
        hub.publish(revision, [sized(revision, 100)]);
    }
    assert!(refusal(hub.watch(&token(9), Filter::all())).is(ErrorReason::HistoryChanged));
    assert!(hub.watch(&token(10), Filter::all()).is_ok());
    hub.publish(21, [sized(21, 1 << 30)]);
    let mut watch = hub.watch(&token(20), Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a21 @21 synced");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_history_outran_must_list_again() {
    let hub = hub_with(
        0,
        0,
        Options {
            history_revisions: 10,
            ..Options::default()
        },
    );
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@0 synced");
    for revision in 1..=11 {
        hub.publish(revision, [put("a", revision)]);
    }
    let ended = end(&mut watch).await;
    assert_eq!(ended.code, Code::OutOfRange);
    assert!(ended.is(ErrorReason::HistoryChanged));
    assert!(ended.message.contains("list again"), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn changes_of_others_outrun_nobody() {
    let hub = hub_with(
        0,
        0,
        Options {
            history_revisions: 10,
            ..Options::default()
        },
    );
    hub.publish(1, [put("w1/a", 1)]);
    let mut watch = hub.watch("", Filter::all().prefix("w1/")).unwrap();
    assert_eq!(says(&mut watch), "+w1/a1 @1 synced");
    for revision in 2..100 {
        hub.publish(revision, [put("w2/a", revision)]);
    }
    hub.publish(100, [put("w1/a", 100)]);
    advance(Duration::from_secs(20)).await;
    hub.publish(101, [put("w2/a", 101), put("w1/b", 101)]);
    assert_eq!(says(&mut watch), "+w1/a100 +w1/b101 @101 synced");
    assert_eq!(says(&mut watch), "nothing");
    // Nor do they make a slow watcher of one that is not told of them.
    for revision in 102..150 {
        hub.publish(revision, [put("w2/a", revision)]);
        advance(Duration::from_secs(1)).await;
    }
    hub.publish(150, [put("w1/a", 150)]);
    assert_eq!(says(&mut watch), "+w1/a150 @150 synced");
    // But one that does not read what is its own is slow.
    hub.publish(151, [put("w1/a", 151)]);
    advance(Duration::from_secs(31)).await;
    assert!(end(&mut watch).await.is(ErrorReason::WatcherTooSlow));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_a_prefix_sleeps_through_the_changes_of_others() {
    let hub = hub(0);
    let mut watch = hub.watch("", Filter::all().prefix("w1/")).unwrap();
    assert_eq!(says(&mut watch), "@0 synced");
    let (waker, woken) = counting_waker();
    let mut context = std::task::Context::from_waker(&waker);
    assert!(watch.poll_next_unpin(&mut context).is_pending());
    for revision in 1..100 {
        hub.publish(
            revision,
            [
                put("w2/a", revision),
                put("w10/a", revision),
                put("w1", revision),
            ],
        );
    }
    assert_eq!(woken.load(Ordering::Relaxed), 0);
    hub.publish(100, [put("w1/a", 100)]);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(says(&mut watch), "+w1/a100 @100 synced");
}

#[tokio::test(start_paused = true)]
async fn prefixes_are_forgotten_with_their_watchers() {
    let hub = hub(0);
    let watch = |prefix: &str| hub.watch("", Filter::all().prefix(prefix)).unwrap();
    let watches = ["w1/", "w2/", "w1/", "w10/", "é/", ""].map(watch);
    assert_eq!(hub.prefixes(), (4, 4));
    hub.publish(1, ["w", "w1/x", "é", "日本/x"].map(|key| put(key, 1)));
    drop(watches);
    assert_eq!(hub.prefixes(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_cut_off_and_resumes_where_it_was() {
    let hub = hub(0);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@0 synced");
    hub.publish(1, [put("a", 1)]);
    assert_eq!(says(&mut watch), "+a1 @1 synced");
    hub.publish(2, [put("a", 2)]);
    advance(Duration::from_secs(31)).await;
    let ended = end(&mut watch).await;
    assert_eq!(ended.code, Code::ResourceExhausted);
    assert!(ended.is(ErrorReason::WatcherTooSlow));
    let mut resumed = hub.watch(&token(1), Filter::all()).unwrap();
    assert_eq!(
        says(&mut resumed),
        "+a2 @2 synced",
        "what it missed may be as old as it likes"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_watcher_is_not_slow() {
    let hub = hub(0);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@0 synced");
    advance(Duration::from_secs(3_600)).await;
    hub.publish(1, [put("a", 1)]);
    assert_eq!(says(&mut watch), "+a1 @1 synced");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_behind_is_waited_for_but_not_for_ever() {
    let hub = hub(5);
    let mut watch = hub.watch(&token(8), Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "nothing");
    hub.publish(7, [put("a", 7)]);
    assert_eq!(says(&mut watch), "nothing", "it has had that elsewhere");
    hub.publish(8, [put("a", 8)]);
    assert_eq!(says(&mut watch), "@8 synced");
    hub.publish(9, [put("a", 9)]);
    assert_eq!(says(&mut watch), "+a9 @9 synced");

    let mut watch = hub.watch(&token(12), Filter::all()).unwrap();
    let began = Instant::now();
    let ended = end(&mut watch).await;
    assert_eq!(ended.code, Code::Unavailable);
    assert!(ended.is(ErrorReason::Behind) && ended.retry_delay.is_some());
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_all_watches_and_says_when_to_come_back() {
    let hub = hub(5);
    let mut watches: Vec<_> = (0..20)
        .map(|_| hub.watch("", Filter::all()).unwrap())
        .collect();
    for watch in &mut watches {
        assert_eq!(says(watch), "@5 synced");
    }
    let closing = async {
        sleep(Duration::from_secs(1)).await;
        hub.close();
    };
    let ends = futures_util::future::join_all(watches.iter_mut().map(end));
    let (ends, ()) = tokio::join!(ends, closing);
    let mut delays = std::collections::BTreeSet::new();
    for ended in ends {
        assert_eq!(ended.code, Code::Unavailable);
        assert!(ended.is(ErrorReason::ShuttingDown));
        delays.insert(ended.retry_delay.expect("it says when"));
    }
    assert!(delays.len() > 10, "not all at once: {delays:?}");
    assert_eq!(
        refusal(hub.watch("", Filter::all())).code,
        Code::Unavailable
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_ends_all_watches() {
    let hub = hub(5);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@5 synced");
    hub.reset(9, [("z".into(), Arc::new(thing("z", 9)))]);
    assert!(end(&mut watch).await.is(ErrorReason::HistoryChanged));
    assert!(refusal(hub.watch(&token(5), Filter::all())).is(ErrorReason::HistoryChanged));
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+z9 @9 synced");
}

#[tokio::test(start_paused = true)]
async fn watchers_are_counted_and_limited() {
    let hub = hub_with(
        0,
        0,
        Options {
            max_watchers: 2,
            ..Options::default()
        },
    );
    let first = hub.watch("", Filter::all()).unwrap();
    let second = hub.watch("", Filter::all()).unwrap();
    let third = refusal(hub.watch("", Filter::all()));
    assert_eq!(third.code, Code::ResourceExhausted);
    assert!(third.is(ErrorReason::TooManyWatches));
    assert_eq!(hub.watchers(), 2);
    drop(first);
    assert_eq!(hub.watchers(), 1);
    let third = hub.watch("", Filter::all()).unwrap();
    drop((second, third));
    assert_eq!(hub.watchers(), 0);
}

#[tokio::test]
async fn watchers_that_do_not_read_cost_the_writer_nothing() {
    let publishing = |watchers: usize| async move {
        let hub = hub(0);
        let mut watches: Vec<_> = (0..watchers)
            .map(|_| hub.watch("", Filter::all()).unwrap())
            .collect();
        for watch in &mut watches {
            now(watch);
        }
        let began = Instant::now();
        for revision in 1..=5_000 {
            hub.publish(revision, [put("a", revision)]);
        }
        let took = began.elapsed();
        assert_eq!(hub.watchers(), watchers);
        took
    };
    let alone = publishing(0).await;
    let watched = publishing(2_000).await;
    assert!(
        watched < alone * 5 + Duration::from_millis(100),
        "{alone:?} became {watched:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_waits_without_a_wake_up_of_its_own() {
    let hub = hub(0);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@0 synced");
    assert!(
        timeout(Duration::from_secs(10), watch.next())
            .await
            .is_err()
    );
}
