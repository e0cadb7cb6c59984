//! `muster services`: what is meant to run, and how it is.

use std::future::Future;

use muster_proto::replicas::v1::{
    FailureMode, GetServiceRequest, ListServicesRequest, ListServicesResponse, Service,
    ServiceFilter, ServicePhase, ServiceStatus, WatchServicesRequest, WatchServicesResponse,
    service_change::Change,
};
use tonic::{Response, Status, Streaming};

use super::live::{self, Shown, Update, Watched};
use crate::{
    args::{Format, Named},
    failure::Failure,
    output::table::{Cell, Table},
    pages::{self, PAGE},
    session::{Component, Session},
    text,
};

/// Shows services.
pub(crate) async fn run(session: &Session, args: &Named) -> Result<(), Failure> {
    if args.watch {
        if let Some(name) = &args.name {
            get(session, name).await?;
        }
        return live::show(
            session,
            &Services {
                names: args.name.iter().cloned().collect(),
            },
        )
        .await;
    }
    match &args.name {
        Some(name) => show(session, name).await,
        None => list(session).await,
    }
}

/// A service by name.
pub(crate) async fn get(session: &Session, name: &str) -> Result<Service, Failure> {
    get_since(session, name, String::new()).await
}

/// One service, as it is at this position or later.
pub(crate) async fn get_since(
    session: &Session,
    name: &str,
    not_before: String,
) -> Result<Service, Failure> {
    let request = GetServiceRequest {
        name: name.to_owned(),
        not_before,
        ..Default::default()
    };
    let answer = session
        .call(Component::Manager, session.replicas().get_service(request))
        .await?;
    answer
        .service
        .ok_or_else(|| Failure::Failed(format!("the answer has no service {name}")))
}

async fn show(session: &Session, name: &str) -> Result<(), Failure> {
    let service = get(session, name).await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&service).map(drop),
        Format::Name => session.print(&format!("{}\n", service.name)),
        Format::Table | Format::Wide => session.print(&detail(session, &service)),
    }
}

fn detail(session: &Session, service: &Service) -> String {
    let now = session.now();
    let status = service.status.clone().unwrap_or_default();
    let counts = status.counts.unwrap_or_default();
    let mut lines = vec![
        ("name", service.name.clone()),
        ("uid", service.uid.clone()),
        (
            "status",
            format!(
                "{} for {}",
                phase(service),
                text::print_ago(status.since_time, now)
            ),
        ),
        ("reason", status.reason.clone()),
        (
            "replicas",
            format!(
                "{} ready of {} wanted; {} starting, {} unready, {} in backoff, {} failed, {} stopping",
                counts.ready,
                counts.wanted,
                counts.starting,
                counts.unready,
                counts.backoff,
                counts.failed,
                counts.stopping,
            ),
        ),
        ("on failure", mode(service).to_owned()),
        ("restarts", status.restarts.to_string()),
        ("outages", status.outages.to_string()),
        ("degradations", status.degradations.to_string()),
        (
            "version",
            format!("{} (running {})", service.version, status.running_version),
        ),
        (
            "created",
            format!("{} ago", text::print_ago(service.create_time, now)),
        ),
        (
            "changed",
            format!("{} ago", text::print_ago(service.update_time, now)),
        ),
    ];
    lines.extend(policies(&status));
    lines.retain(|(_, value)| !value.is_empty());
    lines
        .iter()
        .map(|(name, value)| format!("{name:<13} {value}\n"))
        .collect()
}

/// An update and the autoscaler, where there are any.
fn policies(status: &ServiceStatus) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(rollout) = &status.rollout {
        let state = text::word(rollout.state().as_str_name(), "ROLLOUT_STATE_");
        if state != "-" {
            lines.push(("update", format!("{state}: {}", rollout.reason)));
        }
    }
    if let Some(scaling) = &status.scaling {
        let words = format!("wants {}: {}", scaling.desired, scaling.reason);
        lines.push(("scaling", words));
    }
    lines
}

/// What happens to a failed replica.
pub(crate) fn mode(service: &Service) -> &'static str {
    match service.status.as_ref().map(|status| status.failure_mode()) {
        Some(FailureMode::FailFast) => "fail fast",
        Some(FailureMode::Retry) => "retry",
        Some(FailureMode::Unspecified) | None => "-",
    }
}

/// How a service is, in a word.
pub(crate) fn phase(service: &Service) -> &'static str {
    let phase = service
        .status
        .as_ref()
        .map_or(ServicePhase::Unspecified, |status| status.phase());
    text::word(phase.as_str_name(), "SERVICE_PHASE_")
}

async fn list(session: &Session) -> Result<(), Failure> {
    let joined: ListServicesResponse = pages::joined(async |page_token| {
        let mut manager = session.replicas();
        let asked = manager.list_services(ListServicesRequest {
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Manager, asked).await
    })
    .await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&joined).map(drop),
        Format::Name => {
            let names: String = joined
                .services
                .iter()
                .map(|service| format!("{}\n", service.name))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide if joined.services.is_empty() => {
            session.print("there are no services; `muster apply -f FILE` creates one\n")
        }
        Format::Table | Format::Wide => {
            session.print_table(&table(session, &mut joined.services.iter()))
        }
    }
}

fn table(session: &Session, services: &mut dyn Iterator<Item = &Service>) -> Table {
    let mut header = vec![
        "NAME",
        "STATUS",
        ">READY",
        ">RESTARTS",
        ">FOR",
        "ON FAILURE",
        "REASON",
    ];
    if session.is_wide() {
        header.extend([">VERSION", ">OUTAGES", "UID"]);
    }
    let mut table = Table::new(&header);
    for service in services {
        let status = service.status.clone().unwrap_or_default();
        let counts = status.counts.unwrap_or_default();
        let mut row: Vec<Cell> = vec![
            service.name.as_str().into(),
            Cell::state(phase(service)),
            format!("{}/{}", counts.ready, counts.wanted).into(),
            status.restarts.to_string().into(),
            text::print_ago(status.since_time, session.now()).into(),
            mode(service).into(),
            first_line(&status.reason).into(),
        ];
        if session.is_wide() {
            row.extend([
                service.version.to_string().into(),
                status.outages.to_string().into(),
                service.uid.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

/// The first line of a text, cut so that a table stays a table.
pub(crate) fn first_line(text: &str) -> String {
    text::cut(text.lines().next().unwrap_or_default(), 100)
}

/// Services, watched.
pub(crate) struct Services {
    /// Only these; empty is all.
    pub(crate) names: Vec<String>,
}

impl Watched for Services {
    type Resource = Service;
    type Message = WatchServicesResponse;

    const COMPONENT: Component = Component::Manager;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchServicesResponse>>, Status>> + Send
    {
        let filter = ServiceFilter {
            names: self.names.clone(),
            ..Default::default()
        };
        let request = WatchServicesRequest {
            filter: Some(filter),
            resume_token,
            ..Default::default()
        };
        let mut client = session.replicas();
        async move { client.watch_services(request).await }
    }

    fn read(&self, message: WatchServicesResponse) -> Update<Service> {
        let change = |change: muster_proto::replicas::v1::ServiceChange| match change.change? {
            Change::Put(service) => Some((service.name.clone(), Some(service))),
            Change::Deleted(service) => Some((service.name, None)),
        };
        Update {
            changes: message.changes.into_iter().filter_map(change).collect(),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

impl Shown for Services {
    fn table(session: &Session, services: &mut dyn Iterator<Item = &Service>) -> Table {
        table(session, services)
    }

    fn name(service: &Service) -> &str {
        &service.name
    }
}
