//! The promises of the store, checked on each backend.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use muster_store::{Condition, Error, Options, Outcome, Revision, Store, Transaction};

async fn basics(store: &Store) {
    let base = store.revision().await.unwrap();
    let put = Transaction::new()
        .when("a/1", Condition::Absent)
        .put("a/1", "one");
    assert_eq!(
        store.commit(put.clone()).await,
        Ok(Outcome::Committed(Revision(base.0 + 1)))
    );
    let Outcome::Conflict { key, actual } = store.commit(put).await.unwrap() else {
        panic!("the key is there");
    };
    assert_eq!((&*key, actual), ("a/1", Some(Revision(base.0 + 1))));
    let mut watch = store.watch("a/", base).await.unwrap();
    let batch = watch.next().await.unwrap();
    assert_eq!(batch.changes[0].after, store.get("a/1").await.unwrap());
    store.close().await;
    assert_eq!(store.get("a/1").await, Err(Error::Closed));
    assert_eq!(watch.next().await, Err(Error::Closed));
}

#[tokio::test]
async fn memory() {
    basics(&Store::memory()).await;
}

#[tokio::test]
async fn embedded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sub/store.db");
    let store = Store::embedded(&path, Options::default()).unwrap();
    let term = store.lead().await.unwrap().term();
    basics(&store).await;
    let again = Store::embedded(&path, Options::default()).unwrap();
    assert_eq!(again.epoch(), store.epoch());
    assert!(again.lead().await.unwrap().term() > term);
    assert_eq!(again.get("a/1").await.unwrap().unwrap().value, "one");
    let locked = Store::embedded(&path, Options::default()).unwrap_err();
    assert!(locked.to_string().contains("in use"), "{locked}");
}
