use super::*;

/// Never answers.
fn mute() -> Peer {
    Peer::new(|_, _| async { std::future::pending().await })
}

/// Answers at once, and then no more.
fn stuck() -> Peer {
    Peer::new(|_, _| async {
        Ok(stream::iter([Ok("first".to_owned())])
            .chain(stream::pending())
            .boxed())
    })
}

fn assert_out_of_time(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(Details::of(status).is(ErrorReason::DeadlineExceeded));
}

#[tokio::test]
async fn a_call_without_a_deadline_is_given_one() {
    let peer = mute();
    let running = peer.start().await;
    let options = Options {
        default_deadline: Duration::from_millis(300),
        ..quick()
    };
    let started = Instant::now();
    let channel = channel_to(&running.url(), options);
    assert_out_of_time(&call(&channel, "CreateThing").await.unwrap_err());
    assert!(started.elapsed() < Duration::from_secs(1));
    let told = peer.last_header("grpc-timeout").expect("the peer is told");
    assert!(told.ends_with('u') || told.ends_with('m'), "{told}");
}

#[tokio::test]
async fn the_earlier_of_the_inbound_and_the_own_deadline_holds() {
    let peer = mute();
    let running = peer.start().await;
    let channel = channel_to(&running.url(), quick());
    for (inbound, own) in [(200, 5_000), (5_000, 200)] {
        let mut request = Request::new(String::new());
        request.set_timeout(Duration::from_millis(own));
        Deadline::after(Duration::from_millis(inbound)).carry(&mut request);
        let started = Instant::now();
        assert_out_of_time(
            &call_with(&channel, "CreateThing", request)
                .await
                .unwrap_err(),
        );
        assert!(started.elapsed() < Duration::from_secs(1));
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-timeout"),
            HeaderValue::try_from(peer.last_header("grpc-timeout").unwrap()).unwrap(),
        )]);
        let told = crate::deadline::read(&headers).unwrap().unwrap();
        assert!(told <= Duration::from_millis(200), "{told:?}");
    }
}

#[tokio::test]
async fn a_passed_deadline_answers_at_once() {
    let running = mute().start().await;
    let channel = channel_to(&running.url(), quick());
    let mut request = Request::new(String::new());
    Deadline::after(Duration::ZERO).carry(&mut request);
    assert_out_of_time(&call_with(&channel, "GetThing", request).await.unwrap_err());
}

#[tokio::test]
async fn the_deadline_holds_to_the_end_of_a_stream() {
    let running = stuck().start().await;
    let channel = channel_to(&running.url(), quick());
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(400));
    let codec = ProstCodec::<String, String>::default();
    let mut answers = client
        .server_streaming(request, path("FetchThings"), codec)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answers.message().await.unwrap().as_deref(), Some("first"));
    assert_out_of_time(&answers.message().await.unwrap_err());
}

#[tokio::test]
async fn the_deadline_holds_though_there_is_always_more_to_read() {
    let endless = Peer::new(|_, _| async {
        let more = stream::repeat_with(|| Ok("x".repeat(30_000)));
        Ok(more.boxed())
    });
    let running = endless.start().await;
    let channel = channel_to(&running.url(), quick());
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(400));
    let codec = ProstCodec::<String, String>::default();
    let mut answers = client
        .server_streaming(request, path("FetchThings"), codec)
        .await
        .unwrap()
        .into_inner();
    // Whoever takes its time finds something more each time.
    let reading = async {
        loop {
            match answers.message().await {
                Ok(_) => sleep(Duration::from_millis(10)).await,
                Err(status) => return status,
            }
        }
    };
    let ended = timeout(Duration::from_secs(20), reading).await;
    assert_out_of_time(&ended.expect("it ends"));
}

#[tokio::test]
async fn a_stream_that_stays_open_outlives_the_default_deadline() {
    let running = stuck().start().await;
    let options = Options {
        default_deadline: Duration::from_millis(200),
        ..quick()
    };
    let channel = channel_to(&running.url(), options);
    for method in ["WatchThings", "StreamLogs"] {
        let mut answers = open(&channel, method).await.unwrap();
        assert_eq!(answers.message().await.unwrap().as_deref(), Some("first"));
        assert!(
            timeout(Duration::from_millis(600), answers.message())
                .await
                .is_err(),
            "{method}"
        );
    }
    // But not one that never begins.
    let running = mute().start().await;
    let options = Options {
        default_deadline: Duration::from_millis(200),
        ..quick()
    };
    let channel = channel_to(&running.url(), options);
    assert_out_of_time(&open(&channel, "WatchThings").await.unwrap_err());
}

#[tokio::test]
async fn a_silent_watch_is_ended_and_a_talking_one_is_not() {
    let running = Peer::new(|_, _| async {
        let talk = stream::unfold(0, |said| async move {
            if said == 5 {
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_millis(150)).await;
            Some((Ok(said.to_string()), said + 1))
        });
        Ok(talk.boxed())
    })
    .start()
    .await;
    let options = Options {
        watch_silence: Duration::from_millis(400),
        ..quick()
    };
    let channel = channel_to(&running.url(), options);
    let mut answers = open(&channel, "WatchThings").await.unwrap();
    for expected in 0..5 {
        assert_eq!(answers.message().await.unwrap(), Some(expected.to_string()));
    }
    let ended = answers.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(
        ended.message().contains("has said nothing for 400ms"),
        "{ended:?}"
    );
}
