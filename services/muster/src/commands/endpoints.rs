//! `muster endpoints`: where a service is reached.

use std::future::Future;

use muster_proto::replicas::v1::{
    Endpoint, ListEndpointsRequest, ListEndpointsResponse, WatchEndpointsRequest,
    WatchEndpointsResponse, endpoint_change::Change,
};
use tonic::{Response, Status, Streaming};

use super::live::{self, Shown, Update, Watched};
use crate::{
    args::{Endpoints as Args, Format},
    failure::Failure,
    output::table::{Cell, Table},
    pages::{self, PAGE},
    session::{Component, Session},
};

/// Shows endpoints.
pub(crate) async fn run(session: &Session, args: &Args) -> Result<(), Failure> {
    if args.watch {
        return live::show(
            session,
            &Endpoints {
                service: args.service.clone(),
            },
        )
        .await;
    }
    let joined: ListEndpointsResponse = pages::joined(async |page_token| {
        let mut manager = session.replicas();
        let asked = manager.list_endpoints(ListEndpointsRequest {
            service: args.service.clone(),
            page_size: PAGE,
            page_token,
            ..ListEndpointsRequest::default()
        });
        session.call(Component::Manager, asked).await
    })
    .await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&joined).map(drop),
        Format::Name => {
            let names: String = joined
                .endpoints
                .iter()
                .map(|one| format!("{}\n", addresses(one)))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide if joined.endpoints.is_empty() => {
            session.print(&format!("no replica of {} is ready\n", args.service))
        }
        Format::Table | Format::Wide => {
            session.print_table(&table(session, &mut joined.endpoints.iter()))
        }
    }
}

fn addresses(endpoint: &Endpoint) -> String {
    let ports = endpoint.addresses.iter().map(|port| port.address.as_str());
    ports.collect::<Vec<_>>().join(",")
}

fn table(session: &Session, endpoints: &mut dyn Iterator<Item = &Endpoint>) -> Table {
    let mut header = vec!["REPLICA", "ADDRESSES", ">WEIGHT", "WORKER"];
    if session.is_wide() {
        header.extend([">VERSION", "REGION", "ZONE", "ATTEMPT"]);
    }
    let mut table = Table::new(&header);
    for endpoint in endpoints {
        let worker = match endpoint.suspect {
            true => format!("{} (silent)", endpoint.worker),
            false => endpoint.worker.clone(),
        };
        let mut row: Vec<Cell> = vec![
            endpoint.replica.as_str().into(),
            addresses(endpoint).into(),
            endpoint.weight.to_string().into(),
            worker.into(),
        ];
        if session.is_wide() {
            row.extend([
                endpoint.version.to_string().into(),
                endpoint.region.as_str().into(),
                endpoint.zone.as_str().into(),
                endpoint.attempt_id.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

/// Endpoints of one service, watched.
struct Endpoints {
    service: String,
}

impl Watched for Endpoints {
    type Resource = Endpoint;
    type Message = WatchEndpointsResponse;

    const COMPONENT: Component = Component::Manager;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchEndpointsResponse>>, Status>> + Send
    {
        let request = WatchEndpointsRequest {
            service: self.service.clone(),
            resume_token,
            ..WatchEndpointsRequest::default()
        };
        let mut client = session.replicas();
        async move { client.watch_endpoints(request).await }
    }

    fn read(&self, message: WatchEndpointsResponse) -> Update<Endpoint> {
        let change = |change: muster_proto::replicas::v1::EndpointChange| match change.change? {
            Change::Put(endpoint) => Some((endpoint.replica.clone(), Some(endpoint))),
            Change::Deleted(endpoint) => Some((endpoint.replica, None)),
        };
        Update {
            changes: message.changes.into_iter().filter_map(change).collect(),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

impl Shown for Endpoints {
    fn table(session: &Session, endpoints: &mut dyn Iterator<Item = &Endpoint>) -> Table {
        table(session, endpoints)
    }

    fn name(endpoint: &Endpoint) -> &str {
        &endpoint.replica
    }
}
