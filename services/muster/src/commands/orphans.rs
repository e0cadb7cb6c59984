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
    surplus(&before).map_or(Ok(()), |words| session.say(&words))
}

/// That a service has all the replicas that it wants, and one more now.
fn surplus(service: &Service) -> Option<String> {
    let counts = service.status.as_ref()?.counts?;
    let (name, wanted) = (&service.name, counts.wanted);
    (counts.ready >= wanted).then(|| {
        let more = wanted.saturating_add(1);
        format!("{name} wants {wanted}, so one of its replicas is stopped; `muster scale {name} {more}` keeps it\n")
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
