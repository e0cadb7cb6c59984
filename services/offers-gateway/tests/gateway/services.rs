//! Backends behind `muster.backend.v1`: right, hostile, endless, silent, broken off.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, future};
use muster_proto::backend::v1 as wire;
use muster_proto::backend::v1::backend_service_server::{BackendService, BackendServiceServer};
use muster_proto::offers::v1 as pb;
use muster_proto::types::v1 as types;
use offers_gateway::spec::{Kind, Service, Spec};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::support::{Running, catalog, config, ids, start};

/// What a scripted backend does when it is asked for offers.
#[derive(Clone)]
pub(crate) enum Play {
    Sends(Vec<wire::FetchOffersResponse>),
    /// Sends these and then fails.
    BreaksOff(Vec<wire::FetchOffersResponse>),
    /// Sends the same message again and again.
    NeverEnds(wire::FetchOffersResponse),
    /// Never answers.
    Silent,
    /// Answers with this.
    Refuses(Status),
}

#[derive(Clone)]
pub(crate) struct Scripted {
    described: Arc<Mutex<wire::DescribeBackendResponse>>,
    play: Arc<Mutex<Play>>,
    etags: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl BackendService for Scripted {
    type FetchOffersStream = BoxStream<'static, Result<wire::FetchOffersResponse, Status>>;

    async fn describe_backend(
        &self,
        _: Request<wire::DescribeBackendRequest>,
    ) -> Result<Response<wire::DescribeBackendResponse>, Status> {
        Ok(Response::new(self.described.lock().unwrap().clone()))
    }

    async fn fetch_offers(
        &self,
        request: Request<wire::FetchOffersRequest>,
    ) -> Result<Response<Self::FetchOffersStream>, Status> {
        self.etags.lock().unwrap().push(request.into_inner().etag);
        let play = self.play.lock().unwrap().clone();
        let stream = match play {
            Play::Sends(messages) => stream::iter(messages).map(Ok).boxed(),
            Play::BreaksOff(messages) => {
                let fault = stream::iter([Err(Status::internal("disk full"))]);
                stream::iter(messages).map(Ok).chain(fault).boxed()
            }
            Play::NeverEnds(message) => stream::repeat(message).map(Ok).boxed(),
            Play::Silent => future::pending().await,
            Play::Refuses(status) => return Err(status),
        };
        Ok(Response::new(stream))
    }
}

impl Scripted {
    pub(crate) async fn serve(
        described: wire::DescribeBackendResponse,
        play: Play,
    ) -> (Self, SocketAddr) {
        let scripted = Self {
            described: Arc::new(Mutex::new(described)),
            play: Arc::new(Mutex::new(play)),
            etags: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tonic::transport::Server::builder()
            .add_service(BackendServiceServer::new(scripted.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        crate::support::in_background(served);
        (scripted, address)
    }

    fn plays(&self, play: Play) {
        *self.play.lock().unwrap() = play;
    }
}

/// What a busy machine may take for the largest of answers.
const LARGEST: Duration = Duration::from_secs(30);

fn backend(address: SocketAddr) -> Spec {
    let endpoints = format!("http://{address}").parse().unwrap();
    let mut spec = Spec::new(
        "own",
        Kind::Service(Service {
            endpoints,
            key: None,
        }),
    );
    // What fails is soon given up.
    spec.times.refresh_timeout = Duration::from_secs(4);
    spec
}

pub(crate) fn offer(instance_type: &str, dollars: i64) -> wire::BackendOffer {
    wire::BackendOffer {
        region: "eu".to_owned(),
        instance_type: instance_type.to_owned(),
        price: Some(types::Price {
            micro_usd_per_hour: dollars * 1_000_000,
        }),
        availability: types::Availability::Available.into(),
        ..Default::default()
    }
}

pub(crate) fn message(offers: Vec<wire::BackendOffer>, etag: &str) -> wire::FetchOffersResponse {
    wire::FetchOffersResponse {
        offers,
        etag: etag.to_owned(),
        not_modified: false,
    }
}

async fn gateway(folder: &tempfile::TempDir, address: SocketAddr) -> Running {
    start(config(vec![
        backend(address),
        catalog(folder.path(), "list", "x,,,2,4,7,,eu\n"),
    ]))
    .await
}

async fn refresh(gateway: &Running) -> Result<pb::Backend, Status> {
    let mut request = Request::new(pb::RefreshBackendRequest {
        name: "own".to_owned(),
        force: true,
    });
    request.set_timeout(LARGEST);
    let answer = gateway.client.clone().refresh_backend(request).await?;
    Ok(answer.into_inner().backend.unwrap())
}

/// A backend that sends offers of which some make no sense.
async fn hostile() -> (Scripted, SocketAddr) {
    let odd = |spoil: fn(&mut wire::BackendOffer)| {
        let mut odd = offer("odd", 1);
        spoil(&mut odd);
        odd
    };
    let first = vec![
        offer("a", 3),
        odd(|offer| offer.capacity_type = 9),
        odd(|offer| offer.cpu_milli = Some(-1)),
        odd(|offer| offer.instance_type = "x".repeat(100_000)),
    ];
    let second = vec![offer("b", 2), offer("a", 3), offer("a", 4)];
    let described = wire::DescribeBackendResponse {
        live_capacity: true,
        ..Default::default()
    };
    let messages = vec![
        message(first, "one"),
        message(second, "two"),
        message(vec![], ""),
    ];
    Scripted::serve(described, Play::Sends(messages)).await
}

#[tokio::test]
async fn its_offers_are_taken_and_those_that_make_no_sense_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (scripted, address) = hostile().await;
    let gateway = gateway(&folder, address).await;
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(
        ids(&answer.offers),
        [
            "own/eu/b/ondemand",
            "own/eu/a/ondemand",
            "list/eu/x/ondemand"
        ]
    );
    assert_eq!(
        answer.offers[0].availability(),
        types::Availability::Available
    );
    let not_modified = wire::FetchOffersResponse {
        not_modified: true,
        ..Default::default()
    };
    scripted.plays(Play::Sends(vec![not_modified.clone()]));
    let backend = refresh(&gateway).await.unwrap();
    assert_eq!(scripted.etags.lock().unwrap().last().unwrap(), "two");
    assert_eq!(
        (
            backend.rows_read,
            backend.rows_skipped,
            backend.rows_repeated,
            backend.offers_total
        ),
        (7, 4, 1, 2)
    );
    let reasons: Vec<_> = backend
        .skipped
        .iter()
        .map(|rows| (rows.reason.as_str(), rows.example.as_str()))
        .collect();
    assert!(
        reasons.contains(&("an unknown capacity_type", "offer 2")),
        "{reasons:?}"
    );
    scripted.plays(Play::Sends(vec![
        message(vec![offer("c", 1)], ""),
        not_modified,
    ]));
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(fault.message().contains("not_modified"), "{fault:?}");
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(answer.total_size, 3, "what it told before stands");
    gateway.stop().await;
}

#[tokio::test]
async fn without_live_capacity_nothing_is_available() {
    let folder = tempfile::tempdir().unwrap();
    let play = Play::Sends(vec![message(vec![offer("a", 3)], "")]);
    let (_scripted, address) = Scripted::serve(Default::default(), play).await;
    let gateway = gateway(&folder, address).await;
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(
        answer.offers[0].availability(),
        types::Availability::Unknown
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let good = vec![message(vec![offer("a", 3)], "")];
    let (scripted, address) = Scripted::serve(Default::default(), Play::Sends(good.clone())).await;
    let gateway = gateway(&folder, address).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    let half = vec![message(vec![offer("b", 1)], "")];
    scripted.plays(Play::BreaksOff(half));
    let fault = refresh(&gateway).await.unwrap_err();
    assert_eq!(fault.code(), Code::Unavailable);
    assert!(fault.message().contains("disk full"), "{fault:?}");
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(
        ids(&answer.offers),
        ["own/eu/a/ondemand", "list/eu/x/ondemand"]
    );
    assert_eq!(answer.backends[1].refresh(), pb::BackendRefresh::Failed);
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_that_never_ends_changes_nothing() {
    let good = Play::Sends(vec![message(vec![offer("a", 3)], "")]);
    let (scripted, address) = Scripted::serve(Default::default(), good).await;
    let mut own = backend(address);
    own.times.refresh_timeout = LARGEST;
    let gateway = start(config(vec![own])).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    scripted.plays(Play::NeverEnds(message(vec![], "")));
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(
        fault.message().contains("more than 100000 messages"),
        "{fault:?}"
    );
    let mut large = offer("large", 1);
    large.raw = (0..50)
        .map(|key| (key.to_string(), "x".repeat(50_000)))
        .collect();
    scripted.plays(Play::NeverEnds(message(vec![large], "")));
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(fault.message().contains("bytes"), "{fault:?}");
    refresh(&gateway).await.unwrap_err();
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(ids(&answer.offers), ["own/eu/a/ondemand"]);
    assert_eq!(
        answer.backends[0].refresh(),
        pb::BackendRefresh::BreakerOpen,
        "after three failures"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_silent_one_costs_nothing_but_its_own_offers() {
    let folder = tempfile::tempdir().unwrap();
    let (_scripted, address) = Scripted::serve(Default::default(), Play::Silent).await;
    let gateway = gateway(&folder, address).await;
    let of_list = pb::OfferFilter {
        backends: vec!["list".to_owned()],
        ..Default::default()
    };
    let request = pb::ListOffersRequest {
        filter: Some(of_list),
        ..Default::default()
    };
    assert_eq!(gateway.list(request).await.total_size, 1);
    let request = pb::ListOffersRequest {
        backend_timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..Default::default()
    };
    let answer = gateway.list(request).await;
    assert_eq!(ids(&answer.offers), ["list/eu/x/ondemand"]);
    let report = &answer.backends[1];
    assert_eq!(
        (report.data(), report.refresh()),
        (pb::BackendData::None, pb::BackendRefresh::TimedOut)
    );
    let text = gateway.context.metrics.render().unwrap();
    assert!(
        text.contains("muster_backend_left_out_total{backend=\"own\",reason=\"timed_out\"} 1"),
        "{text}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn it_is_asked_no_more_often_than_it_wants() {
    let folder = tempfile::tempdir().unwrap();
    let described = wire::DescribeBackendResponse {
        min_refresh_interval: Some(prost_types::Duration {
            seconds: 7200,
            nanos: 0,
        }),
        ..Default::default()
    };
    let play = Play::Sends(vec![message(vec![offer("a", 3)], "")]);
    let (scripted, address) = Scripted::serve(described, play).await;
    let gateway = gateway(&folder, address).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(fault.message().contains("every 2h at most"), "{fault:?}");
    let request = pb::ListOffersRequest {
        max_age: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let answer = gateway.list(request).await;
    assert_eq!(answer.total_size, 2);
    assert_eq!(answer.backends[1].data(), pb::BackendData::Cached);
    assert_eq!(scripted.etags.lock().unwrap().len(), 1, "asked once");
    gateway.stop().await;
}

#[tokio::test]
async fn offers_are_read_anew_once_their_server_describes_itself_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let described = wire::DescribeBackendResponse {
        live_capacity: true,
        ..Default::default()
    };
    let good = Play::Sends(vec![message(vec![offer("a", 3)], "one")]);
    let (scripted, address) = Scripted::serve(described, good.clone()).await;
    let gateway = gateway(&folder, address).await;
    let availability = async || {
        let answer = gateway.list(pb::ListOffersRequest::default()).await;
        answer.offers[0].availability()
    };
    assert_eq!(availability().await, types::Availability::Available);
    // Another one serves there from now on, after one fetch that went wrong.
    scripted.described.lock().unwrap().live_capacity = false;
    scripted.plays(Play::BreaksOff(Vec::new()));
    refresh(&gateway).await.unwrap_err();
    scripted.plays(good);
    let backend = refresh(&gateway).await.unwrap();
    assert!(!backend.live_capacity);
    assert_eq!(availability().await, types::Availability::Unknown);
    let last = scripted.etags.lock().unwrap().last().cloned();
    assert_eq!(last, Some(String::new()));
    gateway.stop().await;
}

#[tokio::test]
async fn a_server_of_something_else_is_told_from_one_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let other = start(config(vec![catalog(
        folder.path(),
        "list",
        "x,,,2,4,7,,eu\n",
    )]))
    .await;
    let gateway_address = *other.context.bound.get().unwrap();
    let gateway = gateway(&folder, gateway_address).await;
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(fault.message().contains("something else"), "{fault:?}");
    gateway.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_is_late_for_a_max_age_is_served_as_it_was_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let good = Play::Sends(vec![message(vec![offer("a", 3)], "")]);
    let (scripted, address) = Scripted::serve(Default::default(), good).await;
    let gateway = gateway(&folder, address).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    scripted.plays(Play::Silent);
    let request = pb::ListOffersRequest {
        max_age: Some(prost_types::Duration::default()),
        backend_timeout: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..Default::default()
    };
    let answer = gateway.list(request.clone()).await;
    assert_eq!(
        ids(&answer.offers),
        ["own/eu/a/ondemand", "list/eu/x/ondemand"]
    );
    let [list, own] = &answer.backends[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (list.data(), list.refresh()),
        (pb::BackendData::Fresh, pb::BackendRefresh::Ok)
    );
    assert_eq!(
        (own.data(), own.refresh()),
        (pb::BackendData::Cached, pb::BackendRefresh::TimedOut)
    );
    // The caller's own deadline comes before the backend's time, less what the answer takes.
    let mut hurried = Request::new(pb::ListOffersRequest {
        backend_timeout: None,
        ..request
    });
    hurried.set_timeout(Duration::from_secs(2));
    let answer = gateway.client.clone().list_offers(hurried).await;
    assert_eq!(answer.unwrap().into_inner().offers.len(), 2);
    gateway.stop().await;
}

/// RESOURCE_EXHAUSTED that asks to be left alone for so many seconds.
fn asks_for_quiet(seconds: i64) -> Status {
    let delay = prost_types::Duration { seconds, nanos: 0 };
    let any = |name: &str, value| prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value,
    };
    let info = any("RetryInfo", inside(1, &delay));
    // Its code and message stand beside it.
    Status::with_details(Code::ResourceExhausted, "too much", inside(3, &info).into())
}

/// A message that has another one for a field.
fn inside(field: u32, message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(
        field,
        prost::encoding::WireType::LengthDelimited,
        &mut bytes,
    );
    bytes.extend(message.encode_length_delimited_to_vec());
    bytes
}

#[tokio::test]
async fn one_that_asks_to_be_left_alone_for_ever_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let refuses = Play::Refuses(asks_for_quiet(i64::MAX));
    let (scripted, address) = Scripted::serve(Default::default(), refuses).await;
    let gateway = gateway(&folder, address).await;
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(fault.message().contains("too much"), "{fault:?}");
    scripted.plays(Play::Sends(vec![message(vec![offer("a", 3)], "")]));
    assert_eq!(refresh(&gateway).await.unwrap().offers_total, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_server_that_was_replaced_between_two_fetches_is_read_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let described = wire::DescribeBackendResponse {
        live_capacity: true,
        ..Default::default()
    };
    let good = Play::Sends(vec![message(vec![offer("a", 3)], "one")]);
    let (scripted, address) = Scripted::serve(described, good).await;
    let gateway = gateway(&folder, address).await;
    let availability = async || {
        let answer = gateway.list(pb::ListOffersRequest::default()).await;
        answer.offers[0].availability()
    };
    assert_eq!(availability().await, types::Availability::Available);
    scripted.described.lock().unwrap().live_capacity = false;
    assert!(!refresh(&gateway).await.unwrap().live_capacity);
    assert_eq!(availability().await, types::Availability::Unknown);
    gateway.stop().await;
}

#[tokio::test]
async fn offers_of_which_none_can_be_used_replace_none() {
    let folder = tempfile::tempdir().unwrap();
    let good = Play::Sends(vec![message(vec![offer("a", 3)], "")]);
    let (scripted, address) = Scripted::serve(Default::default(), good).await;
    let gateway = gateway(&folder, address).await;
    gateway.list(pb::ListOffersRequest::default()).await;
    let mut odd = offer("b", 1);
    odd.capacity_type = 9;
    scripted.plays(Play::Sends(vec![message(vec![odd.clone(), odd], "")]));
    let fault = refresh(&gateway).await.unwrap_err();
    assert!(
        fault.message().contains("2 rows: an unknown capacity_type"),
        "{fault:?}"
    );
    let answer = gateway.list(pb::ListOffersRequest::default()).await;
    assert_eq!(
        ids(&answer.offers),
        ["own/eu/a/ondemand", "list/eu/x/ondemand"]
    );
    scripted.plays(Play::Sends(Vec::new()));
    let backend = refresh(&gateway).await.unwrap();
    assert_eq!(backend.offers_total, 0, "it has none, and says so");
    gateway.stop().await;
}
