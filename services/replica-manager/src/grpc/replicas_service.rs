//! ReplicasService: each call goes to the handler of its concern. Changes run to their end even if their
//! caller goes away.

use muster_proto::replicas::v1 as wire;
use muster_proto::replicas::v1::replicas_service_server::ReplicasService;
use muster_runtime::status;
use tonic::{Request, Response, Status};

use super::Api;
use super::watches::Stream;

/// Runs a handler that changes something on a task of its own.
macro_rules! to_the_end {
    ($api:expr, $handler:ident, $request:expr) => {{
        let api = $api.clone();
        let request = $request;
        let work = async move { Box::pin(Api::$handler(&api, request)).await };
        match $api.tasks.spawn(stringify!($handler), work).await {
            Ok(answer) => answer,
            Err(_) => Err(status::internal()),
        }
    }};
}

#[tonic::async_trait]
impl ReplicasService for Api {
    type WatchServicesStream = Stream<wire::WatchServicesResponse>;
    type WatchReplicasStream = Stream<wire::WatchReplicasResponse>;
    type WatchEventsStream = Stream<wire::WatchEventsResponse>;
    type WatchEndpointsStream = Stream<wire::WatchEndpointsResponse>;
    type StreamLogsStream = Stream<wire::StreamLogsResponse>;

    async fn create_service(
        &self,
        request: Request<wire::CreateServiceRequest>,
    ) -> Result<Response<wire::CreateServiceResponse>, Status> {
        to_the_end!(self, create_service, request)
    }

    async fn get_service(
        &self,
        request: Request<wire::GetServiceRequest>,
    ) -> Result<Response<wire::GetServiceResponse>, Status> {
        Api::get_service(self, request).await
    }

    async fn list_services(
        &self,
        request: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        Api::list_services(self, request).await
    }

    async fn update_service(
        &self,
        request: Request<wire::UpdateServiceRequest>,
    ) -> Result<Response<wire::UpdateServiceResponse>, Status> {
        to_the_end!(self, update_service, request)
    }

    async fn start_service(
        &self,
        request: Request<wire::StartServiceRequest>,
    ) -> Result<Response<wire::StartServiceResponse>, Status> {
        to_the_end!(self, start_service, request)
    }

    async fn stop_service(
        &self,
        request: Request<wire::StopServiceRequest>,
    ) -> Result<Response<wire::StopServiceResponse>, Status> {
        to_the_end!(self, stop_service, request)
    }

    async fn delete_service(
        &self,
        request: Request<wire::DeleteServiceRequest>,
    ) -> Result<Response<wire::DeleteServiceResponse>, Status> {
        to_the_end!(self, delete_service, request)
    }

    async fn scale_service(
        &self,
        request: Request<wire::ScaleServiceRequest>,
    ) -> Result<Response<wire::ScaleServiceResponse>, Status> {
        to_the_end!(self, scale_service, request)
    }

    async fn restart_service(
        &self,
        request: Request<wire::RestartServiceRequest>,
    ) -> Result<Response<wire::RestartServiceResponse>, Status> {
        to_the_end!(self, restart_service, request)
    }

    async fn rollback_service(
        &self,
        request: Request<wire::RollbackServiceRequest>,
    ) -> Result<Response<wire::RollbackServiceResponse>, Status> {
        to_the_end!(self, rollback_service, request)
    }

    async fn list_service_versions(
        &self,
        request: Request<wire::ListServiceVersionsRequest>,
    ) -> Result<Response<wire::ListServiceVersionsResponse>, Status> {
        Api::list_service_versions(self, request).await
    }

    async fn explain_service(
        &self,
        request: Request<wire::ExplainServiceRequest>,
    ) -> Result<Response<wire::ExplainServiceResponse>, Status> {
        Api::explain_service(self, request).await
    }

    async fn get_replica(
        &self,
        request: Request<wire::GetReplicaRequest>,
    ) -> Result<Response<wire::GetReplicaResponse>, Status> {
        Api::get_replica(self, request).await
    }

    async fn list_replicas(
        &self,
        request: Request<wire::ListReplicasRequest>,
    ) -> Result<Response<wire::ListReplicasResponse>, Status> {
        Api::list_replicas(self, request).await
    }

    async fn restart_replica(
        &self,
        request: Request<wire::RestartReplicaRequest>,
    ) -> Result<Response<wire::RestartReplicaResponse>, Status> {
        to_the_end!(self, restart_replica, request)
    }

    async fn list_orphans(
        &self,
        request: Request<wire::ListOrphansRequest>,
    ) -> Result<Response<wire::ListOrphansResponse>, Status> {
        Api::list_orphans(self, request).await
    }

    async fn adopt_orphan(
        &self,
        request: Request<wire::AdoptOrphanRequest>,
    ) -> Result<Response<wire::AdoptOrphanResponse>, Status> {
        to_the_end!(self, adopt_orphan, request)
    }

    async fn remove_orphan(
        &self,
        request: Request<wire::RemoveOrphanRequest>,
    ) -> Result<Response<wire::RemoveOrphanResponse>, Status> {
        to_the_end!(self, remove_orphan, request)
    }

    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        Api::list_events(self, request).await
    }

    async fn report_load(
        &self,
        request: Request<wire::ReportLoadRequest>,
    ) -> Result<Response<wire::ReportLoadResponse>, Status> {
        Api::report_load(self, request).await
    }

    async fn list_endpoints(
        &self,
        request: Request<wire::ListEndpointsRequest>,
    ) -> Result<Response<wire::ListEndpointsResponse>, Status> {
        Api::list_endpoints(self, request).await
    }

    async fn watch_services(
        &self,
        request: Request<wire::WatchServicesRequest>,
    ) -> Result<Response<Self::WatchServicesStream>, Status> {
        Api::watch_services(self, request)
    }

    async fn watch_replicas(
        &self,
        request: Request<wire::WatchReplicasRequest>,
    ) -> Result<Response<Self::WatchReplicasStream>, Status> {
        Api::watch_replicas(self, request.into_inner())
    }

    async fn watch_events(
        &self,
        request: Request<wire::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Api::watch_events(self, request.into_inner())
    }

    async fn watch_endpoints(
        &self,
        request: Request<wire::WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        Api::watch_endpoints(self, request.get_ref())
    }

    async fn stream_logs(
        &self,
        request: Request<wire::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        Api::stream_logs(self, request.get_ref())
    }
}
