//! Tells the registry that this instance leads now, before anything is read there: what an earlier one
//! still sends is refused from then on.

use muster_proto::workers::v1::workers_service_client::WorkersServiceClient;
use muster_proto::workers::v1::{ClaimOwnerRequest, ClaimOwnerResponse};
use muster_runtime::connect::Channel;
use tonic::Status;

use super::calls::{OWNER, Owner};

/// Claims once; answers the epoch of the registry's store, and how far its history was by then.
pub(crate) async fn claim(
    mut registry: WorkersServiceClient<Channel>,
    owner: &Owner,
) -> Result<ClaimOwnerResponse, Status> {
    let request = ClaimOwnerRequest {
        owner: OWNER.to_owned(),
        owner_term: Some(owner.term()),
    };
    Ok(registry.claim_owner(request).await?.into_inner())
}
