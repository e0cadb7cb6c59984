//! `muster health` and `muster maintenance`: how each component and each of its
//! instances is, and turning its readiness off.

use std::time::Duration;

use muster_proto::ops::v1::{
    CheckState, GetStatusRequest, GetStatusResponse, Instance, ListInstancesRequest,
    SetMaintenanceRequest,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    args::{self, Switch},
    failure::Failure,
    output::{
        json,
        table::{Cell, Table},
    },
    session::{Component, Session},
    text,
};

/// How long a component may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What was found out of one component.
struct Found {
    component: Component,
    ready: Result<ServingStatus, Failure>,
    live: Result<ServingStatus, Failure>,
    status: Result<GetStatusResponse, Failure>,
    instances: Vec<Instance>,
}

/// Shows how each component is.
pub(crate) async fn run(session: &Session, args: &args::Health) -> Result<(), Failure> {
    let asked = match &args.component {
        Some(name) => vec![named(name)?],
        None => Component::ALL.to_vec(),
    };
    let found =
        futures_util::future::join_all(asked.iter().map(|&component| ask(session, component)))
            .await;
    print(session, &found)?;
    verdict(found)
}

/// The component of this name.
pub(crate) fn named(name: &str) -> Result<Component, Failure> {
    let mut all = Component::ALL.into_iter();
    all.find(|component| component.name() == name)
        .ok_or_else(|| {
            let names = Component::ALL.map(Component::name);
            let hint = muster_model::suggest::hint(name, names);
            Failure::Usage(format!("`{name}` is not one of {}{hint}", names.join(", ")))
        })
}

async fn ask(session: &Session, component: Component) -> Found {
    let (mut ready, live, status, instances) = tokio::join!(
        check(session, component, "readiness"),
        check(session, component, "liveness"),
        status(session, component),
        instances(session, component),
    );
    if let Ok(status) = &status
        && !status.component.is_empty()
        && status.component != component.name()
    {
        let (address, is) = (session.endpoints(component), &status.component);
        let message = format!("at {address} is the {is}, not the {}", component.name());
        ready = Err(Failure::Failed(message));
    }
    Found {
        component,
        ready,
        live,
        status,
        instances,
    }
}

async fn check(
    session: &Session,
    component: Component,
    service: &str,
) -> Result<ServingStatus, Failure> {
    let mut request = tonic::Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    request.set_timeout(TIMEOUT);
    let mut client = HealthClient::new(session.channel(component));
    let answer = session.call(component, client.check(request)).await?;
    Ok(answer.status())
}

async fn status(session: &Session, component: Component) -> Result<GetStatusResponse, Failure> {
    let mut request = tonic::Request::new(GetStatusRequest {});
    request.set_timeout(TIMEOUT);
    session
        .call(component, session.ops(component).get_status(request))
        .await
}

/// Every instance of a component; none if it does not say.
async fn instances(session: &Session, component: Component) -> Vec<Instance> {
    let mut request = tonic::Request::new(ListInstancesRequest {});
    request.set_timeout(TIMEOUT);
    let answer = session
        .call(component, session.ops(component).list_instances(request))
        .await;
    answer.map_or_else(|_| Vec::new(), |answer| answer.instances)
}

fn print(session: &Session, found: &[Found]) -> Result<(), Failure> {
    use args::Format;
    match session.format {
        Format::Table | Format::Wide => {
            session.print_table(&table(session, found))?;
            let several = found.iter().any(|one| one.instances.len() > 1);
            if several || session.is_wide() {
                session.print("\n")?;
                session.print_table(&instances_table(session, found))?;
            }
            Ok(())
        }
        Format::Name => {
            let names: String = found
                .iter()
                .map(|one| format!("{}\n", one.component.name()))
                .collect();
            session.print(&names)
        }
        Format::Json | Format::Yaml => {
            let all = found.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            let value = serde_json::json!({"components": all});
            let yaml = session.format == Format::Yaml;
            session.print(&if yaml {
                json::yaml(&value)
            } else {
                format!("{value:#}\n")
            })
        }
    }
}

fn value(found: &Found) -> Result<serde_json::Value, Failure> {
    let status = found.status.as_ref().ok().map(json::value).transpose()?;
    let instances = found.instances.iter().map(json::value);
    let instances = instances.collect::<Result<Vec<_>, _>>()?;
    Ok(serde_json::json!({
        "component": found.component.name(),
        "readiness": word(&found.ready),
        "liveness": word(&found.live),
        "status": status,
        "instances": instances,
    }))
}

fn word(answer: &Result<ServingStatus, Failure>) -> &'static str {
    match answer {
        Ok(ServingStatus::Serving) => "SERVING",
        Ok(ServingStatus::NotServing) => "NOT_SERVING",
        Ok(ServingStatus::Unknown | ServingStatus::ServiceUnknown) => "UNKNOWN",
        Err(Failure::Unreachable { .. }) => "UNREACHABLE",
        Err(_) => "ERROR",
    }
}

fn table(session: &Session, found: &[Found]) -> Table {
    let mut table = Table::new(&[
        "COMPONENT",
        "READY",
        "LIVE",
        "VERSION",
        ">UP",
        "STORE",
        "NOTE",
    ]);
    for one in found {
        let status = one.status.as_ref().ok().cloned().unwrap_or_default();
        let instance = status.instance.clone().unwrap_or_default();
        table.row(vec![
            one.component.name().into(),
            Cell::state(word(&one.ready)),
            Cell::state(word(&one.live)),
            text::or_nothing(&instance.version).into(),
            text::print_ago(instance.start_time, session.now()).into(),
            text::or_nothing(&status.store).into(),
            note(one, &status).into(),
        ]);
    }
    table
}

/// Who leads, and how far each is.
fn instances_table(session: &Session, found: &[Found]) -> Table {
    let mut table = Table::new(&[
        "COMPONENT",
        "INSTANCE",
        "ADDRESS",
        "LEADER",
        ">REVISION",
        ">LAG",
        ">UP",
        "VERSION",
    ]);
    for one in found {
        for instance in &one.instances {
            let leads = if instance.leader { "leader" } else { "" };
            table.row(vec![
                one.component.name().into(),
                instance.id.as_str().into(),
                text::or_nothing(&instance.address).into(),
                text::or_nothing(leads).into(),
                revision(instance).into(),
                lag(instance.lag).into(),
                text::print_ago(instance.start_time, session.now()).into(),
                text::or_nothing(&instance.version).into(),
            ]);
        }
    }
    table
}

/// The revision that an instance has seen, if it has answered.
fn revision(instance: &Instance) -> String {
    match instance.revision {
        // A leader or its address is known from the others; where it stands only it can say.
        0 if instance.lag.is_none() => "no answer".to_owned(),
        0 => text::nothing(),
        revision => revision.to_string(),
    }
}

/// How far an instance is behind its store; nothing where that is not known.
fn lag(lag: Option<prost_types::Duration>) -> String {
    let lag = lag.and_then(|lag| Duration::try_from(lag).ok());
    lag.map_or_else(text::nothing, |lag| format!("{:.1} s", lag.as_secs_f64()))
}

/// Why it is not ready, or what is not well beside it.
fn note(found: &Found, status: &GetStatusResponse) -> String {
    let mut notes = Vec::new();
    if let Some(failure) = found.ready.as_ref().err().or(found.status.as_ref().err()) {
        notes.push(
            failure
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    if let Some(maintenance) = status
        .maintenance
        .as_ref()
        .filter(|maintenance| maintenance.on)
    {
        notes.push(format!(
            "maintenance by {}: {}",
            maintenance.actor, maintenance.reason
        ));
    }
    let unwell = status
        .checks
        .iter()
        .filter(|check| check.state() != CheckState::Ok);
    notes.extend(unwell.map(|check| format!("{}: {}", check.name, check.detail)));
    notes.join("; ")
}

/// The first component that is not well decides how the command ends.
fn verdict(found: Vec<Found>) -> Result<(), Failure> {
    for one in found {
        match one.ready {
            Ok(ServingStatus::Serving) => {}
            Ok(_) => {
                return Err(Failure::Failed(format!(
                    "{} is not serving",
                    one.component.name()
                )));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Turns a component's readiness off, or on again.
pub(crate) async fn maintenance(
    session: &Session,
    args: &args::Maintenance,
) -> Result<(), Failure> {
    let component = named(&args.component)?;
    let request = SetMaintenanceRequest {
        on: args.switch == Switch::On,
        reason: args.reason.clone().unwrap_or_default(),
    };
    let answer = session
        .call(component, session.ops(component).set_maintenance(request))
        .await?;
    let maintenance = answer.maintenance.unwrap_or_default();
    let name = component.name();
    let sentence = match maintenance.on {
        true => format!("maintenance of {name} is on: it is not ready, and still serves\n"),
        false => format!("maintenance of {name} is off\n"),
    };
    session.print_answer(&maintenance, name, &sentence)
}
