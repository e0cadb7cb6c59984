//! Calls through a real server and a real client, to a service that does what its caller says.

use std::pin::Pin;
use std::time::Duration;

use muster_proto::health::v1::HealthCheckRequest;
use muster_proto::health::v1::health_client::HealthClient;
use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::ops_service_server::{OpsService, OpsServiceServer};
use muster_proto::ops::v1::{
    GetMaintenanceRequest, GetMaintenanceResponse, GetStatusRequest, GetStatusResponse,
    ListInstancesRequest, ListInstancesResponse, SetMaintenanceRequest, SetMaintenanceResponse,
    StreamBackupRequest, StreamBackupResponse,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::auth::{Access, Principal, Role, Roles, Verify};
use crate::context::Context;
use crate::deadline::Deadline;
use crate::layers::shed::Lane;
use crate::server::{Error, Listeners, Method, Server, Settings};
use crate::shutdown::Cause;
use crate::status::Details;

const SERVICE: &str = "/muster.ops.v1.OpsService/";

const METHODS: [Method; 5] = [
    Method::new("/muster.ops.v1.OpsService/SetMaintenance", Roles::READ),
    Method::new("/muster.ops.v1.OpsService/GetMaintenance", Roles::READ).vital(),
    Method::new("/muster.ops.v1.OpsService/GetStatus", Roles::ANYONE),
    Method::new("/muster.ops.v1.OpsService/ListInstances", Roles::OPERATE),
    Method::new("/muster.ops.v1.OpsService/StreamBackup", Roles::READ),
];

/// Does what the caller says in `reason`.
struct Puppet;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OpsService for Puppet {
    async fn set_maintenance(
        &self,
        request: Request<SetMaintenanceRequest>,
    ) -> Answer<SetMaintenanceResponse> {
        match request.get_ref().reason.as_str() {
            "panic" => panic!("as you say"),
            "hang" => std::future::pending().await,
            "fail" => Err(Status::internal("as you say")),
            _ => Ok(Response::new(SetMaintenanceResponse::default())),
        }
    }

    async fn get_maintenance(
        &self,
        _: Request<GetMaintenanceRequest>,
    ) -> Answer<GetMaintenanceResponse> {
        std::future::pending().await
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        let left = Deadline::of(&request).map(Deadline::remaining);
        let seconds = left.map_or(0, |left| i32::try_from(left.as_secs()).unwrap());
        let component = Principal::of(&request).to_string();
        Ok(Response::new(GetStatusResponse {
            component,
            in_flight: seconds,
            ..Default::default()
        }))
    }

    async fn list_instances(
        &self,
        _: Request<ListInstancesRequest>,
    ) -> Answer<ListInstancesResponse> {
        Ok(Response::new(ListInstancesResponse::default()))
    }

    type StreamBackupStream =
        Pin<Box<dyn Stream<Item = Result<StreamBackupResponse, Status>> + Send>>;

    async fn stream_backup(
        &self,
        request: Request<StreamBackupRequest>,
    ) -> Answer<Self::StreamBackupStream> {
        let panics = request.metadata().contains_key("panic");
        let stream = tokio_stream::iter([1, 2]).then(move |revision| async move {
            // Lets what came before be sent, which the codec would hold back otherwise.
            tokio::task::yield_now().await;
            assert!(!panics || revision == 1, "in the middle");
            Ok(StreamBackupResponse {
                revision,
                ..Default::default()
            })
        });
        let open = futures_util::stream::pending();
        Ok(Response::new(Box::pin(futures_util::StreamExt::chain(
            stream, open,
        ))))
    }
}

pub(crate) struct Running {
    pub(crate) context: Context,
    pub(crate) client: OpsServiceClient<Channel>,
    pub(crate) url: String,
}

impl Running {
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::start_with(settings, |server| server).await
    }

    pub(crate) async fn start_with(
        settings: Settings,
        more: impl FnOnce(Server) -> Server,
    ) -> Self {
        let running = Self::start_unconnected(settings, more).await;
        let client = OpsServiceClient::connect(running.url.clone())
            .await
            .unwrap();
        Self { client, ..running }
    }

    /// The same, with a client that connects when it calls.
    pub(crate) async fn start_lazily(settings: Settings) -> Self {
        Self::start_unconnected(settings, |server| server).await
    }

    async fn start_unconnected(settings: Settings, more: impl FnOnce(Server) -> Server) -> Self {
        let context = Context::new("sample", "0.0.0", settings);
        let listeners = Listeners::loopback().await.unwrap();
        let url = format!("http://{}", listeners.grpc_address());
        let server = Server::new(&context)
            .service(OpsServiceServer::new(Puppet))
            .methods(&METHODS);
        context
            .tasks
            .critical("server", more(server).serve(listeners));
        context.health.until_ready().await;
        let channel = Channel::from_shared(url.clone()).unwrap().connect_lazy();
        Self {
            context,
            client: OpsServiceClient::new(channel),
            url,
        }
    }

    async fn told(&mut self, reason: &str) -> Result<(), Status> {
        let request = SetMaintenanceRequest {
            on: true,
            reason: reason.to_owned(),
        };
        self.client.set_maintenance(request).await.map(drop)
    }

    /// What `/metrics` says, without the lines of other metrics.
    fn metric(&self, start: &str) -> String {
        let text = self.context.metrics.render().unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(start))
            .collect();
        lines.join("\n")
    }
}

fn reason(status: &Status) -> String {
    Details::of(status).reason
}

async fn waits_until(test: impl Fn() -> bool) {
    let until = async {
        while !test() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), until)
        .await
        .expect("not in time");
}

#[tokio::test]
async fn a_panic_is_internal_and_the_connection_goes_on() {
    let mut running = Running::start(Settings::default()).await;
    let status = running.told("panic").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Internal, "INTERNAL")
    );
    assert!(!status.message().contains("as you say"));
    running.told("").await.unwrap();
    assert_eq!(
        running.metric("rpc_server_panics_total"),
        "rpc_server_panics_total 1"
    );
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_it_with_internal() {
    let mut running = Running::start(Settings::default()).await;
    let mut request = Request::new(StreamBackupRequest {});
    request
        .metadata_mut()
        .insert("panic", "yes".parse().unwrap());
    let mut stream = running
        .client
        .stream_backup(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().revision, 1);
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal);
    assert_eq!(running.context.load.in_flight(Lane::Shared), 0);
}

#[tokio::test]
async fn each_call_is_measured_by_method_and_code() {
    let mut running = Running::start(Settings::default()).await;
    running.told("").await.unwrap();
    running.told("fail").await.unwrap_err();
    running.told("panic").await.unwrap_err();
    let count = |code: &str| {
        let method = "muster.ops.v1.OpsService/SetMaintenance";
        running.metric(&format!(
            "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",rpc_method=\"{method}\",rpc_response_status_code=\"{code}\"}}"
        ))
    };
    assert!(count("OK").ends_with(" 1"), "{}", running.metric(""));
    assert!(count("INTERNAL").ends_with(" 2"), "{}", running.metric(""));
    assert_eq!(
        running.metric("rpc_server_active_calls "),
        "rpc_server_active_calls 0"
    );
}

#[tokio::test]
async fn a_cancelled_call_is_measured_as_such() {
    let mut running = Running::start(Settings::default()).await;
    let hanging = running.told("hang");
    tokio::time::timeout(Duration::from_millis(50), hanging)
        .await
        .unwrap_err();
    let load = running.context.load.clone();
    waits_until(|| load.in_flight(Lane::Shared) == 0).await;
    assert!(
        running
            .metric("rpc_server_call_duration_seconds_count")
            .contains("CANCELLED")
    );
}

#[tokio::test]
async fn deadlines_come_from_the_caller_the_default_and_the_maximum() {
    let settings = Settings {
        default_deadline: Duration::from_secs(20),
        max_deadline: Duration::from_secs(60),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    for (asked, seconds) in [(None, 19), (Some(10), 9), (Some(3600), 59)] {
        let mut request = Request::new(GetStatusRequest {});
        if let Some(asked) = asked {
            request.set_timeout(Duration::from_secs(asked));
        }
        let left = running
            .client
            .get_status(request)
            .await
            .unwrap()
            .into_inner()
            .in_flight;
        assert_eq!(left, seconds, "{asked:?}");
    }
}

/// Sends `grpc-timeout` as it is: tonic's own client would give up by itself.
fn timeout<T>(message: T, value: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("grpc-timeout", value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_past_its_deadline_is_deadline_exceeded() {
    let settings = Settings {
        default_deadline: Duration::from_millis(50),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let status = running.told("hang").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    assert_eq!(running.context.load.in_flight(Lane::Shared), 0);
}

#[tokio::test]
async fn a_malformed_timeout_is_refused() {
    let mut running = Running::start(Settings::default()).await;
    for value in ["5", "soon", "999999999S", "-1S"] {
        let request = timeout(GetStatusRequest {}, value);
        let status = running.client.get_status(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value}");
    }
}

#[tokio::test]
async fn a_stream_is_bounded_where_its_caller_asks_and_only_there() {
    let settings = Settings {
        default_deadline: Duration::from_millis(20),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut free = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let asked = timeout(StreamBackupRequest {}, "100m");
    let mut bounded = running
        .client
        .stream_backup(asked)
        .await
        .unwrap()
        .into_inner();
    for stream in [&mut free, &mut bounded] {
        for revision in [1, 2] {
            assert_eq!(stream.message().await.unwrap().unwrap().revision, revision);
        }
    }
    assert_eq!(
        bounded.message().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    assert_eq!(
        running.context.load.in_flight(Lane::Shared),
        1,
        "the other stream is open still"
    );
}

#[tokio::test]
async fn a_stream_that_the_table_bounds_has_the_default_deadline() {
    let settings = Settings {
        default_deadline: Duration::from_millis(50),
        ..Settings::default()
    };
    let bounded = [Method::new("/muster.ops.v1.OpsService/StreamBackup", Roles::READ).bounded()];
    let mut running = Running::start_with(settings, |server| server.methods(&bounded)).await;
    let mut stream = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap();
    stream.message().await.unwrap();
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
}

#[tokio::test]
async fn calls_and_open_streams_beyond_the_limit_are_told_when_to_try_again() {
    let settings = Settings {
        max_in_flight: 2,
        max_vital_in_flight: 1,
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let open = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let _second = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    let status = running.told("").await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "OVERLOADED")
    );
    let delay = Details::of(&status).retry_delay.unwrap();
    assert!((500..=1000).contains(&delay.as_millis()), "{delay:?}");
    assert_eq!(running.context.load.refused(Lane::Shared), 1);

    let mut vital = running.client.clone();
    let beat = tokio::time::timeout(
        Duration::from_millis(50),
        vital.get_maintenance(GetMaintenanceRequest {}),
    );
    beat.await
        .expect_err("the vital lane has room of its own, and the handler hangs");
    assert_eq!(running.context.load.refused(Lane::Vital), 0);

    let mut health = HealthClient::connect(running.url.clone()).await.unwrap();
    health.check(HealthCheckRequest::default()).await.unwrap();

    drop(open);
    let load = running.context.load.clone();
    waits_until(|| load.in_flight(Lane::Shared) == 1).await;
    running.told("").await.unwrap();
}

/// A server behind credentials, one of which is the token `looks` of a viewer.
pub(crate) async fn guarded() -> Running {
    struct Tokens;
    impl Verify for Tokens {
        fn verify(&self, token: &str) -> Option<Principal> {
            (token == "looks").then(|| Principal::new(Role::Viewer, "v"))
        }
    }
    let settings = Settings {
        access: Access::new(Vec::new(), true, false),
        ..Settings::default()
    };
    Running::start_with(settings, |server| {
        server.verifier(std::sync::Arc::new(Tokens))
    })
    .await
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

#[tokio::test]
async fn roles_decide_what_a_caller_may_do() {
    let mut running = guarded().await;
    let anonymous = running
        .client
        .list_instances(ListInstancesRequest {})
        .await
        .unwrap_err();
    assert_eq!(
        (anonymous.code(), reason(&anonymous).as_str()),
        (Code::Unauthenticated, "CREDENTIAL_INVALID")
    );
    for (token, code, why) in [
        ("looks", Code::PermissionDenied, "ROLE_DENIED"),
        ("guess", Code::Unauthenticated, "CREDENTIAL_INVALID"),
    ] {
        let request = with_token(ListInstancesRequest {}, token);
        let refused = running.client.list_instances(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why));
    }
    let free = running
        .client
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(free.component, "anonymous:");
    for _ in 0..2 {
        let request = with_token(GetStatusRequest {}, "looks");
        let known = running
            .client
            .get_status(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(known.component, "viewer:v");
    }
}

#[tokio::test]
async fn only_the_known_learn_which_methods_there_are_and_anyone_gets_health() {
    let running = guarded().await;
    let channel = Channel::from_shared(running.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    for (token, code) in [
        ("looks", Code::Unimplemented),
        ("guess", Code::Unauthenticated),
    ] {
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/muster.ops.v1.OpsService/Nothing");
        let codec = tonic_prost::ProstCodec::<GetStatusRequest, GetStatusResponse>::default();
        let answer = client
            .unary(with_token(GetStatusRequest {}, token), path, codec)
            .await;
        assert_eq!(answer.unwrap_err().code(), code);
    }
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_method_in_no_table_stops_the_start() {
    let context = Context::for_tests("sample");
    let server = || Server::new(&context).service(OpsServiceServer::new(Puppet));
    let listeners = Listeners::loopback().await.unwrap();
    let missing = server()
        .methods(&METHODS[1..])
        .serve(listeners)
        .await
        .unwrap_err();
    assert!(
        matches!(&missing, Error::UntabledMethod(path) if path.starts_with(SERVICE)),
        "{missing}"
    );
    let foreign = [Method::new("/other.Service/Call", Roles::READ)];
    let listeners = Listeners::loopback().await.unwrap();
    let foreign = server()
        .methods(&METHODS)
        .methods(&foreign)
        .serve(listeners)
        .await
        .unwrap_err();
    assert!(
        matches!(foreign, Error::UnknownMethod("/other.Service/Call")),
        "{foreign}"
    );
}

#[tokio::test]
async fn a_stream_that_never_ends_is_ended_with_a_status_and_delays_nothing_else() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let mut stream = running
        .client
        .stream_backup(StreamBackupRequest {})
        .await
        .unwrap()
        .into_inner();
    for _ in 0..2 {
        stream.message().await.unwrap();
    }
    running.context.shutdown.begin(Cause::asked("test"));
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "SHUTTING_DOWN")
    );
    assert!(Details::of(&status).retry_delay.is_some());
    assert!(running.context.shutdown.finished().await.is_clean());
}

#[tokio::test]
async fn a_call_in_flight_finishes_and_one_that_hangs_is_cut() {
    let settings = Settings {
        drain_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let mut running = Running::start(settings).await;
    let context = running.context.clone();
    let hanging = running.told("hang");
    let stop = async {
        waits_until(|| context.load.in_flight(Lane::Shared) == 1).await;
        context.shutdown.begin(Cause::asked("test"));
        context.shutdown.finished().await
    };
    let (outcome, report) = tokio::join!(hanging, stop);
    outcome.unwrap_err();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        context.load.in_flight(Lane::Shared),
        0,
        "the handler was dropped with its connection"
    );
}
