//! What a command works with: where the components are, how to print, and who
//! asks. Decides where a call goes; never what is asked.

use std::{
    collections::BTreeSet,
    future::Future,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use muster_proto::{
    offers::v1::offers_service_client::OffersServiceClient,
    ops::v1::ops_service_client::OpsServiceClient,
    replicas::v1::replicas_service_client::ReplicasServiceClient, types::v1::ErrorReason,
    workers::v1::workers_service_client::WorkersServiceClient,
};
use muster_runtime::{
    age::AGE,
    clock::Clock,
    connect::{Channel, Connector, Endpoint, Endpoints},
    status::Details,
};
use prost::{Message, Name};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use tonic::{Code, Response, Status, metadata::MetadataMap};

use crate::{
    args::{Following, Format},
    failure::Failure,
    output::{
        json,
        style::Colours,
        table::{Columns, Table},
    },
};

/// A component that the command line talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Component {
    /// Knows offers.
    Gateway,
    /// Knows workers.
    Registry,
    /// Knows services and replicas.
    Manager,
}

impl Component {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Gateway, Self::Registry, Self::Manager];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "offers-gateway",
            Self::Registry => "worker-registry",
            Self::Manager => "replica-manager",
        }
    }

    /// Where it is spoken to, unless it is told otherwise, for whoever looked elsewhere.
    fn ports_hint(self) -> &'static str {
        match self {
            Self::Gateway => {
                "\nis that its port of health and metrics (7410), in place of gRPC (7400)?"
            }
            Self::Registry => {
                "\nis that its port of health and metrics (7411), in place of gRPC (7401)?"
            }
            Self::Manager => {
                "\nis that its port of health and metrics (7412), in place of gRPC (7402)?"
            }
        }
    }
}

/// Where the components are.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// Of the offers-gateway.
    pub(crate) gateway: Endpoints,
    /// Of the worker-registry.
    pub(crate) registry: Endpoints,
    /// Of the replica-manager.
    pub(crate) manager: Endpoints,
}

/// What a command works with.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    addresses: Addresses,
    connector: Connector,
    clock: Clock,
    /// Components of which it was said that they show what was.
    warned: Arc<Mutex<BTreeSet<Component>>>,
    /// Components that watches wait for: they do not answer any more.
    away: Arc<Mutex<BTreeSet<Component>>>,
    /// How to print.
    pub(crate) format: Format,
    /// Whether to write colours.
    pub(crate) colours: Colours,
}

impl Session {
    /// A session with these components.
    pub(crate) fn new(addresses: Addresses, connector: Connector, format: Format) -> Self {
        Self {
            addresses,
            connector,
            clock: Clock::system(),
            warned: Arc::default(),
            away: Arc::default(),
            format,
            colours: Colours::of_stdout(),
        }
    }

    /// The time.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Where a component is.
    pub(crate) fn endpoints(&self, component: Component) -> &Endpoints {
        match component {
            Component::Gateway => &self.addresses.gateway,
            Component::Registry => &self.addresses.registry,
            Component::Manager => &self.addresses.manager,
        }
    }

    /// A channel to a component.
    pub(crate) fn channel(&self, component: Component) -> Channel {
        self.connector.channel(self.endpoints(component))
    }

    /// A channel to an agent at HOST:PORT.
    pub(crate) fn channel_to(&self, address: &str) -> Result<Channel, Failure> {
        let endpoints = self.connector.peer(address);
        let endpoints =
            endpoints.map_err(|error| Failure::Failed(format!("{address}: {error}")))?;
        Ok(self.connector.channel(&endpoints))
    }

    /// A client of the offers-gateway.
    pub(crate) fn offers(&self) -> OffersServiceClient<Channel> {
        OffersServiceClient::new(self.channel(Component::Gateway))
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// A client of the worker-registry.
    pub(crate) fn workers(&self) -> WorkersServiceClient<Channel> {
        WorkersServiceClient::new(self.channel(Component::Registry))
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// A client of the replica-manager.
    pub(crate) fn replicas(&self) -> ReplicasServiceClient<Channel> {
        ReplicasServiceClient::new(self.channel(Component::Manager))
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// A client of what a component says of itself.
    pub(crate) fn ops(&self, component: Component) -> OpsServiceClient<Channel> {
        OpsServiceClient::new(self.channel(component))
    }

    /// The answer of a call, or why there is none.
    pub(crate) async fn call<T>(
        &self,
        component: Component,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match call.await {
            Ok(response) => {
                self.warn_of_age(component, response.metadata());
                Ok(response.into_inner())
            }
            Err(status) => Err(self.failure(component, status)),
        }
    }

    /// Says that a component shows what was, once for each.
    fn warn_of_age(&self, component: Component, metadata: &MetadataMap) {
        let Some(seconds) = metadata.get(AGE.as_str()) else {
            return;
        };
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(component) {
            let seconds = seconds.to_str().unwrap_or("some");
            let name = component.name();
            // Nowhere is left to say that stderr is closed.
            let _ = writeln!(
                io::stderr(),
                "warning: {name} has not reached its store for {seconds} s: what follows was true then"
            );
        }
    }

    /// Says that a watch waits for a component that does not answer, once until it is back.
    pub(crate) fn tell_away(&self, component: Component, status: &Status) {
        if self.lock_away().insert(component) {
            let (name, message) = (component.name(), Details::of(status).message);
            note(&format!(
                "the {name} cannot be reached, and is tried again: {message}"
            ));
        }
    }

    /// Says that a component is back, if it was away.
    pub(crate) fn tell_back(&self, component: Component) {
        if self.lock_away().remove(&component) {
            note(&format!("the {} is back", component.name()));
        }
    }

    /// Whether watches wait for a component.
    pub(crate) fn is_away(&self, component: Component) -> bool {
        self.lock_away().contains(&component)
    }

    fn lock_away(&self) -> MutexGuard<'_, BTreeSet<Component>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a status means: a component that cannot be reached is a failure of its own.
    pub(crate) fn failure(&self, component: Component, status: Status) -> Failure {
        let details = Details::of(&status);
        let unreachable = details.is(ErrorReason::PeerUnreachable) || details.domain.is_empty();
        if status.code() == Code::Unavailable && unreachable {
            let endpoints = self.endpoints(component);
            return Failure::Unreachable {
                component: component.name(),
                address: endpoints.to_string(),
                message: details.message,
                hint: match endpoints.iter().all(is_plain_and_here) {
                    true => "\nis it running? `muster up` starts the whole stack on this machine",
                    false => "",
                },
            };
        }
        if let Some(answer) = as_http(&status).filter(|_| details.domain.is_empty()) {
            return Failure::Unreachable {
                component: component.name(),
                address: self.endpoints(component).to_string(),
                message: format!("what is there speaks HTTP, and not gRPC ({answer})"),
                hint: component.ports_hint(),
            };
        }
        if details.is(ErrorReason::NotImplemented) && status.message().starts_with(NO_METHOD) {
            let (name, address) = (component.name(), self.endpoints(component));
            let question = format!("; is it the {name} that is at {address}?");
            return Failure::from(status).followed_by(&question);
        }
        Failure::from(status)
    }

    /// Whether a person reads the output.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal() && self.is_for_people()
    }

    /// Whether sentences and tables are asked for, not documents or names.
    fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Whether to wait for the end of what was begun.
    pub(crate) fn follows(&self, following: &Following) -> bool {
        following.wait || (!following.detach && self.is_terminal())
    }

    /// Whether the wider table is asked for.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Prints a message as JSON or YAML; false if a table or names are asked for.
    pub(crate) fn print_message<M: Message + Name>(&self, message: &M) -> Result<bool, Failure> {
        self.print_json(message, Layout::Pretty)
    }

    /// Prints the answers of one command as one document: a list, unless only one was asked for; false if
    /// a table or names are asked for.
    pub(crate) fn print_messages<M: Message + Name>(
        &self,
        messages: &[M],
        asked: usize,
    ) -> Result<bool, Failure> {
        match messages {
            [message] if asked == 1 => self.print_message(message),
            _ => {
                let values = messages.iter().map(json::value);
                let values = values.collect::<Result<Vec<_>, _>>()?;
                self.print_value(&values.into(), Layout::Pretty)
            }
        }
    }

    /// Prints what became of something: the whole answer, its name, or a sentence, as is asked for.
    pub(crate) fn print_answer<M: Message + Name>(
        &self,
        answer: &M,
        name: &str,
        sentence: &str,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Yaml => self.print_message(answer).map(drop),
            Format::Name => self.print(&format!("{name}\n")),
            Format::Table | Format::Wide => self.print(sentence),
        }
    }

    /// Says what comes after the answer, on stderr where a program reads stdout.
    pub(crate) fn say(&self, sentence: &str) -> Result<(), Failure> {
        if self.is_for_people() {
            return self.print(sentence);
        }
        // Nowhere is left to say that stderr is closed.
        let _ = io::stderr().write_all(sentence.as_bytes());
        Ok(())
    }

    /// A message on one line, for streams; false if a table or names are asked for.
    pub(crate) fn print_line<M: Message + Name>(&self, message: &M) -> Result<bool, Failure> {
        self.print_json(message, Layout::Line)
    }

    fn print_json<M: Message + Name>(&self, message: &M, layout: Layout) -> Result<bool, Failure> {
        match self.format {
            Format::Table | Format::Wide | Format::Name => Ok(false),
            Format::Json | Format::Yaml => self.print_value(&json::value(message)?, layout),
        }
    }

    fn print_value(&self, value: &Value, layout: Layout) -> Result<bool, Failure> {
        let text = match (self.format, layout) {
            (Format::Table | Format::Wide | Format::Name, _) => return Ok(false),
            (Format::Yaml, Layout::Pretty) => json::yaml(value),
            (Format::Yaml, Layout::Line) => format!("---\n{}", json::yaml(value)),
            (Format::Json, Layout::Line) => format!("{value}\n"),
            (Format::Json, Layout::Pretty) => format!("{value:#}\n"),
        };
        self.print(&text)?;
        Ok(true)
    }

    /// Prints a table.
    pub(crate) fn print_table(&self, table: &Table) -> Result<(), Failure> {
        self.print(&self.render_table(table)?)
    }

    /// A table as it is printed.
    pub(crate) fn render_table(&self, table: &Table) -> Result<String, Failure> {
        let mut text = Vec::new();
        table.write(&mut text, self.colours)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Prints the rows of a table as a continuation of what was printed under the same columns.
    pub(crate) fn print_under(&self, table: &Table, columns: &mut Columns) -> Result<(), Failure> {
        let mut text = Vec::new();
        table.write_under(&mut text, self.colours, columns)?;
        self.print(&String::from_utf8_lossy(&text))
    }

    /// Prints a text.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        print(text)
    }
}

/// Writes a line to stderr, on a terminal in place of a progress line.
pub(crate) fn note(line: &str) {
    let mut out = io::stderr().lock();
    let start = if out.is_terminal() { "\r\u{1b}[K" } else { "" };
    // Nowhere is left to say that stderr is closed.
    let _ = writeln!(out, "{start}{line}");
}

/// Prints a text. A reader that has gone, such as `head`, is no failure: what was begun is ended.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether whoever read the output has gone.
pub(crate) fn is_unread() -> bool {
    let stdout = io::stdout();
    // Nothing is asked for: that the other end is closed is told in any case.
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let told = poll(&mut asked, Some(&Timespec::default()));
    told.is_ok_and(|told| told > 0)
}

/// How JSON stands on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Pretty,
    Line,
}

/// What a component says of a call that it does not know, as one of another kind does not.
const NO_METHOD: &str = "there is no method";

/// The status line of what did not answer as gRPC does, but as HTTP, such as "404 Not Found".
fn as_http(status: &Status) -> Option<&str> {
    // So tonic words it, for an answer with a body and for one without.
    let words = [
        "while receiving response with status: ",
        "mapped from HTTP status code ",
    ];
    let mut after = words
        .iter()
        .filter_map(|words| status.message().split_once(words));
    after.next().map(|(_, line)| line)
}

/// The largest answer that is taken.
const MAX_MESSAGE: usize = 64 << 20;

/// Whether a component that `muster up` starts would be there.
fn is_plain_and_here(endpoint: &Endpoint) -> bool {
    endpoint.is_of_this_machine() && !endpoint.is_tls()
}
