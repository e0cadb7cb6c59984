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
    let about = About::of(args.subject.as_deref());
    let (services, workers) = (of_services(&about, since), of_workers(&about, since));
    if args.watch {
        let (services, workers) = (Services(services), Workers(workers));
        let merged = RefCell::new(Merged::default());
        let show = |source, changes| {
            let mut events = merged.borrow_mut().take(source, changes);
            events.retain(|event| about.is_met_by(event));
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
        last_of_services(session, services, &about, args.limit),
        last_of_workers(session, workers, &about, args.limit)
    );
    let (mut events, mut away) = (Vec::new(), None);
    for last in [one, other] {
        match last {
            Ok(last) => events.extend(last),
            // What the other tells may say why.
            Err(failure @ Failure::Unreachable { .. }) => away = away.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    if let Some(away) = away.take_if(|_| events.is_empty()) {
        return Err(away);
    }
    events.sort_by(|a, b| order(a).cmp(&order(b)));
    let surplus = events.len().saturating_sub(args.limit);
    print(session, events.get(surplus..).unwrap_or_default())?;
    away.map_or(Ok(()), Err)
}

/// What events are asked for about.
struct About {
    /// The service or the worker, if it is one.
    name: Option<String>,
    /// The subjects of its events, where they are fewer than the name has.
    subjects: Option<[String; 2]>,
}

impl About {
    /// Of a name, of a replica's id, or of either as events show it: `worker/w1`, `replica/chat/0`.
    fn of(subject: Option<&str>) -> Self {
        let Some(subject) = subject else {
            return Self {
                name: None,
                subjects: None,
            };
        };
        let (name, subjects) = match subject.split_once('/') {
            None => (subject, None),
            Some(("service", name)) => {
                let of_replicas = format!("replica/{name}/");
                (name, Some([subject.to_owned(), of_replicas]))
            }
            Some(("worker", name)) => (name, Some([subject.to_owned(), String::new()])),
            Some(_) => {
                let id = subject.strip_prefix("replica/").unwrap_or(subject);
                let name = id.split('/').next().unwrap_or_default();
                (name, Some([format!("replica/{id}"), String::new()]))
            }
        };
        Self {
            name: Some(name.to_owned()),
            subjects,
        }
    }

    fn is_met_by(&self, event: &Event) -> bool {
        self.subjects.as_ref().is_none_or(|[one, of_its]| {
            let is_of_its = !of_its.is_empty() && event.subject.starts_with(of_its);
            event.subject == *one || is_of_its
        })
    }
}

fn order(event: &Event) -> (i64, i32, &str) {
    let time = event.time.unwrap_or_default();
    (time.seconds, time.nanos, event.id.as_str())
}

fn of_services(about: &About, since_time: Option<Timestamp>) -> EventFilter {
    EventFilter {
        services: about.name.iter().cloned().collect(),
        since_time,
        ..EventFilter::default()
    }
}

fn of_workers(about: &About, since_time: Option<Timestamp>) -> WorkerEventFilter {
    WorkerEventFilter {
        workers: about.name.iter().cloned().collect(),
        since_time,
        ..WorkerEventFilter::default()
    }
}

async fn last_of_services(
    session: &Session,
    filter: EventFilter,
    about: &About,
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
    let take = |page: ListEventsResponse| keep_last(&mut last, page.events, about, limit);
    pages::each(ask, take).await.map(|()| last)
}

async fn last_of_workers(
    session: &Session,
    filter: WorkerEventFilter,
    about: &About,
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
    let take = |page: ListWorkerEventsResponse| keep_last(&mut last, page.events, about, limit);
    pages::each(ask, take).await.map(|()| last)
}

fn keep_last(last: &mut VecDeque<Event>, events: Vec<Event>, about: &About, limit: usize) {
    last.extend(events.into_iter().filter(|event| about.is_met_by(event)));
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

    #[test]
    fn events_are_asked_for_as_they_are_shown() {
        let all = [
            "worker/chat",
            "service/chat",
            "replica/chat/0",
            "replica/chat/1",
            "replica/chat-2/0",
        ];
        let of = |subject: &str| {
            let about = About::of(Some(subject));
            assert_eq!(about.name.as_deref(), Some("chat"));
            let is_met = |subject: &&str| {
                about.is_met_by(&Event {
                    subject: (*subject).to_owned(),
                    ..Event::default()
                })
            };
            Vec::from_iter(all.into_iter().filter(is_met))
        };
        assert_eq!(of("worker/chat"), ["worker/chat"]);
        assert_eq!(
            of("service/chat"),
            ["service/chat", "replica/chat/0", "replica/chat/1"]
        );
        assert_eq!(of("replica/chat/0"), ["replica/chat/0"]);
        assert_eq!(of("chat/0"), ["replica/chat/0"]);
        // A name alone is what the components themselves look for.
        assert_eq!(of("chat"), all);
    }

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
