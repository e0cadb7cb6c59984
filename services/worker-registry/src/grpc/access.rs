//! Who may call what, who an agent is, and in whose name things are done.

use std::sync::Arc;

use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::{Principal, Role, Roles, Verify};
use muster_runtime::server::Method;
use muster_runtime::status;
use tonic::{Code, Request, Status};

use super::peers::Passed;
use crate::credential;
use crate::domain::text::Text;
use crate::registry::Registry;

const OWNERS: Roles = Roles::COMPONENT;

/// Agents, and operators who act for them in an emergency.
const AGENTS: Roles = Roles::AGENT;

/// What owners say of drains is in the leader's memory.
pub(super) const REPORT_DRAIN: Passed = Passed {
    path: "/muster.workers.v1.WorkersService/ReportDrain",
    allow: OWNERS,
};

/// Brakes are the leader's.
pub(super) const RELEASE_MASS_LOSS: Passed = Passed {
    path: "/muster.workers.v1.WorkersService/ReleaseMassLoss",
    allow: Roles::OPERATE,
};

/// Every method with the roles that may call it.
pub(crate) const METHODS: &[Method] = &[
    // A machine that comes for the first time proves itself by its join token.
    Method::new(
        "/muster.workers.v1.WorkersService/RegisterWorker",
        Roles::AGENT.and(Role::Anonymous),
    ),
    Method::new("/muster.workers.v1.WorkersService/ActivateWorker", AGENTS),
    Method::new("/muster.workers.v1.WorkersService/Heartbeat", AGENTS).vital(),
    Method::new("/muster.workers.v1.WorkersService/GetWorker", Roles::KNOWN),
    Method::new("/muster.workers.v1.WorkersService/ListWorkers", Roles::READ),
    Method::new(
        "/muster.workers.v1.WorkersService/WatchWorkers",
        Roles::READ,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/UpdateWorker",
        Roles::OPERATE,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/DrainWorker",
        Roles::OPERATE.and(Role::Agent),
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/ResumeWorker",
        Roles::OPERATE,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/DisableWorker",
        Roles::OPERATE,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/EnableWorker",
        Roles::OPERATE,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/DeleteWorker",
        Roles::OPERATE,
    ),
    Method::new(REPORT_DRAIN.path, REPORT_DRAIN.allow),
    Method::new(RELEASE_MASS_LOSS.path, RELEASE_MASS_LOSS.allow),
    Method::new("/muster.workers.v1.WorkersService/Allocate", OWNERS),
    Method::new("/muster.workers.v1.WorkersService/BatchAllocate", OWNERS),
    Method::new("/muster.workers.v1.WorkersService/Release", OWNERS),
    Method::new(
        "/muster.workers.v1.WorkersService/GetAllocation",
        Roles::KNOWN,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/ListAllocations",
        Roles::READ,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/WatchAllocations",
        Roles::READ,
    ),
    Method::new("/muster.workers.v1.WorkersService/ClaimOwner", OWNERS),
    Method::new(
        "/muster.workers.v1.WorkersService/GetCredentialKeys",
        Roles::KNOWN,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/CreateJoinToken",
        Roles::ADMIN,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/ListJoinTokens",
        Roles::OPERATE,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/RevokeJoinToken",
        Roles::ADMIN,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/ListWorkerEvents",
        Roles::READ,
    ),
    Method::new(
        "/muster.workers.v1.WorkersService/WatchWorkerEvents",
        Roles::READ,
    ),
    Method::new(
        "/muster.workers.v1.PeerService/HeardSince",
        Roles::COMPONENT,
    )
    .vital(),
    Method::new("/muster.workers.v1.PeerService/Forward", Roles::COMPONENT),
    Method::new(
        "/muster.workers.v1.PeerService/WatchObserved",
        Roles::COMPONENT,
    ),
];

/// Who did it, if a person on this machine said so.
const ACTOR: &str = "x-muster-actor";

/// The longest name that is believed, in bytes.
const MAX_ACTOR: usize = 128;

/// The name under which the layers know a caller on loopback that need not prove itself.
const LOCAL: &str = "local";

/// Knows the credentials that this registry signed.
pub(crate) struct AgentVerifier(pub(crate) Registry);

impl Verify for AgentVerifier {
    fn verify(&self, token: &str) -> Option<Principal> {
        let claim = self.0.keys.read(token)?;
        let hash = credential::hash(token);
        let live = self.0.lives.get(&claim.name);
        let known = live.as_ref().is_some_and(|live| live.is_known_by(&hash));
        // A signature costs as much as the rest of a heartbeat, so a credential is checked once.
        if !known {
            self.0.keys.verify(token)?;
        }
        let principal = Principal::new(Role::Agent, &claim.name);
        let view = self.0.view();
        let (record, stone) = (view.worker(&claim.name), view.tombstone(&claim.name));
        match (record, stone) {
            (Some(entry), _) if entry.worker.uid == claim.uid => {
                if let Some(live) = live.filter(|_| !known) {
                    live.known_by(hash);
                }
                Some(principal)
            }
            // A registry that was restored may not know the worker yet.
            (None, stone) if stone.is_none_or(|stone| !stone.buries(&claim.uid)) => Some(principal),
            (Some(_) | None, _) => None,
        }
    }
}

impl std::fmt::Debug for AgentVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentVerifier")
    }
}

/// In whose name a call is made: who proved itself, or whom a caller on this machine names.
pub(crate) fn actor<T>(request: &Request<T>) -> Text {
    let principal = Principal::of(request);
    let named = || {
        request
            .metadata()
            .get(ACTOR)
            .and_then(|value| value.to_str().ok())
    };
    match principal.role() {
        Role::Admin if principal.name() == LOCAL => named()
            .filter(|name| name.len() <= MAX_ACTOR)
            .unwrap_or("anonymous")
            .into(),
        Role::Anonymous => "anonymous".into(),
        Role::Agent => "agent".into(),
        Role::Admin | Role::Operator | Role::Viewer | Role::Component => principal.name().into(),
    }
}

/// An agent speaks only for itself; whoever else may call speaks for any worker.
pub(crate) fn speaks_for<T>(
    registry: &Registry,
    request: &Request<T>,
    worker: &str,
) -> Result<(), Status> {
    let principal = Principal::of(request);
    if principal.role() != Role::Agent || principal.name() == worker {
        return Ok(());
    }
    let view = registry.view();
    let bound = view.worker(worker).map(|entry| Arc::clone(&entry.worker));
    drop(view);
    let by_certificate = principal
        .san()
        .zip(bound.as_ref())
        .is_some_and(|(san, worker)| *san == *worker.san);
    // Not yet bound: the registration itself decides.
    let unbound = principal.san().is_some()
        && bound.is_none_or(|worker| worker.san.is_empty() && worker.generation == 0);
    if by_certificate || unbound {
        return Ok(());
    }
    let message = format!("{principal} may not speak for worker {worker}");
    Err(status::error(Code::PermissionDenied, ErrorReason::NotYourself, message).into_status())
}

/// The bearer token of a call.
pub(crate) fn bearer<T>(request: &Request<T>) -> Option<&str> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}
