//! What instances on one store say to each other: calls that only the leader can answer, passed on with
//! their caller, and what agents measured. A call is passed on once: whoever gets it so and does not lead
//! says so.

use std::time::Duration;

use muster_proto::replicas::v1 as wire;
use muster_proto::replicas::v1::peer_service_client::PeerServiceClient;
use muster_proto::replicas::v1::peer_service_server::PeerService;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::Principal;
use muster_runtime::deadline::Deadline;
use muster_runtime::status;
use prost::Message;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use super::{ACTOR, Api, deadline};
use crate::domain::service::epoch::Knowledge;

/// The calls that are passed on, by full name.
pub(super) const REPORT_LOAD: &str = "/muster.replicas.v1.ReplicasService/ReportLoad";
pub(super) const REMOVE_ORPHAN: &str = "/muster.replicas.v1.ReplicasService/RemoveOrphan";
const REPORT_REPLICAS: &str = "/muster.replicas.v1.AssignmentsService/ReportReplicas";

/// What is kept of a caller's time to answer it when the leader does not.
const MARGIN: Duration = Duration::from_millis(50);

/// When a caller should try again who found nobody that leads.
const RETRY: Duration = Duration::from_millis(500);

/// How long passing on samples may take: the next come soon.
const SAMPLES_WITHIN: Duration = Duration::from_secs(2);

/// Reports with samples that wait to be passed on. A leader that takes none for seconds has no use for
/// older ones.
const SAMPLES_WAITING: usize = 1024;

/// The call was passed on by another instance.
#[derive(Clone, Copy, Debug)]
struct PassedOn;

/// The peer service. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Api);

/// Takes what agents measured, to be passed on. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Samples(mpsc::Sender<wire::ReportReplicasRequest>);

/// Where samples are put, and from where they are passed on.
pub(crate) fn samples() -> (Samples, mpsc::Receiver<wire::ReportReplicasRequest>) {
    let (sender, receiver) = mpsc::channel(SAMPLES_WAITING);
    (Samples(sender), receiver)
}

impl Samples {
    /// To be passed on, if there is room for it: agents measure again.
    pub(super) fn put(&self, report: wire::ReportReplicasRequest) {
        let _ = self.0.try_send(report);
    }
}

/// Passes samples on to the leader, for ever.
pub(crate) async fn pass_on(api: Api, mut samples: mpsc::Receiver<wire::ReportReplicasRequest>) {
    while let Some(report) = samples.recv().await {
        let mut request = Request::new(report);
        Deadline::after(SAMPLES_WITHIN).carry(&mut request);
        let passed = api.forward::<_, wire::ReportReplicasResponse>(REPORT_REPLICAS, request);
        if let Err(status) = passed.await {
            tracing::debug!(%status, "samples were not passed on");
        }
    }
    // The sender lives as long as the server; without it there is nothing to pass on.
    std::future::pending::<()>().await;
}

impl Api {
    /// Whether this instance can answer what only the leader can.
    pub(super) fn leads(&self) -> bool {
        self.engine.duty().is_some()
    }

    /// Has the leader answer a call.
    pub(super) async fn forward<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status> {
        if request.extensions().get::<PassedOn>().is_some() {
            return Err(not_leading());
        }
        let leader = self.instances.leader().await?;
        let mut asked = Request::new(wire::ForwardRequest {
            method: method.to_owned(),
            request: request.get_ref().encode_to_vec(),
            principal: Principal::of(&request).id().to_owned(),
        });
        deadline(&request).less(MARGIN).carry(&mut asked);
        if let Some(actor) = request.metadata().get(ACTOR) {
            asked.metadata_mut().insert(ACTOR, actor.clone());
        }
        let answer = PeerServiceClient::new(leader.channel).forward(asked).await;
        let answer = answer.map_err(|status| unreached(&status))?.into_inner();
        let code = Code::from(answer.status_code);
        if code != Code::Ok {
            let details = answer.status_details.into();
            return Err(Status::with_details(code, answer.status_message, details));
        }
        let read = A::decode(answer.response.as_slice());
        read.map(Response::new).map_err(|_| status::internal())
    }

    /// Takes what was measured, and nothing else: how the attempts are was recorded where it was reported,
    /// and may be newer by now.
    fn take_samples(&self, asked: &wire::ReportReplicasRequest) -> wire::ReportReplicasResponse {
        for report in &asked.reports {
            if let Some(id) = super::convert::report::parse_attempt_id(&report.attempt_id)
                && self.knowledge(&asked.worker, &id) == Knowledge::Current
            {
                self.take_sample(&id, report);
                self.engine.wake([id.uid.as_str().into()]);
            }
        }
        wire::ReportReplicasResponse::default()
    }
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn forward(
        &self,
        request: Request<wire::ForwardRequest>,
    ) -> Result<Response<wire::ForwardResponse>, Status> {
        let api = &self.0;
        if !api.leads() {
            return Ok(Response::new(refused(&not_leading())));
        }
        let method = request.get_ref().method.clone();
        let answer = match method.as_str() {
            REPORT_LOAD => match read(request) {
                Ok(request) => rendered(api.report_load(request).await),
                Err(status) => refused(&status),
            },
            REMOVE_ORPHAN => match read(request) {
                Ok(request) => rendered(api.remove_orphan(request).await),
                Err(status) => refused(&status),
            },
            REPORT_REPLICAS => match read(request) {
                Ok(request) => rendered(Ok(Response::new(api.take_samples(request.get_ref())))),
                Err(status) => refused(&status),
            },
            other => refused(&status::invalid_field(
                "method",
                format!("{other:?} is not passed on"),
            )),
        };
        Ok(Response::new(answer))
    }
}

/// The call as the first instance got it, with its caller.
fn read<Q: Message + Default>(
    request: Request<wire::ForwardRequest>,
) -> Result<Request<Q>, Status> {
    let actor: Option<MetadataValue<_>> = request.metadata().get(ACTOR).cloned();
    let within = deadline(&request);
    let asked = request.into_inner();
    let principal = Principal::parse(&asked.principal)
        .ok_or_else(|| status::invalid_field("principal", "is none"))?;
    let message = Q::decode(asked.request.as_slice())
        .map_err(|error| status::invalid_field("request", error.to_string()))?;
    let mut read = Request::new(message);
    principal.carry(&mut read);
    within.carry(&mut read);
    read.extensions_mut().insert(PassedOn);
    if let Some(actor) = actor {
        read.metadata_mut().insert(ACTOR, actor);
    }
    Ok(read)
}

fn rendered<A: Message>(answer: Result<Response<A>, Status>) -> wire::ForwardResponse {
    match answer {
        Ok(response) => wire::ForwardResponse {
            response: response.into_inner().encode_to_vec(),
            ..wire::ForwardResponse::default()
        },
        Err(status) => refused(&status),
    }
}

fn refused(status: &Status) -> wire::ForwardResponse {
    wire::ForwardResponse {
        response: Vec::new(),
        status_code: status.code().into(),
        status_message: status.message().to_owned(),
        status_details: status.details().to_vec(),
    }
}

fn not_leading() -> Status {
    let message = "no instance leads at the moment";
    status::unavailable(ErrorReason::NoLeader, message, RETRY).into_status()
}

/// The leader did not answer: another may lead soon.
fn unreached(status: &Status) -> Status {
    let message = format!(
        "the instance that leads does not answer: {}",
        status.message()
    );
    status::unavailable(ErrorReason::NoLeader, message, RETRY).into_status()
}
