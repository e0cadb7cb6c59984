//! What is done to services or replicas: start, stop, restart, scale, roll back,
//! remove.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
};

use muster_proto::replicas::v1::{
    DeleteServiceRequest, RestartReplicaRequest, RestartServiceRequest, RollbackServiceRequest,
    ScaleServiceRequest, Service, StartServiceRequest, StopServiceRequest,
};

use super::{
    apply::sentence,
    each::each,
    follow::{self, Goal},
    services,
    worker::reason,
};
use crate::{
    args::{Follow, Following, Rm, Rollback, Scale},
    failure::Failure,
    session::{Component, Session},
};

/// Starts services.
pub(crate) async fn start(session: &Session, args: &Follow) -> Result<(), Failure> {
    all_there(session, &args.names).await?;
    let act = async |name: &str| {
        let request = StartServiceRequest {
            name: name.to_owned(),
            reason: reason(None),
            ..Default::default()
        };
        let mut manager = session.replicas();
        let asked = manager.start_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        Ok(answer.service.unwrap_or_default())
    };
    to(session, &args.names, act, Goal::up, &args.following).await
}

/// Stops services.
pub(crate) async fn stop(session: &Session, args: &Follow) -> Result<(), Failure> {
    all_there(session, &args.names).await?;
    let act = async |name: &str| {
        let request = StopServiceRequest {
            name: name.to_owned(),
            reason: reason(None),
            ..Default::default()
        };
        let mut manager = session.replicas();
        let asked = manager.stop_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        Ok(answer.service.unwrap_or_default())
    };
    to(
        session,
        &args.names,
        act,
        |_| Goal::Stopped,
        &args.following,
    )
    .await
}

/// Restarts services, or single replicas.
pub(crate) async fn restart(session: &Session, args: &Follow) -> Result<(), Failure> {
    let replicas = args.names.iter().filter(|name| name.contains('/')).count();
    if replicas == args.names.len() {
        return restart_replicas(session, args).await;
    }
    if replicas > 0 {
        let message = "restart either services or replicas at a time, not both";
        return Err(Failure::Usage(message.to_owned()));
    }
    let mut found = Vec::new();
    for name in &args.names {
        found.push(services::get(session, name).await?);
    }
    for words in found.iter().filter_map(tried_again) {
        session.say(&words)?;
    }
    let act = async |name: &str| {
        let request = RestartServiceRequest {
            name: name.to_owned(),
            reason: reason(None),
            ..Default::default()
        };
        let mut manager = session.replicas();
        let asked = manager.restart_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        Ok(answer.service.unwrap_or_default())
    };
    to(session, &args.names, act, Goal::up, &args.following).await
}

/// Restarts replicas, and shows them until their services have as many ready as they want again.
async fn restart_replicas(session: &Session, args: &Follow) -> Result<(), Failure> {
    let follows = session.follows(&args.following);
    let act = async |id: &str| {
        let request = RestartReplicaRequest {
            id: id.to_owned(),
            reason: reason(None),
            ..Default::default()
        };
        let mut manager = session.replicas();
        let asked = manager.restart_replica(request);
        let answer = session.call(Component::Manager, asked).await?;
        let sentence = match follows {
            true => String::new(),
            false => format!("{id} is being restarted\n"),
        };
        Ok((answer.replica.unwrap_or_default(), sentence))
    };
    let replicas = each(session, &args.names, act).await?;
    if !follows {
        return Ok(());
    }
    let names: BTreeSet<_> = replicas.iter().map(|replica| &replica.service).collect();
    let mut goals = Vec::new();
    for name in names {
        let service = services::get(session, name).await?;
        let running = service.status.as_ref().map(|now| now.running_version);
        let version = running.unwrap_or_default();
        goals.push((Goal::Healthy { version }, service));
    }
    follow::services(session, &goals, &args.following).await?;
    for id in &args.names {
        session.say(&format!("{id} has been restarted\n"))?;
    }
    Ok(())
}

/// What a restart does that is easily not meant: after a rollback, it is not what runs that is asked for.
fn tried_again(service: &Service) -> Option<String> {
    let running = service.status.as_ref()?.running_version;
    let (name, version) = (&service.name, service.version);
    (running < version && follow::rolled_back(service, version)).then(|| {
        format!(
            "{name} runs version {running}, since version {version} was rolled back; a restart tries {version} \
             again. `muster rollback {name} {running}` restarts it in version {running}\n"
        )
    })
}

/// What a rollback does to a version that runs already, after the one that is asked for was rolled back.
fn replaced_by_itself(service: &Service, asked: Option<i64>) -> Option<String> {
    let running = service.status.as_ref()?.running_version;
    let (name, version) = (&service.name, service.version);
    let back = asked.unwrap_or(version - 1) == running;
    (back && follow::rolled_back(service, version)).then(|| {
        format!(
            "{name} runs version {running} already, since version {version} was rolled back: it becomes what is \
             asked for, and its replicas are replaced one after the other\n"
        )
    })
}

/// That of several services each is there, before anything is done to one of them.
async fn all_there(session: &Session, names: &[String]) -> Result<(), Failure> {
    if names.len() > 1 {
        for name in names {
            services::get(session, name).await?;
        }
    }
    Ok(())
}

/// Sets a service's number of replicas.
pub(crate) async fn scale(session: &Session, args: &Scale) -> Result<(), Failure> {
    let act = async |name: &str| {
        let request = ScaleServiceRequest {
            name: name.to_owned(),
            replicas: args.replicas,
            ..ScaleServiceRequest::default()
        };
        let mut manager = session.replicas();
        let asked = manager.scale_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        Ok(answer.service.unwrap_or_default())
    };
    let names = [args.name.clone()];
    to(session, &names, act, Goal::up, &args.following).await
}

/// Applies an earlier version again.
pub(crate) async fn rollback(session: &Session, args: &Rollback) -> Result<(), Failure> {
    let service = services::get(session, &args.name).await?;
    if let Some(words) = replaced_by_itself(&service, args.version) {
        session.say(&words)?;
    }
    let act = async |name: &str| {
        let request = RollbackServiceRequest {
            name: name.to_owned(),
            version: args.version.unwrap_or_default(),
            ..RollbackServiceRequest::default()
        };
        let mut manager = session.replicas();
        let asked = manager.rollback_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        Ok(answer.service.unwrap_or_default())
    };
    let names = [args.name.clone()];
    to(session, &names, act, Goal::up, &args.following).await
}

/// Stops services and forgets them.
pub(crate) async fn rm(session: &Session, args: &Rm) -> Result<(), Failure> {
    let mut goals = Vec::new();
    for name in &args.names {
        goals.push((Goal::Gone, services::get(session, name).await?));
    }
    if !args.yes {
        confirm(&question(goals.iter().map(|(_, service)| service)))?;
    }
    let follows = session.follows(&args.following);
    let act = async |name: &str| {
        let shown = goals.iter().find(|(_, service)| service.name == name);
        let request = DeleteServiceRequest {
            name: name.to_owned(),
            etag: shown.map_or_else(String::new, |(_, service)| service.etag.clone()),
            reason: reason(None),
            ..DeleteServiceRequest::default()
        };
        let mut manager = session.replicas();
        let asked = manager.delete_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        let sentence = match follows {
            true => String::new(),
            false => format!("{name} is being removed\n"),
        };
        Ok((answer, sentence))
    };
    each(session, &args.names, act).await?;
    if !follows {
        return Ok(());
    }
    follow::services(session, &goals, &args.following).await?;
    for name in &args.names {
        session.say(&format!("{name} is gone\n"))?;
    }
    Ok(())
}

fn question<'a>(services: impl Iterator<Item = &'a Service>) -> String {
    let words = services.map(|service| {
        let status = service.status.as_ref();
        let counts = status.and_then(|status| status.counts).unwrap_or_default();
        format!("{} with its {} ready replicas", service.name, counts.ready)
    });
    format!("remove {}?", words.collect::<Vec<_>>().join(", "))
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

/// Does something to services, and shows them until each has reached its goal.
async fn to(
    session: &Session,
    names: &[String],
    act: impl AsyncFn(&str) -> Result<Service, Failure>,
    goal: impl Fn(&Service) -> Goal,
    following: &Following,
) -> Result<(), Failure> {
    let follows = session.follows(following);
    let told = async |name: &str| {
        let service = act(name).await?;
        let words = match follows {
            true => String::new(),
            false => sentence(&service),
        };
        Ok((service, words))
    };
    let services = each(session, names, told).await?;
    if !follows {
        return Ok(());
    }
    let services = services.into_iter();
    let goals: Vec<_> = services.map(|service| (goal(&service), service)).collect();
    follow::services(session, &goals, following).await?;
    if session.is_terminal() {
        for name in names {
            let now = services::get(session, name).await?;
            session.print(&sentence(&now))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use muster_proto::replicas::v1::{Rollout, RolloutState, ServiceStatus};

    use super::*;

    #[test]
    fn after_a_rollback_it_is_told_what_is_tried_again_and_what_is_replaced() {
        let rollout = |state: RolloutState| Rollout {
            target_version: 3,
            state: state.into(),
            ..Rollout::default()
        };
        let service = |state, running| Service {
            name: "chat".to_owned(),
            version: 3,
            status: Some(ServiceStatus {
                running_version: running,
                rollout: Some(rollout(state)),
                ..ServiceStatus::default()
            }),
            ..Service::default()
        };
        let up = service(RolloutState::Complete, 3);
        assert_eq!(
            (tried_again(&up), replaced_by_itself(&up, None)),
            (None, None)
        );
        let under_way = service(RolloutState::Running, 2);
        assert_eq!(tried_again(&under_way), None);
        let back = service(RolloutState::RolledBack, 2);
        assert!(
            tried_again(&back)
                .unwrap()
                .contains("`muster rollback chat 2`")
        );
        for version in [None, Some(2)] {
            let words = replaced_by_itself(&back, version).unwrap();
            assert!(words.starts_with("chat runs version 2 already"), "{words}");
        }
        assert_eq!(replaced_by_itself(&back, Some(1)), None);
        let further = service(RolloutState::RolledBack, 1);
        assert_eq!(replaced_by_itself(&further, None), None);
    }
}
