mod limits;

use std::net::SocketAddr;
use std::pin::Pin;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_check_response::ServingStatus;
use muster_proto::health::v1::health_client::HealthClient;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::shutdown::Cause;

/// A server on port 0 that runs.
struct Running {
    context: Context,
    client: HealthClient<Channel>,
    address: SocketAddr,
}

async fn start(context: Context) -> Running {
    let listeners = Listeners::loopback().await.unwrap();
    let address = listeners.grpc_address();
    let url = format!("http://{address}");
    let server = Server::new(&context);
    context.tasks.critical("server", server.serve(listeners));
    context.health.until_ready().await;
    let client = HealthClient::connect(url).await.unwrap();
    Running {
        context,
        client,
        address,
    }
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn check_and_list_follow_the_protocol() {
    let Running {
        context,
        mut client,
        ..
    } = start(Context::for_tests("sample")).await;
    for (service, status) in [
        ("", ServingStatus::Serving),
        ("liveness", ServingStatus::Serving),
    ] {
        assert_eq!(
            client
                .check(of(service))
                .await
                .unwrap()
                .into_inner()
                .status(),
            status
        );
    }
    let unknown = client.check(of("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    context.health.maintenance(Some("test"));
    let status = client
        .check(of("readiness"))
        .await
        .unwrap()
        .into_inner()
        .status();
    assert_eq!(status, ServingStatus::NotServing);
    let listed = client
        .list(muster_proto::health::v1::HealthListRequest {})
        .await
        .unwrap();
    let names: Vec<String> = listed.into_inner().statuses.into_keys().collect();
    assert_eq!(names, ["", "liveness", "readiness"]);
}

#[tokio::test]
async fn watch_stays_open_repeats_nothing_and_ends_with_the_server() {
    let Running {
        context,
        mut client,
        ..
    } = start(Context::for_tests("sample")).await;
    let mut ready = client.watch(of("")).await.unwrap().into_inner();
    let mut unknown = client.watch(of("late.Service")).await.unwrap().into_inner();
    assert_eq!(
        ready.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    assert_eq!(
        unknown.message().await.unwrap().unwrap().status(),
        ServingStatus::ServiceUnknown
    );
    context.health.serve("late.Service");
    assert_eq!(
        unknown.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    context.shutdown.begin(Cause::asked("test"));
    for stream in [&mut ready, &mut unknown] {
        assert_eq!(
            stream.message().await.unwrap().unwrap().status(),
            ServingStatus::NotServing
        );
        assert_eq!(
            stream.message().await.unwrap_err().code(),
            Code::Unavailable
        );
    }
    let report = context.shutdown.finished().await;
    assert!(report.is_clean(), "{report:?}");
}

const PATIENCE: Duration = Duration::from_secs(30);

/// What a client begins with: the preface and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn with(settings: Settings) -> Context {
    Context::new("sample", "0.0.0", settings)
}

/// What the server sends until it closes.
async fn all(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut received)).await;
    // A reset is a close as well.
    let _ = read.expect("the server closes");
    received
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_in_time() {
    let settings = Settings {
        handshake_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let running = start(with(settings)).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(all(&mut silent).await, b"");
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(b"PRI * HT").await.unwrap();
    assert_eq!(all(&mut half).await, b"");
}

#[tokio::test]
async fn silent_connections_of_any_kind_do_not_hold_up_the_end() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(50),
        ..Settings::default()
    };
    let running = start(with(settings)).await;
    let mut before_preface = TcpStream::connect(running.address).await.unwrap();
    let mut after_preface = TcpStream::connect(running.address).await.unwrap();
    // What the server says then is never answered.
    after_preface.write_all(HELLO).await.unwrap();
    after_preface.readable().await.unwrap();
    running.context.shutdown.begin(Cause::asked("test"));
    let report = timeout(PATIENCE, running.context.shutdown.finished())
        .await
        .unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(all(&mut before_preface).await, b"");
    all(&mut after_preface).await;
}

/// Whether the server says GOAWAY before it closes.
async fn says_goaway(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    const GOAWAY: u8 = 7;
    loop {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, stream.read_exact(&mut head)).await;
        if read.expect("the server sends or closes").is_err() {
            return false;
        }
        let [a, b, c, kind, ..] = head;
        if kind == GOAWAY {
            return true;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_begins_as_the_server_drains_is_told_so() {
    let running = start(Context::for_tests("sample")).await;
    let mut late = TcpStream::connect(running.address).await.unwrap();
    let (start, rest) = HELLO.split_at(7);
    late.write_all(start).await.unwrap();
    let metrics = &running.context.metrics;
    while !metrics.render().unwrap().contains("muster_connections 2") {
        tokio::task::yield_now().await;
    }
    running.context.shutdown.begin(Cause::asked("test"));
    while TcpStream::connect(running.address).await.is_ok() {}
    late.write_all(rest).await.unwrap();
    assert!(says_goaway(&mut late).await);
    drop(late);
    let report = running.context.shutdown.finished().await;
    assert!(report.is_clean(), "{report:?}");
}

/// One connection that waits to be accepted, and no other.
struct Queued(Option<Accepted>);

impl Accept for Queued {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send + '_>> {
        Box::pin(async {
            match self.0.take() {
                Some(accepted) => Ok(accepted),
                None => std::future::pending().await,
            }
        })
    }
}

#[tokio::test]
async fn who_waits_to_be_accepted_as_the_server_drains_is_told_so() {
    let mut server = Server::new(&Context::for_tests("sample"));
    server.add(reflection::v1(&[]));
    server.add(reflection::v1alpha(&[]));
    let serving = Arc::new(server.assemble(Arc::default()).unwrap());
    let (mut client, io) = tokio::io::duplex(1024);
    client.write_all(HELLO).await.unwrap();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let queued = Queued(Some((Box::new(io), peer)));
    serving.ends.graceful.cancel();
    accept(&serving, Box::new(queued)).await;
    assert!(says_goaway(&mut client).await);
}

#[tokio::test]
async fn an_http1_client_is_told_what_this_is() {
    let running = start(Context::for_tests("sample")).await;
    let mut browser = TcpStream::connect(running.address).await.unwrap();
    browser
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = String::from_utf8(all(&mut browser).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    assert!(body.contains("gRPC"), "{answer}");
    let mut noise = TcpStream::connect(running.address).await.unwrap();
    noise.write_all(b"\0\0\0\0").await.unwrap();
    assert_eq!(all(&mut noise).await, b"");
    let metrics = running.context.metrics.render().unwrap();
    assert!(
        metrics.contains("muster_connections_failed_total 2"),
        "{metrics}"
    );
    assert!(metrics.contains("muster_connections 1"), "{metrics}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_leave_room_again() {
    let Running {
        mut client,
        address,
        ..
    } = start(with(Settings {
        max_connections: 2,
        ..Settings::default()
    }))
    .await;
    let second = TcpStream::connect(address).await.unwrap();
    client.check(of("")).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    assert_eq!(all(&mut third).await, b"");
    client.check(of("")).await.unwrap();
    drop(second);
    let freed = async {
        while HealthClient::connect(format!("http://{address}"))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn a_lame_duck_still_serves_new_connections() {
    let settings = Settings {
        lame_duck: Duration::from_millis(300),
        ..Settings::default()
    };
    let running = start(with(settings)).await;
    running.context.shutdown.begin(Cause::asked("test"));
    running.context.shutdown.reached(Phase::LameDuck).await;
    let mut late = HealthClient::connect(format!("http://{}", running.address))
        .await
        .unwrap();
    let status = late.check(of("")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    running.context.shutdown.finished().await;
    TcpStream::connect(running.address).await.unwrap_err();
}

#[tokio::test]
async fn components_in_one_process_end_each_by_itself() {
    let one = start(Context::for_tests("one")).await;
    let mut two = start(Context::for_tests("two")).await;
    one.context.shutdown.begin(Cause::asked("test"));
    assert!(one.context.shutdown.finished().await.is_clean());
    let status = two
        .client
        .check(of(""))
        .await
        .unwrap()
        .into_inner()
        .status();
    assert_eq!(status, ServingStatus::Serving);
    assert!(!two.context.shutdown.is_begun());
    let names = one.context.metrics.render().unwrap();
    assert!(names.contains("component=\"one\"") && !names.contains("component=\"two\""));
}

#[tokio::test]
async fn ended_now_it_cuts_everything_and_returns() {
    let running = start(Context::for_tests("sample")).await;
    let mut open = TcpStream::connect(running.address).await.unwrap();
    running.context.shutdown.now(Cause::asked("test"));
    timeout(PATIENCE, running.context.shutdown.finished())
        .await
        .unwrap();
    all(&mut open).await;
    let gone = async { while TcpStream::connect(running.address).await.is_ok() {} };
    timeout(PATIENCE, gone).await.expect("the port is closed");
}

/// The services that a server names to a client of one version of reflection.
macro_rules! reflected {
    ($version:ident, $address:expr) => {{
        use tonic_reflection::pb::$version as pb;
        let url = format!("http://{}", $address);
        let channel = Channel::from_shared(url).unwrap().connect_lazy();
        let mut client = pb::server_reflection_client::ServerReflectionClient::new(channel);
        let list = pb::server_reflection_request::MessageRequest::ListServices(String::new());
        let ask = pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(list),
        };
        let asked = futures_util::stream::iter([ask]);
        let mut answers = client
            .server_reflection_info(asked)
            .await
            .unwrap()
            .into_inner();
        let answer = answers.message().await.unwrap().unwrap();
        let Some(pb::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
            answer.message_response
        else {
            panic!("{answer:?}");
        };
        let mut names: Vec<_> = list.service.into_iter().map(|one| one.name).collect();
        names.sort();
        names
    }};
}

#[tokio::test]
async fn reflection_tells_of_the_services_that_are_served_in_both_versions() {
    let running = start(Context::for_tests("sample")).await;
    for _ in 0..2 {
        assert_eq!(reflected!(v1, running.address), [HEALTH]);
        assert_eq!(reflected!(v1alpha, running.address), [HEALTH]);
    }
}

#[tokio::test]
async fn reflection_does_not_repeat_what_is_longer_than_a_name() {
    use tonic_reflection::pb::v1 as pb;
    let running = start(Context::for_tests("sample")).await;
    let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap();
    let mut client =
        pb::server_reflection_client::ServerReflectionClient::new(channel.connect_lazy());
    let mut told = async |name: String| {
        let symbol = pb::server_reflection_request::MessageRequest::FileContainingSymbol(name);
        let ask = pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(symbol),
        };
        let asked = futures_util::stream::iter([ask]);
        let answers = client.server_reflection_info(asked).await.unwrap();
        let ended = answers.into_inner().message().await;
        ended.map_err(|status| status.message().to_owned())
    };
    let unknown = told("nothing".to_owned()).await.unwrap_err();
    assert!(unknown.contains("nothing"), "{unknown}");
    let ended = told("x".repeat(5000)).await;
    assert!(
        ended.as_ref().map_or_else(String::len, |_| 0) < 1000,
        "{ended:?}"
    );
}

#[test]
fn no_method_of_the_contract_is_asked_by_more_than_one_message() {
    use prost::Message as _;
    let files = prost_types::FileDescriptorSet::decode(muster_proto::DESCRIPTORS).unwrap();
    let services = files.file.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    let asked_by_more: Vec<_> = methods.filter(|one| one.client_streaming()).collect();
    assert!(asked_by_more.is_empty(), "{asked_by_more:?}");
}
