//! What readers see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_store::{Options, Transaction};
use tokio::task::JoinSet;

use crate::{Fixture, commit, put};

pub(crate) async fn a_list_has_its_prefix_in_order(fixture: &impl Fixture) {
    let store = fixture.store(Options::default());
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
    let store = fixture.store(Options::default());
    let both = |value: String| {
        Transaction::new()
            .put("pair/a", value.clone())
            .put("pair/z", value)
    };
    commit(&store, both("0".to_owned())).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let (store, done) = (store.clone(), Arc::clone(&done));
        readers.spawn(async move {
            let mut lists = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let listing = store.list("pair/").await.unwrap();
                let [a, z] = &listing.records[..] else {
                    panic!("{listing:?}");
                };
                assert_eq!((&a.value, a.modified), (&z.value, z.modified));
                assert!(a.modified <= listing.revision);
                lists += 1;
                tokio::task::yield_now().await;
            }
            lists
        });
    }
    for index in 1..300 {
        commit(&store, both(index.to_string())).await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(readers.join_all().await.into_iter().all(|lists| lists > 0));
}

pub(crate) async fn what_was_answered_is_read_everywhere(fixture: &impl Fixture) {
    let store = fixture.store(Options::default());
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
