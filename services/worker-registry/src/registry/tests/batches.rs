//! Batches that find no room, while others are to be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_proto::workers::v1 as proto;
use muster_store::Store;

use super::join;
use super::{Running, ask, call, config, term};
use crate::grpc::calls;
use crate::grpc::refusals::SLICE;
use crate::registry::Registry;

/// Asks for so many accelerators each; answers how often others had a turn meanwhile.
async fn turns_of_others(registry: &Registry, batch: &str, gpus: &[i32]) -> usize {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let specs = gpus.iter().enumerate().map(|(place, gpus)| {
        let spec = ask(&format!("{batch}-{place}"), *gpus).spec;
        proto::AllocationSpec {
            spread_key: format!("{place}"),
            ..spec.unwrap()
        }
    });
    let request = call(proto::BatchAllocateRequest {
        owner: "replica-manager".to_owned(),
        owner_term: term(),
        specs: specs.collect(),
        all_or_nothing: false,
    });
    let answer = tokio::select! {
        biased;
        answer = calls::batch_allocate(registry, request) => answer.unwrap(),
        () = other => unreachable!(),
    };
    assert_eq!(answer.results.len(), gpus.len());
    for result in answer.results {
        let counts: Vec<_> = result.refusals.iter().map(|group| group.count).collect();
        assert_eq!(counts, [i32::try_from(SLICE + 1).unwrap()]);
    }
    turns.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_room_lets_others_have_their_turns_and_looks_once_for_equal_asks() {
    let running = Running::start(config(), Store::memory()).await;
    for worker in 0..=SLICE {
        join(&running.registry, &format!("w{worker}"), 1).await;
    }
    // Those who come for the first time are claimed.
    turns_of_others(&running.registry, "first", &[2]).await;
    let one = turns_of_others(&running.registry, "one", &[2]).await;
    let equal = turns_of_others(&running.registry, "equal", &[2; 10]).await;
    let different: Vec<i32> = (2..12).collect();
    let different = turns_of_others(&running.registry, "different", &different).await;
    // The fleet is looked at in two slices for each ask that is unlike those before.
    assert!(one >= 2, "{one}");
    assert_eq!((equal, different), (one, one + 2 * 9));
    running.crash().await;
}
