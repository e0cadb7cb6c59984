use http_body_util::{BodyExt as _, Full, StreamBody};
use muster_proto::health::v1::HealthCheckRequest;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::*;
use crate::clock::Clock;
use crate::health::Health;
use crate::health::service::HealthService;
use crate::shutdown::Shutdown;
use crate::status::Details;

/// Something that answers the health protocol.
struct Served {
    health: Health,
    shutdown: Shutdown,
}

impl Served {
    fn new() -> Self {
        let clock = Clock::starting_at(std::time::SystemTime::UNIX_EPOCH);
        Self {
            health: Health::new(clock),
            shutdown: Shutdown::new(),
        }
    }

    fn calls_that_wait(&self) -> usize {
        self.health.0.waiting.load(Ordering::Relaxed)
    }

    fn call(&self, method: &str, body: Body) -> BoxFuture<Response<Body>, Infallible> {
        let request = Request::post(format!("http://x/grpc.health.v1.Health/{method}"));
        let request = request.body(body).unwrap();
        HealthService::server(&self.health, &self.shutdown).call(request)
    }

    async fn code(&self, method: &str, service: &str) -> (Code, String) {
        let Ok(response) = self.call(method, asking(service)).await;
        let status = Status::from_header_map(response.headers());
        let status = status.unwrap_or_else(|| Status::ok(""));
        (status.code(), status.message().to_owned())
    }

    /// A call whose request never comes, once it waits for it.
    async fn waiting(&self) -> BoxFuture<Response<Body>, Infallible> {
        let mut call = self.call("Check", unfinished());
        let polled = futures_util::poll!(&mut call);
        assert!(polled.is_pending());
        call
    }
}

/// A request for `service`, whole.
fn asking(service: &str) -> Body {
    let service = service.to_owned();
    let message = HealthCheckRequest { service }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    Body::new(Full::new(bytes::Bytes::from(framed)))
}

fn unfinished() -> Body {
    let start = Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from_static(&[0; 3])));
    let never = futures_util::stream::pending();
    let frames = futures_util::stream::iter([start]);
    Body::new(StreamBody::new(futures_util::StreamExt::chain(
        frames, never,
    )))
}

/// What the call ends with, which it does before long.
async fn status(call: BoxFuture<Response<Body>, Infallible>) -> Status {
    let Ok(response) = tokio::time::timeout(WITHIN * 2, call).await.unwrap();
    Status::from_header_map(response.headers()).unwrap()
}

#[tokio::test]
async fn a_request_is_a_name_and_a_refusal_is_short() {
    let served = Served::new();
    assert_eq!(served.code("Check", "liveness").await.0, Code::Ok);
    let (code, message) = served.code("Check", "nobody").await;
    assert_eq!(code, Code::NotFound);
    assert_eq!(message, "unknown service \"nobody\"");
    let (code, message) = served.code("Check", &"\u{1}".repeat(1000)).await;
    assert_eq!(code, Code::NotFound);
    assert!(message.len() <= 640, "{message}");
    for method in ["Check", "Watch", "List"] {
        let (code, message) = served.code(method, &"x".repeat(1100)).await;
        assert_eq!(code, Code::OutOfRange, "{method}");
        assert!(message.len() <= 640, "{message}");
    }
}

#[test]
fn nothing_is_kept_of_a_request_that_its_caller_may_make_large() {
    let long = "x".repeat(10_000);
    let uri = format!("http://x/grpc.health.v1.Health/Watch?{long}");
    let request = Request::post(uri)
        .header("x-long", &long)
        .header(ENCODING, &long);
    let stripped = stripped(request.body(Body::empty()).unwrap());
    assert_eq!(stripped.uri(), "/grpc.health.v1.Health/Watch");
    assert_eq!(stripped.headers().len(), 1);
    assert_eq!(stripped.headers()[ENCODING], long[..LONGEST_ENCODING]);
    let other = Request::post(format!("/grpc.health.v1.Health/{long}"));
    let uri = super::stripped(other.body(Body::empty()).unwrap())
        .uri()
        .clone();
    assert_eq!(uri, "/grpc.health.v1.Health/");
}

#[tokio::test(start_paused = true)]
async fn a_request_comes_in_time_or_its_call_ends() {
    let served = Served::new();
    for method in ["Check", "Watch", "List"] {
        let begun = Instant::now();
        let late = status(served.call(method, unfinished())).await;
        assert_eq!(late.code(), Code::DeadlineExceeded, "{method}");
        assert_eq!(begun.elapsed().as_secs(), WITHIN.as_secs());
    }
    assert_eq!(served.calls_that_wait(), 0);
    // What is open is not bounded: only its request is.
    let Ok(open) = served.call("Watch", asking("nobody")).await;
    let mut answers = open.into_body();
    answers.frame().await.unwrap().unwrap();
    let more = tokio::time::timeout(WITHIN * 100, answers.frame()).await;
    more.expect_err("it has changed nothing and ended nothing");
}

#[tokio::test(start_paused = true)]
async fn probes_are_answered_however_many_calls_wait() {
    let served = Served::new();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(served.waiting().await);
    }
    let begun = Instant::now();
    let late = status(served.call("Check", unfinished())).await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < WITHIN);
    for _ in CROWD..MOST {
        crowd.push(served.waiting().await);
    }
    let refused = status(served.call("Check", unfinished())).await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(Details::of(&refused).retry_delay.is_some());
    assert_eq!(served.code("Check", "liveness").await.0, Code::Ok);
    drop(crowd);
    assert_eq!(served.calls_that_wait(), 0);
}
