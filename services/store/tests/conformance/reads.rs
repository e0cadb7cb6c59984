//! What readers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use muster_store::{Options, Transaction};
use tokio::task::JoinSet;

use crate::{Fixture, commit, put};

pub(crate) async fn a_list_has_its_prefix_in_order(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    for key in ["b", "a/2", "a/10", "a", "a0", "ab", "a/", "ä"] {
        put(&store, key, key).await;
    }
    let at = store.revision().await.unwrap();
    let cases: [(&str, &[&str]); 5] = [
        ("a/", &["a/", "a/10", "a/2"]),
        ("a", &["a", "a/", "a/10", "a/2", "a0", "ab"]),
        ("a/10", &["a/10"]),
        ("ä", &["ä"]),
        ("c", &[]),
    ];
    for (prefix, expected) in cases {
        let listing = store.list(prefix).await.unwrap();
        let keys: Vec<_> = listing.records.iter().map(|record| &*record.key).collect();
        assert_eq!(keys, expected, "{prefix}");
        assert_eq!(listing.revision, at);
    }
}

/// Two keys always change together, so no list may show one without the other.
pub(crate) async fn a_list_is_of_one_revision(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let both = |value: String| {
        Transaction::new()
            .put("pair/a", value.clone())
            .put("pair/z", value)
    };
    commit(&store, both("0".to_owned())).await;
    let lists = Arc::new(AtomicU32::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (store, lists) = (store.clone(), Arc::clone(&lists));
        readers.spawn(async move {
            for _ in 0..100 {
                let listing = store.list("pair/").await.unwrap();
                let [a, z] = &listing.records[..] else {
                    panic!("{listing:?}");
                };
                assert_eq!((&a.value, a.modified), (&z.value, z.modified));
                assert!(a.modified <= listing.revision);
                lists.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
    }
    // Writes until the readers have read enough.
    let mut written = 0;
    while lists.load(Ordering::Relaxed) < 200 && written < 20_000 {
        written += 1;
        commit(&store, both(written.to_string())).await;
        tokio::task::yield_now().await;
    }
    readers.join_all().await;
}

pub(crate) async fn what_was_answered_is_read_everywhere(fixture: &impl Fixture) {
    let store = fixture.store(Options::default()).await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            let key = format!("writer/{writer}");
            for index in 0..100 {
                let value = index.to_string();
                let at = put(&store, &key, &value).await;
                let other = store.clone();
                let record = other.get(&key).await.unwrap().unwrap();
                assert_eq!((record.modified, &*record.value), (at, value.as_bytes()));
                assert!(other.revision().await.unwrap() >= at);
                assert!(other.list(&key).await.unwrap().revision >= at);
            }
        });
    }
    writers.join_all().await;
}
