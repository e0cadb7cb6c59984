//! What is done to one service or replica: start, stop, restart, scale, roll
//! back, remove.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use muster_proto::replicas::v1::{
    DeleteServiceRequest, Replica, RestartReplicaRequest, RestartServiceRequest,
    RollbackServiceRequest, ScaleServiceRequest, Service, StartServiceRequest, StopServiceRequest,
};

use super::{
    apply::sentence,
    follow::{self, Goal},
    services,
    worker::reason,
};
use crate::{
    args::{Follow, Following, Rm, Rollback, Scale},
    failure::Failure,
    session::{Component, Session},
};

/// Starts a service.
pub(crate) async fn start(session: &Session, args: &Follow) -> Result<(), Failure> {
    let request = StartServiceRequest {
        name: args.name.clone(),
        reason: reason(None),
        ..Default::default()
    };
    let answer = session
        .call(
            Component::Manager,
            session.replicas().start_service(request),
        )
        .await?;
    to_healthy(session, answer.service, &args.following).await
}

/// Stops a service.
pub(crate) async fn stop(session: &Session, args: &Follow) -> Result<(), Failure> {
    let request = StopServiceRequest {
        name: args.name.clone(),
        reason: reason(None),
        ..Default::default()
    };
    let answer = session
        .call(Component::Manager, session.replicas().stop_service(request))
        .await?;
    to(session, answer.service, Goal::Stopped, &args.following).await
}

/// Restarts a service, or one replica.
pub(crate) async fn restart(session: &Session, args: &Follow) -> Result<(), Failure> {
    if args.name.contains('/') {
        let request = RestartReplicaRequest {
            id: args.name.clone(),
            reason: reason(None),
            ..Default::default()
        };
        let answer = session
            .call(
                Component::Manager,
                session.replicas().restart_replica(request),
            )
            .await?;
        return restarting(session, &answer.replica.unwrap_or_default(), args).await;
    }
    let request = RestartServiceRequest {
        name: args.name.clone(),
        reason: reason(None),
        ..Default::default()
    };
    let answer = session
        .call(
            Component::Manager,
            session.replicas().restart_service(request),
        )
        .await?;
    to_healthy(session, answer.service, &args.following).await
}

/// Shows a replica that is being restarted, until its service has as many ready as it wants again.
async fn restarting(session: &Session, replica: &Replica, args: &Follow) -> Result<(), Failure> {
    let follows = session.follows(&args.following);
    let sentence = match follows {
        true => String::new(),
        false => format!("{} is being restarted\n", replica.id),
    };
    session.print_answer(replica, &replica.id, &sentence)?;
    if !follows {
        return Ok(());
    }
    let service = services::get(session, &replica.service).await?;
    let running = service.status.as_ref().map(|now| now.running_version);
    let version = running.unwrap_or_default();
    follow::service(
        session,
        &service,
        Goal::Healthy { version },
        &args.following,
    )
    .await?;
    session.say(&format!("{} has been restarted\n", replica.id))
}

/// Sets a service's number of replicas.
pub(crate) async fn scale(session: &Session, args: &Scale) -> Result<(), Failure> {
    let request = ScaleServiceRequest {
        name: args.name.clone(),
        replicas: args.replicas,
        ..ScaleServiceRequest::default()
    };
    let answer = session
        .call(
            Component::Manager,
            session.replicas().scale_service(request),
        )
        .await?;
    to_healthy(session, answer.service, &args.following).await
}

/// Applies an earlier version again.
pub(crate) async fn rollback(session: &Session, args: &Rollback) -> Result<(), Failure> {
    let request = RollbackServiceRequest {
        name: args.name.clone(),
        version: args.version.unwrap_or_default(),
        ..RollbackServiceRequest::default()
    };
    let answer = session
        .call(
            Component::Manager,
            session.replicas().rollback_service(request),
        )
        .await?;
    to_healthy(session, answer.service, &args.following).await
}

/// Stops a service and forgets it.
pub(crate) async fn rm(session: &Session, args: &Rm) -> Result<(), Failure> {
    let service = services::get(session, &args.name).await?;
    if !args.yes {
        confirm(&question(&service))?;
    }
    let request = DeleteServiceRequest {
        name: args.name.clone(),
        etag: service.etag.clone(),
        reason: reason(None),
        ..DeleteServiceRequest::default()
    };
    let answer = session
        .call(
            Component::Manager,
            session.replicas().delete_service(request),
        )
        .await?;
    let follows = session.follows(&args.following);
    let sentence = match follows {
        true => String::new(),
        false => format!("{} is being removed\n", args.name),
    };
    session.print_answer(&answer, &args.name, &sentence)?;
    if !follows {
        return Ok(());
    }
    follow::service(session, &service, Goal::Gone, &args.following).await?;
    session.say(&format!("{} is gone\n", args.name))
}

fn question(service: &Service) -> String {
    let status = service.status.as_ref();
    let counts = status.and_then(|status| status.counts).unwrap_or_default();
    let (name, ready) = (&service.name, counts.ready);
    format!("remove {name} with its {ready} ready replicas?")
}

/// Asks whoever sits at the terminal; a program that calls is not asked.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was removed".to_owned())),
    }
}

async fn to_healthy(
    session: &Session,
    service: Option<Service>,
    following: &Following,
) -> Result<(), Failure> {
    let service = service.unwrap_or_default();
    let goal = Goal::up(&service);
    to(session, Some(service), goal, following).await
}

async fn to(
    session: &Session,
    service: Option<Service>,
    goal: Goal,
    following: &Following,
) -> Result<(), Failure> {
    let service = service.unwrap_or_default();
    let follows = session.follows(following);
    let words = if follows {
        String::new()
    } else {
        sentence(&service)
    };
    session.print_answer(&service, &service.name, &words)?;
    if !follows {
        return Ok(());
    }
    follow::service(session, &service, goal, following).await?;
    if session.is_terminal() {
        let now = services::get(session, &service.name).await?;
        session.print(&sentence(&now))?;
    }
    Ok(())
}
