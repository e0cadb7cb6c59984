//! Replicas on workers of which the store knows nothing: listed, and, when an operator says so, adopted
//! or removed.

use muster_proto::replicas::v1 as wire;
use muster_runtime::auth::Principal;
use muster_runtime::page::Asked;
use tonic::{Request, Response, Status};

use super::pages::Page;
use super::{Api, errors, project};
use crate::unknown::Reported;

impl Api {
    pub(super) async fn list_orphans(
        &self,
        request: Request<wire::ListOrphansRequest>,
    ) -> Result<Response<wire::ListOrphansResponse>, Status> {
        self.not_before(&request, &request.get_ref().not_before)
            .await?;
        let principal = Principal::of(&request);
        let mut asked = request.into_inner();
        asked.not_before.clear();
        let page = Page::open(
            &self.sealer,
            "ListOrphans",
            &principal,
            &mut asked,
            |r, faults| Asked::take(&mut r.page_size, &mut r.page_token, faults),
        )?;
        project(&asked.project)?;
        let all = self.unknown.all().into_iter();
        let cut = page.fill(all.map(|(id, reported)| (id, render_orphan(&reported))));
        Ok(Response::new(wire::ListOrphansResponse {
            orphans: cut.items,
            next_page_token: cut.next_page_token,
            resume_token: self.token(self.engine.parts().progress.current()),
        }))
    }

    pub(super) async fn adopt_orphan(
        &self,
        _request: Request<wire::AdoptOrphanRequest>,
    ) -> Result<Response<wire::AdoptOrphanResponse>, Status> {
        Err(errors::not_implemented("AdoptOrphan"))
    }

    pub(super) async fn remove_orphan(
        &self,
        _request: Request<wire::RemoveOrphanRequest>,
    ) -> Result<Response<wire::RemoveOrphanResponse>, Status> {
        Err(errors::not_implemented("RemoveOrphan"))
    }
}

fn render_orphan(reported: &Reported) -> wire::Orphan {
    let assignment = reported.report.assignment.as_ref();
    wire::Orphan {
        attempt_id: reported.report.attempt_id.clone(),
        replica: assignment.map_or_else(String::new, |known| known.replica.clone()),
        service_uid: assignment.map_or_else(String::new, |known| known.service_uid.clone()),
        worker: reported.worker.clone(),
        allocation: None,
        start_time: reported.report.start_time,
    }
}
