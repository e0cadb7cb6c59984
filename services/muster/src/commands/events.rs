//! `muster events`: what happened to services and to workers, by time.

use std::{cell::RefCell, collections::VecDeque, future::Future};

use muster_proto::{
    replicas::v1::{
        EventFilter, ListEventsRequest, ListEventsResponse, WatchEventsRequest, WatchEventsResponse,
    },
    types::v1::{Event, EventSeverity, event_change::Change},
    workers::v1::{
        ListWorkerEventsRequest, ListWorkerEventsResponse, WatchWorkerEventsRequest,
        WatchWorkerEventsResponse, WorkerEventFilter,
    },
};
use prost_types::Timestamp;
use tonic::{Response, Status, Streaming};

use super::live::{self, Flow, Update, Watched};
use crate::{
    args::{Events as Args, Format},
    failure::Failure,
    output::{
        style::Style,
        table::{Cell, Table},
    },
    pages::{self, PAGE},
    session::{Component, Session},
    text,
};

/// Shows events.
pub(crate) async fn run(session: &Session, args: &Args) -> Result<(), Failure> {
    let since = args
        .since
        .and_then(|since| session.now().checked_sub(since))
        .map(Timestamp::from);
    let (services, workers) = (of_services(args, since), of_workers(args, since));
    if args.watch {
        let (services, workers) = (Services(services), Workers(workers));
        let merged = RefCell::new(Merged::default());
        let show = |source, changes| {
            let events = merged.borrow_mut().take(source, changes);
            print_new(session, &events)
        };
        let of_services = live::follow(session, &services, |changes| {
            show(Source::Services, changes)
        });
        let of_workers = live::follow(session, &workers, |changes| show(Source::Workers, changes));
        let both = async { tokio::try_join!(of_services, of_workers).map(drop) };
        return live::until_interrupted(both).await;
    }
    let (one, other) = tokio::join!(
        last_of_services(session, services, args.limit),
        last_of_workers(session, workers, args.limit)
    );
    let mut events: Vec<Event> = one?.into_iter().chain(other?).collect();
    events.sort_by(|a, b| order(a).cmp(&order(b)));
    let surplus = events.len().saturating_sub(args.limit);
    print(session, events.get(surplus..).unwrap_or_default())
}

fn order(event: &Event) -> (i64, i32, &str) {
    let time = event.time.unwrap_or_default();
    (time.seconds, time.nanos, event.id.as_str())
}

fn of_services(args: &Args, since_time: Option<Timestamp>) -> EventFilter {
    EventFilter {
        services: args.subject.iter().cloned().collect(),
        since_time,
        ..EventFilter::default()
    }
}

fn of_workers(args: &Args, since_time: Option<Timestamp>) -> WorkerEventFilter {
    WorkerEventFilter {
        workers: args.subject.iter().cloned().collect(),
        since_time,
        ..WorkerEventFilter::default()
    }
}

async fn last_of_services(
    session: &Session,
    filter: EventFilter,
    limit: usize,
) -> Result<VecDeque<Event>, Failure> {
    let mut last = VecDeque::new();
    let ask = async |page_token| {
        let mut manager = session.replicas();
        let asked = manager.list_events(ListEventsRequest {
            filter: Some(filter.clone()),
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Manager, asked).await
    };
    let take = |page: ListEventsResponse| keep_last(&mut last, page.events, limit);
    pages::each(ask, take).await.map(|()| last)
}

async fn last_of_workers(
    session: &Session,
    filter: WorkerEventFilter,
    limit: usize,
) -> Result<VecDeque<Event>, Failure> {
    let mut last = VecDeque::new();
    let ask = async |page_token| {
        let mut registry = session.workers();
        let asked = registry.list_worker_events(ListWorkerEventsRequest {
            filter: Some(filter.clone()),
            page_size: PAGE,
            page_token,
            ..Default::default()
        });
        session.call(Component::Registry, asked).await
    };
    let take = |page: ListWorkerEventsResponse| keep_last(&mut last, page.events, limit);
    pages::each(ask, take).await.map(|()| last)
}

fn keep_last(last: &mut VecDeque<Event>, events: Vec<Event>, limit: usize) {
    last.extend(events);
    let surplus = last.len().saturating_sub(limit);
    last.drain(..surplus);
}

fn print(session: &Session, events: &[Event]) -> Result<(), Failure> {
    match session.format {
        Format::Json | Format::Yaml => {
            for event in events {
                session.print_line(event)?;
            }
            Ok(())
        }
        Format::Name => {
            let names: String = events
                .iter()
                .map(|event| format!("{}\n", event.id))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide if events.is_empty() => {
            session.print("nothing has happened\n")
        }
        Format::Table | Format::Wide => session.print_table(&table(session, &mut events.iter())),
    }
}

fn print_new(session: &Session, events: &[Event]) -> Result<Flow, Failure> {
    for event in events {
        match session.format {
            Format::Json | Format::Yaml => drop(session.print_line(event)?),
            Format::Name => session.print(&format!("{}\n", event.id))?,
            Format::Table | Format::Wide => session.print(&line(session, event))?,
        }
    }
    Ok(Flow::GoOn)
}

/// Who tells of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Services,
    Workers,
}

/// Two watches as one: what they tell of the past is shown in order of time once both have told all of
/// it, and what happens after that at once.
#[derive(Debug, Default)]
struct Merged {
    told: Vec<Source>,
    waiting: Vec<Event>,
}

impl Merged {
    /// Takes what one has told; answers what is to be shown now.
    fn take(&mut self, source: Source, changes: Vec<(String, Option<Event>)>) -> Vec<Event> {
        let events = changes.into_iter().filter_map(|(_, event)| event);
        self.waiting.extend(events);
        if !self.told.contains(&source) {
            self.told.push(source);
        }
        if self.told.len() < 2 {
            return Vec::new();
        }
        self.waiting.sort_by(|a, b| order(a).cmp(&order(b)));
        std::mem::take(&mut self.waiting)
    }
}

fn line(session: &Session, event: &Event) -> String {
    let time = text::print_time(event.time, session.now());
    let kind = session.colours.paint(style(event), &event.kind);
    format!("{time}  {}  {kind}  {}\n", event.subject, event.message)
}

fn style(event: &Event) -> Style {
    match event.severity() {
        EventSeverity::Info | EventSeverity::Unspecified => Style::Plain,
        EventSeverity::Warning => Style::Warning,
        EventSeverity::Error => Style::Bad,
    }
}

fn table(session: &Session, events: &mut dyn Iterator<Item = &Event>) -> Table {
    let mut header = vec!["TIME (UTC)", "ABOUT", "WHAT", "WHY"];
    if session.is_wide() {
        header.extend(["BY", "FROM"]);
    }
    let mut table = Table::new(&header);
    for event in events {
        let mut row: Vec<Cell> = vec![
            text::print_time(event.time, session.now()).into(),
            event.subject.as_str().into(),
            Cell::styled(event.kind.as_str(), style(event)),
            event.message.lines().next().unwrap_or_default().into(),
        ];
        if session.is_wide() {
            row.extend([event.actor.as_str().into(), event.component.as_str().into()]);
        }
        table.row(row);
    }
    table
}

/// Events of services and replicas, watched.
struct Services(EventFilter);

/// Events of workers, watched.
struct Workers(WorkerEventFilter);

fn added(changes: Vec<muster_proto::types::v1::EventChange>) -> Vec<(String, Option<Event>)> {
    let event = |change: muster_proto::types::v1::EventChange| {
        change.change.map(|Change::Put(event)| event)
    };
    changes
        .into_iter()
        .filter_map(event)
        .map(|event| (event.id.clone(), Some(event)))
        .collect()
}

impl Watched for Services {
    type Resource = Event;
    type Message = WatchEventsResponse;

    const COMPONENT: Component = Component::Manager;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchEventsResponse>>, Status>> + Send {
        let request = WatchEventsRequest {
            filter: Some(self.0.clone()),
            resume_token,
            ..Default::default()
        };
        let mut client = session.replicas();
        async move { client.watch_events(request).await }
    }

    fn read(&self, message: WatchEventsResponse) -> Update<Event> {
        Update {
            changes: added(message.changes),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

impl Watched for Workers {
    type Resource = Event;
    type Message = WatchWorkerEventsResponse;

    const COMPONENT: Component = Component::Registry;

    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchWorkerEventsResponse>>, Status>> + Send
    {
        let request = WatchWorkerEventsRequest {
            filter: Some(self.0.clone()),
            resume_token,
        };
        let mut client = session.workers();
        async move { client.watch_worker_events(request).await }
    }

    fn read(&self, message: WatchWorkerEventsResponse) -> Update<Event> {
        Update {
            changes: added(message.changes),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> (String, Option<Event>) {
        let event = Event {
            id: seconds.to_string(),
            time: Some(Timestamp { seconds, nanos: 0 }),
            ..Event::default()
        };
        (event.id.clone(), Some(event))
    }

    #[test]
    fn the_past_is_told_in_order_of_time_and_the_rest_at_once() {
        let mut merged = Merged::default();
        let mut take = |source, seconds: &[i64]| {
            let changes = seconds.iter().map(|seconds| at(*seconds)).collect();
            let shown = merged.take(source, changes).into_iter();
            shown.map(|event| event.id).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(take(Source::Services, &[2, 4]), "");
        assert_eq!(take(Source::Services, &[6]), "");
        assert_eq!(take(Source::Workers, &[1, 3, 5]), "1 2 3 4 5 6");
        assert_eq!(take(Source::Services, &[9]), "9");
        assert_eq!(take(Source::Workers, &[8]), "8");
    }
}
