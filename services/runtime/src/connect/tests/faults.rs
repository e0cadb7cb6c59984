use super::*;

#[tokio::test]
async fn a_malformed_status_does_no_harm() {
    let running = Peer::saying("ok").start().await;
    let channel = channel_to(&running.url(), quick());
    let refused = call(&channel, "Malformed").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "badly said")
    );
    assert_eq!(call(&channel, "GetThing").await.unwrap(), "ok");
}

#[tokio::test]
async fn a_lost_connection_is_unavailable_and_the_next_call_works() {
    let peer = Peer::new(|method, count| {
        let hangs = method == "CreateThing" && count == 0;
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            one("ok")
        }
    });
    let running = peer.start().await;
    let wire = Wire::to(running.address).await;
    let channel = channel_to(&wire.url(), quick());
    let (lost, ()) = tokio::join!(call(&channel, "CreateThing"), async {
        sleep(Duration::from_millis(200)).await;
        wire.cut();
    });
    let lost = lost.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable, "{lost:?}");
    assert!(Details::of(&lost).is(ErrorReason::PeerUnreachable));
    assert_eq!(call(&channel, "CreateThing").await.unwrap(), "ok");
}

#[tokio::test]
async fn a_lost_connection_ends_a_watch_as_unavailable() {
    let peer = Peer::new(|_, _| async {
        Ok(stream::iter([Ok("first".to_owned())])
            .chain(stream::pending())
            .boxed())
    });
    let running = peer.start().await;
    let wire = Wire::to(running.address).await;
    let channel = channel_to(&wire.url(), quick());
    let mut watch = open(&channel, "WatchThings").await.unwrap();
    assert_eq!(watch.message().await.unwrap().as_deref(), Some("first"));
    wire.cut();
    let lost = watch.message().await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable, "{lost:?}");
}

#[tokio::test]
async fn calls_to_a_draining_peer_are_unavailable_or_answered_never_cancelled() {
    let peer = Peer::saying("ok");
    for _ in 0..20 {
        let running = peer.start().await;
        let channel = channel_to(&running.url(), quick());
        call(&channel, "GetThing").await.unwrap();
        let calls = (0..50).map(|n| {
            let channel = channel.clone();
            async move {
                sleep(Duration::from_micros(n * 40)).await;
                call(&channel, "CreateThing").await
            }
        });
        let calls = futures_util::future::join_all(calls);
        let (answers, ()) = tokio::join!(calls, async {
            sleep(Duration::from_millis(1)).await;
            drop(running);
        });
        for answer in answers {
            match answer {
                Ok(answer) => assert_eq!(answer, "ok"),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_handler_that_panics_is_the_peers_fault() {
    let running = Peer::new(|method, _| {
        let panics = method == "CreateThing";
        async move {
            assert!(!panics, "as scripted");
            one("ok")
        }
    })
    .start()
    .await;
    let channel = channel_to(&running.url(), quick());
    let broken = call(&channel, "CreateThing").await.unwrap_err();
    assert!(
        matches!(broken.code(), Code::Internal | Code::Unavailable),
        "{broken:?}"
    );
    assert_eq!(call(&channel, "GetThing").await.unwrap(), "ok");
}

/// With the defaults, whichever moment the network fails at.
#[tokio::test]
async fn calls_work_again_within_five_seconds_of_a_healed_partition() {
    let running = Peer::saying("ok").start().await;
    let wire = Wire::to(running.address).await;
    let channel = channel_to(&wire.url(), Options::default());
    let one_call = || async {
        let mut request = Request::new(String::new());
        request.set_timeout(Duration::from_millis(800));
        call_with(&channel, "CreateThing", request).await
    };
    one_call().await.unwrap();
    wire.partition(true);
    for _ in 0..4 {
        let failed = one_call().await.unwrap_err();
        assert!(
            matches!(failed.code(), Code::DeadlineExceeded | Code::Unavailable),
            "{failed:?}"
        );
    }
    wire.partition(false);
    let healed = Instant::now();
    while one_call().await.is_err() {
        assert!(healed.elapsed() < Duration::from_secs(5));
    }
    assert!(
        healed.elapsed() < Duration::from_secs(5),
        "{:?}",
        healed.elapsed()
    );
}

/// A connection that died without a word, as when a machine loses power.
#[tokio::test]
async fn a_dead_connection_is_given_up_after_a_call_ran_out_of_time() {
    let peer = Peer::saying("ok");
    let running = peer.start().await;
    let wire = Wire::to(running.address).await;
    // No keepalive to speak of: the check must do it alone.
    let options = Options {
        keepalive_interval: Duration::from_secs(3600),
        ..quick()
    };
    let channel = channel_to(&wire.url(), options);
    let mut watch = open(&channel, "WatchThings").await.unwrap();
    assert_eq!(watch.message().await.unwrap().as_deref(), Some("ok"));
    wire.partition(true);
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(100));
    call_with(&channel, "CreateThing", request)
        .await
        .unwrap_err();
    // The check takes a second to fail; then the connection is gone although the network is not
    // back, and a new one is tried.
    sleep(Duration::from_millis(1_500)).await;
    wire.partition(false);
    assert_eq!(call(&channel, "CreateThing").await.unwrap(), "ok");
    assert_eq!(peer.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn keepalive_finds_a_dead_connection_while_idle() {
    let running = Peer::new(|_, _| async { Ok(stream::pending().boxed()) })
        .start()
        .await;
    let wire = Wire::to(running.address).await;
    let channel = channel_to(&wire.url(), quick());
    let mut watch = open(&channel, "WatchThings").await.unwrap();
    wire.partition(true);
    let ended = timeout(Duration::from_secs(3), watch.message())
        .await
        .expect("in time");
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
}

/// As servers in other languages do.
#[tokio::test]
async fn a_peer_that_is_pinged_too_often_is_pinged_less() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (lived, mut lives) = tokio::sync::mpsc::channel(8);
    spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let began = Instant::now();
            let mut connection = h2::server::handshake(io).await.unwrap();
            let strike = sleep(Duration::from_millis(150));
            tokio::pin!(strike);
            loop {
                tokio::select! {
                    accepted = connection.accept() => match accepted {
                        Some(Ok((_, mut respond))) => {
                            respond.send_response(http::Response::new(()), false).unwrap();
                        }
                        Some(Err(_)) | None => break,
                    },
                    () = &mut strike, if began.elapsed() < Duration::from_millis(160) => {
                        connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                    }
                }
            }
            lived.send(began.elapsed()).await.unwrap();
        }
    });
    let options = Options {
        keepalive_interval: Duration::from_millis(100),
        ..quick()
    };
    let endpoint: Endpoint = url.parse().unwrap();
    let dialer = Dialer::new(transport::tcp());
    let link = Arc::new(link::Link::new(endpoint, dialer, Arc::new(options)));
    for expected in [200, 400, 800] {
        drop(
            link.connection()
                .await
                .unwrap_or_else(|failed| panic!("{failed}")),
        );
        // Held open by the link until the peer ends it.
        lives.recv().await.unwrap();
        let eased = Duration::from_millis(expected);
        timeout(Duration::from_secs(1), async {
            while link.keepalive_interval() != eased {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("eased");
    }
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_costs_no_more_than_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let options = Options {
        default_deadline: Duration::from_millis(300),
        ..quick()
    };
    let channel = channel_to(&url, options);
    let started = Instant::now();
    let failed = call(&channel, "GetThing").await.unwrap_err();
    assert_eq!(failed.code(), Code::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_secs(1));
}
