//! Where offers come from: one way in for every kind of backend. A source is asked, and answers
//! with all its offers, with word that nothing has changed, or with why it could not. It never
//! decides when it is asked, nor for how long.

mod file;

use std::time::Duration;

use crate::builtin::PriceList;
use crate::domain::backend::Fault;
use crate::domain::snapshot::Snapshot;
use crate::spec::{Kind, Place, Spec};

/// A source that is ready to be asked.
#[derive(Debug)]
pub struct Source {
    backend: String,
    kind: Asked,
}

#[derive(Debug)]
enum Asked {
    BuiltIn(&'static PriceList),
    File(file::File),
    /// What this version does not ask yet.
    Nothing(&'static str),
}

/// What a source answers.
#[derive(Debug)]
pub enum Fetched {
    /// All its offers.
    Offers(Box<Offers>),
    /// What it last said still holds.
    Unchanged,
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
    pub fn new(spec: &Spec) -> Self {
        let kind = match &spec.kind {
            Kind::BuiltIn(list) => Asked::BuiltIn(list),
            Kind::Catalog(Place::File(path)) => Asked::File(file::File::new(path.clone())),
            kind @ (Kind::Catalog(Place::Url(_)) | Kind::Gpuhunt(_) | Kind::Api(_)) => {
                Asked::Nothing(kind.name())
            }
        };
        Self {
            backend: spec.name.clone(),
            kind,
        }
    }

    /// Asks once. `validator` is that of the offers at hand; empty if there are none.
    pub async fn fetch(&self, validator: &str) -> Result<Fetched, Failure> {
        match &self.kind {
            Asked::BuiltIn(list) => file::built_in(&self.backend, list, validator).await,
            Asked::File(file) => file.fetch(&self.backend, validator).await,
            Asked::Nothing(kind) => Err(Failure::lasting(format!(
                "this version does not read backends of the kind {kind}"
            ))),
        }
    }
}

/// Runs `work`, which takes a while, where it keeps no call waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| Failure::lasting("reading it failed inside the gateway; the log says where"))
}
