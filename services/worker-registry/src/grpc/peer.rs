//! What instances on one store say to each other. An embedded store has one instance, so there is nobody
//! to ask yet.

use futures_util::stream::BoxStream;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::peer_service_server::PeerService;
use muster_runtime::status;
use tonic::{Code, Request, Response, Status};

/// The peer service of a registry that is alone on its store.
#[derive(Debug)]
pub(crate) struct Peers;

fn alone() -> Status {
    let message = "this registry is the only instance on its store";
    status::error(Code::Unimplemented, ErrorReason::NotImplemented, message).into_status()
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn heard_since(
        &self,
        _: Request<proto::HeardSinceRequest>,
    ) -> Result<Response<proto::HeardSinceResponse>, Status> {
        Err(alone())
    }

    async fn forward(
        &self,
        _: Request<proto::ForwardRequest>,
    ) -> Result<Response<proto::ForwardResponse>, Status> {
        Err(alone())
    }

    type WatchObservedStream = BoxStream<'static, Result<proto::WatchObservedResponse, Status>>;

    async fn watch_observed(
        &self,
        _: Request<proto::WatchObservedRequest>,
    ) -> Result<Response<Self::WatchObservedStream>, Status> {
        Err(alone())
    }
}
