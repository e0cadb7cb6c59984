use muster_store::{Condition, Outcome, Store, TERM_KEY, Transaction};
use tonic::Code;

use super::*;

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 7409);

#[tokio::test]
async fn the_only_instance_leads_at_once_until_its_store_ends() {
    let context = Context::for_tests("sample");
    let store = Store::memory();
    let instances = Instances::join(&context, &store, ADDRESS.into())
        .await
        .unwrap();
    assert!(instances.may_answer());
    assert_eq!(instances.address(), "127.0.0.1:7409");
    assert!(instances.peers().await.unwrap().is_empty());
    assert_eq!(
        instances.leader().await.unwrap_err().code(),
        Code::Unavailable
    );

    let leadership = instances.leading().unwrap();
    let put = Transaction::new().put("a", "1");
    let outcome = store.commit(leadership.fence(put)).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
    let term = store.get(TERM_KEY).await.unwrap().unwrap();
    let same = Condition::ModifiedAt(leadership.term().revision);
    assert_eq!(same, Condition::ModifiedAt(term.modified));

    store.close().await;
    assert!(!instances.may_answer());
    assert!(instances.leading().is_none());
}

#[tokio::test]
async fn work_of_a_leader_begins_at_once_and_ends_with_it() {
    let context = Context::for_tests("sample");
    let store = Store::memory();
    let instances = Instances::join(&context, &store, ADDRESS.into())
        .await
        .unwrap();
    let (begun, mut runs) = watch::channel(0);
    let leading = instances.clone();
    let work = crate::task::spawn(async move {
        let work = |_| {
            begun.send_modify(|count| *count += 1);
            std::future::pending::<()>()
        };
        leading.while_leading(work).await;
    });
    runs.wait_for(|count| *count == 1).await.unwrap();
    instances.0.leading.send_replace(None);
    let again = store.lead(instances.id()).await.unwrap();
    instances.0.leading.send_replace(Some(again));
    runs.wait_for(|count| *count == 2).await.unwrap();
    work.abort();
}
