//! Calls through a real server and a real client, to a service that does what its caller says.

mod callers;
mod crowd;
mod faults;
mod overload;
mod times;

use std::pin::Pin;
use std::time::Duration;

use muster_proto::ops::v1::ops_service_client::OpsServiceClient;
use muster_proto::ops::v1::ops_service_server::{OpsService, OpsServiceServer};
use muster_proto::ops::v1::{
    GetMaintenanceRequest, GetMaintenanceResponse, GetStatusRequest, GetStatusResponse,
    ListInstancesRequest, ListInstancesResponse, SetMaintenanceRequest, SetMaintenanceResponse,
    StreamBackupRequest, StreamBackupResponse,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::auth::{Principal, Roles};
use crate::context::Context;
use crate::deadline::Deadline;
use crate::server::{Listeners, Method, Server, Settings};
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
            "wait" => {
                tokio::time::sleep(overload::WORK).await;
                Ok(Response::new(SetMaintenanceResponse::default()))
            }
            "fail" => Err(Status::internal("as you say")),
            _ => Ok(Response::new(SetMaintenanceResponse::default())),
        }
    }

    async fn get_maintenance(
        &self,
        request: Request<GetMaintenanceRequest>,
    ) -> Answer<GetMaintenanceResponse> {
        if request.metadata().contains_key("beat") {
            return Ok(Response::new(GetMaintenanceResponse::default()));
        }
        std::future::pending().await
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        if let Some(next) = times::next_hop(&request) {
            return next.await;
        }
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

pub(crate) use callers::guarded;
