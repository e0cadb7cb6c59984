//! The service as generated code wants it: one line for each call.

use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::workers_service_server::WorkersService;
use tonic::{Request, Response, Status};

use super::readers::Watch;
use super::{events, heartbeat, operators, owners, readers, register, tokens};
use crate::registry::Registry;

/// The calls of the worker-registry.
pub(crate) struct Workers(pub(crate) Registry);

#[tonic::async_trait]
impl WorkersService for Workers {
    type WatchWorkersStream = Watch<proto::WatchWorkersResponse>;
    type WatchAllocationsStream = Watch<proto::WatchAllocationsResponse>;
    type WatchWorkerEventsStream = Watch<proto::WatchWorkerEventsResponse>;

    async fn register_worker(
        &self,
        request: Request<proto::RegisterWorkerRequest>,
    ) -> Result<Response<proto::RegisterWorkerResponse>, Status> {
        register::register(&self.0, request)
            .await
            .map(register::Registered::answer)
    }

    async fn activate_worker(
        &self,
        request: Request<proto::ActivateWorkerRequest>,
    ) -> Result<Response<proto::ActivateWorkerResponse>, Status> {
        register::activate(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        heartbeat::heartbeat(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn get_worker(
        &self,
        request: Request<proto::GetWorkerRequest>,
    ) -> Result<Response<proto::GetWorkerResponse>, Status> {
        readers::get_worker(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn list_workers(
        &self,
        request: Request<proto::ListWorkersRequest>,
    ) -> Result<Response<proto::ListWorkersResponse>, Status> {
        readers::list_workers(&self.0, request).await
    }

    async fn update_worker(
        &self,
        request: Request<proto::UpdateWorkerRequest>,
    ) -> Result<Response<proto::UpdateWorkerResponse>, Status> {
        operators::update(&self.0, request).await.map(Response::new)
    }

    async fn drain_worker(
        &self,
        request: Request<proto::DrainWorkerRequest>,
    ) -> Result<Response<proto::DrainWorkerResponse>, Status> {
        operators::drain(&self.0, request).await.map(Response::new)
    }

    async fn resume_worker(
        &self,
        request: Request<proto::ResumeWorkerRequest>,
    ) -> Result<Response<proto::ResumeWorkerResponse>, Status> {
        operators::resume(&self.0, request).await.map(Response::new)
    }

    async fn disable_worker(
        &self,
        request: Request<proto::DisableWorkerRequest>,
    ) -> Result<Response<proto::DisableWorkerResponse>, Status> {
        operators::disable(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn enable_worker(
        &self,
        request: Request<proto::EnableWorkerRequest>,
    ) -> Result<Response<proto::EnableWorkerResponse>, Status> {
        operators::enable(&self.0, request).await.map(Response::new)
    }

    async fn delete_worker(
        &self,
        request: Request<proto::DeleteWorkerRequest>,
    ) -> Result<Response<proto::DeleteWorkerResponse>, Status> {
        operators::delete(&self.0, request).await.map(Response::new)
    }

    async fn report_drain(
        &self,
        request: Request<proto::ReportDrainRequest>,
    ) -> Result<Response<proto::ReportDrainResponse>, Status> {
        owners::report_drain(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn release_mass_loss(
        &self,
        request: Request<proto::ReleaseMassLossRequest>,
    ) -> Result<Response<proto::ReleaseMassLossResponse>, Status> {
        operators::release_mass_loss(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn allocate(
        &self,
        request: Request<proto::AllocateRequest>,
    ) -> Result<Response<proto::AllocateResponse>, Status> {
        owners::allocate(&self.0, request).await.map(Response::new)
    }

    async fn batch_allocate(
        &self,
        request: Request<proto::BatchAllocateRequest>,
    ) -> Result<Response<proto::BatchAllocateResponse>, Status> {
        owners::batch_allocate(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        owners::release(&self.0, request).await.map(Response::new)
    }

    async fn get_allocation(
        &self,
        request: Request<proto::GetAllocationRequest>,
    ) -> Result<Response<proto::GetAllocationResponse>, Status> {
        readers::get_allocation(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn list_allocations(
        &self,
        request: Request<proto::ListAllocationsRequest>,
    ) -> Result<Response<proto::ListAllocationsResponse>, Status> {
        readers::list_allocations(&self.0, request)
            .await
            .map(Response::new)
    }

    async fn claim_owner(
        &self,
        request: Request<proto::ClaimOwnerRequest>,
    ) -> Result<Response<proto::ClaimOwnerResponse>, Status> {
        owners::claim(&self.0, request).await.map(Response::new)
    }

    async fn create_join_token(
        &self,
        request: Request<proto::CreateJoinTokenRequest>,
    ) -> Result<Response<proto::CreateJoinTokenResponse>, Status> {
        tokens::create(&self.0, request).await.map(Response::new)
    }

    async fn list_join_tokens(
        &self,
        request: Request<proto::ListJoinTokensRequest>,
    ) -> Result<Response<proto::ListJoinTokensResponse>, Status> {
        tokens::list(&self.0, request).await.map(Response::new)
    }

    async fn revoke_join_token(
        &self,
        request: Request<proto::RevokeJoinTokenRequest>,
    ) -> Result<Response<proto::RevokeJoinTokenResponse>, Status> {
        tokens::revoke(&self.0, request).await.map(Response::new)
    }

    async fn list_worker_events(
        &self,
        request: Request<proto::ListWorkerEventsRequest>,
    ) -> Result<Response<proto::ListWorkerEventsResponse>, Status> {
        events::list(&self.0, request).await.map(Response::new)
    }

    async fn watch_workers(
        &self,
        request: Request<proto::WatchWorkersRequest>,
    ) -> Result<Response<Self::WatchWorkersStream>, Status> {
        readers::watch_workers(&self.0, request.into_inner())
    }

    async fn watch_allocations(
        &self,
        request: Request<proto::WatchAllocationsRequest>,
    ) -> Result<Response<Self::WatchAllocationsStream>, Status> {
        readers::watch_allocations(&self.0, request.into_inner())
    }

    async fn watch_worker_events(
        &self,
        request: Request<proto::WatchWorkerEventsRequest>,
    ) -> Result<Response<Self::WatchWorkerEventsStream>, Status> {
        events::watch(&self.0, request.into_inner()).map(Response::new)
    }

    async fn get_credential_keys(
        &self,
        _: Request<proto::GetCredentialKeysRequest>,
    ) -> Result<Response<proto::GetCredentialKeysResponse>, Status> {
        Ok(Response::new(tokens::keys(&self.0)))
    }
}
