//! `muster ps`: replicas, and how they are.

use std::future::Future;

use muster_proto::replicas::v1::{
    ListReplicasRequest, ListReplicasResponse, Replica, ReplicaFilter, ReplicaPhase,
    WatchReplicasRequest, WatchReplicasResponse, replica_change::Change,
};
use tonic::{Response, Status, Streaming};

use super::{
    live::{self, Shown, Update, Watched},
    services::{self, first_line},
};
use crate::{
    args::{Format, Ps},
    failure::Failure,
    output::table::{Cell, Table},
    pages::{self, PAGE},
    session::{Component, Session},
    text,
};

/// Shows replicas.
pub(crate) async fn run(session: &Session, args: &Ps) -> Result<(), Failure> {
    let services = args.services.clone();
    if args.watch {
        for name in &services {
            services::get(session, name).await?;
        }
        return live::show(session, &Replicas { services }).await;
    }
    let joined = list(session, services).await?;
    for name in &args.services {
        // A service may have none, but it has to be there.
        if !joined
            .replicas
            .iter()
            .any(|replica| replica.service == *name)
        {
            services::get(session, name).await?;
        }
    }
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&joined).map(drop),
        Format::Name => {
            let names: String = joined
                .replicas
                .iter()
                .map(|replica| format!("{}\n", replica.id))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide if joined.replicas.is_empty() => {
            session.print("there are no replicas\n")
        }
        Format::Table | Format::Wide => {
            session.print_table(&table(session, &mut joined.replicas.iter()))
        }
    }
}

/// All replicas of some services; of every service if none is named.
pub(crate) async fn list(
    session: &Session,
    services: Vec<String>,
) -> Result<ListReplicasResponse, Failure> {
    let filter = ReplicaFilter {
        services,
        ..Default::default()
    };
    pages::joined(async |page_token| {
        let mut manager = session.replicas();
        let asked = manager.list_replicas(ListReplicasRequest {
            filter: Some(filter.clone()),
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Manager, asked).await
    })
    .await
}

/// Whether something of a replica in this phase runs.
pub(crate) fn runs(phase: ReplicaPhase) -> bool {
    matches!(
        phase,
        ReplicaPhase::Starting
            | ReplicaPhase::Ready
            | ReplicaPhase::Unready
            | ReplicaPhase::Stopping
    )
}

/// Replicas, a row each.
pub(crate) fn table(session: &Session, replicas: &mut dyn Iterator<Item = &Replica>) -> Table {
    let mut header = vec![
        "REPLICA",
        "STATE",
        ">FOR",
        "WORKER",
        ">RESTARTS",
        ">VERSION",
        "REASON",
    ];
    if session.is_wide() {
        header.extend(["ROLE", "ADDRESSES", "GPUS", "ATTEMPT"]);
    }
    let mut table = Table::new(&header);
    for replica in replicas {
        let attempt = replica.attempt.clone().unwrap_or_default();
        let mut row: Vec<Cell> = vec![
            replica.id.as_str().into(),
            Cell::state(text::word(replica.phase().as_str_name(), "REPLICA_PHASE_")),
            text::print_ago(replica.since_time, session.now()).into(),
            text::or_nothing(&attempt.worker).into(),
            replica.restarts.to_string().into(),
            replica.version.to_string().into(),
            first_line(&replica.reason).into(),
        ];
        if session.is_wide() {
            let role = text::word(replica.role().as_str_name(), "REPLICA_ROLE_");
            row.extend([
                role.to_lowercase().into(),
                text::or_nothing(&addresses(replica)).into(),
                text::or_nothing(&attempt.gpu_uuids.join(",")).into(),
                attempt.id.into(),
            ]);
        }
        table.row(row);
    }
    table
}

fn addresses(replica: &Replica) -> String {
    let ports = replica.members.iter().flat_map(|member| &member.addresses);
    ports
        .map(|port| port.address.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

/// Replicas, watched.
pub(crate) struct Replicas {
    /// Only of these services; empty is all.
    pub(crate) services: Vec<String>,
}

impl Watched for Replicas {
    type Resource = Replica;
    type Message = WatchReplicasResponse;

    const COMPONENT: Component = Component::Manager;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchReplicasResponse>>, Status>> + Send
    {
        let filter = ReplicaFilter {
            services: self.services.clone(),
            ..Default::default()
        };
        let request = WatchReplicasRequest {
            filter: Some(filter),
            resume_token,
            ..Default::default()
        };
        let mut client = session.replicas();
        async move { client.watch_replicas(request).await }
    }

    fn read(&self, message: WatchReplicasResponse) -> Update<Replica> {
        let change = |change: muster_proto::replicas::v1::ReplicaChange| match change.change? {
            Change::Put(replica) => Some((replica.id.clone(), Some(replica))),
            Change::Deleted(replica) => Some((replica.id, None)),
        };
        Update {
            changes: message.changes.into_iter().filter_map(change).collect(),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

impl Shown for Replicas {
    fn table(session: &Session, replicas: &mut dyn Iterator<Item = &Replica>) -> Table {
        table(session, replicas)
    }

    fn name(replica: &Replica) -> &str {
        &replica.id
    }
}
