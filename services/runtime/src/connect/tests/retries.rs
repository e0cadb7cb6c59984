use super::*;

/// Says UNAVAILABLE to the first `failures` calls of each method.
fn recovering(failures: usize, after: Duration) -> Peer {
    Peer::new(move |_, count| async move {
        if count < failures {
            Err(unavailable(after))
        } else {
            one("at last")
        }
    })
}

#[tokio::test]
async fn an_idempotent_call_is_repeated() {
    let peer = recovering(2, Duration::ZERO);
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    for method in ["GetThing", "ListThings", "Heartbeat"] {
        assert_eq!(call(&channel, method).await.unwrap(), "at last");
    }
    let mut watch = open(&channel, "WatchThings").await.unwrap();
    assert_eq!(watch.message().await.unwrap().as_deref(), Some("at last"));
    assert_eq!(peer.methods().len(), 12);
}

#[tokio::test]
async fn another_call_is_not_repeated_unless_its_method_is_named() {
    let peer = recovering(1, Duration::ZERO);
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    for method in ["CreateThing", "Getaway", "Release"] {
        let refused = call(&channel, method).await.unwrap_err();
        assert_eq!(refused.message(), "too much to do", "{method}");
    }
    assert_eq!(peer.methods().len(), 3);
    let idempotent = Idempotent::default().and("ReportDrain");
    let channel = channel_to(
        &running.url(),
        Options {
            idempotent,
            ..quick()
        },
    );
    assert_eq!(call(&channel, "ReportDrain").await.unwrap(), "at last");
}

#[tokio::test]
async fn only_unavailable_is_repeated() {
    let peer = Peer::new(|_, _| async { Err::<peer::Answers, _>(Status::internal("broken")) });
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    assert_eq!(
        call(&channel, "GetThing").await.unwrap_err().code(),
        Code::Internal
    );
    assert_eq!(peer.methods().len(), 1);
}

#[tokio::test]
async fn the_delay_that_a_peer_asks_for_is_kept() {
    let peer = recovering(1, Duration::from_millis(400));
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    let started = Instant::now();
    assert_eq!(call(&channel, "GetThing").await.unwrap(), "at last");
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_delay_beyond_the_deadline_or_all_patience_is_not_waited_for() {
    let peer = recovering(1, Duration::from_secs(4));
    let running = peer.start().await;
    let patient = Options {
        default_deadline: Duration::from_secs(60),
        ..quick()
    };
    let impatient = Options {
        max_retry_delay: Duration::from_secs(3),
        ..patient
    };
    for (options, method) in [(quick(), "GetThing"), (impatient, "ListThings")] {
        let started = Instant::now();
        let refused = call(&channel_to(&running.url(), options), method)
            .await
            .unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(1));
        let details = Details::of(&refused);
        assert!(
            details.is(ErrorReason::Overloaded),
            "the peer's own words arrive: {details:?}"
        );
        assert_eq!(details.retry_delay, Some(Duration::from_secs(4)));
    }
}

#[tokio::test]
async fn repetitions_end_after_so_many() {
    let peer = recovering(usize::MAX, Duration::ZERO);
    let running = peer.start().await;
    let backoff = backoff::Policy::doubling(Duration::from_millis(1), Duration::from_millis(2));
    let channel = channel_to(&running.url(), Options { backoff, ..quick() });
    assert_eq!(
        call(&channel, "GetThing").await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(peer.methods().len(), 5, "one call and four repetitions");
    // A peer that always fails gets little more than one try for each call.
    for _ in 0..100 {
        assert_eq!(
            call(&channel, "GetThing").await.unwrap_err().code(),
            Code::Unavailable
        );
    }
    let tries = peer.methods().len();
    assert!((101..=101 + 15).contains(&tries), "{tries}");
}

#[tokio::test]
async fn the_budget_grows_with_success_and_with_time() {
    let start = Instant::now();
    let budget = retry::Budget::full(start);
    assert_eq!((0..50).filter(|_| budget.withdraw(start)).count(), 10);
    (0..9).for_each(|_| budget.deposit());
    assert!(!budget.withdraw(start));
    budget.deposit();
    assert!(budget.withdraw(start));
    let later = start + Duration::from_millis(2_500);
    assert_eq!((0..50).filter(|_| budget.withdraw(later)).count(), 2);
    let much_later = start + Duration::from_secs(3_600);
    assert_eq!((0..50).filter(|_| budget.withdraw(much_later)).count(), 10);
}

#[tokio::test]
async fn failures_of_the_request_arrive_whole() {
    let running = Peer::new(|_, _| async {
        let mut violations = Violations::new();
        violations.add("name", "must not be empty");
        violations.add("count", "must be at least 1");
        Err::<peer::Answers, _>(violations.into_status())
    })
    .start()
    .await;
    let channel = channel_to(&running.url(), quick());
    let details = Details::of(&call(&channel, "CreateThing").await.unwrap_err());
    assert_eq!(details.code, Code::InvalidArgument);
    assert_eq!(details.violations.len(), 2);
}
