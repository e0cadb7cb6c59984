//! What comes, and in which order.

use super::*;

#[tokio::test(start_paused = true)]
async fn first_the_state_then_every_change() {
    let hub = hub(4);
    assert!(hub.publish(5, [put("b", 5), put("a", 5)]));
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a5 +b5 @5 synced");
    assert_eq!(says(&mut watch), "nothing");
    hub.publish(6, [put("c", 6)]);
    assert_eq!(says(&mut watch), "+c6 @6 synced");
    hub.publish(7, [put("a", 7)]);
    hub.publish(9, [Update::delete("b")]);
    assert_eq!(says(&mut watch), "+a7 -b5 @9 synced");
    assert_eq!(says(&mut watch), "nothing");
}

#[tokio::test(start_paused = true)]
async fn an_empty_state_is_synced_at_once() {
    let mut watch = hub(3).watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@3 synced");
}

#[tokio::test(start_paused = true)]
async fn a_large_state_comes_in_chunks_of_which_the_last_has_the_token() {
    let hub = hub_with(2_500, 8, Options::default());
    let mut watch = hub.watch("", Filter::all()).unwrap();
    // What happens meanwhile comes after the state, and before it is called synced.
    hub.publish(9, [put("t0000", 9)]);
    for (length, token) in [(1000, false), (1000, false), (500, true)] {
        let chunk = now(&mut watch).unwrap();
        assert_eq!(chunk.changes.len(), length);
        assert_eq!(
            (!chunk.resume_token.is_empty(), chunk.synced),
            (token, false)
        );
    }
    assert_eq!(says(&mut watch), "+t00009 @9 synced");
}

#[tokio::test(start_paused = true)]
async fn those_that_begin_together_share_a_state_and_are_brought_up_to_date() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1)]);
    let mut first = hub.watch("", Filter::all()).unwrap();
    hub.publish(2, [put("b", 2)]);
    let mut second = hub.watch("", Filter::all()).unwrap();
    let state = [&mut first, &mut second].map(|watch| now(watch).unwrap());
    assert!(std::ptr::eq(
        &**state[0].changes[0].resource(),
        &**state[1].changes[0].resource()
    ));
    assert_eq!(state.map(|state| words(&state)), ["+a1 @1", "+a1 @1"]);
    assert_eq!(
        [says(&mut first), says(&mut second)],
        ["+b2 @2 synced", "+b2 @2 synced"]
    );
    // Neither an old one is shared, nor one whose history is gone.
    let _held = hub.watch("", Filter::all()).unwrap();
    hub.publish(3, [put("c", 3)]);
    advance(Duration::from_millis(1_001)).await;
    assert_eq!(
        says(&mut hub.watch("", Filter::all()).unwrap()),
        "+a1 +b2 +c3 @3 synced"
    );
    let _held = hub.watch("", Filter::all()).unwrap();
    hub.reset(9, []);
    assert_eq!(
        says(&mut hub.watch("", Filter::all()).unwrap()),
        "@9 synced"
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_revision_comes_in_chunks_of_which_the_last_has_the_token() {
    let hub = hub(1);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@1 synced");
    hub.publish(2, [put("a", 2)]);
    hub.publish(3, (0..2_000).map(|index| put(&format!("t{index:04}-"), 3)));
    hub.publish(4, [put("a", 4)]);
    // A revision is not mixed with another where it does not fit as a whole.
    assert_eq!(says(&mut watch), "+a2 @2 synced");
    let mut chunks = Vec::new();
    while let Some(chunk) = now(&mut watch) {
        chunks.push((chunk.changes.len(), chunk.resume_token));
    }
    assert_eq!(
        chunks,
        [(1000, String::new()), (1000, token(3)), (1, token(4))],
        "whole revisions, the last chunk of each with its token"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_ends_at_two_mebibytes() {
    let hub = hub(1);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@1 synced");
    let large = |name: &str, size| {
        Update::put(
            name,
            Thing {
                size,
                ..thing(name, 2)
            },
        )
    };
    hub.publish(
        2,
        [
            large("a", 1 << 20),
            large("b", 1 << 20),
            large("c", 5 << 20),
            large("d", 1),
        ],
    );
    for expected in ["+a2 synced", "+b2 synced", "+c2 synced", "+d2 @2 synced"] {
        assert_eq!(says(&mut watch), expected);
    }
    advance(Duration::from_secs(2)).await;
    let mut state = hub.watch("", Filter::all()).unwrap();
    for expected in ["+a2", "+b2", "+c2", "+d2 @2 synced"] {
        assert_eq!(says(&mut state), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_where_it_ended() {
    let hub = hub(1);
    for revision in 2..=6 {
        hub.publish(revision, [put("a", revision)]);
    }
    let mut watch = hub.watch(&token(3), Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a4 +a5 +a6 @6 synced");
    let mut watch = hub.watch(&token(6), Filter::all()).unwrap();
    assert_eq!(
        says(&mut watch),
        "@6 synced",
        "it has everything, and is told so"
    );
    hub.publish(7, [put("b", 7)]);
    assert_eq!(says(&mut watch), "+b7 @7 synced");
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_comes_in_chunks_and_the_last_says_synced() {
    let hub = hub(0);
    for revision in 1..=2_500 {
        hub.publish(revision, [put("a", revision)]);
    }
    let mut watch = hub.watch(&token(0), Filter::all()).unwrap();
    for (length, position, synced) in [(1000, 1000, false), (1000, 2000, false), (500, 2500, true)]
    {
        let chunk = watch.next().await.unwrap().unwrap();
        assert_eq!(chunk.changes.len(), length);
        assert_eq!(
            (chunk.resume_token, chunk.synced),
            (token(position), synced)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn revisions_are_taken_once_and_in_order() {
    let hub = hub(5);
    assert!(
        !hub.publish(5, [put("a", 5)]),
        "it was there from the start"
    );
    assert!(hub.publish(6, [put("a", 6)]));
    assert!(!hub.publish(6, [put("b", 6)]));
    assert!(!hub.publish(4, [put("c", 4)]));
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a6 @6 synced");
    // Deleting what is not there changes nothing but the position.
    assert!(hub.publish(7, [Update::delete("z")]));
    assert_eq!(says(&mut watch), "nothing");
    assert_eq!((hub.revision(), hub.resume_token()), (7, token(7)));
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_comes_at_least_every_thirty_seconds() {
    let hub = hub(5);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@5 synced");
    for revision in [5, 6, 7] {
        // Nothing that concerns this watch.
        hub.publish(revision, []);
        let began = Instant::now();
        let bookmark = watch.next().await.unwrap().unwrap();
        assert_eq!(words(&bookmark), format!("@{revision} synced"));
        assert!(began.elapsed() <= Duration::from_secs(30));
        assert!(
            began.elapsed() >= Duration::from_secs(15),
            "{:?}",
            began.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_filtered_watch_is_bookmarked_amid_changes_that_it_does_not_see() {
    let hub = hub(1);
    let mut watch = hub.watch("", Filter::all().prefix("mine/")).unwrap();
    assert_eq!(says(&mut watch), "@1 synced");
    let writer = hub.clone();
    let (bookmark, ()) = tokio::join!(watch.next(), async move {
        for revision in 2..400 {
            writer.publish(revision, [put("other", revision)]);
            sleep(Duration::from_millis(100)).await;
        }
    });
    let bookmark = bookmark.unwrap().unwrap();
    assert!(bookmark.changes.is_empty() && bookmark.resume_token != token(1));
}

#[tokio::test(start_paused = true)]
async fn many_watchers_are_told_in_batches() {
    let hub = hub(0);
    let watchers: Vec<_> = (0..1_000)
        .map(|_| hub.watch("", Filter::all()).unwrap())
        .collect();
    let counts = watchers.into_iter().map(|mut watch| async move {
        let (mut messages, mut changes) = (0, 0);
        while changes < 1_000 {
            changes += watch.next().await.unwrap().unwrap().changes.len();
            messages += 1;
        }
        (messages, changes)
    });
    let writer = hub.clone();
    let (counts, ()) = tokio::join!(futures_util::future::join_all(counts), async move {
        for revision in 1..=1_000 {
            writer.publish(revision, [put("a", revision)]);
            sleep(Duration::from_millis(1)).await;
        }
    });
    for (messages, changes) in counts {
        assert_eq!(changes, 1_000);
        assert!(
            messages <= 30,
            "{messages} messages for a second of changes"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn few_watchers_are_told_at_once() {
    let hub = hub(0);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "@0 synced");
    for revision in 1..100 {
        hub.publish(revision, [put("a", revision)]);
        assert_eq!(says(&mut watch), format!("+a{revision} @{revision} synced"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_not_shown_and_told_to_nobody() {
    let hub = hub(0);
    hub.publish(1, [put("a", 1), put("b", 1)]);
    let mut watch = hub.watch("", Filter::all()).unwrap();
    assert_eq!(says(&mut watch), "+a1 +b1 @1 synced");
    hub.publish(2, [put("c", 2)]);
    let keys = |after| -> Vec<_> {
        let found = hub.after(after, |thing| thing.name != "b", 2);
        found.iter().map(|thing| thing.name.clone()).collect()
    };
    assert_eq!(keys(""), ["a", "c"]);
    assert_eq!(keys("a"), ["c"]);
    hub.keep_last(2);
    hub.keep_last(3);
    assert_eq!(keys(""), ["c"]);
    assert_eq!(says(&mut watch), "+c2 @2 synced");
    assert_eq!(says(&mut watch), "nothing");
    let begin = |prefix| hub.watch("", Filter::all().prefix(prefix)).unwrap();
    assert_eq!(says(&mut begin("a")), "@2 synced");
    assert_eq!(says(&mut begin("b")), "+b1 @2 synced");
    assert!(!hub.observe("a", |thing| Some(thing.clone())));
    // What it was stays in the history, and it may come again.
    let mut resumed = hub.watch(&token(0), Filter::all()).unwrap();
    assert_eq!(says(&mut resumed), "+a1 +b1 +c2 @2 synced");
    hub.publish(3, [put("a", 3)]);
    for watch in [&mut watch, &mut resumed] {
        assert_eq!(says(watch), "+a3 @3 synced");
    }
}

#[tokio::test(start_paused = true)]
async fn watchers_of_much_with_one_prefix_share_what_they_begin_with() {
    let hub = hub_with(100, 1, Options::default());
    let begin = |prefix: &str| {
        let mut watch = hub.watch("", Filter::all().prefix(prefix)).unwrap();
        let message = now(&mut watch).unwrap();
        (watch, message)
    };
    let encoded = |message: &Message<Thing>, bytes: &'static [u8]| {
        message.changes[0].resource().encoded(|| bytes.into())
    };
    // One that has begun and not ended its state keeps it.
    let unread = hub.watch("", Filter::all().prefix("t00")).unwrap();
    let unread_few = hub.watch("", Filter::all().prefix("t000")).unwrap();
    for (prefix, again) in [("t00", "first"), ("t000", "second"), ("t0", "second")] {
        let (_one, first) = begin(prefix);
        let (_other, second) = begin(prefix);
        assert_eq!(words(&first), words(&second));
        assert_eq!(encoded(&first, b"first"), "first", "{prefix}");
        assert_eq!(encoded(&second, b"second"), again, "{prefix}");
    }
    hub.publish(2, [Update::delete("t0000")]);
    // It begins with the state before, and is told what has changed since.
    let (mut late, message) = begin("t00");
    assert_eq!((message.changes.len(), message.synced), (100, false));
    assert_eq!(says(&mut late), "-t00001 @2 synced");
    advance(Duration::from_secs(1)).await;
    let (_late, message) = begin("t00");
    assert_eq!((message.changes.len(), message.synced), (99, true));
    drop((unread, unread_few));
}
