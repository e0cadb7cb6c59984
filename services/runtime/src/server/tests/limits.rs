//! The age of connections, and how much one of them may hold.

use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::{GetStatusRequest, SetMaintenanceRequest, StreamBackupRequest};

use super::*;
use crate::connect::{Connector, Options};
use crate::layers::shed::Lane;
use crate::layers::tests::Running;
use crate::status::Details;
use crate::tls;
use crate::tls::tests::Authority;

fn aging(grace: Duration) -> Settings {
    Settings {
        max_connection_age: Some(Duration::from_millis(20)),
        connection_grace: grace,
        ..Settings::default()
    }
}

/// How many connections were too old so far.
fn aged(context: &Context) -> u64 {
    value(context, "muster_connections_aged_total ")
}

/// The value of the metric `name`, which ends with a space.
fn value(context: &Context, name: &str) -> u64 {
    let text = context.metrics.render().unwrap();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn connections_that_are_too_old_go_and_lose_no_call() {
    let running = Running::start_lazily(aging(PATIENCE)).await;
    let channel = Connector::new(Options::default()).channel(&running.url.parse().unwrap());
    let calls = async {
        while aged(&running.context) < 5 {
            let mut client = OpsServiceClient::new(channel.clone());
            client.get_status(GetStatusRequest {}).await.unwrap();
        }
    };
    timeout(PATIENCE, calls).await.unwrap();
}

#[tokio::test]
async fn a_call_in_flight_has_its_own_time_on_a_connection_that_is_too_old() {
    let settings = Settings {
        default_deadline: Duration::from_millis(200),
        ..aging(PATIENCE)
    };
    let mut running = Running::start(settings).await;
    let hanging = SetMaintenanceRequest {
        on: true,
        reason: "hang".to_owned(),
    };
    let status = running.client.set_maintenance(hanging).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(aged(&running.context) > 0);
}

#[tokio::test]
async fn a_stream_on_a_connection_that_is_too_old_ends_with_a_status_and_the_rest_is_cut() {
    let mut running = Running::start(aging(Duration::from_millis(20))).await;
    let mut client = running.client.clone();
    let answer = client.stream_backup(StreamBackupRequest {}).await;
    let mut stream = answer.unwrap().into_inner();
    let hanging = SetMaintenanceRequest {
        on: true,
        reason: "hang".to_owned(),
    };
    let streaming = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let both = async { tokio::join!(streaming, running.client.set_maintenance(hanging)) };
    let (ended, cut) = timeout(PATIENCE, both).await.unwrap();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert!(Details::of(&ended).retry_delay.is_some());
    cut.unwrap_err();
    let load = &running.context.load;
    let gone = async {
        while load.in_flight(Lane::Shared) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn calls_beyond_the_streams_of_a_connection_wait_for_one_to_end() {
    let settings = Settings {
        max_streams_per_connection: 1,
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut other = running.client.clone();
    let open = other.stream_backup(StreamBackupRequest {}).await.unwrap();
    let mut waiting = std::pin::pin!(running.client.get_status(GetStatusRequest {}));
    timeout(Duration::from_millis(100), waiting.as_mut())
        .await
        .expect_err("the only stream is taken");
    assert_eq!(running.context.load.in_flight(Lane::Shared), 1);
    drop(open);
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
}

fn secure() -> (Authority, Settings) {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("server", &["localhost"]);
    let tls = tls::Server::load(tls::Mode::Required, certificate, key, None).unwrap();
    let settings = Settings {
        tls: Some(tls),
        handshake_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    (authority, settings)
}

#[tokio::test]
async fn a_tls_handshake_that_stops_in_the_middle_is_closed_in_time() {
    let (_authority, settings) = secure();
    let running = Running::start_lazily(settings).await;
    let address = running.url.strip_prefix("http://").unwrap().to_owned();
    for sent in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        assert_eq!(all(&mut stream).await, b"", "{sent:?}");
    }
}

#[tokio::test]
async fn the_health_of_a_server_that_sheds_everything_is_answered_all_the_time() {
    let settings = Settings {
        max_in_flight: 4,
        ..Settings::default()
    };
    let running = Running::start(settings).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = running.client.clone();
        open.push(client.stream_backup(StreamBackupRequest {}).await.unwrap());
    }
    // Five times as many calls as there is room for, of which not one gets in.
    let calls = (0..20).map(|_| {
        let mut client = running.client.clone();
        async move { client.get_status(GetStatusRequest {}).await }
    });
    let mut health = HealthClient::connect(running.url.clone()).await.unwrap();
    let (refused, healthy) = tokio::join!(futures_util::future::join_all(calls), async {
        for _ in 0..20 {
            health.check(of("readiness")).await.unwrap();
        }
    });
    let () = healthy;
    for answer in refused {
        assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(running.context.load.refused(Lane::Shared), 20);
    assert_eq!(running.context.load.in_flight(Lane::Shared), 4);
}

#[tokio::test]
async fn many_calls_given_up_at_once_cost_the_others_on_their_connection_nothing() {
    let running = start(Context::for_tests("sample")).await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = task::spawn(connection);
    let request = || {
        let builder = http::Request::post("http://x/grpc.health.v1.Health/Check");
        let builder = builder.header("content-type", "application/grpc");
        builder.header("te", "trailers").body(()).unwrap()
    };
    // All before the connection gets to write any.
    for _ in 0..200 {
        let (_, mut given_up) = sender.send_request(request(), false).unwrap();
        given_up.send_reset(h2::Reason::CANCEL);
    }
    let (answer, mut body) = sender.send_request(request(), false).unwrap();
    body.send_data(bytes::Bytes::from_static(&[0; 5]), true)
        .unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    driving.abort();
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_let_go() {
    let settings = Settings {
        keepalive_interval: Duration::from_millis(20),
        keepalive_timeout: Duration::from_millis(20),
        ..Settings::default()
    };
    let running = start(with(settings)).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    silent.write_all(begin).await.unwrap();
    all(&mut silent).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let mut running = Running::start(Settings::default()).await;
    let request = SetMaintenanceRequest {
        on: true,
        reason: "x".repeat(5 << 20),
    };
    let status = running.client.set_maintenance(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(Details::of(&status).reason, "TOO_LARGE");
    running
        .client
        .get_status(GetStatusRequest {})
        .await
        .unwrap();
}

#[tokio::test]
async fn refusing_thousands_of_calls_costs_nobody_their_connection() {
    let settings = Settings {
        max_in_flight: 0,
        ..Settings::default()
    };
    let running = Running::start(settings).await;
    for _ in 0..3 {
        let calls = (0..2_000).map(|_| {
            let mut client = running.client.clone();
            async move { client.get_status(GetStatusRequest {}).await }
        });
        for answer in futures_util::future::join_all(calls).await {
            let status = answer.unwrap_err();
            assert_eq!(Details::of(&status).reason, "OVERLOADED", "{status}");
        }
    }
    assert_eq!(running.context.load.refused(Lane::Shared), 6_000);
    assert_eq!(value(&running.context, "muster_connections "), 1);
}

/// A client of the server at `address` that may open as many streams as a connection has.
async fn raw(address: &str) -> h2::client::SendRequest<bytes::Bytes> {
    raw_with(address, &mut h2::client::Builder::new()).await
}

async fn raw_with(
    address: &str,
    builder: &mut h2::client::Builder,
) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    builder.initial_max_send_streams(Settings::default().max_streams_per_connection as usize);
    // Answers may all lie there before the first is looked at.
    builder.data_frame_budget(1 << 30);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    task::spawn(connection);
    sender
}

fn status_request() -> http::Request<()> {
    let builder = http::Request::post("http://x/muster.ops.v1.OpsService/GetStatus");
    let builder = builder.header("content-type", "application/grpc");
    builder.header("te", "trailers").body(()).unwrap()
}

/// What a page in a browser can have its browser send to any address, without asking there first, is no gRPC.
#[tokio::test]
async fn what_is_not_said_to_be_grpc_is_not_taken() {
    let running = Running::start_lazily(Settings::default()).await;
    let mut sender = raw(running.url.strip_prefix("http://").unwrap()).await;
    for (kind, status) in [
        (Some("application/grpc"), 200),
        (Some("application/grpc+proto"), 200),
        (Some("application/grpc;charset=utf-8"), 200),
        (Some("application/grpc-web"), 415),
        (Some("text/plain"), 415),
        (None, 415),
    ] {
        for method in [
            "muster.ops.v1.OpsService/GetStatus",
            "grpc.health.v1.Health/Check",
        ] {
            let mut request = http::Request::post(format!("http://x/{method}"));
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let request = request.body(()).unwrap();
            let (answer, mut body) = sender.send_request(request, false).unwrap();
            let message = bytes::Bytes::from_static(&[0; 5]);
            body.send_data(message, true).unwrap();
            let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
            assert_eq!(answer.status(), status, "{kind:?} {method}");
        }
    }
}

#[tokio::test]
async fn all_the_calls_that_a_connection_may_have_can_come_at_once() {
    let running = Running::start_lazily(Settings::default()).await;
    let mut sender = raw(running.url.strip_prefix("http://").unwrap()).await;
    // All before the connection gets to write any.
    let answers: Vec<_> = (0..Settings::default().max_streams_per_connection)
        .map(|_| {
            let (answer, mut body) = sender.send_request(status_request(), false).unwrap();
            let message = bytes::Bytes::from_static(&[0; 5]);
            body.send_data(message, false).unwrap();
            body.send_data(bytes::Bytes::new(), true).unwrap();
            answer
        })
        .collect();
    for answer in answers {
        let answer = timeout(PATIENCE, answer).await.unwrap();
        assert_eq!(answer.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_call_that_was_refused_and_never_ends_is_reset_without_an_error() {
    let settings = Settings {
        max_in_flight: 0,
        keepalive_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let running = Running::start_lazily(settings).await;
    let mut sender = raw(running.url.strip_prefix("http://").unwrap()).await;
    for _ in 0..2 {
        let (answer, mut body) = sender.send_request(status_request(), false).unwrap();
        body.send_data(bytes::Bytes::from_static(&[0; 5]), false)
            .unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14");
        let reset = std::future::poll_fn(|context| body.poll_reset(context));
        let reason = timeout(PATIENCE, reset).await.unwrap().unwrap();
        assert_eq!(reason, h2::Reason::NO_ERROR);
    }
}

#[tokio::test]
async fn a_call_whose_caller_takes_nothing_of_its_answer_ends_with_its_deadline() {
    let settings = Settings {
        default_deadline: Duration::from_millis(100),
        ..Settings::default()
    };
    let running = Running::start_lazily(settings).await;
    let address = running.url.strip_prefix("http://").unwrap();
    let mut sender = raw_with(address, h2::client::Builder::new().initial_window_size(0)).await;
    let mut answer = loop {
        let (answer, mut body) = sender.send_request(status_request(), false).unwrap();
        let message = bytes::Bytes::from_static(&[0; 5]);
        body.send_data(message, true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        // Else its time was over before it was answered.
        if !answer.body().is_end_stream() {
            break answer.into_body();
        }
    };
    let reset = timeout(PATIENCE, answer.data()).await.unwrap();
    assert_eq!(
        reset.unwrap().unwrap_err().reason(),
        Some(h2::Reason::CANCEL)
    );
    assert_eq!(running.context.load.in_flight(Lane::Shared), 0);
}

#[tokio::test]
async fn requests_that_never_end_take_no_more_memory_than_they_have_together() {
    let settings = Settings {
        max_incoming: 64 << 10,
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut sender = raw(running.url.strip_prefix("http://").unwrap()).await;
    // The beginning of a message of 100,000 bytes.
    let mut half = vec![0; 50_000];
    half[..5].copy_from_slice(&[0, 0, 1, 0x86, 0xa0]);
    let half = bytes::Bytes::from(half);
    let request = SetMaintenanceRequest {
        on: true,
        reason: "x".repeat(50_000),
    };
    let mut unfinished = Vec::new();
    // One of them has come so far before the whole one some time.
    let refused = async {
        loop {
            let (answer, mut body) = sender.send_request(status_request(), false).unwrap();
            body.send_data(half.clone(), false).unwrap();
            unfinished.push((answer, body));
            if let Err(status) = running.client.set_maintenance(request.clone()).await {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(Details::of(&status).reason, "OVERLOADED");
    let mut client = running.client.clone();
    client.get_status(GetStatusRequest {}).await.unwrap();
    drop(unfinished);
    let taken = async {
        while running
            .client
            .set_maintenance(request.clone())
            .await
            .is_err()
        {}
    };
    timeout(PATIENCE, taken).await.unwrap();
}
