//! The table of methods: who may call each, and how each is treated. A method that stands in no
//! table is not served.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::routes::service_of;
use super::{Error, HEALTH};
use crate::auth::Roles;
use crate::layers::observe::CallMetrics;
use crate::layers::shed::Lane;

/// How one method is treated.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    pub(crate) path: &'static str,
    pub(crate) allow: Roles,
    pub(crate) lane: Lane,
    pub(crate) bounded: bool,
    /// A stream although the contract does not describe it.
    stream: bool,
}

/// Reflection tells what the contract says, to everyone who is known.
const REFLECTION: [Method; 2] = [
    Method::new(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Roles::KNOWN,
    )
    .stream(),
    Method::new(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Roles::KNOWN,
    )
    .stream(),
];

impl Method {
    /// The method at `path`, such as `/muster.ops.v1.OpsService/GetStatus`, for callers in `allow`.
    pub const fn new(path: &'static str, allow: Roles) -> Self {
        Self {
            path,
            allow,
            lane: Lane::Shared,
            bounded: false,
            stream: false,
        }
    }

    /// Counts in a lane of its own, so that the others cannot crowd it out: for what tells that
    /// someone is alive, and for streams that each of many machines holds open.
    #[must_use]
    pub const fn vital(mut self) -> Self {
        self.lane = Lane::Vital;
        self
    }

    const fn stream(mut self) -> Self {
        self.stream = true;
        self
    }

    /// Bounds the whole stream by the deadline, the default one too. Other streams are bounded
    /// only by a deadline that the caller sent.
    #[must_use]
    pub const fn bounded(mut self) -> Self {
        self.bounded = true;
        self
    }
}

/// A method as it is served.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) method: Method,
    /// Answers, or is asked, by more than one message.
    pub(crate) streams: bool,
    pub(crate) metrics: CallMetrics,
}

impl Entry {
    /// Stands for every method that is not served. Only who is known learns that it is not.
    fn other(metrics: &CallMetrics) -> Arc<Self> {
        let method = Method::new("", Roles::KNOWN);
        Arc::new(Self {
            method,
            streams: false,
            metrics: metrics.clone(),
        })
    }

    pub(crate) fn is_served(&self) -> bool {
        !self.method.path.is_empty()
    }

    /// Whether a call of it goes on for as long as its caller and the server like.
    pub(crate) fn is_open_ended(&self) -> bool {
        self.streams && !self.method.bounded
    }

    /// Whether it is asked by one message: none that the contract describes is asked by more.
    pub(crate) fn takes_one(&self) -> bool {
        !self.method.stream
    }
}

/// The methods of one server.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    by_path: Arc<FxHashMap<&'static str, Arc<Entry>>>,
    other: Arc<Entry>,
}

impl Table {
    /// The methods of the services `names`, all but health. Each that the contract describes must
    /// stand in `methods`, and each there must be of a service that is served.
    pub(crate) fn new(
        methods: &[Method],
        names: &[&'static str],
        metrics: &CallMetrics,
    ) -> Result<Self, Error> {
        let described = Described::of(names);
        let mut missing = described.all;
        let mut by_path = FxHashMap::default();
        for method in methods.iter().chain(&REFLECTION) {
            if !names.contains(&service_of(method.path)) {
                return Err(Error::UnknownMethod(method.path));
            }
            missing.remove(method.path);
            let streams = method.stream || described.streams.contains(method.path);
            let metrics = metrics.of_method(method.path);
            by_path.insert(
                method.path,
                Arc::new(Entry {
                    method: *method,
                    streams,
                    metrics,
                }),
            );
        }
        match missing.into_iter().next() {
            Some(path) => Err(Error::UntabledMethod(path)),
            None => Ok(Self {
                by_path: Arc::new(by_path),
                other: Entry::other(metrics),
            }),
        }
    }

    /// The entry of the method at `path`; one that stands for all others if there is none.
    pub(crate) fn find(&self, path: &str) -> &Arc<Entry> {
        self.by_path.get(path).unwrap_or(&self.other)
    }
}

/// What the contract says of the methods of some services.
#[derive(Debug, Default)]
struct Described {
    all: BTreeSet<&'static str>,
    streams: BTreeSet<&'static str>,
}

impl Described {
    fn of(names: &[&'static str]) -> Self {
        let mut described = Self::default();
        for method in muster_proto::METHODS {
            let service = service_of(method.path);
            if service == HEALTH || !names.contains(&service) {
                continue;
            }
            described.all.insert(method.path);
            if method.streams {
                described.streams.insert(method.path);
            }
        }
        described
    }
}
