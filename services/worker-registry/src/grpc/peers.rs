//! The calls that this instance makes of the others on its store, and what passes both ways in them.

use std::time::Duration;

use muster_proto::types::v1::ErrorReason;
use muster_proto::workers::v1 as proto;
use muster_proto::workers::v1::peer_service_client::PeerServiceClient;
use muster_runtime::auth::{Principal, Roles};
use muster_runtime::deadline::Deadline;
use muster_runtime::instances::Peer;
use muster_runtime::status::{self, Violations};
use prost::Message;
use tonic::{Code, Request, Status, Streaming};

use super::convert::{
    parse_blocks, parse_duration, parse_liveness, parse_time, render_liveness, render_progress,
    render_time,
};
use crate::domain::drain::Progress;
use crate::domain::text::Text;
use crate::registry::{RETRY, Registry, Told};
use crate::seen::{Observed, Seen};

/// The most workers that are asked about at once.
pub(super) const MAX_ASKED: usize = 10_000;

/// The longest that the leader may take over a call that was passed on, where its caller names no deadline.
const PASSED_ON_WITHIN: Duration = Duration::from_secs(5);

/// A call that only the leader answers: its path, and who may make it.
pub(super) struct Passed {
    pub(super) path: &'static str,
    pub(super) allow: Roles,
}

/// Whom the other instance heard, and how long ago.
///
/// # Errors
/// The other cannot be asked, or knows another leader.
pub(crate) async fn heard_since(
    peer: &Peer,
    names: &[Text],
    term: u64,
) -> Result<Vec<(Text, Duration)>, Status> {
    let mut client = PeerServiceClient::new(peer.channel.clone());
    let mut found = Vec::new();
    // Where there is nobody to ask about, it is asked whether it is there.
    let chunks = names.chunks(MAX_ASKED);
    let none: &[Text] = &[];
    for chunk in chunks.chain(names.is_empty().then_some(none)) {
        let request = proto::HeardSinceRequest {
            workers: chunk.iter().map(ToString::to_string).collect(),
            leader_revision: i64::try_from(term).unwrap_or(i64::MAX),
        };
        let heard = client.heard_since(request).await?.into_inner().heard;
        found.extend(heard.into_iter().filter_map(|one| {
            let ago = parse_duration("ago", one.ago.as_ref(), &mut Violations::new())?;
            Some((one.worker.into(), ago))
        }));
    }
    Ok(found)
}

/// What the leader observes, from now on.
///
/// # Errors
/// The other cannot be asked, or does not lead.
pub(crate) async fn watch_observed(
    leader: &Peer,
) -> Result<Streaming<proto::WatchObservedResponse>, Status> {
    let mut client = PeerServiceClient::new(leader.channel.clone());
    let answer = client
        .watch_observed(proto::WatchObservedRequest {})
        .await?;
    Ok(answer.into_inner())
}

/// Lets the leader answer a call that came here.
///
/// # Errors
/// What the leader answers; UNAVAILABLE (NO_LEADER) without one.
pub(super) async fn pass_on<Q: Message, A: Message + Default>(
    registry: &Registry,
    passed: &Passed,
    request: Request<Q>,
) -> Result<A, Status> {
    let leader = registry.instances.leader().await?;
    let mut call = Request::new(proto::ForwardRequest {
        method: passed.path.to_owned(),
        principal: Principal::of(&request).id().to_owned(),
        request: request.get_ref().encode_to_vec(),
    });
    let deadline = Deadline::of(&request).unwrap_or_else(|| Deadline::after(PASSED_ON_WITHIN));
    deadline.carry(&mut call);
    let mut client = PeerServiceClient::new(leader.channel.clone());
    let answer = client.forward(call).await?.into_inner();
    if answer.status_code != 0 {
        let code = Code::from_i32(answer.status_code);
        let details = answer.status_details.into();
        return Err(Status::with_details(code, answer.status_message, details));
    }
    A::decode(answer.response.as_slice())
        .map_err(|_| unavailable("the leader's answer cannot be read"))
}

/// UNAVAILABLE: it is for the leader to answer.
pub(super) fn not_leading() -> Status {
    unavailable("this instance does not lead")
}

fn unavailable(message: &str) -> Status {
    status::unavailable(ErrorReason::NoLeader, message, RETRY).into_status()
}

/// What the leader observes of a worker, without its record.
pub(super) fn render_told(seen: &Seen) -> proto::Worker {
    proto::Worker {
        name: seen.worker.name.to_string(),
        liveness: render_liveness(seen.observed.liveness).into(),
        liveness_time: Some(render_time(seen.observed.since)),
        heartbeat_time: seen.observed.heard.map(render_time),
        drain: seen.progress.as_deref().map(render_progress),
        ..proto::Worker::default()
    }
}

/// The same as it came from the leader; none if it cannot be read.
pub(crate) fn parse_told(worker: proto::Worker) -> Option<Told> {
    let observed = Observed {
        liveness: parse_liveness(worker.liveness())?,
        since: parse_time(worker.liveness_time.as_ref())?,
        heard: parse_time(worker.heartbeat_time.as_ref()),
    };
    let progress = worker.drain.map(|drain| Progress {
        moved: u32::try_from(drain.moved).unwrap_or_default(),
        eta: parse_time(drain.eta_time.as_ref()),
        blocked: parse_blocks(drain.blocked, &mut Violations::new()),
    });
    Some(Told {
        observed,
        progress: progress.map(Into::into),
    })
}
