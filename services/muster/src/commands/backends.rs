//! `muster backends`: where offers come from, and how each source is.

use std::future::Future;

use muster_proto::offers::v1::{
    Backend, BackendRefresh, GetBackendRequest, ListBackendsRequest, WatchBackendsRequest,
    WatchBackendsResponse, backend_change::Change,
};
use tonic::{Response, Status, Streaming};

use super::{
    live::{self, Shown, Update, Watched},
    offers::grouped,
    services::first_line,
};
use crate::{
    args::{Format, Named},
    failure::Failure,
    output::table::{Cell, Table},
    session::{Component, Session},
    text,
};

/// Shows backends.
pub(crate) async fn run(session: &Session, args: &Named) -> Result<(), Failure> {
    if args.watch {
        if let Some(name) = &args.name {
            get(session, name).await?;
        }
        let only = args.name.clone();
        return live::show(session, &Backends { only }).await;
    }
    if let Some(name) = &args.name {
        return show(session, name).await;
    }
    let request = ListBackendsRequest {
        page_size: 1000,
        ..Default::default()
    };
    let answer = session
        .call(Component::Gateway, session.offers().list_backends(request))
        .await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&answer).map(drop),
        Format::Name => {
            let names: String = answer
                .backends
                .iter()
                .map(|backend| format!("{}\n", backend.name))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide => {
            session.print_table(&table(session, &mut answer.backends.iter()))
        }
    }
}

async fn get(session: &Session, name: &str) -> Result<Backend, Failure> {
    let request = GetBackendRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let answer = session
        .call(Component::Gateway, session.offers().get_backend(request))
        .await?;
    Ok(answer.backend.unwrap_or_default())
}

async fn show(session: &Session, name: &str) -> Result<(), Failure> {
    let backend = get(session, name).await?;
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&backend).map(drop),
        Format::Name => session.print(&format!("{}\n", backend.name)),
        Format::Table | Format::Wide => {
            session.print(&detail(session, &backend))?;
            skipped(session, &backend)
        }
    }
}

fn detail(session: &Session, backend: &Backend) -> String {
    let now = session.now();
    let mut lines = vec![
        ("name", backend.name.clone()),
        ("kind", backend.kind.clone()),
        ("source", backend.source.clone()),
        ("data", data(backend).to_owned()),
        ("refresh", refresh(backend).to_owned()),
        (
            "breaker",
            text::word(backend.breaker().as_str_name(), "BREAKER_STATE_").to_owned(),
        ),
        (
            "read",
            match backend.age {
                None => "not yet".to_owned(),
                Some(_) => format!("{} ago", text::print_span(backend.age)),
            },
        ),
        ("last took", text::print_span(backend.latency)),
        ("every", text::print_span(backend.refresh_interval)),
        ("next", next(session, backend)),
        ("prices of", backend.price_date.clone()),
        ("offers", grouped(backend.offers_total)),
        ("rows", rows(backend)),
        (
            "capacity",
            match backend.live_capacity {
                true => "it says what it has".to_owned(),
                false => "unknown: it lists prices".to_owned(),
            },
        ),
        ("unknown GPUs", backend.unknown_gpu_names.join(", ")),
    ];
    if !backend.error.is_empty() {
        let ago = text::print_ago(backend.error_time, now);
        lines.push(match backend.error_time {
            None => ("error", backend.error.clone()),
            Some(_) => ("error", format!("{} ({ago} ago)", backend.error)),
        });
        if backend.consecutive_failures > 0 {
            lines.push((
                "failures",
                format!("{} in a row", backend.consecutive_failures),
            ));
        }
    }
    lines.retain(|(_, value)| !value.is_empty());
    lines
        .iter()
        .map(|(name, value)| format!("{name:<13} {value}\n"))
        .collect()
}

/// What became of its rows, without what did not happen.
fn rows(backend: &Backend) -> String {
    let mut rows = format!("{} read", grouped(backend.rows_read));
    for (count, what) in [
        (backend.rows_skipped, "skipped"),
        (backend.rows_mended, "mended"),
        (backend.rows_repeated, "repeated"),
    ] {
        if count > 0 {
            rows.push_str(&format!(", {} {what}", grouped(count)));
        }
    }
    rows
}

/// When it is asked next; nothing if that is not known.
fn next(session: &Session, backend: &Backend) -> String {
    let time = backend.next_refresh_time;
    let time = time.and_then(|time| std::time::SystemTime::try_from(time).ok());
    let in_time = |time: std::time::SystemTime| {
        let left = time.duration_since(session.now()).unwrap_or_default();
        format!("in {}", muster_model::quantity::duration::human(left))
    };
    time.map(in_time).unwrap_or_default()
}

fn skipped(session: &Session, backend: &Backend) -> Result<(), Failure> {
    if backend.skipped.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[">SKIPPED", "BECAUSE", "FIRST"]);
    for rows in &backend.skipped {
        table.row(vec![
            grouped(rows.count).into(),
            rows.reason.as_str().into(),
            rows.example.as_str().into(),
        ]);
    }
    session.print("\n")?;
    session.print_table(&table)
}

fn data(backend: &Backend) -> &'static str {
    text::word(backend.data().as_str_name(), "BACKEND_DATA_")
}

/// What came of the last refresh; OK goes without saying until it is not.
fn refresh(backend: &Backend) -> &'static str {
    match backend.refresh() {
        BackendRefresh::NotTried | BackendRefresh::Unspecified => "-",
        BackendRefresh::Ok
        | BackendRefresh::TimedOut
        | BackendRefresh::Failed
        | BackendRefresh::BreakerOpen
        | BackendRefresh::Disabled => {
            text::word(backend.refresh().as_str_name(), "BACKEND_REFRESH_")
        }
    }
}

fn table(session: &Session, backends: &mut dyn Iterator<Item = &Backend>) -> Table {
    let mut header = vec![
        "NAME", "KIND", "DATA", "REFRESH", ">AGE", ">OFFERS", ">ROWS", ">SKIPPED", "ERROR",
    ];
    if session.is_wide() {
        header.extend([">TOOK", ">EVERY", "BREAKER", "UNKNOWN GPUS", "SOURCE"]);
    }
    let mut table = Table::new(&header);
    for backend in backends {
        let mut row: Vec<Cell> = vec![
            backend.name.as_str().into(),
            backend.kind.as_str().into(),
            Cell::state(data(backend)),
            Cell::state(refresh(backend)),
            text::print_span(backend.age).into(),
            grouped(backend.offers_total).into(),
            grouped(backend.rows_read).into(),
            grouped(backend.rows_skipped).into(),
            first_line(&backend.error).into(),
        ];
        if session.is_wide() {
            row.extend([
                text::print_span(backend.latency).into(),
                text::print_span(backend.refresh_interval).into(),
                text::word(backend.breaker().as_str_name(), "BREAKER_STATE_").into(),
                backend.unknown_gpu_names.len().to_string().into(),
                backend.source.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

/// Backends, watched.
#[derive(Default)]
pub(crate) struct Backends {
    /// The only one; all, if it is not set.
    pub(crate) only: Option<String>,
}

impl Watched for Backends {
    type Resource = Backend;
    type Message = WatchBackendsResponse;

    const COMPONENT: Component = Component::Gateway;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchBackendsResponse>>, Status>> + Send
    {
        let request = WatchBackendsRequest { resume_token };
        let mut client = session.offers();
        async move { client.watch_backends(request).await }
    }

    fn read(&self, message: WatchBackendsResponse) -> Update<Backend> {
        let change = |change: muster_proto::offers::v1::BackendChange| match change.change? {
            Change::Put(backend) => Some((backend.name.clone(), Some(backend))),
            Change::Deleted(backend) => Some((backend.name, None)),
        };
        let is_asked = |name: &str| self.only.as_ref().is_none_or(|only| only == name);
        let changes = message.changes.into_iter().filter_map(change);
        Update {
            changes: changes.filter(|(name, _)| is_asked(name)).collect(),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

impl Shown for Backends {
    fn table(session: &Session, backends: &mut dyn Iterator<Item = &Backend>) -> Table {
        table(session, backends)
    }

    fn name(backend: &Backend) -> &str {
        &backend.name
    }
}
