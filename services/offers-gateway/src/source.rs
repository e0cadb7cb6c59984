//! Where offers come from: one way in for every kind of backend. A source is asked, and answers
//! with all its offers, with word that nothing has changed, or with why it could not. It never
//! decides when it is asked, nor for how long.

mod api;
mod archive;
mod fleet;
mod http;
mod list;
mod service;

use std::time::Duration;

use muster_runtime::connect::{Connector, Endpoints};
use muster_runtime::status::Details;
use tonic::{Code, Status};

use crate::builtin::PriceList;
use crate::domain::backend::Fault;
use crate::domain::retry_after;
use crate::domain::snapshot::Snapshot;
use crate::spec::{Api, Kind, Place, Spec};

/// The part of an attempt's time that its requests may take, so that what they have come to is
/// told before the attempt is given up: nineteen twentieths.
const OWN_PATIENCE: f64 = 0.95;

/// A source that is ready to be asked.
#[derive(Debug)]
pub struct Source {
    backend: String,
    kind: Asked,
    client: http::Client,
    patience: Duration,
}

#[derive(Debug)]
enum Asked {
    BuiltIn(&'static PriceList),
    List(list::List),
    Api(Api),
    Fleet(fleet::Fleet),
    Service(service::Service),
}

/// What a source answers.
#[derive(Debug)]
pub enum Fetched {
    /// All its offers.
    Offers(Box<Offers>),
    /// What it last said still holds.
    Unchanged,
}

impl Fetched {
    fn of(offers: Offers) -> Self {
        Self::Offers(Box::new(offers))
    }
}

/// A source's offers.
#[derive(Debug)]
pub struct Offers {
    /// All of them.
    pub snapshot: Snapshot,
    /// Names this state of them to the source, so that it may answer "unchanged" next time.
    pub validator: String,
    /// Whether the source knows live capacity.
    pub live_capacity: bool,
}

/// Why a source could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is told of it.
    pub fault: Fault,
    /// Whether asking again at once is pointless.
    pub permanent: bool,
    /// How long the source asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// One that another try may mend.
    pub fn passing(message: impl Into<String>) -> Self {
        let fault = Fault {
            timed_out: false,
            message: message.into(),
        };
        Self {
            fault,
            permanent: false,
            retry_after: None,
        }
    }

    /// Time ran out.
    fn late(message: String) -> Self {
        let mut failure = Self::passing(message);
        failure.fault.timed_out = true;
        failure
    }

    /// The same, with what else was said of it; empty if nothing was.
    fn and(mut self, said: &str) -> Self {
        if !said.is_empty() {
            self.fault.message = format!("{}: {said}", self.fault.message);
        }
        self
    }

    /// The same, saying of what it is.
    fn about(mut self, what: &str) -> Self {
        self.fault.message = format!("{what}: {}", self.fault.message);
        self
    }

    /// One that needs someone to do something.
    pub fn lasting(message: impl Into<String>) -> Self {
        Self {
            permanent: true,
            ..Self::passing(message)
        }
    }
}

impl Source {
    /// The source of a backend. Nothing is opened yet.
    pub fn new(spec: &Spec, connector: &Connector) -> Self {
        let patience = spec.times.attempt_timeout.mul_f64(OWN_PATIENCE);
        let list = |place: &Place, format| Asked::List(list::List::new(place.clone(), format));
        let kind = match &spec.kind {
            Kind::BuiltIn(prices) => Asked::BuiltIn(prices),
            Kind::Catalog(place) => list(place, list::Format::Skypilot),
            Kind::Gpuhunt(place) => list(place, list::Format::Gpuhunt),
            Kind::Api(api) => Asked::Api(api.clone()),
            Kind::Fleet(registry) => Asked::Fleet(fleet::Fleet::new(registry, connector, patience)),
            Kind::Service(service) => {
                Asked::Service(service::Service::new(service, connector, patience))
            }
        };
        Self {
            backend: spec.name.clone(),
            kind,
            client: http::Client::new(),
            patience,
        }
    }

    /// Asks once. `validator` is that of the offers at hand; empty if there are none.
    pub async fn fetch(&self, validator: &str) -> Result<Fetched, Failure> {
        let (backend, client, patience) = (&self.backend, &self.client, self.patience);
        match &self.kind {
            Asked::BuiltIn(prices) => list::built_in(backend, prices, validator).await,
            Asked::List(list) => list.fetch(backend, validator, client, patience).await,
            Asked::Api(api) => api::fetch(api, backend, client, patience).await,
            Asked::Fleet(fleet) => fleet.fetch(backend).await,
            Asked::Service(service) => service.fetch(backend, validator).await,
        }
    }

    /// The least time between two fetches, as far as the source has said so.
    pub fn least_interval(&self) -> Duration {
        match &self.kind {
            Asked::Service(service) => service.least_interval(),
            Asked::BuiltIn(_) | Asked::List(_) | Asked::Api(_) | Asked::Fleet(_) => Duration::ZERO,
        }
    }
}

/// What a call to another process came to: `who` is at `endpoints`.
fn called(who: &str, endpoints: &Endpoints, status: &Status) -> Failure {
    let told = Details::of(status);
    let code = status.code();
    let message = shortened(status.message());
    let (message, lasting) = match code {
        Code::DeadlineExceeded => (format!("no answer in time from {endpoints}"), false),
        Code::Unavailable | Code::Cancelled => (
            format!("{who} cannot be reached at {endpoints}: {message}"),
            false,
        ),
        Code::Unauthenticated | Code::PermissionDenied => {
            (format!("{who} refuses the credential: {message}"), true)
        }
        Code::Unimplemented => (
            format!("at {endpoints} is a server of something else: {message}"),
            true,
        ),
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => (format!("{who} fails with {code:?}: {message}"), false),
    };
    Failure {
        fault: Fault {
            timed_out: code == Code::DeadlineExceeded,
            message,
        },
        permanent: lasting,
        retry_after: told.retry_delay.map(retry_after::believed),
    }
}

/// A peer's words, at a length that can be shown.
fn shortened(message: &str) -> &str {
    &message[..message.floor_char_boundary(300)]
}

/// Runs `work`, which takes a while, where it keeps no call waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| Failure::lasting("reading it failed inside the gateway; the log says where"))
}
