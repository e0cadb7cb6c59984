//! What instances on one store say to each other: whom this one heard, what the leader observes, and calls that
//! only the leader can answer. A registry that is alone on its store has nobody to talk to.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::peer_service_server::PeerService;
use muster_runtime::auth::Principal;
use muster_runtime::deadline::Deadline;
use muster_runtime::status::{self, Violations};
use muster_runtime::watch::{Event, Filter, Message as Told};
use prost::Message;
use tonic::{Code, Request, Response, Status};

use super::access::{RELEASE_MASS_LOSS, REPORT_DRAIN};
use super::convert::render_duration;
use super::failure::check;
use super::peers::{MAX_ASKED, Passed, not_leading, render_told};
use super::{operators, owners};
use crate::registry::Registry;
use crate::seen::Seen;

/// What this instance answers to the others.
pub(crate) struct Peers(pub(crate) Registry);

fn alone() -> Status {
    let message = "this registry is the only instance on its store";
    status::error(Code::Unimplemented, ErrorReason::NotImplemented, message).into_status()
}

impl Peers {
    fn shared(&self) -> Result<&Registry, Status> {
        match self.0.is_shared() {
            true => Ok(&self.0),
            false => Err(alone()),
        }
    }
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn heard_since(
        &self,
        request: Request<proto::HeardSinceRequest>,
    ) -> Result<Response<proto::HeardSinceResponse>, Status> {
        let registry = self.shared()?;
        let message = request.into_inner();
        let mut violations = Violations::new();
        if message.workers.len() > MAX_ASKED {
            violations.add("workers", format!("must be at most {MAX_ASKED}"));
        }
        check(violations)?;
        // Whoever led before must not hold up by its questions, nor judge by their answers.
        let known = registry
            .term()
            .await
            .and_then(|term| i64::try_from(term).ok());
        if known != Some(message.leader_revision) {
            return Err(not_leading());
        }
        let heard = message.workers.into_iter().map(|worker| proto::Heard {
            ago: registry.lives.heard_ago(&worker).map(render_duration),
            worker,
        });
        Ok(Response::new(proto::HeardSinceResponse {
            heard: heard.collect(),
        }))
    }

    async fn forward(
        &self,
        request: Request<proto::ForwardRequest>,
    ) -> Result<Response<proto::ForwardResponse>, Status> {
        let registry = self.shared()?;
        if !registry.leads() {
            return Err(not_leading());
        }
        let deadline = Deadline::of(&request);
        let message = request.into_inner();
        let answered = answer(registry, &message, deadline).await;
        Ok(Response::new(match answered {
            Ok(response) => proto::ForwardResponse {
                response,
                ..proto::ForwardResponse::default()
            },
            Err(failed) => proto::ForwardResponse {
                status_code: failed.code().into(),
                status_message: failed.message().to_owned(),
                status_details: failed.details().to_vec(),
                ..proto::ForwardResponse::default()
            },
        }))
    }

    type WatchObservedStream = BoxStream<'static, Result<proto::WatchObservedResponse, Status>>;

    async fn watch_observed(
        &self,
        _: Request<proto::WatchObservedRequest>,
    ) -> Result<Response<Self::WatchObservedStream>, Status> {
        let registry = self.shared()?;
        let lead = registry.instances.leading().ok_or_else(not_leading)?;
        let messages = registry.hubs.workers.watch("", Filter::all())?;
        let lost = lead.lost();
        let told = messages.take_until(Box::pin(lost));
        Ok(Response::new(
            told.map(|message| message.map(|message| render_message(&message)))
                .boxed(),
        ))
    }
}

fn render_message(message: &Told<Seen>) -> proto::WatchObservedResponse {
    let workers = message.changes.iter().filter_map(|event| match event {
        Event::Put(seen) | Event::Observed(seen) => Some(render_told(seen)),
        Event::Deleted(_) => None,
    });
    proto::WatchObservedResponse {
        workers: workers.collect(),
        synced: message.synced,
    }
}

/// Answers a call that came to another instance, in the name of whoever made it.
async fn answer(
    registry: &Registry,
    message: &proto::ForwardRequest,
    deadline: Option<Deadline>,
) -> Result<Vec<u8>, Status> {
    let caller = Caller {
        principal: Principal::parse(&message.principal),
        deadline,
    };
    let answer = if message.method == REPORT_DRAIN.path {
        let request = caller.request(&REPORT_DRAIN, &message.request)?;
        owners::report_drain_here(registry, request)?.encode_to_vec()
    } else if message.method == RELEASE_MASS_LOSS.path {
        let request = caller.request(&RELEASE_MASS_LOSS, &message.request)?;
        operators::release_mass_loss_here(registry, request)
            .await?
            .encode_to_vec()
    } else {
        let words = format!("{:?} is answered by every instance", message.method);
        return Err(status::invalid_field("method", words));
    };
    Ok(answer)
}

/// Who made the call that was passed on.
struct Caller {
    principal: Option<Principal>,
    deadline: Option<Deadline>,
}

impl Caller {
    /// The call as it came to the other instance, if its caller may make it.
    fn request<Q: Message + Default>(
        &self,
        passed: &Passed,
        encoded: &[u8],
    ) -> Result<Request<Q>, Status> {
        let Some(principal) = &self.principal else {
            return Err(status::invalid_field("principal", "is nobody's".to_owned()));
        };
        if !passed.allow.has(principal.role()) {
            let words = format!("{principal} may not call {}", passed.path);
            let denied = status::error(Code::PermissionDenied, ErrorReason::RoleDenied, words);
            return Err(denied.into_status());
        }
        let message = Q::decode(encoded)
            .map_err(|_| status::invalid_field("request", "cannot be read".to_owned()))?;
        let mut request = Request::new(message);
        principal.clone().carry(&mut request);
        if let Some(deadline) = self.deadline {
            deadline.carry(&mut request);
        }
        Ok(request)
    }
}
