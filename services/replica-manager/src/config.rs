//! What the manager can be told: its flags and its checked settings.

use std::time::Duration;

use muster_runtime::args::parse_duration;
use muster_runtime::connect::Endpoints;
use muster_store::Spec;

use crate::crash::{Crash, Step};
use crate::domain::world::Terms;

/// The manager's own flags.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where state is kept: memory:, embedded:PATH or etcd:http://HOST:PORT[,...]/prefix
    #[arg(
        long,
        value_name = "STORE",
        default_value = "embedded:replica-manager.db"
    )]
    pub store: Spec,
    /// The worker-registry: URLs, comma separated
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7401")]
    pub workers_addr: Endpoints,
    /// The offers-gateway: URLs, comma separated
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7400")]
    pub offers_addr: Endpoints,
    /// Without retry: how long a service that was never ready waits for a place
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub place_within: Duration,
    /// A retry that is due within this keeps its room
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub hold_within: Duration,
    /// From leaving the endpoints until the stop of a replica that others replace
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub leave_first: Duration,
    /// How often drains are reported to the worker-registry, and leftovers looked for
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub report_interval: Duration,
    /// End as a crash does at this step, for tests of what a crash leaves behind
    #[arg(long, value_name = "STEP", value_enum, hide = true)]
    pub crash_at: Option<Step>,
}

/// The manager's checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where state is kept.
    pub store: Spec,
    /// The rest, which does not say where state is.
    pub serving: Serving,
}

/// How the manager serves, whatever its store.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The worker-registry.
    pub workers: Endpoints,
    /// The offers-gateway.
    pub offers: Endpoints,
    /// What plans work by.
    pub terms: Terms,
    /// How often drains are reported, and leftovers looked for.
    pub report_interval: Duration,
    /// Where the process is to end, in tests of crashes.
    pub crash: Crash,
}

impl Serving {
    /// Every default, with the others at these places.
    #[must_use]
    pub fn new(workers: Endpoints, offers: Endpoints) -> Self {
        Self {
            workers,
            offers,
            terms: Terms::default(),
            report_interval: Duration::from_secs(5),
            crash: Crash::default(),
        }
    }
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        let terms = Terms {
            place_within: args.place_within,
            hold_within: args.hold_within,
            leave_first: args.leave_first,
            ..Terms::default()
        };
        Self {
            store: args.store,
            serving: Serving {
                workers: args.workers_addr,
                offers: args.offers_addr,
                terms,
                report_interval: args.report_interval,
                crash: Crash(args.crash_at),
            },
        }
    }
}
