//! Creates, updates and the rest of what users ask for. Each is one change of one service.

use std::sync::Arc;

use muster_proto::replicas::v1 as wire;
use muster_proto::types::v1::ErrorReason;
use muster_runtime::auth::Principal;
use muster_runtime::status::{self, Violations};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Response, Status};

use super::convert::replica::render_replica;
use super::convert::service::{etag, render_effect, render_service};
use super::convert::spec::{parse_spec, render_spec};
use super::convert::{mask, natural};
use super::errors::{self, Stopped};
use super::reads::parse_replica_id;
use super::{Api, actor, project};
use crate::domain::replica::Replica;
use crate::domain::service::command::Identity;
use crate::domain::service::{Intent, Service};
use crate::domain::spec::Spec;
use crate::domain::spec::diff::{self, Diff, Effect};
use crate::domain::time::Time;
use crate::engine::{Cause, Changed, Error};
use crate::ids;
use crate::state::keys;
use crate::state::record::Used;

/// The longest request id.
const LONGEST_REQUEST_ID: usize = 64;

/// How often a name that is created and deleted by others meanwhile is looked up again.
const TRIES: usize = 3;

impl Api {
    pub(super) async fn create_service(
        &self,
        request: Request<wire::CreateServiceRequest>,
    ) -> Result<Response<wire::CreateServiceResponse>, Status> {
        let (principal, actor) = (Principal::of(&request), actor(&request));
        let asked = request.into_inner();
        let mut in_step = false;
        // Once more if the same request is made by another call meanwhile.
        for _ in 0..TRIES {
            // Looked at before the request id: if this very request has taken the name, that is seen too.
            let name = asked.spec.as_ref().map_or("", |spec| spec.name.as_str());
            let taken = self.find(project(&asked.project)?, name).is_ok();
            let replay = self.replay("CreateService", &principal, &asked.request_id, &asked)?;
            if taken && !in_step && matches!(replay, Replay::New(_)) {
                // It may have been deleted through another instance.
                self.in_step().await?;
                in_step = true;
                continue;
            }
            let tried = self.try_create(&asked, taken, &actor, &replay).await?;
            if let Some(response) = tried {
                return Ok(Response::new(response));
            }
        }
        Err(overtaken())
    }

    /// `None` if the request id was used in between.
    async fn try_create(
        &self,
        asked: &wire::CreateServiceRequest,
        taken: bool,
        actor: &str,
        replay: &Replay,
    ) -> Result<Option<wire::CreateServiceResponse>, Status> {
        let project = project(&asked.project)?;
        if let Replay::Done(service) = replay {
            return Ok(Some(self.created(service, self.now_at())));
        }
        let spec = parse_required(asked.spec.clone())?;
        let name = spec.name.clone();
        if taken {
            return Err(errors::exists(&name));
        }
        let service = self.new_service(project, spec, !asked.no_start);
        if asked.validate_only {
            return Ok(Some(self.created(&service, self.now_at())));
        }
        let now = self.engine.now();
        let cause = replay.cause(actor.to_owned(), &service.header.uid, true, now);
        match self.engine.create(service, &cause).await {
            Ok(changed) => {
                let service = changed.service.ok_or_else(status::internal)?;
                Ok(Some(self.created(&service, changed.revision)))
            }
            Err(Error::Store(error)) => Err(errors::stored(&error)),
            Err(Error::Repeated) => Ok(None),
            Err(Error::Refused(()) | Error::Gone | Error::NotLeading) => Err(errors::exists(&name)),
        }
    }

    fn now_at(&self) -> u64 {
        self.engine.parts().progress.current()
    }

    fn new_service(&self, project: &str, spec: Spec, start: bool) -> Service {
        let identity = Identity {
            project: project.to_owned(),
            uid: ids::uid(),
        };
        Service::create(identity, spec, start, self.engine.now())
    }

    fn created(&self, service: &Service, revision: u64) -> wire::CreateServiceResponse {
        wire::CreateServiceResponse {
            service: Some(self.shown(service)),
            notes: notes(service),
            resume_token: self.token(revision),
        }
    }

    pub(super) async fn update_service(
        &self,
        request: Request<wire::UpdateServiceRequest>,
    ) -> Result<Response<wire::UpdateServiceResponse>, Status> {
        let (principal, actor) = (Principal::of(&request), actor(&request));
        let asked = request.into_inner();
        for _ in 0..TRIES {
            let replay = self.replay("UpdateService", &principal, &asked.request_id, &asked)?;
            if let Replay::Done(service) = &replay {
                let answer = self.updated(service, Updated::unchanged(), self.now_at());
                return Ok(Response::new(answer));
            }
            let outcome = self.try_update(&asked, &actor, &replay).await?;
            if let Some(response) = outcome {
                return Ok(Response::new(response));
            }
        }
        Err(overtaken())
    }

    /// `None` if the service came or went in between, or the request id was used.
    async fn try_update(
        &self,
        asked: &wire::UpdateServiceRequest,
        actor: &str,
        replay: &Replay,
    ) -> Result<Option<wire::UpdateServiceResponse>, Status> {
        let project = project(&asked.project)?;
        let given = asked.spec.clone().unwrap_or_default();
        let name = given.name.clone();
        let Ok(service) = self.found(project, &name).await else {
            return self.create_by_update(asked, project, actor, replay).await;
        };
        let now = self.engine.now();
        let cause = replay.cause(actor.to_owned(), &service.header.uid, false, now);
        let paths = asked
            .update_mask
            .as_ref()
            .map_or(&[][..], |mask| &mask.paths);
        let mut seen = None;
        let alter = |service: &mut Service, now: Time| -> Result<(), Stopped> {
            etag(service, &self.epoch)
                .check(&asked.etag)
                .map_err(|error| error.into_status("etag"))?;
            let current = render_spec(service.spec());
            let merged = mask::merge(&current, given.clone(), paths).map_err(under_spec)?;
            let spec = parse_spec(merged).map_err(under_spec)?;
            let counts = mask::covers(paths, &given, "replicas");
            let updated = apply(service, spec, counts, !asked.no_start, now)?;
            seen = Some((updated, service.clone()));
            if asked.validate_only {
                Err(Stopped::Dry)
            } else {
                Ok(())
            }
        };
        let outcome = self.engine.change(&service.header.uid, &cause, alter).await;
        match (outcome, seen) {
            (Ok(changed), Some((updated, _))) => {
                let service = changed.service.ok_or_else(|| errors::no_service(&name))?;
                Ok(Some(self.updated(&service, updated, changed.revision)))
            }
            (Err(Error::Refused(Stopped::Dry)), Some((updated, service))) => {
                Ok(Some(self.updated(&service, updated, self.now_at())))
            }
            (Err(Error::Gone | Error::Repeated), _) => Ok(None),
            (Err(error), _) => Err(errors::change(error, &name)),
            (Ok(_), None) => Err(status::internal()),
        }
    }

    async fn create_by_update(
        &self,
        asked: &wire::UpdateServiceRequest,
        project: &str,
        actor: &str,
        replay: &Replay,
    ) -> Result<Option<wire::UpdateServiceResponse>, Status> {
        let name = asked.spec.as_ref().map_or("", |spec| spec.name.as_str());
        if !asked.allow_missing {
            return Err(errors::no_service(name));
        }
        if !asked.etag.is_empty() {
            let message = "there is no such service, so the etag cannot be its current one";
            let error = status::error(Code::Aborted, ErrorReason::EtagMismatch, message);
            return Err(error.into_status());
        }
        let spec = parse_required(asked.spec.clone())?;
        let service = self.new_service(project, spec, !asked.no_start);
        let updated = Updated {
            diff: Diff {
                paths: Vec::new(),
                effect: Effect::Rolling,
            },
            created: true,
            notes: Vec::new(),
        };
        if asked.validate_only {
            return Ok(Some(self.updated(&service, updated, self.now_at())));
        }
        let now = self.engine.now();
        let cause = replay.cause(actor.to_owned(), &service.header.uid, true, now);
        match self.engine.create(service, &cause).await {
            Ok(changed) => {
                let service = changed.service.ok_or_else(status::internal)?;
                Ok(Some(self.updated(&service, updated, changed.revision)))
            }
            Err(Error::Store(error)) => Err(errors::stored(&error)),
            Err(Error::Refused(()) | Error::Gone | Error::Repeated) => Ok(None),
            Err(Error::NotLeading) => Err(status::internal()),
        }
    }

    fn updated(
        &self,
        service: &Service,
        updated: Updated,
        revision: u64,
    ) -> wire::UpdateServiceResponse {
        let mut notes = updated.notes;
        if updated.created || updated.diff.paths.iter().any(|path| path == "retry") {
            notes.extend(self::notes(service));
        }
        wire::UpdateServiceResponse {
            service: Some(self.shown(service)),
            changed_paths: updated.diff.paths,
            effect: render_effect(updated.diff.effect).into(),
            created: updated.created,
            notes,
            resume_token: self.token(revision),
        }
    }

    pub(super) async fn start_service(
        &self,
        request: Request<wire::StartServiceRequest>,
    ) -> Result<Response<wire::StartServiceResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let words = words("started", &asked.reason, &actor);
        let target = (
            asked.project.as_str(),
            asked.name.as_str(),
            asked.etag.as_str(),
        );
        let act = |service: &mut Service, now| Ok(service.start(&words, now)?);
        let changed = self.command(target, &actor, act).await?;
        Ok(Response::new(wire::StartServiceResponse {
            service: self.rendered(&changed),
            resume_token: self.token(changed.revision),
        }))
    }

    pub(super) async fn stop_service(
        &self,
        request: Request<wire::StopServiceRequest>,
    ) -> Result<Response<wire::StopServiceResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let words = words("stopped", &asked.reason, &actor);
        let target = (
            asked.project.as_str(),
            asked.name.as_str(),
            asked.etag.as_str(),
        );
        let act = |service: &mut Service, now| Ok(service.stop(&words, now)?);
        let changed = self.command(target, &actor, act).await?;
        Ok(Response::new(wire::StopServiceResponse {
            service: self.rendered(&changed),
            resume_token: self.token(changed.revision),
        }))
    }

    pub(super) async fn delete_service(
        &self,
        request: Request<wire::DeleteServiceRequest>,
    ) -> Result<Response<wire::DeleteServiceResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let words = words("deleted", &asked.reason, &actor);
        let target = (
            asked.project.as_str(),
            asked.name.as_str(),
            asked.etag.as_str(),
        );
        let act = |service: &mut Service, now| {
            service.delete(&words, now);
            Ok(())
        };
        let changed = self.command(target, &actor, act).await?;
        Ok(Response::new(wire::DeleteServiceResponse {
            service: self.rendered(&changed),
            resume_token: self.token(changed.revision),
        }))
    }

    pub(super) async fn scale_service(
        &self,
        request: Request<wire::ScaleServiceRequest>,
    ) -> Result<Response<wire::ScaleServiceResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let mut faults = Violations::new();
        let replicas = natural(asked.replicas, "replicas", &mut faults);
        if replicas > crate::domain::spec::check::MAX_REPLICAS {
            let most = crate::domain::spec::check::MAX_REPLICAS;
            faults.add("replicas", format!("must be at most {most}, is {replicas}"));
        }
        faults.into_result()?;
        let target = (
            asked.project.as_str(),
            asked.name.as_str(),
            asked.etag.as_str(),
        );
        let act = |service: &mut Service, now| {
            if let Some(most) = service.most_by_scaling().filter(|most| replicas > *most) {
                let words = format!(
                    "must be at most {most}, is {replicas}: apply a spec with a higher replicas.max first"
                );
                return Err(status::invalid_field("replicas", words).into());
            }
            Ok(service.scale(replicas, now)?)
        };
        let changed = self.command(target, &actor, act).await?;
        Ok(Response::new(wire::ScaleServiceResponse {
            service: self.rendered(&changed),
            resume_token: self.token(changed.revision),
        }))
    }

    pub(super) async fn restart_service(
        &self,
        request: Request<wire::RestartServiceRequest>,
    ) -> Result<Response<wire::RestartServiceResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let target = (
            asked.project.as_str(),
            asked.name.as_str(),
            asked.etag.as_str(),
        );
        let act = |service: &mut Service, now| Ok(service.restart(now)?);
        let changed = self.command(target, &actor, act).await?;
        Ok(Response::new(wire::RestartServiceResponse {
            service: self.rendered(&changed),
            resume_token: self.token(changed.revision),
        }))
    }

    pub(super) async fn rollback_service(
        &self,
        request: Request<wire::RollbackServiceRequest>,
    ) -> Result<Response<wire::RollbackServiceResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let target = (
            asked.project.as_str(),
            asked.name.as_str(),
            asked.etag.as_str(),
        );
        let act = |service: &mut Service, now| {
            let earlier = self.earlier(service, asked.version)?;
            apply(service, (*earlier).clone(), true, false, now).map(|_| ())
        };
        let changed = self.command(target, &actor, act).await?;
        Ok(Response::new(wire::RollbackServiceResponse {
            service: self.rendered(&changed),
            resume_token: self.token(changed.revision),
        }))
    }

    /// The spec of a kept version; of the one before the current for 0.
    fn earlier(&self, service: &Service, version: i64) -> Result<Arc<Spec>, Status> {
        let view = self.engine.parts().view.read();
        let versions = view.versions(&service.header.uid);
        let current = service.header.version;
        let found = versions.and_then(|versions| match u64::try_from(version) {
            Ok(0) => versions
                .range(..current)
                .next_back()
                .map(|(_, version)| version),
            Ok(version) => versions.get(&version),
            Err(_) => None,
        });
        found
            .map(|version| Arc::clone(&version.spec))
            .ok_or_else(|| {
                let message = match version {
                    0 => "there is no earlier version to go back to".to_owned(),
                    version => format!("version {version} is not kept"),
                };
                let reason = ErrorReason::NoSuchVersion;
                status::error(Code::FailedPrecondition, reason, message).into_status()
            })
    }

    pub(super) async fn restart_replica(
        &self,
        request: Request<wire::RestartReplicaRequest>,
    ) -> Result<Response<wire::RestartReplicaResponse>, Status> {
        let actor = actor(&request);
        let asked = request.into_inner();
        let missing = || errors::no_replica(&asked.id);
        let (name, ordinal) = parse_replica_id(&asked.id).ok_or_else(missing)?;
        let act = |service: &mut Service, now| match service.restart_replica(ordinal, now)? {
            Some(()) => Ok(()),
            None => Err(missing().into()),
        };
        let changed = self
            .command((&asked.project, name, ""), &actor, act)
            .await?;
        let service = changed.service.as_deref();
        let rendered = service.and_then(|service| {
            let replica: &Replica = service.replicas.get(&ordinal)?;
            Some(render_replica(service, replica))
        });
        Ok(Response::new(wire::RestartReplicaResponse {
            replica: rendered,
            resume_token: self.token(changed.revision),
        }))
    }

    /// The service that is to be changed. One that is not seen here yet may have been made at another
    /// instance, by the same caller.
    async fn found(&self, project: &str, name: &str) -> Result<Arc<Service>, Status> {
        if let Ok((service, _)) = self.find(project, name) {
            return Ok(service);
        }
        self.in_step().await?;
        self.find(project, name).map(|(service, _)| service)
    }

    /// Waits until what is read here is no older than the store is now.
    pub(super) async fn in_step(&self) -> Result<(), Status> {
        let in_step = self.engine.in_step().await;
        in_step.map_err(|error| errors::store(&error))
    }

    /// Changes one service by name: (project, name, etag).
    pub(super) async fn command(
        &self,
        (asked_project, name, given): (&str, &str, &str),
        actor: &str,
        mut act: impl FnMut(&mut Service, Time) -> Result<(), Stopped>,
    ) -> Result<Changed, Status> {
        let service = self.found(project(asked_project)?, name).await?;
        let alter = |service: &mut Service, now: Time| {
            let current = etag(service, &self.epoch);
            current
                .check(given)
                .map_err(|error| error.into_status("etag"))?;
            act(service, now)
        };
        let cause = Cause::by(actor);
        let outcome = self.engine.change(&service.header.uid, &cause, alter).await;
        outcome.map_err(|error| errors::change(error, name))
    }

    /// A service as it is now.
    pub(super) fn shown(&self, service: &Service) -> wire::Service {
        render_service(service, &self.epoch, Some(self.engine.now()))
    }

    fn rendered(&self, changed: &Changed) -> Option<wire::Service> {
        let service = changed.service.as_deref();
        service.map(|service| self.shown(service))
    }

    /// Whether a request id was used before.
    fn replay<M: prost::Message>(
        &self,
        method: &str,
        principal: &Principal,
        id: &str,
        request: &M,
    ) -> Result<Replay, Status> {
        if id.is_empty() {
            return Ok(Replay::New(None));
        }
        if id.chars().count() > LONGEST_REQUEST_ID {
            let message = format!("must be at most {LONGEST_REQUEST_ID} characters");
            return Err(status::invalid_field("request_id", message));
        }
        let scope = format!("{}\n{method}\n{id}", principal.id());
        let key = format!("{}{}", keys::REQUESTS, hash(scope.as_bytes()));
        let body = hash(&request.encode_to_vec());
        let view = self.engine.parts().view.read();
        let Some(used) = view.requests.get(key.as_str()) else {
            return Ok(Replay::New(Some((key, body))));
        };
        if used.body != body {
            let message = "the request id was used before with another request";
            let reason = ErrorReason::RequestIdReused;
            let error = status::error(Code::InvalidArgument, reason, message);
            return Err(error.into_status());
        }
        let stored = view.of(&used.uid);
        let service = stored.map(|stored| Arc::clone(&stored.service));
        service.map(Replay::Done).ok_or_else(|| {
            errors::not_found("the service that this request made is deleted".to_owned())
        })
    }
}

/// Others were faster, again and again.
fn overtaken() -> Status {
    let message = "the service was created and deleted by others meanwhile";
    status::error(Code::Aborted, ErrorReason::EtagMismatch, message).into_status()
}

/// What came of a request id.
enum Replay {
    /// It is new, or there is none: its key and the request's hash.
    New(Option<(String, String)>),
    /// It was used: the service as it is now.
    Done(Arc<Service>),
}

impl Replay {
    fn cause(&self, actor: String, uid: &str, created: bool, at: Time) -> Cause {
        let request = match self {
            Self::New(Some((key, body))) => Some((
                key.clone(),
                Used {
                    body: body.clone(),
                    uid: uid.to_owned(),
                    created,
                    at,
                },
            )),
            Self::New(None) | Self::Done(_) => None,
        };
        Cause::by(actor).using(request)
    }
}

fn hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What an update came to.
struct Updated {
    diff: Diff,
    created: bool,
    notes: Vec<String>,
}

impl Updated {
    fn unchanged() -> Self {
        Self {
            diff: Diff {
                paths: Vec::new(),
                effect: Effect::None,
            },
            created: false,
            notes: Vec::new(),
        }
    }
}

/// Gives a service another spec, and starts it if that is asked for. `counts`: the spec's number of replicas
/// holds from now on, whatever a user has scaled it to.
fn apply(
    service: &mut Service,
    spec: Spec,
    counts: bool,
    start: bool,
    now: Time,
) -> Result<Updated, Stopped> {
    let diff = diff::diff(service.spec(), &spec);
    let mut notes = Vec::new();
    let scale = service.header.scale;
    let given_up = scale.filter(|_| counts);
    if let Some(scale) = given_up {
        let min = spec.replicas.min;
        notes.push(format!(
            "the count of {scale} set by scaling is given up: the spec's {min} holds"
        ));
    }
    let rolled_back = service
        .header
        .rollout
        .as_ref()
        .is_some_and(|rollout| rollout.stage == crate::domain::rollout::Stage::RolledBack);
    if diff.effect == Effect::None && rolled_back {
        let version = service.header.version;
        notes.push(format!(
            "version {version} was rolled back and does not run: restart the service to try it again"
        ));
    }
    let starts = start && service.header.intent != Intent::Run;
    if diff.effect != Effect::None || given_up.is_some() {
        service.update(spec, &diff, now)?;
        service.header.scale = scale.filter(|_| !counts);
    }
    if starts {
        service.start("applied", now)?;
    }
    Ok(Updated {
        diff,
        created: false,
        notes,
    })
}

fn parse_required(spec: Option<wire::ServiceSpec>) -> Result<Spec, Status> {
    let Some(spec) = spec else {
        return Err(status::invalid_field("spec", "is required"));
    };
    parse_spec(spec).map_err(under_spec)
}

fn under_spec(faults: Violations) -> Status {
    let mut whole = Violations::new();
    whole.extend_under("spec", faults);
    whole.into_status()
}

/// What a user may not expect.
fn notes(service: &Service) -> Vec<String> {
    let mut notes = Vec::new();
    if service.spec().retry.is_none() {
        notes.push(
            "fail fast: without retry, the first failure of a replica ends the service".to_owned(),
        );
    }
    notes
}

/// Why and by whom a service was started, stopped or deleted.
fn words(done: &str, reason: &str, actor: &str) -> String {
    let reason: String = reason.chars().take(256).collect();
    match reason.as_str() {
        "" => format!("{done} by {actor}"),
        reason => format!("{done} by {actor}: {reason}"),
    }
}
