//! A change of one service costs the same however many services there are.

use std::time::Duration;

use muster_proto::replicas::v1::*;
use tokio::time::Instant;

use crate::support::sandbox::{Sandbox, at_once, spec};

/// The median time of an in-place change with so many other services around.
async fn change_among(others: usize) -> Duration {
    let mut sandbox = Sandbox::start(&[others + 20]).await;
    for index in 0..others {
        sandbox.create(spec(&format!("other-{index}"), 1)).await;
    }
    let mut wanted = spec("chat", 10);
    wanted.retry = Some(at_once());
    sandbox.create(wanted.clone()).await;
    sandbox.until_phase("chat", ServicePhase::Healthy).await;
    let mut took = Vec::new();
    for round in 0..50 {
        wanted.labels.insert("round".to_owned(), round.to_string());
        let request = UpdateServiceRequest {
            spec: Some(wanted.clone()),
            ..UpdateServiceRequest::default()
        };
        let begun = Instant::now();
        sandbox.client.update_service(request).await.unwrap();
        took.push(begun.elapsed());
    }
    sandbox.stop().await;
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_does_not_cost_more_among_many_services() {
    let few = change_among(5).await;
    let many = change_among(400).await;
    println!("one change, call and all: {few:?} among 5, {many:?} among 400");
    // Unoptimised and on a shared machine: a cost that grew with the services would be 80 times.
    assert!(
        many < few * 5 + Duration::from_millis(5),
        "{few:?}, then {many:?}"
    );
}
