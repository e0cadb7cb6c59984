use super::*;

#[test]
fn urls_are_read_and_printed() {
    for (text, printed) in [
        ("http://127.0.0.1:7400", "http://127.0.0.1:7400"),
        ("https://muster.example", "https://muster.example:443"),
        ("http://a", "http://a:80"),
        ("http://[::1]:7401/", "http://[::1]:7401"),
        (
            "http://a:1, https://b:2 ,http://a:1",
            "http://a:1,https://b:2",
        ),
    ] {
        assert_eq!(
            text.parse::<Endpoints>().unwrap().to_string(),
            printed,
            "{text}"
        );
    }
    let endpoint: Endpoint = "https://[::1]:7401".parse().unwrap();
    assert_eq!(
        (endpoint.host(), endpoint.port(), endpoint.is_tls()),
        ("::1", 7401, true)
    );
}

#[test]
fn what_is_no_url_is_refused_with_what_is_wrong() {
    for (text, why) in [
        ("", "is not a URL"),
        ("127.0.0.1:7400", "must begin with http:// or https://"),
        ("localhost", "must begin with http:// or https://"),
        ("grpc://a:1", "must begin with http:// or https://"),
        ("http://a:1/path", "must end after the port"),
        ("http://a:1?x", "must end after the port"),
        ("http://user@a:1", "must not carry a user name"),
        ("http://a:0", "has port 0"),
        ("http://a:1,", "is not a URL"),
    ] {
        let error = text.parse::<Endpoints>().unwrap_err().to_string();
        assert!(error.contains(why), "{text:?}: {error}");
    }
    for text in [
        "http://a:70000",
        "http://a:",
        "http://a:x",
        "http://:80",
        "http://",
    ] {
        assert!(text.parse::<Endpoints>().is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn a_channel_is_made_before_its_peer_is_there() {
    let peer = Peer::saying("here");
    let first = peer.start().await;
    let (url, address) = (first.url(), first.address);
    drop(first);
    sleep(Duration::from_millis(50)).await;
    let channel = channel_to(&url, quick());
    let refused = call(&channel, "CreateThing").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains(&url), "{refused:?}");
    assert!(Details::of(&refused).is(ErrorReason::PeerUnreachable));
    let _peer = peer.start_at(address).await;
    let started = Instant::now();
    while call(&channel, "CreateThing").await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(2));
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn many_first_calls_share_one_connection() {
    let peer = Peer::saying("one");
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    let calls = (0..500).map(|_| call(&channel, "GetThing"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_deref().is_ok_and(|text| text == "one")),
        "{answers:?}"
    );
    assert_eq!(peer.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn calls_stay_at_one_endpoint_and_leave_a_dead_one() {
    let (left, right) = (Peer::saying("left"), Peer::saying("right"));
    let (left_running, right_running) = (left.start().await, right.start().await);
    let left_wire = Wire::to(left_running.address).await;
    let right_wire = Wire::to(right_running.address).await;
    let channel = channel_to(
        &format!("{},{}", left_wire.url(), right_wire.url()),
        quick(),
    );
    let first = call(&channel, "CreateThing").await.unwrap();
    for _ in 0..20 {
        assert_eq!(call(&channel, "CreateThing").await.unwrap(), first);
    }
    // The one in use goes away: nobody can be reached there any more.
    let (gone, other) = if first == "left" {
        (left_wire, "right")
    } else {
        (right_wire, "left")
    };
    gone.cut();
    gone.partition(true);
    for _ in 0..20 {
        assert_eq!(call(&channel, "GetThing").await.unwrap(), other);
    }
}

/// A process that is stopped: connections to it can be made, since the kernel accepts them, but with TLS not
/// even that. Calls are so far apart that each finds the connection of the one before given up.
#[tokio::test]
async fn calls_leave_an_endpoint_that_stands_still() {
    for connects in [true, false] {
        let peer = Peer::saying("alive");
        let (accept, accepted) = tokio::sync::mpsc::channel::<tokio::io::DuplexStream>(8);
        peer.serve_on(tokio_stream::wrappers::ReceiverStream::new(accepted));
        let unheard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let transport: Transport = Arc::new(move |endpoint: Endpoint| {
            let (accept, unheard) = (accept.clone(), Arc::clone(&unheard));
            Box::pin(async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                match (endpoint.host(), connects) {
                    ("still", false) => std::future::pending().await,
                    ("still", true) => unheard.lock().unwrap().push(theirs),
                    _ => accept.send(theirs).await.map_err(std::io::Error::other)?,
                }
                Ok(Box::new(ours) as Box<dyn Io>)
            })
        });
        let hour = Duration::from_secs(3600);
        let options = Options {
            seed: Some(0),
            keepalive_interval: hour,
            connect_timeout: hour,
            ..quick()
        };
        let connector = Connector::new(options).with_transport(transport);
        let channel = connector.channel(&"http://still:1,http://alive:2".parse().unwrap());
        let mut answers = Vec::new();
        for _ in 0..3 {
            let mut request = Request::new(String::new());
            request.set_timeout(Duration::from_millis(100));
            answers.push(call_with(&channel, "CreateThing", request).await.ok());
            sleep(Duration::from_millis(1_300)).await;
        }
        let alive = Some("alive".to_owned());
        assert_eq!(answers, [None, alive.clone(), alive], "{connects}");
    }
}

#[tokio::test]
async fn what_has_not_left_goes_to_another_endpoint_whatever_the_method() {
    let peer = Peer::saying("alive");
    let running = peer.start().await;
    let dead = "http://127.0.0.1:9"; // the discard port, where nobody listens
    for _ in 0..8 {
        // Whichever is tried first.
        let channel = channel_to(&format!("{dead},{}", running.url()), quick());
        assert_eq!(call(&channel, "CreateThing").await.unwrap(), "alive");
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_comes_back_once_it_serves() {
    let left = Peer::new(|_, count| async move {
        if count == 0 {
            Err(Status::unavailable("stopping"))
        } else {
            one("left")
        }
    });
    left.serving.store(false, Ordering::Relaxed);
    let right = Peer::saying("right");
    let (left_running, right_running) = (left.start().await, right.start().await);
    let right_wire = Wire::to(right_running.address).await;
    let urls = format!("{},{}", left_running.url(), right_wire.url());
    // A channel that happens to begin with the left one.
    let channel = loop {
        let channel = channel_to(&urls, quick());
        assert_eq!(call(&channel, "GetThing").await.unwrap(), "right");
        if left.methods().len() == 1 {
            break channel;
        }
    };
    // It is asked how it is, and gets no call while it does not serve.
    while left.checks.load(Ordering::Relaxed) < 2 {
        assert_eq!(call(&channel, "GetThing").await.unwrap(), "right");
    }
    assert_eq!(left.methods().len(), 1);
    // Once it serves it is asked no more, and takes calls when the other one fails.
    left.serving.store(true, Ordering::Relaxed);
    let asked = left.checks.load(Ordering::Relaxed);
    while left.checks.load(Ordering::Relaxed) == asked {
        sleep(Duration::from_millis(10)).await;
    }
    right_wire.partition(true);
    right_wire.cut();
    assert_eq!(call(&channel, "GetThing").await.unwrap(), "left");
}

#[tokio::test]
async fn with_no_endpoint_in_service_calls_are_made_all_the_same() {
    let failing = || {
        Peer::new(|_, count| async move {
            if count == 0 {
                Err(Status::unavailable("stopping"))
            } else {
                one("recovered")
            }
        })
    };
    let (left, right) = (failing(), failing());
    for peer in [&left, &right] {
        peer.serving.store(false, Ordering::Relaxed);
    }
    let (left_running, right_running) = (left.start().await, right.start().await);
    let urls = format!("{},{}", left_running.url(), right_running.url());
    let channel = channel_to(&urls, quick());
    assert_eq!(call(&channel, "GetThing").await.unwrap(), "recovered");
}

#[tokio::test]
async fn any_transport_will_do() {
    let peer = Peer::saying("in memory");
    let (accept, accepted) = tokio::sync::mpsc::channel::<tokio::io::DuplexStream>(8);
    peer.serve_on(tokio_stream::wrappers::ReceiverStream::new(accepted));
    let transport: Transport = Arc::new(move |endpoint: Endpoint| {
        let accept = accept.clone();
        Box::pin(async move {
            if endpoint.host() != "there" {
                return Err(std::io::Error::other("no such machine"));
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            accept.send(theirs).await.map_err(std::io::Error::other)?;
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    });
    let connector = Connector::new(quick()).with_transport(transport);
    let there = connector.channel(&"http://there:7400".parse().unwrap());
    assert_eq!(call(&there, "CreateThing").await.unwrap(), "in memory");
    let elsewhere = connector.channel(&"http://elsewhere:7400".parse().unwrap());
    let failed = call(&elsewhere, "CreateThing").await.unwrap_err();
    assert!(failed.message().contains("no such machine"), "{failed:?}");
}

#[tokio::test]
async fn a_seed_decides_where_calls_go_first() {
    let (left, right) = (Peer::saying("left"), Peer::saying("right"));
    let (left_running, right_running) = (left.start().await, right.start().await);
    let urls = format!("{},{}", left_running.url(), right_running.url());
    for (seed, expected) in [(0, "left"), (1 << 48, "right")] {
        for _ in 0..5 {
            let channel = channel_to(
                &urls,
                Options {
                    seed: Some(seed),
                    ..quick()
                },
            );
            assert_eq!(call(&channel, "GetThing").await.unwrap(), expected);
        }
    }
}
