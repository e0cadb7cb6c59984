//! Backends: listed, watched, one by one, and refreshed by hand.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use muster_proto::offers::v1 as pb;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::Principal;
use muster_runtime::page::{self, Asked};
use muster_runtime::status::{self, Violations};
use muster_runtime::watch::{Event, Filter, Message};
use tonic::{Code, Request, Status};

use super::convert;
use super::service::{Offers, not_found};

impl Offers {
    pub(super) async fn list_all_backends(
        &self,
        request: Request<pb::ListBackendsRequest>,
    ) -> Result<pb::ListBackendsResponse, Status> {
        let deadline = Self::deadline(&request);
        let principal = Principal::of(&request);
        let mut request = request.into_inner();
        let mut violations = Violations::new();
        let asked = Asked::take(
            &mut request.page_size,
            &mut request.page_token,
            &mut violations,
        );
        violations.into_result()?;
        let scope = self.sealer.scope("ListBackends", principal.id(), &request);
        let after = scope.open(&asked.token)?;
        self.not_before(&request.not_before, deadline).await?;
        let (state, now) = (self.board.state(), self.clock.now());
        let is_later = |name: &str| {
            after
                .as_ref()
                .is_none_or(|after| name.as_bytes() > after.as_ref())
        };
        let rest = state
            .backends
            .iter()
            .filter(|standing| is_later(&standing.facts.name));
        let rendered = rest.map(|standing| convert::render_backend(standing, now));
        let (backends, more) = page::cut(rendered, asked.size, prost::Message::encoded_len);
        let last = backends.last().filter(|_| more);
        Ok(pb::ListBackendsResponse {
            next_page_token: last
                .map(|last| scope.seal(last.name.as_bytes()))
                .unwrap_or_default(),
            backends,
            resume_token: self.token(state.revision),
        })
    }

    pub(super) async fn get_one_backend(
        &self,
        request: Request<pb::GetBackendRequest>,
    ) -> Result<pb::GetBackendResponse, Status> {
        let deadline = Self::deadline(&request);
        let request = request.into_inner();
        self.not_before(&request.not_before, deadline).await?;
        let state = self.board.state();
        let standing = state
            .backend(&request.name)
            .ok_or_else(|| not_found("backend", &request.name))?;
        Ok(pb::GetBackendResponse {
            backend: Some(convert::render_backend(standing, self.clock.now())),
            resume_token: self.token(state.revision),
        })
    }

    pub(super) async fn refresh(
        &self,
        request: Request<pb::RefreshBackendRequest>,
    ) -> Result<pb::RefreshBackendResponse, Status> {
        let deadline = Self::deadline(&request);
        let pb::RefreshBackendRequest { name, force } = request.into_inner();
        let state = self.board.state();
        let standing = state
            .backend(&name)
            .ok_or_else(|| not_found("backend", &name))?;
        if let Some(reason) = &standing.facts.disabled {
            let message = format!("backend {name} is disabled: {reason}");
            return Err(status::error(
                Code::FailedPrecondition,
                ErrorReason::BackendDisabled,
                message,
            )
            .into());
        }
        if !force && !standing.breaker.allows(self.clock.now()) {
            let why = "it failed often and is left alone for a while; force asks all the same";
            return Err(not_refreshed(&name, why));
        }
        let handle = self
            .handles
            .load()
            .get(&name)
            .cloned()
            .ok_or_else(|| not_found("backend", &name))?;
        match tokio::time::timeout_at(Self::until(deadline), handle.refresh(force)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return Err(not_refreshed(&name, &fault.message)),
            Err(_) => {
                return Err(not_refreshed(
                    &name,
                    "no answer in the time of this call; the refresh goes on",
                ));
            }
        }
        let state = self.board.state();
        let standing = state
            .backend(&name)
            .ok_or_else(|| not_found("backend", &name))?;
        Ok(pb::RefreshBackendResponse {
            backend: Some(convert::render_backend(standing, self.clock.now())),
            resume_token: self.token(state.revision),
        })
    }

    pub(super) fn watch_all_backends(
        &self,
        request: &pb::WatchBackendsRequest,
    ) -> Result<BoxStream<'static, Result<pb::WatchBackendsResponse, Status>>, Status> {
        let messages = self
            .board
            .backends()
            .watch(&request.resume_token, Filter::all())?;
        Ok(messages.map(|message| message.map(render_message)).boxed())
    }
}

fn not_refreshed(name: &str, why: &str) -> Status {
    let message = format!("backend {name} was not refreshed: {why}");
    status::error(Code::Unavailable, ErrorReason::BackendFailed, message).into()
}

fn render_message(message: Message<pb::Backend>) -> pb::WatchBackendsResponse {
    let changes = message.changes.iter().map(|event| {
        let backend = pb::Backend::clone(event.resource());
        let change = match event {
            Event::Put(_) | Event::Observed(_) => pb::backend_change::Change::Put(backend),
            Event::Deleted(_) => pb::backend_change::Change::Deleted(backend),
        };
        pb::BackendChange {
            change: Some(change),
        }
    });
    pb::WatchBackendsResponse {
        changes: changes.collect(),
        resume_token: message.resume_token,
        synced: message.synced,
    }
}
