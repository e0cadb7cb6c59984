//! `muster orphans`: what runs on workers without a record, after a restore from a backup; whoever runs
//! the fleet says what becomes of it.

use muster_proto::replicas::v1::{
    AdoptOrphanRequest, ListOrphansRequest, ListOrphansResponse, Orphan, RemoveOrphanRequest,
    Service,
};

use super::services;
use crate::{
    args::{Format, OrphanAct, Orphans},
    failure::Failure,
    output::table::Table,
    pages::{self, PAGE},
    session::{Component, Session},
    text,
};

/// Shows, adopts or removes orphans.
pub(crate) async fn run(session: &Session, args: &Orphans) -> Result<(), Failure> {
    match &args.act {
        None => show(session).await,
        Some(OrphanAct::Adopt { id, service }) => adopt(session, id, service).await,
        Some(OrphanAct::Rm { id }) => remove(session, id).await,
    }
}

async fn show(session: &Session) -> Result<(), Failure> {
    let found = list(session).await?;
    let ids = found.orphans.iter().map(|orphan| &orphan.attempt_id);
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&found).map(drop),
        Format::Name => session.print(&ids.map(|id| format!("{id}\n")).collect::<String>()),
        Format::Table | Format::Wide if found.orphans.is_empty() => session
            .print("there are no orphans: the replica-manager knows everything that agents run\n"),
        Format::Table | Format::Wide => session.print_table(&table(session, &found.orphans)),
    }
}

async fn list(session: &Session) -> Result<ListOrphansResponse, Failure> {
    pages::joined(async |page_token| {
        let mut manager = session.replicas();
        let asked = manager.list_orphans(ListOrphansRequest {
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Manager, asked).await
    })
    .await
}

fn table(session: &Session, orphans: &[Orphan]) -> Table {
    let mut table = Table::new(&[
        "ID",
        "REPLICA",
        "WORKER",
        ">GPUS",
        "RUNS FOR",
        "SERVICE UID",
    ]);
    for orphan in orphans {
        let gpus = orphan.allocation.as_ref().map_or(0, |a| a.gpu_uuids.len());
        table.row(vec![
            orphan.attempt_id.as_str().into(),
            // An agent tells it with its next whole report.
            if orphan.replica.is_empty() {
                "-".into()
            } else {
                orphan.replica.as_str().into()
            },
            orphan.worker.as_str().into(),
            gpus.to_string().into(),
            text::print_ago(orphan.start_time, session.now()).into(),
            orphan.service_uid.as_str().into(),
        ]);
    }
    table
}

async fn adopt(session: &Session, id: &str, service: &str) -> Result<(), Failure> {
    let before = services::get(session, service).await?;
    let request = AdoptOrphanRequest {
        attempt_id: id.to_owned(),
        service: service.to_owned(),
        ..AdoptOrphanRequest::default()
    };
    let mut manager = session.replicas();
    let asked = manager.adopt_orphan(request);
    let answer = session.call(Component::Manager, asked).await?;
    let replica = answer.replica.unwrap_or_default();
    let sentence = format!("{id} runs on as {}\n", replica.id);
    session.print_answer(&replica, &replica.id, &sentence)?;
    let after = services::get_since(session, service, answer.resume_token).await?;
    consequence(&before, &after).map_or(Ok(()), |words| session.say(&words))
}

/// What one replica more means for a service that had all that it wanted: it wants one more, or one is stopped.
fn consequence(before: &Service, after: &Service) -> Option<String> {
    let counts = before.status.as_ref()?.counts?;
    let (name, wanted) = (&after.name, counts.wanted);
    if let Some(scale) = after.scale.filter(|_| after.scale != before.scale) {
        return Some(format!(
            "{name} is scaled to {scale} by it; `muster scale {name} {wanted}` stops one again\n"
        ));
    }
    let full = counts.ready >= wanted;
    full.then(|| {
        format!("{name} may not want more than {wanted}, so one of its replicas is stopped\n")
    })
}

async fn remove(session: &Session, id: &str) -> Result<(), Failure> {
    let request = RemoveOrphanRequest {
        attempt_id: id.to_owned(),
        ..RemoveOrphanRequest::default()
    };
    let mut manager = session.replicas();
    let asked = manager.remove_orphan(request);
    let answer = session.call(Component::Manager, asked).await?;
    let sentence = format!("{id} is being stopped, and its room freed\n");
    session.print_answer(&answer, id, &sentence)
}

#[cfg(test)]
mod tests {
    use muster_proto::replicas::v1::{ReplicaCounts, ServiceStatus};

    use super::*;

    #[test]
    fn what_one_more_means_is_told() {
        let service = |ready, scale| Service {
            name: "chat".to_owned(),
            scale,
            status: Some(ServiceStatus {
                counts: Some(ReplicaCounts {
                    wanted: 2,
                    ready,
                    ..ReplicaCounts::default()
                }),
                ..ServiceStatus::default()
            }),
            ..Service::default()
        };
        let told = consequence(&service(2, None), &service(2, Some(3))).unwrap();
        assert!(told.starts_with("chat is scaled to 3 by it"), "{told}");
        assert!(told.contains("`muster scale chat 2`"), "{told}");
        let told = consequence(&service(2, Some(2)), &service(3, Some(2))).unwrap();
        assert!(told.contains("one of its replicas is stopped"), "{told}");
        assert_eq!(consequence(&service(1, None), &service(2, None)), None);
    }
}
