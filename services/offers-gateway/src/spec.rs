//! What a backend is configured to be: checked values, in place of what was typed. It opens nothing.

mod api;
mod secret;
mod service;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use muster_runtime::connect::Endpoints;

use crate::builtin::PriceList;
use crate::domain::breaker;

pub use crate::domain::runpod::Cloud;
pub use api::{Api, Key, Provider};
pub use secret::{Secret, SecretError};
pub use service::Service;
pub use url::{Url, UrlError};

/// A backend that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, unique in this gateway.
    pub name: String,
    /// What it reads.
    pub kind: Kind,
    /// How it is asked.
    pub times: Times,
}

/// How a backend is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// How often it is refreshed.
    pub refresh_interval: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How long a refresh may take with all its attempts.
    pub refresh_timeout: Duration,
    /// Offers older than this are left out; none keeps them for ever.
    pub drop_after: Option<Duration>,
    /// When it is left alone for failing.
    pub breaker: breaker::Policy,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(300),
            attempt_timeout: Duration::from_secs(20),
            refresh_timeout: Duration::from_secs(120),
            drop_after: Some(Duration::from_secs(24 * 3600)),
            breaker: breaker::Policy::default(),
        }
    }
}

/// How often files and built-in lists are looked at again: it costs one look at a file's date.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a file is left alone that failed often: nobody is burdened by a look at it, and whoever
/// mends it wants to see so.
const FILE_BREAKER: breaker::Policy = breaker::Policy {
    threshold: 3,
    initial: FILE_INTERVAL,
    max: FILE_INTERVAL,
};

/// How a list at a URL is asked for: mostly the answer is that nothing has changed.
const URL_INTERVAL: Duration = Duration::from_secs(900);
const URL_ATTEMPT: Duration = Duration::from_secs(60);
const URL_REFRESH: Duration = Duration::from_secs(180);

/// How our own registry is asked: often, since what is idle changes all the time, and without long
/// pauses, since nobody else is asked too much by it. What was idle ten minutes ago says nothing.
fn fleet_times() -> Times {
    Times {
        refresh_interval: Duration::from_secs(5),
        attempt_timeout: Duration::from_secs(5),
        refresh_timeout: Duration::from_secs(10),
        drop_after: Some(Duration::from_secs(600)),
        breaker: breaker::Policy {
            threshold: 3,
            initial: Duration::from_secs(5),
            max: Duration::from_secs(15),
        },
    }
}

/// What a backend reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of the lists that come with the gateway.
    BuiltIn(&'static PriceList),
    /// A list in SkyPilot's CSV layout.
    Catalog(Place),
    /// A list in gpuhunt's CSV layout, plain or in a zip.
    Gpuhunt(Place),
    /// A provider's live API.
    Api(Api),
    /// A server that implements `muster.backend.v1.BackendService`.
    Service(Service),
    /// Idle capacity of our own workers, from the worker-registry.
    Fleet(Endpoints),
}

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(Url),
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(to, "{}", path.display()),
            Self::Url(url) => write!(to, "{url}"),
        }
    }
}

impl Place {
    fn times(&self) -> Times {
        match self {
            Self::File(_) => Times {
                refresh_interval: FILE_INTERVAL,
                drop_after: None,
                breaker: FILE_BREAKER,
                ..Times::default()
            },
            Self::Url(_) => Times {
                refresh_interval: URL_INTERVAL,
                attempt_timeout: URL_ATTEMPT,
                refresh_timeout: URL_REFRESH,
                ..Times::default()
            },
        }
    }
}

impl Kind {
    /// Its name, as `muster backends` shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BuiltIn(_) | Self::Catalog(_) => "catalog",
            Self::Gpuhunt(_) => "gpuhunt",
            Self::Api(api) => api.provider.name(),
            Self::Service(_) => "grpc",
            Self::Fleet(_) => "fleet",
        }
    }

    /// Where it reads, without secrets.
    pub fn source(&self) -> String {
        match self {
            Self::BuiltIn(list) => format!("built-in price list of {}", list.date),
            Self::Catalog(place) | Self::Gpuhunt(place) => place.to_string(),
            Self::Api(api) => api.source(),
            Self::Service(service) => service.endpoints.to_string(),
            Self::Fleet(registry) => format!("the worker-registry at {registry}"),
        }
    }

    /// What offers kept of it are known by: those of another kind or place are not its own.
    pub fn origin(&self) -> String {
        format!("{} {}", self.name(), self.source())
    }

    /// Why it cannot be asked, in words that say what to do; none if it can.
    pub fn disabled(&self) -> Option<String> {
        match self {
            Self::BuiltIn(_) | Self::Catalog(_) | Self::Gpuhunt(_) | Self::Fleet(_) => None,
            Self::Api(api) => api.disabled(),
            Self::Service(service) => service.disabled(),
        }
    }

    /// How a backend of this kind is asked unless its configuration says otherwise.
    pub fn times(&self) -> Times {
        match self {
            Self::BuiltIn(_) => Times {
                refresh_interval: FILE_INTERVAL,
                drop_after: None,
                ..Times::default()
            },
            Self::Catalog(place) | Self::Gpuhunt(place) => place.times(),
            Self::Api(api) => api.provider.times(),
            Self::Service(_) => service::times(),
            Self::Fleet(_) => fleet_times(),
        }
    }
}

impl Spec {
    /// A backend with the times of its kind.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        let times = kind.times();
        Self {
            name: name.into(),
            kind,
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::domain::backend::{Ended, Fault, Standing};

    #[test]
    fn a_file_that_was_mended_is_noticed_soon_however_long_it_was_broken() {
        let spec = Spec::new("b", Kind::Catalog(Place::File("b.csv".into())));
        let mut standing = Standing::new(Arc::new(crate::roster::facts(&spec)));
        let now = SystemTime::UNIX_EPOCH;
        for _ in 0..100 {
            let fault = Fault {
                timed_out: false,
                message: String::new(),
            };
            let ended = Ended {
                at: now,
                took: Duration::ZERO,
                fault: Some(fault),
            };
            standing.fail(ended, 0.0);
        }
        assert!(standing.next_refresh.unwrap() <= now + Duration::from_secs(5));
    }
}
